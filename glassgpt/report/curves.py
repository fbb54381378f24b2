"""Turns the metrics of runs into curves: smoothed, and downsampled without losing spikes.

A long run has a hundred thousand points, a screen one or two thousand columns. Downsampling keeps the lowest and the
highest point of every interval, so that no spike is lost. Smoothing averages over 2% of the run.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from glassgpt.report.figures import title_of
from glassgpt.report.run_record import RunRecord
from glassgpt.training.metrics import VALIDATED_ON, Line

Floats = NDArray[np.float64]
Curve = dict[str, Any]  # input of the page's script: a name, a style, x values by axis, y values
Drawing = dict[str, Any]  # input of the page's script: a chart with its curves

MAX_POINTS = 1200
AXES = {"step": "optimizer steps", "tokens": "tokens seen", "seconds": "seconds of training"}


class Chart(NamedTuple):
    """A chart of one metric over the steps."""

    title: str
    metric: str  # its name in metrics.jsonl
    smoothed: bool = True
    from_zero: bool = True

    @property
    def id(self) -> str:
        """The id of its HTML element."""
        return "chart-" + self.metric.replace("/", "-")


LOSS = Chart("Loss, nats per token", "train/loss", from_zero=False)
CHARTS = (
    LOSS,
    Chart("Learning rate", "lr", smoothed=False),
    Chart("Gradient norm", "grad_norm"),
    Chart("Tokens per second", "tokens_per_second"),
)


# Fields of metrics.jsonl that get no chart: the x axes, and figures that belong to another one.
NOT_DRAWN = {"step", "tokens_seen", "seconds", "val/seconds", "items", *VALIDATED_ON}


def charts_of(records: Sequence[RunRecord]) -> list[Chart]:
    """CHARTS, and one for each other metric in a run, such as those of its stage and of test suites."""
    drawn = {chart.metric for chart in CHARTS} | {"val/loss", "val/bits_per_byte"}
    found: dict[str, None] = {}
    for line in (line for record in records for line in record.lines if not line.get("final")):
        for name, value in line.items():
            is_figure = isinstance(value, int | float) and not isinstance(value, bool)
            if is_figure and name not in drawn | NOT_DRAWN and name.rpartition("/")[2] not in NOT_DRAWN:
                found[name] = None
    return [*CHARTS, *(Chart(title_of(name), name, from_zero=False) for name in found)]


def column(lines: Sequence[Line], name: str) -> Floats:
    """One field of every line; NaN where a line does not have it."""
    return np.array([np.nan if line.get(name) is None else line[name] for line in lines], dtype=np.float64)


def smooth(y: Floats, half_width: int) -> Floats:
    """The mean of the finite values around each point, up to `half_width` to either side; NaN where there are none.

    Near the start, the window is shortened on both sides equally. A symmetric mean follows the steep initial descent;
    a one-sided mean would be biased there.
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
    """Indices of at most `max_points` points to draw: the lowest and highest of every interval, and both ends.

    Half of the intervals have equal length on a linear axis, half on a logarithmic axis, because both are offered.
    """
    n = len(y)
    if n <= max_points:
        return np.arange(n)
    n_edges = (max_points - 2) // 4
    edges = np.unique(np.concatenate([np.linspace(0, n, n_edges), np.geomspace(1, n, n_edges)]).astype(np.intp))
    chosen = {0, n - 1}
    for start, stop in pairwise(edges):
        interval = y[start:stop]
        if np.isfinite(interval).any():
            chosen |= {start + int(np.nanargmin(interval)), start + int(np.nanargmax(interval))}
    return np.array(sorted(chosen), dtype=np.intp)


class Axes:
    """The x axes of the curves of one run: steps, tokens seen and time.

    Only training lines have tokens and time. For other steps, such as validations, they are interpolated.
    """

    def __init__(self, record: RunRecord) -> None:
        self.step = column(record.train, "step")
        self.known = {"tokens": column(record.train, "tokens_seen"), "seconds": column(record.train, "seconds")}

    def __call__(self, step: Floats) -> dict[str, list[float | None]]:
        """The x values of these steps by axis; an axis without data in this run is left out."""
        x = {"step": listed(step, 12)}
        for name, values in self.known.items():
            finite = np.isfinite(values)
            if finite.any():
                # Before the first line, interpolate from zero at step zero.
                known = np.interp(step, np.append(0, self.step[finite]), np.append(0, values[finite]))
                x[name] = listed(known, 8)  # more digits than for y: neighbouring steps of a long run stay apart
        return x


