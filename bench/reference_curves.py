"""Makes a reference curve for `glassgpt doctor`: a recipe trained with several seeds, its losses with their spread.

    python bench/reference_curves.py char-tiny --data tinyshakespeare.txt --seeds 3 --write

Without --write it is shorter, and prints the curve; with it, glassgpt/doctor/references/RECIPE.json is replaced.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import glassgpt
from glassgpt.doctor import references
from glassgpt.doctor.references import build_reference
from glassgpt.files import write_text
from glassgpt.report.run_record import RunRecord, read_record
from glassgpt.runs.config import load_recipe, parse_run_config
from glassgpt.runs.listener import Listener

POINTS = 20  # validations on the way
SHORT = 0.1  # of the recipe's steps, without --write


def train(recipe: str, data: str, seed: int, folder: Path, short: bool) -> RunRecord:
    """One run, validated POINTS times."""
    max_steps = parse_run_config(load_recipe(recipe)).training.max_steps
    settings = {
        "training.seed": seed, "evaluation.every": max_steps // POINTS, "evaluation.sample_every": 0,
        "checkpoint.every": 0, "checkpoint.snapshots": 0,
    }  # fmt: skip
    steps = round(max_steps * SHORT) if short else None
    run = folder / f"{recipe}-{seed}"
    glassgpt.train(recipe, data=data, run=run, settings=settings, max_steps=steps, listener=Listener())
    return read_record(run)


def main() -> None:
    """Trains one seed after the other; prints or writes the curve."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", nargs="?", default="char-tiny")
    parser.add_argument("--data", default="shakespeare")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="glassgpt-bench-") as folder:
        records = []
        for seed in range(1, options.seeds + 1):
            records.append(train(options.recipe, options.data, seed, Path(folder), short=not options.write))
            print(f"seed {seed}: {records[-1].final}", flush=True)
    machine = records[0].machine
    reference = build_reference(
        records, recipe=options.recipe, text=Path(options.data).stem,
        command=f"python bench/reference_curves.py {options.recipe} --data {Path(options.data).name}"
        f" --seeds {options.seeds} --write",
        machine=f"{machine['processor']}, torch {machine['torch']}, {machine['precision']}",
    )  # fmt: skip
    text = json.dumps(reference.to_dict(), indent=1) + "\n"
    if options.write:
        write_text(Path(references.__file__).parent / "references" / f"{options.recipe}.json", text)
    for point in reference.points:
        print(f"{point.tokens:>10,} tokens  val {point.val:.4f} ± {point.val_spread:.4f}"
              f"  train {point.train:.4f} ± {point.train_spread:.4f}")  # fmt: skip


if __name__ == "__main__":
    main()
