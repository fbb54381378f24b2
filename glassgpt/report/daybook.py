"""The training log: a summary of every run, and the users' notes on them.

A note is a line of notes.jsonl in the run folder: {"time": "2026-11-21T09:30:00+01:00", "text": "…"}.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import date, datetime
from pathlib import Path
from statistics import fmean
from typing import Any

from typing_extensions import TypedDict  # pydantic needs this one below Python 3.12

from glassgpt.config import parse_json_as
from glassgpt.errors import UserError, shown, unknown
from glassgpt.files import LOCK, locked, read_file, write_text
from glassgpt.ownership import split_runs
from glassgpt.report.figures import describe_model, is_finite, parameters
from glassgpt.report.run_record import RunRecord, read_record
from glassgpt.tokenizers.base import to_utf8
from glassgpt.training.metrics import Line, train_losses

NOTES = "notes.jsonl"
LOCK_WAIT = 30.0  # seconds until other processes have written their notes


@dataclass(frozen=True)
class Note:
    """A note on a run, with its time."""

    time: datetime
    text: str


class NoteLine(TypedDict):
    """A line of notes.jsonl."""

    time: str
    text: str


@dataclass(frozen=True)
class Entry:
    """Summary of one run; None for missing figures. Losses in nats per token, times in seconds."""

    run: str
    folder: str
    begun: datetime
    data: str
    model: str
    parameters: int | None
    steps: int | None
    finished: bool
    train_loss: float | None
    val_loss: float | None
    best_val_loss: float | None
    bits_per_byte: float | None
    seconds: float | None
    validation_share: float | None  # fraction of `seconds` spent on validation
    notes: tuple[Note, ...]
    problem: str | None = None  # why the run cannot be read

    def to_dict(self) -> dict[str, Any]:
        """The entry for JSON output, times in ISO 8601."""
        notes = [{"time": note.time.isoformat(), "text": note.text} for note in self.notes]
        return {**asdict(self), "begun": self.begun.isoformat(), "notes": notes}


SORTS = ("begun", "run", "data", "model", "parameters", "steps", "train_loss", "val_loss", "best_val_loss",
         "bits_per_byte", "seconds", "validation_share")  # fmt: skip


def add_note(folder: Path, text: str, time: datetime | None = None) -> Note:
    """Adds a note to a run. Raises UserError if it is empty or not valid UTF-8, or if the folder is not writable."""
    if not text.strip():
        raise UserError("the note is empty: give it a text")
    to_utf8(text)
    note = Note((time or datetime.now().astimezone()).replace(microsecond=0), text.strip())
    busy = f"other processes are writing notes on {folder}: try again"
    try:
        with locked(folder / f"{LOCK}-notes", busy, wait=LOCK_WAIT):
            notes = [*read_notes(folder), note]
            lines = (json.dumps({"time": n.time.isoformat(), "text": n.text}, ensure_ascii=False) for n in notes)
            write_text(folder / NOTES, "".join(f"{line}\n" for line in lines))
    except OSError as error:
        raise UserError(f"cannot write {folder / NOTES}: {error.strerror}") from None
    return note


def read_notes(folder: Path) -> list[Note]:
    """The notes of a run, oldest first. Raises UserError with the line number for a damaged file."""
    path = folder / NOTES
    if not path.exists():
        return []
    notes = []
    for number, line in enumerate(read_file(path).removesuffix(b"\n").split(b"\n"), start=1):
        problem = f"{path}, line {number} is not a note"
        try:
            fields = parse_json_as(NoteLine, line)
        except ValueError as error:
            raise UserError(f"{problem}: {error}") from None
        notes.append(Note(_parse_time(fields["time"], problem), fields["text"]))
    return notes


def _parse_time(text: str, problem: str) -> datetime:
    """A time in ISO 8601. Raises UserError, beginning with `problem`, for anything else."""
    try:
        return datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError, OSError):  # the last two: a year that the system cannot place in a time zone
        raise UserError(f"{problem}: {shown(text)} is not a time") from None


def list_entries(runs: Path, sort: str = "begun", *, reverse: bool = False) -> list[Entry]:
    """An entry for each run under `runs`: newest first, or sorted by another field, smallest first.

    A run that cannot be read is listed with its `problem`. Runs without the field come last. Raises UserError for an
    unknown field.
    """
    if sort not in SORTS:
        raise unknown("figure to sort by", sort, SORTS)
    entries = [read_entry(folder) for folder in split_runs(runs)[0]]
    known = [entry for entry in entries if getattr(entry, sort) is not None]
    known.sort(key=lambda entry: getattr(entry, sort), reverse=reverse != (sort == "begun"))
    return [*known, *(entry for entry in entries if getattr(entry, sort) is None)]


def list_foreign(runs: Path) -> list[Path]:
    """The folders under `runs` that have a config.toml of another program; `list_entries` leaves them out."""
    return split_runs(runs)[1]


def read_entry(folder: Path) -> Entry:
    """The entry of a run folder; if it cannot be read, an entry with its `problem`."""
    begun = datetime.fromtimestamp((folder / "config.toml").stat().st_mtime).astimezone().replace(microsecond=0)
    try:
        return describe(folder, read_record(folder), read_notes(folder), begun)
    except UserError as error:
        nothing = dict.fromkeys(("parameters", "steps", "train_loss", "val_loss", "best_val_loss", "bits_per_byte",
                                 "seconds", "validation_share"))  # fmt: skip
        return Entry(folder.name, str(folder), begun, data="", model="", finished=False, notes=(),
                     problem=str(error), **nothing)  # fmt: skip


def describe(folder: Path, record: RunRecord, notes: Sequence[Note], changed: datetime) -> Entry:
    """The entry of a run record. If it has no start time, `changed` (last change of the folder) is used."""
    final, newest = record.final or {}, next(reversed(record.validated), {})
    seconds, losses = record.last("seconds"), train_losses(record.lines)
    begun = record.machine.get("begun")
    return Entry(
        run=record.name,
        folder=str(folder),
        begun=changed if begun is None else _parse_time(begun, f"{folder / 'machine.json'} is damaged"),
        data=str(record.data.get("name", "")),
        model=describe_model(record.config.get("model", {})),
        parameters=parameters(record),
        steps=record.last_step,
        finished=record.final is not None,
        train_loss=_finite(final.get("train/loss", fmean(losses) if losses else None)),
        val_loss=_finite(newest.get("val/loss")),
        best_val_loss=record.best and _finite(record.best[1]),
        bits_per_byte=_finite(newest.get("val/bits_per_byte")),
        seconds=seconds,
        validation_share=_validation_seconds(record, final) / seconds if seconds else None,
        notes=tuple(notes),
    )


def within(entries: Iterable[Entry], since: date | None, until: date | None) -> list[Entry]:
    """The runs started or with a note from the day `since` to the end of the day `until`; oldest first."""

    def inside(time: datetime) -> bool:
        return (since is None or time.date() >= since) and (until is None or time.date() <= until)

    chosen = [entry for entry in entries if any(inside(t) for t in (entry.begun, *(n.time for n in entry.notes)))]
    return sorted(chosen, key=lambda entry: entry.begun)


def parse_day(text: str, option: str) -> date:
    """Parses a date such as 2026-11-21. Raises UserError, naming the option, for anything else."""
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise UserError(f"{option} '{text}' is not a date: write it as 2026-11-21") from None


def _validation_seconds(record: RunRecord, final: Line) -> float:
    measured = _finite(final.get("validation_seconds"))
    return measured or sum(line.get("val/seconds") or 0.0 for line in record.validations)


def _finite(value: Any) -> float | None:
    return float(value) if is_finite(value) else None
