"""Five curves of one small model, one of them in good health, and what the doctor says of each."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from lab import text_parser

import glassgpt
from glassgpt.data.corpora import load_text
from glassgpt.doctor.diagnosis import diagnose
from glassgpt.report.palette import INK, LINE, SERIES
from glassgpt.report.run_record import read_record
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


def draw(curves: dict[str, tuple[list[int], list[float]]], out: Path) -> None:
    """The curves (steps, losses), each with its name and its last loss at its end, as the format that `out` names."""
    plt.rcParams["svg.hashsalt"] = "curves"  # the same data are the same file
    figure, axes = plt.subplots(figsize=(9, 5), layout="constrained")
    for (name, (steps, losses)), colour in zip(curves.items(), SERIES, strict=False):
        axes.plot(steps, losses, linewidth=2, color=colour.light)
        axes.annotate(
            f"{name}  {losses[-1]:.3f}", (steps[-1], losses[-1]), (8, 0), textcoords="offset points",
            verticalalignment="center", color=INK.light,
        )  # fmt: skip
    axes.set(title="Five curves of one small model", xlabel="optimizer steps", ylabel="validation loss, nats per token")
    axes.grid(axis="y", color=LINE.light)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(out, metadata={"Date": None} if out.suffix == ".svg" else None)


def main() -> None:
    """Trains, prints the verdicts, and draws the curves where `--out` says."""
    parser = text_parser(__doc__)
    parser.add_argument("--out", type=Path, help="a picture: .svg, .png, .pdf")
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--width", type=int, default=64, help="channels; fewer are faster")
    options = parser.parse_args()
    corpus = load_text(options.data)
    size = {"training.max_steps": options.steps, "model.n_embd": options.width}
    curves = {}
    with tempfile.TemporaryDirectory(prefix="glassgpt-curves-") as folder:
        for name, changes in RUNS.items():
            text = corpus.text[:LITTLE] if name == "little text" else corpus.text
            run = Path(folder) / name
            glassgpt.train("char-tiny", text=text, run=run, settings=SETTINGS | size | changes, listener=Listener())
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
        draw(curves, options.out)


if __name__ == "__main__":
    main()
