"""Five curves of one small model, one of them in good health, and what the doctor says of each."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import glassgpt
from glassgpt.data.corpora import load_text
from glassgpt.doctor.diagnosis import diagnose
from glassgpt.report.ladder_picture import LadderCurve, draw_ladder
from glassgpt.report.run_record import read_record
from glassgpt.runs.listener import Listener

LITTLE = 4_000  # characters
SETTINGS: dict[str, Any] = {
    "model.block_size": 32, "model.n_layer": 2, "model.n_head": 4, "model.n_embd": 64, "optimizer.lr": 3e-3,
    "schedule.min_lr": 0.0, "schedule.warmup_steps": 30, "training.batch_tokens": 512, "training.max_steps": 500,
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


def main() -> None:
    """Trains, prints the verdicts, and draws the curves where `--out` says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="auto", help="as in glassgpt train: a name, a file or a folder")
    parser.add_argument("--out", type=Path, help="an SVG file")
    options = parser.parse_args()
    corpus = load_text(options.data)
    curves = []
    with tempfile.TemporaryDirectory(prefix="glassgpt-curves-") as folder:
        for number, (name, changes) in enumerate(RUNS.items(), start=1):
            text = corpus.text[:LITTLE] if name == "little text" else corpus.text
            run = Path(folder) / name
            glassgpt.train("char-tiny", text=text, run=run, settings=SETTINGS | changes, listener=Listener())
            record, diagnosis = read_record(run), diagnose(str(run))
            print(f"{name}: {diagnosis.normal}")
            for finding in diagnosis.findings:
                if finding.status == "failed":
                    print(f"    {finding.name}: {finding.figure} (expected: {finding.expected})")
            steps, losses = zip(*((line["step"], line["val/loss"]) for line in record.validations), strict=True)
            curves.append(LadderCurve(number, name, steps, losses, losses[-1]))
    if options.out:
        options.out.write_text(draw_ladder(curves, "Five curves of one small model"), encoding="utf-8")


if __name__ == "__main__":
    main()
