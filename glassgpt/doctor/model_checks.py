"""Checks of a freshly initialised model: initial loss, gradients and numerical precision."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn

from glassgpt.doctor.finding import Finding, judge
from glassgpt.doctor.subject import PairSubject, Subject, Trainer
from glassgpt.training.losses import MicroBatch

ROWS, POSITIONS = 4, 128  # of the batch: the mean loss of 512 targets is accurate to about 0.03
TOLERANCE = 0.5  # nats around ln V
MOST_OF_PAIRS = 1.5  # nats above it: T5 begins with logits of std 1, of which that of the last token is the largest
GRADIENT_STEPS = 3  # a projection initialised to zero passes gradients on only from the second step
SIMILAR = 0.99  # cosine of the gradients of two precisions


def check_initial_loss(subject: Subject) -> Finding:
    """Compares the initial loss with that of a uniform guess, ln V."""
    vocab_size = subject.config.model.vocab_size
    uniform = math.log(vocab_size)
    most = MOST_OF_PAIRS if isinstance(subject, PairSubject) else TOLERANCE
    batch = subject.batch(ROWS, POSITIONS)
    loss = _loss(subject, subject.build().eval(), batch)
    return judge(
        "initial loss",
        -TOLERANCE <= loss - uniform <= most,
        figure=f"{loss:.3f}",
        expected=f"{uniform - TOLERANCE:.3f} to {uniform + most:.3f} (around {uniform:.3f}, ln of {vocab_size:,} ids)",
        reason="an untrained model should predict all ids with about equal probability; logits with standard deviation"
        " s add about s²/2 to the loss",
        remedy="above: the initial logits are too large, lower the scale of the initial weights (0.02 in GPT-2);"
        " below: the model sees its targets, check them and the attention mask",
    )


def check_gradients(subject: Subject) -> Finding:
    """Checks that every parameter gets a finite, non-zero gradient within the first steps."""
    trainer = Trainer(subject, subject.batch(ROWS, POSITIONS))
    parameters = dict(trainer.model.named_parameters())
    silent, broken = set(parameters), set[str]()
    for _ in range(GRADIENT_STEPS):
        trainer.step(subject.config.optimizer.lr)
        for name, parameter in parameters.items():
            if parameter.grad is not None:
                if not bool(parameter.grad.isfinite().all()):
                    broken.add(name)
                elif bool(parameter.grad.any()):
                    silent.discard(name)
    silent -= broken
    found = [*(f"{name} not finite" for name in sorted(broken)), *(f"{name} none" for name in sorted(silent))]
    return judge(
        "gradients",
        not found,
        figure=f"{len(parameters) - len(found)} of {len(parameters)} parameters"
        + (f": {', '.join(found[:3])}{', …' if len(found) > 3 else ''}" if found else ""),
        expected="finite and not zero, for each",
        reason=f"a parameter without gradient in {GRADIENT_STEPS} steps is frozen, unused or cut off: it never learns",
        remedy="not finite: --dtype float32 or a lower optimizer.lr; none: use the parameter in forward, or remove it",
    )


def check_precision(subject: Subject) -> Finding:
    """Compares loss and gradient in the chosen precision with those in float32, for the same weights and batch."""
    precision = subject.runtime.precision
    expected = f"loss within 1%, cosine of the gradients above {SIMILAR}"
    if precision == "float32":
        return judge(
            "precision", True, figure="float32", expected=expected,
            reason="float32 is the reference for the other precisions", remedy="",
        )  # fmt: skip
    subject = subject.without_dropout()
    batch = subject.batch(ROWS, POSITIONS)
    with _full_float32_matmul():
        exact, exact_gradient = _loss_and_gradient(
            replace(subject, runtime=replace(subject.runtime, precision="float32")), batch
        )
    loss, gradient = _loss_and_gradient(subject, batch)
    cosine = float(torch.nn.functional.cosine_similarity(gradient, exact_gradient, dim=0))
    difference = abs(loss - exact) / exact
    return judge(
        "precision",
        difference <= 0.01 and cosine >= SIMILAR,  # both comparisons are false for NaN
        figure=f"{precision}: loss {difference:.2%} off, cosine {cosine:.4f}",
        expected=expected,
        reason="rounding may add noise to a step but must not change its direction; overflow loses the step",
        remedy="--dtype float32, or bfloat16 in place of float16, whose largest number is 65,504",
    )


def _loss(subject: Subject, model: nn.Module, batch: MicroBatch) -> float:
    with torch.no_grad(), subject.runtime.autocast():
        loss = subject.loss_function(model, batch)
    return float(loss.sum) / float(loss.weight)


def _loss_and_gradient(subject: Subject, batch: MicroBatch) -> tuple[float, Tensor]:
    """Mean loss, and the gradient of all parameters as one vector; the loss scale is halved until nothing overflows."""
    model = subject.build().train()
    scale = subject.runtime.build_scaler().get_scale() if subject.runtime.precision == "float16" else 1.0
    while True:
        model.zero_grad()
        with subject.runtime.autocast():
            loss = subject.loss_function(model, batch)
        mean = loss.sum / loss.weight
        (mean * scale).backward()
        gradients = [p.grad.flatten().float() for p in model.parameters() if p.grad is not None]
        vector = torch.cat(gradients) / scale
        if scale <= 1.0 or bool(vector.isfinite().all()) or not bool(mean.isfinite()):
            return float(mean.detach()), vector
        scale /= 2


@contextmanager
def _full_float32_matmul() -> Iterator[None]:
    """Computes float32 matrix products in full precision, even if the precision is tf32."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
