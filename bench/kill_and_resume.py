"""Kills a training run with SIGKILL at random moments, resumes it, and compares it with one never interrupted.

    python bench/kill_and_resume.py --runs 50

Each run is killed up to three times, then finished. It must end with the same bytes of weights and optimizer state, the
same figures (timings aside) and the same samples. Dropout is on: it must not depend on where the run was cut.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SETTINGS = [
    "model.n_layer=2", "model.n_head=2", "model.n_embd=32", "model.block_size=32", "model.dropout=0.1",
    "training.batch_tokens=512", "training.micro_batch=5", "training.max_steps=300", "evaluation.every=30",
    "evaluation.tokens=2000", "evaluation.sample_every=60", "evaluation.sample_tokens=20",
    "checkpoint.every=20",
]  # fmt: skip
TIMINGS = ("seconds", "tokens_per_second", "mfu", "val/seconds", "validation_seconds")


def command(run: Path, data: str) -> list[str]:
    """The same command begins the run and goes on with it."""
    overrides = [part for setting in SETTINGS for part in ("--set", setting)]
    return [
        sys.executable,
        "-m",
        "glassgpt",
        "train",
        "char-tiny",
        "--data",
        data,
        "--run",
        str(run),
        "--resume",
        *overrides,
    ]


def finish(run: Path, data: str, kill_after: float | None = None) -> bool:
    """Runs the command; True if it ended by itself, False if it was killed after that many seconds."""
    process = subprocess.Popen(command(run, data), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        _, errors = process.communicate(timeout=kill_after)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return False
    if process.returncode != 0:
        raise SystemExit(f"the run failed: {errors.decode()}")
    return True


def outcome(run: Path) -> dict[str, Any]:
    """All that must be the same: weights and optimizer bytes of every checkpoint, figures, samples."""
    checkpoints = sorted((run / "checkpoints").glob("step-*/*.safetensors"))
    figures = [
        {name: value for name, value in json.loads(line).items() if name not in TIMINGS}
        for line in (run / "metrics.jsonl").read_text().splitlines()
    ]
    return {
        "weights": {str(file.relative_to(run)): file.read_bytes() for file in checkpoints},
        "figures": figures,
        "samples": (run / "samples.jsonl").read_text(),
    }


def main() -> None:
    """Prints one line a run, and at the end how many were identical; exits 1 if one was not."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--data", default="python-manual")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    moments = random.Random(options.seed)
    folder = Path(tempfile.mkdtemp(prefix="glassgpt-kill-"))

    began = time.perf_counter()
    finish(folder / "reference", options.data)
    length = time.perf_counter() - began
    expected = outcome(folder / "reference")
    print(f"uninterrupted: {length:.1f} s, {len(expected['figures'])} lines of figures")

    identical = 0
    for number in range(options.runs):
        run, steps = folder / f"run-{number}", []
        for _ in range(3):
            if finish(run, options.data, kill_after=moments.uniform(0.0, length)):
                break
            done = run / "metrics.jsonl"
            steps.append(len(done.read_text().splitlines()) if done.exists() else 0)
        finish(run, options.data)
        found = outcome(run)
        different = [part for part in expected if found[part] != expected[part]]
        identical += not different
        verdict = f"different: {different}" if different else "identical"
        print(f"run {number + 1}: killed after {steps} lines, {verdict}", flush=True)
        shutil.rmtree(run)
    print(f"identical: {identical} of {options.runs}")
    shutil.rmtree(folder)
    sys.exit(identical != options.runs)


if __name__ == "__main__":
    main()
