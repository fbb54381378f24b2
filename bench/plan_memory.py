"""The memory that a plan predicts beside the memory that a training process takes.

    python bench/plan_memory.py
    python bench/plan_memory.py --cases later --json
    python bench/plan_memory.py --cases gpt2-124m:1 gpt2-124m:2 deep:16

A case is a recipe, or one of this file's SHAPES, and a micro-batch, with a second `:2` for the micro-batches of a step.
The plan's first constants for the heap were fitted to `first` and checked on `later`; the one of today fits both.
Each is measured in a process of its own, on the CPU, in float32: the session's own optimizer and step, three times, on
random tokens; the highest resident set that the system saw (VmHWM). The largest case takes about 5 GB.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

CASES = {
    "first": (
        "char-tiny:12", "gpt2-mini:8", "gpt2-mini:8:4", "char-baby:8", "char-baby:32",
        "gpt2-124m:1", "gpt2-124m:1:2", "gpt2-124m:2",
    ),
    "later": (
        "deep:16", "deep:4:4", "wide:32", "wide:8:4", "vocabulary:8", "vocabulary:2:4", "dropout:8", "dropout:2:4",
    ),
}  # fmt: skip
SHAPES = {  # changes of gpt2-mini
    "deep": ("model.n_layer=24", "model.n_embd=96"),
    "wide": ("model.n_layer=2", "model.n_head=16", "model.n_embd=1024", "model.block_size=64"),
    "vocabulary": (
        "model.padded_vocab_size=32000",
        "tokenizer.vocab_size=32000",
        "model.n_embd=256",
        "model.block_size=256",
    ),
    "dropout": ("model.n_layer=6", "model.n_embd=384", "model.block_size=512", "model.dropout=0.1"),
}
STEPS = 3


def run_steps(recipe: str, micro_batch: int, passes: int) -> int:
    """Peak of this process's resident set in bytes, after some steps of a recipe."""
    import torch

    import glassgpt.runs.session  # noqa: F401  what a training process has imported
    from glassgpt.costs.typical import loss_function, random_batch
    from glassgpt.models import find_architecture
    from glassgpt.planning.plan import planned_config
    from glassgpt.runtime.device import build_runtime
    from glassgpt.runtime.heap import keep_freed_memory
    from glassgpt.training.fit import train_step
    from glassgpt.training.optimizers import build_optimizer

    keep_freed_memory()  # as `glassgpt train` does
    config, _ = planned_config(*recipe_and_overrides(recipe))
    runtime = build_runtime("cpu", "float32")
    torch.manual_seed(0)
    model = find_architecture(config.architecture).model(config.model)
    optimizer = build_optimizer(model, config.optimizer)
    parallel = runtime.wrap(model, loss_function(model))
    weight = passes * micro_batch * config.model.block_size
    for step in range(STEPS):
        batches = [random_batch(model, micro_batch, runtime.device) for _ in range(passes)]
        train_step(
            parallel, optimizer, runtime.build_scaler(), batches, runtime,
            grad_clip=1.0, seed=0, step=step, expected_weight=weight,
        )  # fmt: skip
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def predict(recipe: str, micro_batch: int, passes: int) -> dict[str, int]:
    """The plan's parts for the same process."""
    from glassgpt.costs.hardware import find_hardware
    from glassgpt.planning.plan import planned_config
    from glassgpt.runs.micro_batch import estimate_memory

    config, _ = planned_config(*recipe_and_overrides(recipe))
    memory = estimate_memory(config, find_hardware("cpu"), precision="float32")
    return memory.at_peak(micro_batch, accumulates=passes > 1)


def recipe_and_overrides(name: str) -> tuple[str, tuple[str, ...]]:
    """The arguments of `planned_config` for a recipe's name or a shape's."""
    return ("gpt2-mini", SHAPES[name]) if name in SHAPES else (name, ())


def in_own_process(what: str, case: str) -> Any:
    """What this script prints as `--only WHAT CASE`."""
    done = subprocess.run([sys.executable, __file__, "--only", what, case], check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def parse_case(case: str) -> tuple[str, int, int]:
    """A case as (recipe, micro-batch, micro-batches of a step)."""
    recipe, rows, *passes = case.split(":")
    return recipe, int(rows), int(passes[0]) if passes else 1


def measure(cases: Sequence[str]) -> list[dict[str, Any]]:
    """A row for each case, printed as it comes."""
    rows = []
    for case in cases:
        parts, measured = in_own_process("predict", case), in_own_process("measure", case)
        predicted = sum(parts.values())
        rows.append({"case": case, "predicted": predicted, "measured": measured, "parts": parts})
        print(
            f"{case:<16} predicted {predicted / 2**20:8.0f} MiB  measured {measured / 2**20:8.0f} MiB"
            f"  {predicted / measured - 1:+6.1%}",
            file=sys.stderr,
        )
    return rows


def main() -> None:
    """Prints the table on stderr, and one JSON object with --json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", default=list(CASES), metavar="SET|RECIPE:ROWS[:PASSES]")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--only", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        what, case = options.only
        print(json.dumps((run_steps if what == "measure" else predict)(*parse_case(case))))
        return
    rows = measure([case for name in options.cases for case in CASES.get(name, (name,))])
    if options.json:
        print(json.dumps({"cases": rows}))


if __name__ == "__main__":
    main()
