"""Writes the report of a run, or a comparison of several, as one self-contained HTML file.

The page contains figures, curves, samples and uPlot, the library that draws the curves, so it needs no network.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Any

from glassgpt.errors import UserError
from glassgpt.files import write_text
from glassgpt.report import page
from glassgpt.report.curves import AXES, Axes, Drawing, column, drawings, reading_notes
from glassgpt.report.daybook import Note, read_notes
from glassgpt.report.diagnosis import diagnosis_html
from glassgpt.report.figures import Figure, comparability, count, headline, is_finite, summary
from glassgpt.report.run_record import RunRecord, read_record
from glassgpt.report.surprise import surprise_html
from glassgpt.tokenizers.build import settings_in_use
from glassgpt.training.metrics import Line


def write_report(run_folder: Path, inside: str = "") -> Path:
    """Writes `report.html` into the run folder and returns its path.

    `inside` is HTML about the model, which `runs.reporting` makes. Works during training, and shows what is missing.
    Raises UserError if the folder is not a run, contains a damaged file, or is not writable.
    """
    record = read_record(run_folder)
    charts = drawings([record])
    sections = [
        f'<h1>{escape(record.name)}</h1>\n<p class="lead">{escape(summary(record))}</p>',
        figures_html(headline(record)),
        notes_html(read_notes(run_folder)),
        curves_html([record], charts),
        diagnosis_html(run_folder),
        samples_html(record),
        surprise_html(record),
        inside,
        settings_html(record),
    ]
    return write_page(run_folder / "report.html", record.name, sections, charts, [record])


def write_comparison(run_folders: Sequence[Path], out: Path) -> Path:
    """Writes one page that compares several runs, with their curves and config differences; returns `out`.

    Raises UserError as `write_report` does.
    """
    if not run_folders:
        raise UserError("nothing to compare: name at least one run")
    records = distinctly_named([read_record(folder) for folder in run_folders], run_folders)
    charts = drawings(records)
    sections = [
        f'<h1>{len(records)} runs compared</h1>\n<p class="lead">{escape(comparability(records))}</p>',
        overview_html(records),
        curves_html(records, charts),
        differences_html(records),
        last_samples_html(records),
    ]
    return write_page(out, f"{len(records)} runs", sections, charts, records)


def write_page(
    out: Path, title: str, sections: Sequence[str], charts: Sequence[Drawing], records: Sequence[RunRecord]
) -> Path:
    """Writes one HTML file with `sections`, and the script and data of the curves; returns `out`."""
    body = "\n".join([*sections, '<footer class="quiet">Written by glassgpt. This file needs no network.</footer>'])
    alone = records[0] if len(records) == 1 else None
    data = {
        "runs": [record.name for record in records],
        "axes": AXES,
        "charts": [chart for chart in charts if chart["curves"]],
        "sample_at": Axes(alone)(column(alone.samples, "step")) if alone else None,
    }
    write_text(out, page.render(title=f"{title} · GlassGPT", body=body, data=data))
    return out


# --- figures ----------------------------------------------------------------------------------------------------------


def figures_html(figures: Sequence[Figure]) -> str:
    """The headline figures as a row of cells."""
    cells = (
        f"<div><dt>{escape(label)}</dt><dd>{escape(value)}<small>{escape(note)}</small></dd></div>"
        for label, value, note in figures
    )
    return '<dl class="figures">\n' + "\n".join(cells) + "\n</dl>"


def notes_html(notes: Sequence[Note]) -> str:
    """The users' notes on the run; empty if there are none."""
    items = "\n".join(f"<li><b>{note.time:%Y-%m-%d %H:%M}</b> {escape(note.text)}</li>" for note in notes)
    return f'<h2>Notes</h2>\n<ul class="log">\n{items}\n</ul>' if notes else ""


# --- curves -----------------------------------------------------------------------------------------------------------


NO_SCRIPT = '<noscript><p class="missing">Only the curves need JavaScript, which is switched off.</p></noscript>'


def curves_html(records: Sequence[RunRecord], charts: Sequence[Drawing]) -> str:
    """The elements that the script draws into, with controls and notes on how to read the curves."""
    if not any(drawing["curves"] for drawing in charts):
        return '<h2>Curves</h2>\n<p class="missing">No curves yet: metrics.jsonl holds no figures.</p>'
    places = "\n".join(
        f'<div class="chart"><h3>{escape(drawing["title"])}</h3>'
        + (f'<div class="plot" id="{drawing["id"]}"></div>' if drawing["curves"] else _missing(drawing))
        + "</div>"
        for drawing in charts
    )
    options = "".join(f'<option value="{axis}">{label}</option>' for axis, label in AXES.items())
    controls = (
        f'<div class="controls"><label>over <select id="axis">{options}</select></label>'
        '<label><input type="checkbox" id="log-x"> logarithmic x</label>'
        '<label><input type="checkbox" id="log-y"> logarithmic loss</label></div>'
    )
    # The script fills the legend of several runs; the charts of one run have a legend each.
    legend = '<div class="scroll runs"><table id="runs"></table></div>\n' if len(records) > 1 else ""
    notes = " ".join(reading_notes(records))
    drawn = f'{legend}<div class="charts">\n{places}\n</div>\n<p class="quiet">{escape(notes)}</p>'
    return f"<h2>Curves</h2>\n{NO_SCRIPT}\n{controls}\n{drawn}"


def _missing(drawing: Drawing) -> str:
    return f'<p class="missing">No “{escape(drawing["metric"])}” in metrics.jsonl yet.</p>'


