"""Checks of a freshly initialised model: initial loss, causality, gradients and numerical precision."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from glassgpt.doctor.finding import Finding, judge, skip
from glassgpt.doctor.subject import Subject, Trainer
from glassgpt.training.losses import Batch

ROWS, POSITIONS = 4, 128  # of the batch: the mean loss of 512 targets is accurate to about 0.03
TOLERANCE = 0.5  # nats around ln V
SEEN_POSITIONS = 256  # of the row in which no position may depend on a later one
QUERIES = 4  # positions in that row whose gradient is checked
GRADIENT_STEPS = 3  # a projection initialised to zero passes gradients on only from the second step
SIMILAR = 0.99  # cosine of the gradients of two precisions


def check_initial_loss(subject: Subject) -> Finding:
    """Compares the initial loss with that of a uniform guess, ln V."""
    vocab_size = subject.config.model.vocab_size
    uniform = math.log(vocab_size)
    batch = subject.batch(ROWS, POSITIONS)
    loss = _loss(subject, subject.build().eval(), batch)
    return judge(
        "initial loss",
        abs(loss - uniform) <= TOLERANCE,
        figure=f"{loss:.3f}",
        expected=f"{uniform:.3f} ± {TOLERANCE} (ln of {vocab_size:,} ids)",
        reason="an untrained model should predict all ids with about equal probability; logits with standard deviation"
        " s add about s²/2 to the loss",
        remedy="above: the initial logits are too large, lower the scale of the initial weights (0.02 in GPT-2);"
        " below: the model sees its targets, check them and the attention mask",
    )


def check_no_future(subject: Subject) -> Finding:
    """Checks that the gradient of the logits at t with respect to the embeddings of later tokens is exactly zero."""
    n_positions = min(subject.config.model.block_size, SEEN_POSITIONS)
    queries = sorted({i * (n_positions - 1) // QUERIES for i in range(QUERIES)})
    influence = measure_influence(subject, queries, n_positions)
    if influence is None:
        return skip("no view of the future", "the model does not embed its tokens with an nn.Embedding")
    future = [
        float(row[query + 1 :].max()) if query + 1 < n_positions else 0.0
        for query, row in zip(queries, influence, strict=True)
    ]
    present = [float(row[query]) for query, row in zip(queries, influence, strict=True)]
    disconnected = min(present) == 0
    return judge(
        "no view of the future",
        max(future) == 0 and not disconnected,
        figure="a logit has no gradient to its own token"
        if disconnected
        else f"largest gradient to a later token {max(future):.3g}",
        expected=f"exactly 0 (from {len(queries)} of {n_positions} positions)",
        reason="a position that sees later tokens copies its target, and generates nonsense when there is none to copy",
        remedy="a token that reaches no logit: check the path from the embedding to the head"
        if disconnected
        else "mask attention to later positions, and do not mix positions elsewhere (no norm over a row or a batch)",
    )


def measure_influence(subject: Subject, queries: list[int], n_positions: int) -> Tensor | None:
    """Largest |gradient| of the logits at each query with respect to each embedded token, (queries, positions).

    None if no token embedding is found. The model is in training mode, because some leaks occur only there.
    """
    model = subject.build().train()
    for parameter in model.parameters():  # what starts at zero would hide the paths behind it
        if parameter.dim() > 1 and not bool(parameter.any()):
            nn.init.normal_(parameter, std=0.02)
    generator = torch.Generator().manual_seed(subject.config.training.seed)
    tokens = torch.randint(subject.tokenizer.vocab_size, (len(queries), n_positions), generator=generator)
    tokens = tokens.to(subject.runtime.device)
    embedded: list[Tensor] = []

    def keep(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor | None:
        if inputs[0].shape != tokens.shape or not torch.equal(inputs[0], tokens):
            return None  # not the token embedding
        embedded.append(output.detach().requires_grad_())
        return embedded[-1]

    for module in model.modules():
        if isinstance(module, nn.Embedding):
            module.register_forward_hook(keep)
    features = model.features(tokens)
    logits = model.head(features[torch.arange(len(queries)), queries])  # (queries, V)
    if not embedded:
        return None
    weights = torch.randn(logits.shape, generator=generator).to(logits.device)
    (logits * weights).sum().backward()  # row i depends on query i only
    gradients = [torch.zeros_like(x) if x.grad is None else x.grad for x in embedded]
    return torch.stack([gradient.abs().amax(dim=-1) for gradient in gradients]).amax(dim=0).cpu()


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


def _loss(subject: Subject, model: nn.Module, batch: Batch) -> float:
    with torch.no_grad(), subject.runtime.autocast():
        loss = subject.loss_function(model, batch)
    return float(loss.sum) / float(loss.weight)


def _loss_and_gradient(subject: Subject, batch: Batch) -> tuple[float, Tensor]:
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