def listed(values: Floats, digits: int = 5) -> list[float | None]:
    """Values for JSON, rounded to `digits` significant digits; None (null) where not finite."""
    rounded = (float(f"{value:.{digits}g}") if np.isfinite(value) else None for value in values)
    # 20 is shorter than 20.0, and most values of x are whole.
    return [int(value) if value is not None and value.is_integer() else value for value in rounded]


def measured(
    record: RunRecord, name: str, title: str, *, run: int = 0, smoothed: bool = True, raw: bool = True
) -> list[Curve]:
    """The curves of a training metric: raw values (faint) and their moving mean. Empty if there are no values.

    If not `smoothed`, the raw values are the only curve. If not `raw`, the mean is.
    """
    lines = [line for line in record.lines or record.train if name in line and not {"skipped", "final"} & line.keys()]
    step, y, axes = column(lines, "step"), column(lines, name), Axes(record)
    y[~np.isfinite(y)] = np.nan  # an infinity would be the maximum of its interval, but cannot be drawn
    if np.isnan(y).all():
        return []
    half_width = len(y) // 100 if smoothed else 0
    styles = [("line", smooth(y, half_width))]
    if raw and half_width > 0:
        styles.insert(0, ("faint", y))
    curves = []
    for style, values in styles:
        indices = thin(values)
        curves.append(
            {"name": title, "style": style, "run": run, "x": axes(step[indices]), "y": listed(values[indices])}
        )
    return curves


def validated(record: RunRecord, title: str, *, run: int = 0) -> list[Curve]:
    """The curve of the validation loss; its last point of a finished run is the final one, on the whole split."""
    lines = record.validated
    y = column(lines, "val/loss")
    if not np.isfinite(y).any():
        return []
    x = Axes(record)(column(lines, "step"))
    return [{"name": title, "style": "validation", "run": run, "x": x, "y": listed(y)}]


def skipped(record: RunRecord, title: str, *, run: int = 0) -> list[Curve]:
    """Marks on the loss curve for steps that were skipped or have a non-finite loss."""
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
    """The charts for the page's script; a chart has no curves if no run has its metric."""
    return [
        {
            "id": chart.id,
            "title": chart.title if chart is not LOSS or all(record.pretrained for record in records) else "Loss",
            "metric": chart.metric,
            "loss": chart is LOSS,
            "from_zero": chart.from_zero,
            "lines": reference_lines(records) if chart is LOSS else [],
            "curves": [curve for run in range(len(records)) for curve in _curves(chart, records, run)],
        }
        for chart in charts_of(records)
    ]


def reference_lines(records: Sequence[RunRecord]) -> list[dict[str, Any]]:
    """The losses of a model that knows nothing, ln V for V ids, and of models that only count.

    There are none if the runs have different vocabularies or a run learned something else than the next token, and no
    counts if they have different texts.
    """
    sizes = {record.config.get("model", {}).get("vocab_size") if record.pretrained else None for record in records}
    size = sizes.pop() if len(sizes) == 1 else None
    if not isinstance(size, int) or size < 2:
        return []
    losses = {f"all {size:,} tokens equally likely": math.log(size)}
    counted = {record.counting for record in records}
    if len(counted) == 1 and (counts := counted.pop()) is not None:
        losses["counting single tokens"] = counts.unigram
        losses["counting pairs"] = counts.bigram
        losses[f"counting up to {counts.order} tokens"] = counts.ngram
    return [{"value": loss, "label": f"{name}: {loss:.3f}"} for name, loss in losses.items()]


def _curves(chart: Chart, records: Sequence[RunRecord], run: int) -> list[Curve]:
    """The curves of one run in a chart. With several runs, only means are drawn, because raw values would overlap."""
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
    """Notes for the reader: how the curves were computed, and what the marks mean."""
    longest = max(len(record.train) for record in records)
    notes = ["Point at a curve to read its values. With a mouse: drag to zoom, double-click to go back."]
    if len(records) > 1:
        notes.append("Untick a run to hide it. Lines with points are validation, thin lines training.")
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