# --- samples ----------------------------------------------------------------------------------------------------------


def samples_html(record: RunRecord) -> str:
    """The samples generated during training: one at a time, with a slider over the steps."""
    if not record.samples:
        return '<h2>Samples</h2>\n<p class="missing">No samples yet.</p>'
    player = (
        '<div class="player" id="player" hidden><button id="earlier">Earlier</button>'
        '<input type="range" id="slider" min="0" value="0" aria-label="Sample"><button id="later">Later</button>'
        '<label><input type="checkbox" id="all-samples"> all</label></div>'
    )
    articles = "\n".join(sample_html(line, record) for line in record.samples)
    return f'<h2>What it wrote as it learned</h2>\n{player}\n<div class="film">\n{articles}\n</div>'


def sample_html(line: Line, record: RunRecord, title: str = "") -> str:
    """One sample, with its prompt highlighted and the latest validation loss at that step."""
    before = [check for check in record.validated if check["step"] <= line["step"] and is_finite(check["val/loss"])]
    loss = f"<span>validation loss {before[-1]['val/loss']:.3f}</span>" if before else ""
    prompt, text = str(line.get("prompt") or ""), str(line.get("text") or "")
    written = text.removeprefix(prompt)
    heading = f"{title}<b>step {count(line['step'])}</b>{loss}"
    # HTML drops a newline directly after <pre>. Add one, so that none of the sample is lost.
    quoted = f'<pre>\n<span class="prompt">{escape(prompt)}</span>{escape(written)}</pre>'
    return f'<article class="sample"><header>{heading}</header>{quoted}</article>'


# --- settings ---------------------------------------------------------------------------------------------------------


def settings_html(record: RunRecord) -> str:
    """One small table for each config section, the data, the machine and the code version."""
    config = _config_in_use(record)
    top = {key: value for key, value in config.items() if not isinstance(value, dict)}
    sections = {key: value for key, value in config.items() if isinstance(value, dict)}
    machine = {key: value for key, value in record.machine.items() if key != "later"}
    later = [(f"after step {session.pop('after_step')}", session) for session in record.machine.get("later", [])]
    top |= sections.pop("run", {})
    parts = [("run", top), *sections.items(), ("data, as prepared", record.data), ("machine and code", machine), *later]
    tables = "\n".join(
        f"<section><h3>{escape(title)}</h3>{_settings_table(values)}</section>" for title, values in parts if values
    )
    missing = [name for name, part in (("config.toml", record.config), ("machine.json", record.machine)) if not part]
    note = f'<p class="missing">The run folder has no {escape(" and no ".join(missing))}.</p>' if missing else ""
    return f'<h2>Settings</h2>\n{note}\n<div class="tables">\n{tables}\n</div>'


def _config_in_use(record: RunRecord) -> dict[str, Any]:
    """The config without the settings of the tokenizer that mean nothing for it."""
    tokenizer = record.config.get("tokenizer")
    return record.config if tokenizer is None else record.config | {"tokenizer": settings_in_use(tokenizer)}


def _settings_table(values: dict[str, Any]) -> str:
    return page.table([(escape(key), escape(value)) for key, value in page.flattened(values).items()])


# --- comparison -------------------------------------------------------------------------------------------------------


def distinctly_named(records: Sequence[RunRecord], folders: Sequence[Path]) -> list[RunRecord]:
    """The records, renamed to their full path where two folders have the same name."""
    times = Counter(record.name for record in records)
    return [
        record if times[record.name] == 1 else replace(record, name=str(folder))
        for record, folder in zip(records, folders, strict=True)
    ]


def overview_html(records: Sequence[RunRecord]) -> str:
    """A row for each run with its headline figures."""
    columns = [headline(record) for record in records]
    labels = list(dict.fromkeys(figure.label for figures in columns for figure in figures))
    rows = []
    for run, (record, figures) in enumerate(zip(records, columns, strict=True)):
        by_label = {figure.label: figure.value for figure in figures}
        state = "" if record.final else " (imported)" if record.imported else " (not finished)"
        rows.append((_name(run, record) + state, *(escape(by_label.get(label, "–")) for label in labels)))
    return "<h2>Figures</h2>\n" + page.table(rows, ("Run", *map(escape, labels)), kind="wide")


def _name(run: int, record: RunRecord) -> str:
    return f'<span class="swatch" data-run="{run}"></span>{escape(record.name)}'


def differences_html(records: Sequence[RunRecord]) -> str:
    """The settings that differ between runs, a column for each run."""
    flat = [page.flattened(_config_in_use(record)) for record in records]
    keys = sorted({key for settings in flat for key in settings})
    rows = [(key, *(settings.get(key, "–") for settings in flat)) for key in keys]
    rows = [row for row in rows if len(set(row[1:])) > 1]
    if not rows:
        return '<h2>Where they differ</h2>\n<p class="missing">Their configs are the same.</p>'
    header = ("Setting", *(record.name for record in records))
    cells = [tuple(map(escape, row)) for row in rows]
    return "<h2>Where they differ</h2>\n" + page.table(cells, tuple(map(escape, header)), kind="wide")


def last_samples_html(records: Sequence[RunRecord]) -> str:
    """The last text of each run."""
    articles = [
        sample_html(record.samples[-1], record, f"<b>{_name(run, record)}</b>")
        for run, record in enumerate(records)
        if record.samples
    ]
    if not articles:
        return '<h2>Last samples</h2>\n<p class="missing">No samples yet.</p>'
    return '<h2>Last samples</h2>\n<div class="side-by-side">\n' + "\n".join(articles) + "\n</div>"
