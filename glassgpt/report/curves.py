"""Measurements over the steps of a run as curves that are light enough to draw, and honest.

A long run has a hundred thousand points, a screen one or two thousand columns. Thinning keeps the lowest and the
highest point of every stretch, so that no spike is lost; smoothing averages over 2% of the run.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from glassgpt.report.run_record import RunRecord
from glassgpt.training.metrics import Line

Floats = NDArray[np.float64]
PlotlyTrace = dict[str, Any]  # as the page's script takes it: a name, a style, x values by axis, y values
Drawing = dict[str, Any]  # a chart with its curves, as the page's script takes it

MAX_POINTS = 1200
AXES = {"step": "optimizer steps", "tokens": "tokens seen", "seconds": "seconds of training"}


class Chart(NamedTuple):
    """A place in the page for one figure over the steps."""

    title: str
    metric: str  # its name in metrics.jsonl
    smoothed: bool = True
    from_zero: bool = True
    ticks: str = "~g"  # d3's format of the numbers on the axis

    @property
    def id(self) -> str:
        """Its place in the page."""
        return "chart-" + self.metric.replace("/", "-")


LOSS = Chart("Loss, nats per token", "train/loss", from_zero=False)
CHARTS = (
    LOSS,
    Chart("Learning rate", "lr", smoothed=False),
    Chart("Gradient norm", "grad_norm"),
    Chart("Tokens per second", "tokens_per_second", ticks="~s"),
)


# What is in metrics.jsonl beside figures to draw: its place on the axes, and figures that belong to another one.
NOT_DRAWN = {"step", "tokens_seen", "seconds", "val/seconds", "val/tokens", "items"}


def charts_of(records: Sequence[RunRecord]) -> list[Chart]:
    """CHARTS, and one for each other figure that a run has measured: those of its stage, and of test suites."""
    drawn = {chart.metric for chart in CHARTS} | {"val/loss", "val/bits_per_byte"}
    found: dict[str, None] = {}
    for line in (line for record in records for line in record.lines if not line.get("final")):
        for name, value in line.items():
            is_figure = isinstance(value, int | float) and not isinstance(value, bool)
            if is_figure and name not in drawn | NOT_DRAWN and name.rpartition("/")[2] not in NOT_DRAWN:
                found[name] = None
    return [*CHARTS, *(Chart(name.replace("_", " "), name, from_zero=False) for name in found)]


def column(lines: Sequence[Line], name: str) -> Floats:
    """One figure of every line; NaN where a line does not have it."""
    return np.array([np.nan if line.get(name) is None else line[name] for line in lines], dtype=np.float64)


def smooth(y: Floats, half_width: int) -> Floats:
    """The mean of the finite values around each point, up to `half_width` to either side; NaN where there are none.

    A window that reaches over the start is cut on both sides alike: a symmetric mean follows the steep first descent,
    a lopsided one would cut its corner.
    """
    at = np.arange(len(y))
    reach = np.minimum(half_width, at)
    first, stop = at - reach, np.minimum(at + reach + 1, len(y))
    finite = np.isfinite(y)
    sums = np.concatenate([[0.0], np.cumsum(np.where(finite, y, 0.0))])
    counts = np.concatenate([[0], np.cumsum(finite)])
    n = counts[stop] - counts[first]
    return np.where(n > 0, (sums[stop] - sums[first]) / np.maximum(n, 1), np.nan)


def thin(y: Floats, max_points: int = MAX_POINTS) -> NDArray[np.intp]:
    """The indices of at most `max_points` points to draw: the lowest and highest of every stretch, and both ends.

    Half of the stretches are of equal length, half are equally long on a logarithmic axis: the curve is drawn on both.
    """
    n = len(y)
    if n <= max_points:
        return np.arange(n)
    n_edges = (max_points - 2) // 4
    edges = np.unique(np.concatenate([np.linspace(0, n, n_edges), np.geomspace(1, n, n_edges)]).astype(np.intp))
    kept = {0, n - 1}
    for start, stop in pairwise(edges):
        stretch = y[start:stop]
        if np.isfinite(stretch).any():
            kept |= {start + int(np.nanargmin(stretch)), start + int(np.nanargmax(stretch))}
    return np.array(sorted(kept), dtype=np.intp)


class Axes:
    """The three things a curve can be drawn over: steps, tokens seen and time, of one run.

    Only the lines of training carry tokens and time; a validation between two of them gets what lies between theirs.
    """

    def __init__(self, record: RunRecord) -> None:
        self.step = column(record.train, "step")
        self.known = {"tokens": column(record.train, "tokens_seen"), "seconds": column(record.train, "seconds")}

    def __call__(self, step: Floats) -> dict[str, list[float | None]]:
        """The x values of these steps by axis; an axis that the run has no figures for is absent."""
        x = {"step": listed(step, 12)}
        for name, values in self.known.items():
            finite = np.isfinite(values)
            if finite.any():
                # Before the first line: from zero at step zero.
                x[name] = listed(np.interp(step, np.append(0, self.step[finite]), np.append(0, values[finite])))
        return x


def listed(values: Floats, digits: int = 5) -> list[float | None]:
    """For JSON: as many digits as a reader has use for, and null for what is not finite."""
    return [float(f"{value:.{digits}g}") if np.isfinite(value) else None for value in values]


def measured(
    record: RunRecord, name: str, title: str, *, run: int = 0, smoothed: bool = True, raw: bool = True
) -> list[PlotlyTrace]:
    """A figure of every training step: the measured values, faint, under their mean. Empty if there are none.

    Not `smoothed`, the values themselves are the one curve; without `raw` there is only the mean.
    """
    lines = [line for line in record.lines or record.train if name in line and not {"skipped", "final"} & line.keys()]
    step, y, axes = column(lines, "step"), column(lines, name), Axes(record)
    y[~np.isfinite(y)] = np.nan  # an infinity would be the highest of its stretch, and is no point to draw
    if np.isnan(y).all():
        return []
    half_width = len(y) // 100 if smoothed else 0
    styles = [("line", smooth(y, half_width))]
    if raw and half_width > 0:
        styles.insert(0, ("faint", y))
    curves = []
    for style, values in styles:
        kept = thin(values)
        curves.append({"name": title, "style": style, "run": run, "x": axes(step[kept]), "y": listed(values[kept])})
    return curves


def validated(record: RunRecord, title: str, *, run: int = 0) -> list[PlotlyTrace]:
    """The validation losses while training and, where the run is finished, the last, on the whole split."""
    lines = [line for line in [*record.validations, *([record.final] if record.final else [])] if "val/loss" in line]
    y = column(lines, "val/loss")
    if not np.isfinite(y).any():
        return []
    x = Axes(record)(column(lines, "step"))
    return [{"name": title, "style": "validation", "run": run, "x": x, "y": listed(y)}]


def skipped(record: RunRecord, title: str, *, run: int = 0) -> list[PlotlyTrace]:
    """Marks on the loss curve where a step was not applied, or its loss is not finite."""
    at, loss = column(record.train, "step"), column(record.train, "train/loss")
    finite = np.isfinite(loss)
    reasons = dict.fromkeys(at[~finite].tolist(), "loss is not finite")
    reasons |= {line["step"]: str(line["skipped"]) for line in record.skipped}
    if not reasons or not finite.any():
        return []
    step = np.array(sorted(reasons), dtype=np.float64)
    y = np.interp(step, at[finite], smooth(loss, len(loss) // 100)[finite])
    text = [f"step {number:.0f}: {reasons[number]}" for number in step]
    x = Axes(record)(step)
    return [{"name": title, "style": "skipped", "run": run, "x": x, "y": listed(y), "text": text}]


def drawings(records: Sequence[RunRecord]) -> list[Drawing]:
    """What the page's script draws for each chart; one without curves where no run has the figure."""
    return [
        {
            "id": chart.id,
            "title": chart.title,
            "metric": chart.metric,
            "loss": chart is LOSS,
            "from_zero": chart.from_zero,
            "ticks": chart.ticks,
            "curves": [curve for run in range(len(records)) for curve in _curves(chart, records, run)],
        }
        for chart in charts_of(records)
    ]


