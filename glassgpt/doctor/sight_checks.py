"""Checks of what each position of a fresh model sees: by the gradients of logits with respect to embedded tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from glassgpt.doctor.finding import Finding, judge, skip
from glassgpt.doctor.subject import MaskedSubject, PairSubject, Subject, TextSubject

MOST_POSITIONS = 256  # of the row in which it is checked what a position sees
QUERIES = 4  # positions in that row whose gradient is checked
NOT_EMBEDDED = "the model does not embed its tokens with an nn.Embedding"


def check_no_future(subject: TextSubject) -> Finding:
    """Checks that the gradient of the logits at t with respect to the embeddings of later tokens is exactly zero."""
    queries, n_positions = choose_queries(subject)
    influence = measure_influence(subject, queries, n_positions)
    return _judge_future(influence, queries)


def check_both_sides(subject: MaskedSubject) -> Finding:
    """Checks that the logits at each position have a gradient to the tokens before it and after it."""
    name, expected = "sees both sides", "not 0 to any token"
    queries, n_positions = choose_queries(subject)
    influence = measure_influence(subject.without_dropout(), queries, n_positions)
    if influence is None:
        return skip(name, NOT_EMBEDDED, expected=expected)
    unseen = int((influence == 0).sum())
    return judge(
        name,
        unseen == 0,
        figure=f"smallest gradient {float(influence.min()):.3g}; {unseen:,} of {influence.numel():,} are 0",
        expected=f"{expected} (from {len(queries)} of {n_positions} positions)",
        reason="a hidden token is found from the tokens on both sides of it",
        remedy="an encoder has no causal mask, and its attention has no window: check the mask of each block",
    )


def check_target_future(subject: PairSubject) -> Finding:
    """As `check_no_future`, for the target that the decoder writes."""
    queries, n_positions = choose_queries(subject)
    _, influence = measure_pair_influence(subject, queries, n_positions)
    return _judge_future(influence, queries)


def check_source(subject: PairSubject) -> Finding:
    """Checks that each logit has a gradient to every token of its source, and none to padding."""
    name, expected = "sees its source", "not 0 to any token of the source, exactly 0 to padding"
    queries, n_positions = choose_queries(subject)
    influence, _ = measure_pair_influence(subject.without_dropout(), queries, n_positions)
    if influence is None:
        return skip(name, NOT_EMBEDDED, expected=expected)
    n_visible = count_visible(n_positions)
    seen, padding = influence[:, :n_visible], influence[:, n_visible:]
    unseen, leaks = int((seen == 0).sum()), int((padding != 0).sum())
    return judge(
        name,
        unseen == 0 and leaks == 0,
        figure=f"smallest gradient {float(seen.min()):.3g}; {unseen:,} of {seen.numel():,} are 0"
        + (f"; {leaks:,} to padding are not 0" if leaks else ""),
        expected=expected,
        reason="the target is written from the whole source; what stands behind its end has no meaning",
        remedy="padding is seen: pass `visible` to the encoder and to cross-attention"
        if leaks
        else "check cross-attention: its keys and values come from the encoder, which has no causal mask",
    )


def choose_queries(subject: Subject) -> tuple[list[int], int]:
    """The positions whose logits are examined, and the length of their row."""
    n_positions = min(subject.config.model.block_size, MOST_POSITIONS)
    return sorted({i * (n_positions - 1) // QUERIES for i in range(QUERIES)}), n_positions


def count_visible(n_positions: int) -> int:
    """How many tokens of the source are no padding, in `measure_pair_influence`: three of four, at least one."""
    return -(-3 * n_positions // 4)


def measure_influence(subject: Subject, queries: list[int], n_positions: int) -> Tensor | None:
    """Largest |gradient| of the logits at each query with respect to each embedded token, (queries, positions).

    None if no token embedding is found. The model is in training mode, because some leaks occur only there.
    """
    model, generator = _stirred(subject), _generator(subject)
    tokens = _draw(subject, len(queries), n_positions, generator)
    (influence,) = _gradients(model, [tokens], lambda: model.features(tokens), queries, generator)
    return influence


def measure_pair_influence(
    subject: PairSubject, queries: list[int], n_positions: int
) -> tuple[Tensor | None, Tensor | None]:
    """As `measure_influence`, first with respect to the tokens of the source, then to those of the target.

    The last quarter of the source is padding.
    """
    model, generator = _stirred(subject), _generator(subject)
    source, target = (_draw(subject, len(queries), n_positions, generator) for _ in range(2))
    visible = torch.arange(n_positions, device=source.device).expand_as(source) < count_visible(n_positions)

    def features() -> Tensor:
        found: Tensor = model.features(target, model.encode(source, visible=visible), visible=visible)
        return found

    influences = _gradients(model, [source, target], features, queries, generator)
    return influences[0], influences[1]


def _judge_future(influence: Tensor | None, queries: list[int]) -> Finding:
    if influence is None:
        return skip("no view of the future", NOT_EMBEDDED)
    n_positions = influence.size(1)
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


def _stirred(subject: Subject) -> Any:
    """A fresh model in training mode. What starts at zero is drawn anew, because it would hide the paths behind it."""
    model = subject.build().train()
    for parameter in model.parameters():
        if parameter.dim() > 1 and not bool(parameter.any()):
            nn.init.normal_(parameter, std=0.02)
    return model


def _generator(subject: Subject) -> torch.Generator:
    return torch.Generator().manual_seed(subject.config.training.seed)


def _draw(subject: Subject, rows: int, n_positions: int, generator: torch.Generator) -> Tensor:
    tokens = torch.randint(subject.tokenizer.vocab_size, (rows, n_positions), generator=generator)
    return tokens.to(subject.runtime.device)


def _gradients(
    model: Any, inputs: Sequence[Tensor], features: Callable[[], Tensor], queries: list[int], generator: torch.Generator
) -> list[Tensor | None]:
    """Largest |gradient| of the logits at query i of row i with respect to each embedded token of row i.

    For each of the `inputs` (queries, positions) its own, in the same shape; None for one that is not embedded.
    """
    embedded: list[list[Tensor]] = [[] for _ in inputs]

    def keep(module: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> Tensor | None:
        for tokens, found in zip(inputs, embedded, strict=True):
            if arguments[0].shape == tokens.shape and torch.equal(arguments[0], tokens):
                found.append(output.detach().requires_grad_())
                return found[-1]
        return None  # another embedding, such as that of positions

    for module in model.modules():
        if isinstance(module, nn.Embedding):
            module.register_forward_hook(keep)
    rows = torch.arange(len(queries))
    logits = model.head(features()[rows, queries])  # (queries, V)
    if not any(embedded):
        return [None for _ in inputs]
    weights = torch.randn(logits.shape, generator=generator).to(logits.device)
    (logits * weights).sum().backward()  # row i depends on query i only
    return [_largest(found) for found in embedded]


def _largest(embedded: Sequence[Tensor]) -> Tensor | None:
    """The largest |gradient| over the channels and over all embeddings of the same tokens, (rows, positions)."""
    if not embedded:
        return None
    gradients = [torch.zeros_like(x) if x.grad is None else x.grad for x in embedded]
    return torch.stack([gradient.abs().amax(dim=-1) for gradient in gradients]).amax(dim=0).cpu()
