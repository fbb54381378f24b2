"""Five curves of one small model, one of them in good health, and what the doctor says of each."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import Any

from lab import text_parser

import glassgpt
from glassgpt.data.corpora import load_text
from glassgpt.doctor.diagnosis import diagnose
from glassgpt.files import write_text
from glassgpt.report.palette import LINE, SERIES
from glassgpt.report.run_record import read_record
from glassgpt.report.svg import document, text
from glassgpt.runs.listener import Listener

LITTLE = 4_000  # characters
SETTINGS: dict[str, Any] = {
    "model.block_size": 32, "model.n_layer": 2, "model.n_head": 4, "optimizer.lr": 3e-3,
    "schedule.min_lr": 0.0, "schedule.warmup_steps": 30, "training.batch_tokens": 512,
    "evaluation.every": 25, "evaluation.tokens": 10_000, "evaluation.sample_every": 0,
    "checkpoint.every": 0, "checkpoint.snapshots": 0,
}  # fmt: skip
RUNS: dict[str, dict[str, Any]] = {
    "in good health": {},
    "rate 100 times lower": {"optimizer.lr": 3e-5},
    "rate 100 times higher": {"optimizer.lr": 0.3},
    "no residual stream": {"model.architecture": "blocks", "model.n_layer": 4},
    "little text": {},
}


LEFT, RIGHT, TOP, FLOOR = 34.0, 244.0, 36.0, 316.0  # of the plot, in a picture that is 400 wide
GAP = 16.0  # between two names


def draw(curves: dict[str, tuple[list[int], list[float]]]) -> str:
    """The curves (steps, losses) as SVG, each with its name at its end."""
    values = [loss for _, losses in curves.values() for loss in losses]
    low, high, last = min(values), max(values), max(steps[-1] for steps, _ in curves.values())

    def place(step: float, loss: float) -> tuple[float, float]:
        return LEFT + (RIGHT - LEFT) * step / last, FLOOR - (FLOOR - TOP) * (loss - low) / (high - low)

    parts = [text(0, 14, "validation loss, nats per character")]
    for tick in range(math.ceil(2 * low), math.floor(2 * high) + 1):
        y = place(0, tick / 2)[1]
        parts.append(f'<line x1="{LEFT}" x2="{RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="{LINE.light}"/>')
        parts.append(text(LEFT - 6, y + 4, f"{tick / 2:.1f}", anchor="end"))
    parts += [text(LEFT, FLOOR + 20, "0", anchor="middle"), text(RIGHT, FLOOR + 20, f"{last} steps", anchor="end")]
    lowest_name = 0.0
    for (name, (steps, losses)), colour in sorted(
        zip(curves.items(), SERIES, strict=False), key=lambda each: -each[0][1][1][-1]
    ):
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in map(place, steps, losses))
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour.light}" stroke-width="2"/>')
        lowest_name = max(place(0, losses[-1])[1] + 4, lowest_name + GAP)
        parts.append(text(RIGHT + 6, lowest_name, name, colour=colour))
    return document(400, FLOOR + 30, parts, (LINE, *SERIES))


def main() -> None:
    """Trains, prints the verdicts, and draws the curves where `--out` says."""
    parser = text_parser(__doc__)
    parser.add_argument("--out", type=Path, help="the picture, an SVG file")
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--width", type=int, default=64, help="channels; fewer are faster")
    options = parser.parse_args()
    corpus = load_text(options.data)
    size = {"training.max_steps": options.steps, "model.n_embd": options.width}
    curves = {}
    with tempfile.TemporaryDirectory(prefix="glassgpt-curves-") as folder:
        for name, changes in RUNS.items():
            read = corpus.text[:LITTLE] if name == "little text" else corpus.text
            run = Path(folder) / name
            glassgpt.train("char-tiny", text=read, run=run, settings=SETTINGS | size | changes, listener=Listener())
            record, diagnosis = read_record(run), diagnose(str(run))
            lines = record.validations
            curves[name] = ([line["step"] for line in lines], [line["val/loss"] for line in lines])
            best = min(lines, key=lambda line: line["val/loss"])
            losses = [line["train/loss"] for line in record.train[-50:]]
            print(f"{name}: {lines[-1]['val/loss']:.3f}, best {best['val/loss']:.3f} at step {best['step']}, ", end="")
            print(f"training {sum(losses) / len(losses):.3f}")
            for finding in diagnosis.findings:
                if finding.status == "failed" or finding.name == "update ratio":
                    print(f"    {finding.name}: {finding.figure}, {finding.status}", flush=True)
    if options.out:
        write_text(options.out, draw(curves))


if __name__ == "__main__":
    main()
