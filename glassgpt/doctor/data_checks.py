"""Checks of the training data: ids in range, targets shifted by one, reproducible batches."""

from __future__ import annotations

import random

import numpy as np
import torch

from glassgpt.data.loader import Loader
from glassgpt.data.parts import iter_parts, share
from glassgpt.doctor.finding import Finding, judge
from glassgpt.doctor.subject import Subject

LOADER_STEPS = (5, 0, 1, 5)  # out of order, and one of them twice


def check_loader(subject: Subject) -> Finding:
    """Checks that a step has the same rows when repeated, reordered, in a new loader, and in ranks or micro-batches."""
    loader, new = subject.open_loader(), subject.open_loader()
    differing: list[str] = []
    for step in LOADER_STEPS:
        _disturb_global_state(step)
        rows = _rows(loader, step)
        ways = {
            "the same step again": _rows(loader, step),
            "a new loader": _rows(new, step),
            "two ranks": _in_parts(loader, step, -(-loader.batch_rows // 2)),
            "micro-batches of one row": _in_parts(loader, step, 1),
        }
        differing += [f"{way} (step {step})" for way, other in ways.items() if not torch.equal(rows, other)]
    return judge(
        "loader repeats",
        not differing,
        figure=f"differs: {', '.join(dict.fromkeys(differing[:3]))}"
        if differing
        else f"{len(set(LOADER_STEPS))} steps, 4 ways each: equal",
        expected="equal rows",
        reason="a batch must depend on (seed, step) only, so that a resumed or distributed run sees the same data",
        remedy="draw rows from a generator seeded with (seed, step), not from a global one or by rank",
    )


def _rows(loader: Loader, step: int, start: int = 0, stop: int | None = None) -> torch.Tensor:
    """Inputs and targets, concatenated."""
    return torch.cat(loader.rows(step, start, stop), dim=1)


def _in_parts(loader: Loader, step: int, size: int) -> torch.Tensor:
    starts = range(0, loader.batch_rows, size)
    return torch.cat([_rows(loader, step, start, min(start + size, loader.batch_rows)) for start in starts])


def _disturb_global_state(seed: int) -> None:
    """Reseeds the global generators, to expose a loader that uses them."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def check_targets(subject: Subject) -> Finding:
    """Checks that each target is the token that follows its input."""
    inputs, targets = subject.open_loader().rows(0)
    wrong = int((inputs[:, 1:] != targets[:, :-1]).sum())
    return judge(
        "targets",
        wrong == 0,
        figure=f"{wrong:,} of {inputs[:, 1:].numel():,} are not the next input",
        expected="0",
        reason="if the target is the input itself, the model learns to copy it and nothing else",
        remedy="targets are the window without its first id, inputs the window without its last",
    )


def check_ids(subject: Subject) -> Finding:
    """Checks that every id of both splits is below the tokenizer's vocab_size and has a row in the embedding."""
    vocab_size = subject.tokenizer.vocab_size
    least, largest, parts = vocab_size, 0, []
    for name, tokens in (("train", subject.train), ("val", subject.val)):
        seen = 0
        for ids in iter_parts(tokens):
            least, largest, seen = min(least, int(ids.min())), max(largest, int(ids.max())), seen + len(ids)
        parts.append(f"{name} {share(seen, len(tokens))}")
    rows = subject.config.model.vocab_size
    return judge(
        "ids",
        least >= 0 and largest < vocab_size <= rows,
        figure=f"{least} to {largest} ({', '.join(parts)})",
        expected=f"0 to {vocab_size - 1}; model.vocab_size {rows} at least {vocab_size}",
        reason="an id without a row in the embedding crashes training, or gets the row of another token",
        remedy="the shards are damaged or of another tokenizer: glassgpt data verify, or prepare the data again",
    )
