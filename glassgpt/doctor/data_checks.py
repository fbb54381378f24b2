"""Checks of the text as a run sees it: ids in range, targets one later, the same batches again."""

from __future__ import annotations

import random

import numpy as np
import torch

from glassgpt.data.loader import Loader
from glassgpt.doctor.finding import Finding, judge
from glassgpt.doctor.parts import iter_parts, share
from glassgpt.doctor.subject import Subject

LOADER_STEPS = (5, 0, 1, 5)  # not in order, and one of them twice


def check_loader(subject: Subject) -> Finding:
    """The rows of a step: again, from a new loader, in another order of steps, and cut into ranks and micro-batches."""
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
        reason="a batch is a function of (seed, step): only then is a resumed or distributed run the same run",
        remedy="draw rows from a generator of (seed, step), never from a global one or from the rank",
    )


def _rows(loader: Loader, step: int, start: int = 0, stop: int | None = None) -> torch.Tensor:
    """Inputs and targets side by side."""
    return torch.cat(loader.rows(step, start, stop), dim=1)


def _in_parts(loader: Loader, step: int, size: int) -> torch.Tensor:
    starts = range(0, loader.batch_rows, size)
    return torch.cat([_rows(loader, step, start, min(start + size, loader.batch_rows)) for start in starts])


def _disturb_global_state(seed: int) -> None:
    """A loader that draws from a global generator shows it now."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def check_targets(subject: Subject) -> Finding:
    """Each target is the token that follows its input."""
    inputs, targets = subject.open_loader().rows(0)
    wrong = int((inputs[:, 1:] != targets[:, :-1]).sum())
    return judge(
        "targets",
        wrong == 0,
        figure=f"{wrong:,} of {inputs[:, 1:].numel():,} are not the next input",
        expected="0",
        reason="a target that is the input itself is learned at once and teaches nothing",
        remedy="targets are the window from its second id on, inputs all ids but its last",
    )


def check_ids(subject: Subject) -> Finding:
    """Every id of both splits is one of the tokenizer's, and the model has a row for each."""
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
        reason="an id without a row in the embedding stops training, or is another token's",
        remedy="the shards are damaged or of another tokenizer: glassgpt data verify, or prepare the text again",
    )
