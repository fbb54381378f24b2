"""Checks of the training data: ids in range, targets shifted by one, reproducible batches."""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np
import torch

from glassgpt.data.masking import MASKED, REPLACED, HiddenRows
from glassgpt.data.pair_loader import PairRows
from glassgpt.data.parts import iter_parts, share
from glassgpt.doctor.finding import Finding, judge
from glassgpt.doctor.subject import MaskedSubject, PairSubject, Subject, TextSubject

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
        differing += [f"{way} (step {step})" for way, other in ways.items() if rows != other]
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


def _rows(loader: Any, step: int, start: int = 0, stop: int | None = None) -> list[bytes]:
    """The ids of each row, without its padding, which depends on the other rows."""
    rows = loader.rows(step, start, stop)
    if isinstance(rows, HiddenRows):
        parts = [rows.inputs, rows.places, rows.targets]
    elif isinstance(rows, PairRows):
        return [
            np.concatenate([source[visible], inputs[mask], targets[mask]]).tobytes()
            for source, visible, inputs, targets, mask in zip(
                *(part.numpy() for part in (rows.source, rows.visible, rows.inputs, rows.targets, rows.mask)),
                strict=True,
            )
        ]
    else:
        parts = [part.numpy() for part in rows]
    return [row.tobytes() for row in np.concatenate(parts, axis=1)]


def _in_parts(loader: Any, step: int, size: int) -> list[bytes]:
    starts = range(0, loader.batch_rows, size)
    return [row for start in starts for row in _rows(loader, step, start, min(start + size, loader.batch_rows))]


def _disturb_global_state(seed: int) -> None:
    """Reseeds the global generators, to expose a loader that uses them."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def check_targets(subject: TextSubject) -> Finding:
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


def check_hidden(subject: MaskedSubject) -> Finding:
    """Checks that the targets are what was hidden, that enough of them are masked, and that nothing else is."""
    loader = subject.open_loader()
    hidden, mask_id = loader.rows(0), loader.hider.mask_id
    seen = np.take_along_axis(hidden.inputs, hidden.places, axis=1)
    n_hidden, n_text = hidden.places.size, len(hidden.inputs) * loader.hider.width(hidden.inputs.shape[1])
    masked, kept = float((seen == mask_id).mean()), float((seen == hidden.targets).mean())
    elsewhere = int((hidden.inputs == mask_id).sum() - (seen == mask_id).sum())
    special = int(np.isin(hidden.targets, list(subject.tokenizer.special_tokens.values())).sum())
    fraction = subject.config.data.mask_fraction
    most_kept = 1 - MASKED - REPLACED  # and a few of those replaced at random, by themselves
    slack = 4 * math.sqrt(0.25 / n_hidden)  # four standard deviations of a share, at most
    return judge(
        "hidden targets",
        abs(masked - MASKED) <= slack
        and kept <= most_kept + slack
        and elsewhere == special == 0
        and abs(n_hidden / n_text - fraction) <= len(hidden.inputs) / n_text,
        figure=f"{n_hidden / n_text:.1%} of {n_text:,} tokens hidden, {masked:.0%} of them by the mask token,"
        f" {kept:.0%} left as they are" + (f"; {elsewhere:,} masked elsewhere" if elsewhere else "")
        + (f"; {special:,} special tokens" if special else ""),
        expected=f"{fraction:.1%} to within one token of a row, {MASKED:.0%} ± {slack:.0%} of them by the mask token,"
        f" at most {most_kept + slack:.0%} left as they are; no mask token elsewhere",
        reason="a target that can be read in the input is copied and teaches nothing; where no token is ever left or"
        " replaced, the model learns to trust all others (Devlin et al. 2018, section 3.1)",
        remedy="`targets` are the tokens that stood at `places` before they were hidden",
    )  # fmt: skip


def check_pairs(subject: PairSubject) -> Finding:
    """Checks that a decoder's inputs are its targets one place later, and that both texts end with the stop."""
    rows, ends = subject.open_loader().rows(0), subject.pairs.ends
    following = rows.mask[:, 1:]
    wrong = int(((rows.inputs[:, 1:] != rows.targets[:, :-1]) & following).sum())
    wrong += int((rows.inputs[:, 0] != ends.start_id).sum())
    unended = sum(
        int((_last(ids, kept) != ends.stop_id).sum())
        for ids, kept in ((rows.source, rows.visible), (rows.targets, rows.mask))
    )
    return judge(
        "targets",
        wrong == unended == 0,
        figure=f"{wrong:,} of {int(rows.mask.sum()):,} are not the next input; {unended:,} of {2 * len(rows.source):,}"
        " sources and targets without an end",
        expected="0 and 0",
        reason="if the target is the input itself, the model learns to copy it; without an end, it never stops",
        remedy="inputs are the start, then the targets without their last; sources and targets end with the stop",
    )


def _last(ids: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
    """The last id of each row (B, T) that is no padding."""
    return ids.gather(1, kept.sum(1, keepdim=True) - 1)


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
