"""What a training step spends outside of the model: the profile of a real run.

    python bench/loop_profile.py
    python bench/loop_profile.py --set model.n_layer=4 --steps 10 --json

Trains the blocks of GPT-2 124M on characters, in a temporary folder, and asks Python's profiler where the time of the
steps went. Validation, samples and checkpoints are left out: they do not belong to a step.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import pstats
import tempfile
from pathlib import Path
from typing import Any

import glassgpt as gg
from glassgpt.runtime.heap import keep_freed_memory

SIZES = (
    "model.n_layer=12", "model.n_head=12", "model.n_embd=768", "model.block_size=256", "training.batch_tokens=512",
    "evaluation.tokens=512", "evaluation.sample_every=0",
)  # fmt: skip
TEXT = "The cat sat on the mat, and the dog ran home. Who lives in the house at the end of the road? " * 100
# Parts of a step: the file and the name of the function that does each. The first three are the arithmetic itself.
ARITHMETIC = {
    "forward": ("runtime/parallel.py", "forward"),
    "backward": ("torch/_tensor.py", "backward"),
    "optimizer": ("torch/optim/adam.py", "step"),
}
AROUND = {
    "norm of the gradient": ("torch/nn/utils/clip_grad.py", "_get_total_norm"),
    "batches": ("runs/session.py", "_batches"),
    "logging": ("runs/session.py", "_after_step"),
}
NOT_A_STEP = ("runs/session.py", "_run_due")


def profile(overrides: list[str], steps: int) -> pstats.Stats:
    """Trains in a temporary folder and returns the times of all functions."""
    profiler = cProfile.Profile()
    with tempfile.TemporaryDirectory(prefix="glassgpt-profile-") as folder:
        run = Path(folder) / "run"
        profiler.runcall(
            gg.train, "char-tiny", text=TEXT, run=run, max_steps=steps, overrides=[*SIZES, *overrides]
        )  # fmt: skip
    return pstats.Stats(profiler)


def seconds_of(found: pstats.Stats, function: tuple[str, str], caller: str | None = None) -> float:
    """Seconds in a function and all that it called: of every call, or of those from `caller`."""
    file, name = function
    times: dict[Any, Any] = found.stats  # type: ignore[attr-defined]
    rows = [row for (path, _, each), row in times.items() if each == name and path.endswith(file)]
    if caller is None:
        return float(sum(row[3] for row in rows))
    return float(sum(each[3] for row in rows for key, each in row[4].items() if key[2] == caller))


def parts_of(found: pstats.Stats) -> dict[str, float]:
    """Seconds of all steps by part."""
    due = seconds_of(found, NOT_A_STEP, caller="_after_step")
    parts = {name: seconds_of(found, function) for name, function in (ARITHMETIC | AROUND).items()}
    parts["logging"] -= due
    total = seconds_of(found, ("training/fit.py", "fit")) - due
    return parts | {"the rest of the loop": total - sum(parts.values())}


def main() -> None:
    """Prints the table, or one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="change the recipe")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    keep_freed_memory()  # as `glassgpt train` does
    parts = parts_of(profile(options.set, options.steps))
    total = sum(parts.values())
    around = sum(seconds for name, seconds in parts.items() if name not in ARITHMETIC) / total
    if options.json:
        print(
            json.dumps(
                {"ms": {name: 1e3 * seconds / options.steps for name, seconds in parts.items()}, "around": around}
            )
        )
        return
    for name, seconds in parts.items():
        print(f"{name:<21} {1e3 * seconds / options.steps:9.2f} ms a step  {seconds / total:6.1%}")
    print(f"around the arithmetic {around:.1%} of a step")


if __name__ == "__main__":
    main()
