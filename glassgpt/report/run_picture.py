"""A run in one picture, as SVG: its loss over the steps, and what it wrote on the way."""

from __future__ import annotations

import base64
import textwrap
from collections.abc import Sequence
from html import escape

import numpy as np

from glassgpt.report.curves import Floats, column, smooth, thin
from glassgpt.report.figures import count, parameters
from glassgpt.report.ladder_picture import loss_ticks
from glassgpt.report.palette import LINE, QUIET, TRAINING, VALIDATION, Colour
from glassgpt.report.run_record import RunRecord
from glassgpt.report.svg import document, text
from glassgpt.training.metrics import Line

WIDTH, LEFT, RIGHT, TOP, BOTTOM = 900, 48, 876, 66, 268  # the frame of the curves
SAMPLES_TOP, GAP, COLUMNS = 330, 18, 4
LINE_HEIGHT, LINES, LETTERS = 15, 7, 29  # of a sample; letters of a line
MONO = "ui-monospace, Menlo, Consolas, monospace"


def draw_run(record: RunRecord) -> str:
    """SVG text, for light and dark pages: both losses in nats per token, and up to four samples of the run."""
    step, loss = _finite(record.train, "train/loss")
    at, validated = _finite(record.validated, "val/loss")
    loss = smooth(loss, len(loss) // 100)
    every, last = np.concatenate([loss, validated, [np.nan]]), record.last_step or 1
    low, high = (np.nanmin(every), np.nanmax(every)) if np.isfinite(every).any() else (0.0, 1.0)
    ticks = loss_ticks(low, high)

    def x(step: float) -> float:
        return LEFT + (RIGHT - LEFT) * step / last

    def y(loss: float) -> float:
        return TOP + (BOTTOM - TOP) * (ticks[-1] - loss) / (ticks[-1] - ticks[0])

    size, data = parameters(record), record.data.get("name")
    title = record.name + (f": {count(size)} parameters" if size else "") + (f", trained on {data}" if data else "")
    parts = [
        text(16, 26, _printable(title), size=16),
        _line([(LEFT, 48), (LEFT + 20, 48)], TRAINING),
        text(LEFT + 26, 52, "training loss, nats per token"),
        _line([(LEFT + 236, 48), (LEFT + 256, 48)], VALIDATION),
        text(LEFT + 262, 52, "validation loss"),
    ]
    for tick in ticks:
        parts.append(f'<path d="M{LEFT} {y(tick):.1f}H{RIGHT}" stroke="{LINE.light}"/>')
        parts.append(text(LEFT - 8, y(tick) + 4, f"{tick:.1f}", anchor="end", size=12, colour=QUIET))
    kept = thin(loss, 400)
    parts.append(_line([(x(step[i]), y(loss[i])) for i in kept], TRAINING))
    dots = [(x(a), y(b)) for a, b in zip(at, validated, strict=True)]
    parts.append(_line(dots, VALIDATION))
    if dots:
        parts.append(text(dots[-1][0], dots[-1][1] - 9, f"{validated[-1]:.3f}", anchor="end"))
    parts += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3.5" fill="{VALIDATION.light}"/>' for a, b in dots]

    width = (RIGHT - 16 + GAP) / COLUMNS
    for number, sample in enumerate(_chosen(record.samples)):
        left = 16 + number * width
        parts.append(
            f'<path d="M{x(sample["step"]):.1f} {BOTTOM + 4}V{BOTTOM + 12}L{left + 4:.1f} {SAMPLES_TOP - 32}v12"'
            f' fill="none" stroke="{QUIET.light}" stroke-dasharray="2 3"/>'
        )
        parts.append(text(left, SAMPLES_TOP, f"step {count(sample['step'])}", size=14))
        for row, line in enumerate(_wrapped(sample)):
            parts.append(text(left, SAMPLES_TOP + 22 + row * LINE_HEIGHT, line, size=11, family=MONO))
    height = SAMPLES_TOP + 22 + LINES * LINE_HEIGHT if record.samples else BOTTOM + 24
    return document(WIDTH, height, parts, [LINE, QUIET, TRAINING, VALIDATION])


def card(name: str, facts: Sequence[str], picture: str) -> str:
    """The run as HTML for a notebook. The picture is an image of its own, so that its style reaches nothing else."""
    lines = "".join(f"<div>{escape(fact)}</div>" for fact in facts)
    encoded = base64.b64encode(picture.encode()).decode()
    image = f'<img alt="losses and samples" src="data:image/svg+xml;base64,{encoded}">' if picture else ""
    return f"<div><b>Run {escape(name)}</b>{lines}{image}</div>"


def _finite(lines: Sequence[Line], name: str) -> tuple[Floats, Floats]:
    """Steps and values of a figure, where it is finite."""
    step, values = column(lines, "step"), column(lines, name)
    finite = np.isfinite(values)
    return step[finite], values[finite]


def _line(points: Sequence[tuple[float, float]], colour: Colour) -> str:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline points="{path}" fill="none" stroke="{colour.light}" stroke-width="2" stroke-linejoin="round"/>'


def _chosen(samples: Sequence[Line]) -> list[Line]:
    """Up to COLUMNS samples: the first, the last, and more of the early ones, because a model learns most early."""
    last = len(samples) - 1
    places = sorted({round(last * part) for part in (0, 1 / 8, 1 / 2, 1)}) if samples else []
    return [samples[place] for place in places]


def _wrapped(sample: Line) -> list[str]:
    """The first lines of a sample, none longer than LETTERS."""
    written = str(sample.get("prompt") or "") + str(sample.get("text") or "")
    lines = (
        textwrap.wrap(_printable(line), LETTERS, drop_whitespace=False) or [""] for line in written.strip().split("\n")
    )
    rows = [row for line in lines for row in line]
    return rows if len(rows) <= LINES else [*rows[: LINES - 1], "…"]


def _printable(line: str) -> str:
    """The line without control characters, which XML does not allow."""
    return "".join(letter if letter.isprintable() else "�" for letter in line)
