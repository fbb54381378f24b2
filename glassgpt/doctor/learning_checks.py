"""Checks that train for a few steps: can the model overfit one batch, and are the updates of a healthy size?"""

from __future__ import annotations

import math
import statistics
import time

from torch import Tensor

from glassgpt.doctor.finding import Finding, judge, skip
from glassgpt.doctor.sight_checks import measure_influence
from glassgpt.doctor.subject import Subject, TextSubject, Trainer
from glassgpt.errors import counted

ROWS, POSITIONS = 2, 16  # of the batch to overfit
MEMORISED_LOSS = 0.1  # nats: every target has a probability of about 0.9
MAX_STEPS = 400
WARMUP_STEPS = 10
RATIO_BATCH = 4, 128  # rows and positions
RATIO_STEPS = 10  # enough for Adam's two moments to settle; the first step is the largest possible
RATIOS = (1e-3, 0.3)  # norm of an update relative to the norm of the freshly initialised matrix


def check_one_batch(subject: Subject, seconds: float = 30.0) -> Finding:
    """Checks that the loss on a few rows gets near zero at the recipe's learning rate, without dropout or decay."""
    name, expected = "one batch by heart", f"below {MEMORISED_LOSS} within {MAX_STEPS} steps"
    if isinstance(subject, TextSubject) and not _sees_the_past(subject):
        return skip(name, "each position of this model sees only its own token, so it cannot memorise a text",
                    expected=expected)  # fmt: skip
    trainer = Trainer(subject.without_dropout(), subject.batch(ROWS, POSITIONS))
    lr = subject.config.optimizer.lr
    deadline = time.perf_counter() + seconds
    first, loss, skipped = math.nan, math.inf, None
    while trainer.steps < MAX_STEPS and loss >= MEMORISED_LOSS and skipped != "non-finite loss":
        if time.perf_counter() > deadline:
            return skip(
                name, f"this device had time for {counted(trainer.steps, 'step')} in {seconds:g} s (loss {loss:.3f}):"
                " try --device, or glassgpt train --overfit-batch", expected=expected,
            )  # fmt: skip
        update = trainer.step(lr * min(1.0, (trainer.steps + 1) / WARMUP_STEPS))
        loss, skipped = update.loss, update.skipped
        first = loss if trainer.steps == 1 else first
    return judge(
        name,
        loss < MEMORISED_LOSS,
        figure=f"loss {first:.2f} → {loss:.4f} in {trainer.steps} steps",
        expected=expected,
        reason=f"{trainer.count_targets()} targets are few enough to memorise; a model that cannot has a"
        " broken path, wrong targets or a wrong learning rate",
        remedy="try another optimizer.lr first; then inspect the other failed checks, the residual path and the norms",
    )


def _sees_the_past(subject: TextSubject) -> bool:
    """Whether the logits at the last position depend on any token before it."""
    n_positions = min(subject.config.model.block_size, POSITIONS)
    influence = measure_influence(subject, [n_positions - 1], n_positions)
    return influence is None or bool(influence[0, :-1].any())


def check_update_ratio(subject: Subject) -> Finding:
    """The size of an update relative to the freshly initialised matrix, |Δw| / |w|, at the recipe's peak learning rate.

    Under Adam no weight moves by much more than the learning rate (Kingma & Ba 2015, section 2.1), so the ratio is
    about the learning rate divided by the standard deviation of the weights. Karpathy's lectures look for 1e-3 or more.
    """
    trainer = Trainer(subject, subject.batch(*RATIO_BATCH))
    lr = subject.config.optimizer.lr
    sizes = {
        name: float(p.detach().norm()) for name, p in _matrices(trainer)
    }  # the initial norms, before a step changes them
    before: dict[str, Tensor] = {}
    for _ in range(RATIO_STEPS):
        before = {name: p.detach().clone() for name, p in _matrices(trainer)}
        trainer.step(lr)
    ratios = {
        name: float((p.detach() - before[name]).norm()) / sizes[name] for name, p in _matrices(trainer) if sizes[name]
    }
    if not ratios:
        return skip("update ratio", "the model has no matrix that is not all zeros")
    low, high = RATIOS
    middle = statistics.median(ratios.values())
    smallest, largest = min(ratios, key=ratios.__getitem__), max(ratios, key=ratios.__getitem__)
    return judge(
        "update ratio",
        low <= middle <= high,
        figure=f"{middle:.2g} (from {ratios[smallest]:.2g} in {smallest} to {ratios[largest]:.2g} in {largest})",
        expected=f"median from {low:g} to {high:g}",
        reason=f"Adam moves every weight by up to the learning rate: at {high:g} a few steps overwrite a matrix, below"
        f" {low:g} even a thousand steps in one direction do not",
        remedy=f"{'raise' if middle < low else 'lower'} optimizer.lr, now {lr:g}",
    )


def _matrices(trainer: Trainer) -> list[tuple[str, Tensor]]:
    return [(name, p) for name, p in trainer.model.named_parameters() if p.dim() >= 2]