def _curves(chart: Chart, records: Sequence[RunRecord], run: int) -> list[PlotlyTrace]:
    """The curves of one run. Of several runs only the means are drawn: their raw values would cover each other."""
    record, alone = records[run], len(records) == 1
    prefix = "" if alone else f"{record.name}, "
    if chart is LOSS:
        return [
            *measured(record, chart.metric, f"{prefix}training", run=run, raw=alone),
            *validated(record, f"{prefix}validation", run=run),
            *skipped(record, f"{prefix}step skipped", run=run),
        ]
    title = chart.title if alone else record.name
    return measured(record, chart.metric, title, run=run, smoothed=chart.smoothed, raw=alone)


def reading_notes(records: Sequence[RunRecord]) -> list[str]:
    """How the curves were made from the measurements, and what to know of the marks on them."""
    longest = max(len(record.train) for record in records)
    notes = ["With a mouse: drag to zoom, double-click to go back."]
    if len(records) > 1:
        notes.append("Lines with points are validation, thin lines training.")
    if longest >= 100:
        faint = "; the faint ones are the measurements themselves" if len(records) == 1 else ""
        notes.append(f"Curves of training are means over 2% of a run{faint}.")
    if longest > MAX_POINTS:
        notes.append(
            f"Of {longest:,} measured steps at most {MAX_POINTS:,} points are drawn: "
            "the lowest and the highest of every stretch."
        )
    skips = sum(len(record.skipped) for record in records)
    if skips:
        notes.append(f"A cross marks a step that was not applied ({skips:,} in all).")
    return notes
