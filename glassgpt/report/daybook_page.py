"""The training log of a period as one HTML page: runs and notes in order of time, then all curves together."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from html import escape
from itertools import groupby
from pathlib import Path

from glassgpt.errors import counted
from glassgpt.report.curves import drawings
from glassgpt.report.daybook import Entry
from glassgpt.report.figures import count, duration
from glassgpt.report.run_page import curves_html, distinctly_named, last_samples_html, overview_html, write_page
from glassgpt.report.run_record import read_record


def write_daybook(entries: Sequence[Entry], since: date | None, until: date | None, out: Path) -> Path:
    """Writes one page on the runs `entries`, with the events from `since` to `until`; returns `out`."""
    readable = [entry for entry in entries if entry.problem is None]
    folders = [Path(entry.folder) for entry in readable]
    records = distinctly_named([read_record(folder) for folder in folders], folders)
    charts = drawings(records)
    events = _events(entries, since, until)
    title = f"Training log, {_period([time.date() for time, _ in events])}"
    n_notes = sum(len(entry.notes) for entry in entries)
    lead = f"{counted(len(entries), 'run')}, {counted(n_notes, 'note')}."
    sections = [
        f'<h1>{title}</h1>\n<p class="lead">{lead}</p>',
        *(_day_html(day, list(group)) for day, group in groupby(events, key=lambda event: event[0].date())),
    ]
    if records:
        sections += [overview_html(records), curves_html(records, charts), last_samples_html(records)]
    return write_page(out, title, sections, charts, records)


def _events(entries: Sequence[Entry], since: date | None, until: date | None) -> list[tuple[datetime, str]]:
    """Starts of runs and notes within the period as HTML, in order of time."""
    events = [(entry.begun, _begun_html(entry)) for entry in entries]
    events += [(note.time, f"{_run(entry)}: {escape(note.text)}") for entry in entries for note in entry.notes]
    inside = [
        (time, text)
        for time, text in events
        if (since is None or time.date() >= since) and (until is None or time.date() <= until)
    ]
    return sorted(inside, key=lambda event: event[0])


def _run(entry: Entry) -> str:
    return f"<strong>{escape(entry.run)}</strong>"


def _begun_html(entry: Entry) -> str:
    """One sentence on a run: its model, its data and its progress."""
    if entry.problem:
        return f'{_run(entry)} <span class="alarm">{escape(entry.problem)}</span>'
    size = f", {count(entry.parameters)} parameters" if entry.parameters else ""
    progress = (
        [] if entry.steps is None else [f"{count(entry.steps)} steps{'' if entry.finished else ', not finished'}"]
    )
    progress += [] if entry.val_loss is None else [f"validation loss {entry.val_loss:.4f}"]
    progress += [] if entry.seconds is None else [duration(entry.seconds)]
    what = escape(f"{entry.model}{size}, on {entry.data or 'no data'}")
    return f"{_run(entry)} begun: {what}. {escape(', '.join(progress) or 'Nothing measured yet')}."


def _day_html(day: date, events: Sequence[tuple[datetime, str]]) -> str:
    items = "\n".join(f"<li><b>{time:%H:%M}</b> {text}</li>" for time, text in events)
    return f'<h2>{day:%A, %Y-%m-%d}</h2>\n<ul class="log">\n{items}\n</ul>'


def _period(days: Sequence[date]) -> str:
    first, last = min(days), max(days)
    return f"{first}" if first == last else f"{first} to {last}"
