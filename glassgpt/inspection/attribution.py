"""Direct logit attribution: how much each part of the model adds to a logit.

The residual stream is a sum: of the embeddings and of what each head and MLP added. The head is linear, and so is the
final norm once its scale is kept at the value that it has on this text. So a logit is the sum of what the parts give to
it (Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits").

This is the direct effect only. A head that helps a later head gets no credit here; `ablation` measures that too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from glassgpt.errors import UserError
from glassgpt.inspection.lens import final_norm, streams
from glassgpt.inspection.taps import parts
from glassgpt.inspection.trace import Trace, check_position


@dataclass(frozen=True)
class Attribution:
    """The parts of a logit, or of the difference of two logits, in order of computation. They add up to `total`.

    Heads and MLPs have the names by which `edit` switches them off: `blocks.2.head.5`, `blocks.2.mlp`. The others are
    `token_embedding`, `position_embedding`, `blocks.2.attn.bias`, `norm.bias` and `head.bias`, where the model has
    them.
    """

    parts: list[tuple[str, float]]
    total: float  # from the model's own logits


def attribute(trace: Trace, position: int, token: int, against: int | None = None) -> Attribution:
    """The parts of the logit of `token` at a position; with `against`, of its difference from the logit of that token.

    A difference is often the better question: what all logits have in common does not change the prediction.

    The trace must have what `trace` captures by default, or `attn.result` in place of `attn.out`. Raises UserError for
    a position or token that does not exist, and for a model whose stream is not the sum of its parts: sections 1 and 3
    to 7 of the ladder, where a block replaces the stream, and a model that was traced inside `edit`.
    """
    check_position(trace, position)
    vocab_size = trace.logits.size(-1)
    for id in (token, against):
        if id is not None and not 0 <= id < vocab_size:
            raise UserError(f"there is no token {id}: the model's vocabulary has {vocab_size:,} ids")
    logits = _exact(trace.logits[0, position])
    total = float(logits[token] - (0.0 if against is None else logits[against]))
    stream = streams(trace)[-1][0, position]
    vectors = [(name, _exact(vector)) for name, vector in _vectors(trace, position)]
    _check_sum([vector for _, vector in vectors], stream)
    direction, head_bias = _read_out(trace, token, against)
    scaled, norm_bias = _through_norm(final_norm(trace.model), _exact(stream), direction)
    found = [(name, float(vector @ scaled)) for name, vector in vectors]
    found += [] if norm_bias is None else [("norm.bias", norm_bias)]
    found += [] if head_bias is None else [("head.bias", head_bias)]
    return Attribution(found, total)


def _vectors(trace: Trace, position: int) -> Iterator[tuple[str, Tensor]]:
    """What was added to the residual stream at a position: vectors (C,) by name."""
    model: Any = trace.model
    for name, row in (("token_embedding", trace.ids[position]), ("position_embedding", position)):
        embedding = getattr(model, name, None)
        if isinstance(embedding, nn.Embedding):
            yield name, embedding.weight[row]
    for n, part in enumerate(parts(model)):
        if part.attn is not None and part.inner is not None:
            proj: nn.Linear | None = getattr(part.attn, "proj", None)
            for head, result in enumerate(_results(trace, n, position, proj)):
                yield f"blocks.{n}.head.{head}", result
            if proj is not None and proj.bias is not None:
                yield f"blocks.{n}.attn.bias", proj.bias
        if part.mlp is not None:
            yield f"blocks.{n}.mlp", trace[f"blocks.{n}.mlp.out"][0, position]


def _results(trace: Trace, n: int, position: int, proj: nn.Linear | None) -> Tensor:
    """What each head of block n adds to the stream at a position, (H, C)."""
    if (name := f"blocks.{n}.attn.result") in trace.activations:
        return trace[name][0, :, position]
    outputs = trace[f"blocks.{n}.attn.out"][0, :, position]  # (H, D)
    if proj is None:  # the one head of section 4 writes into the stream itself
        return outputs
    return torch.einsum("hd,chd->hc", outputs, proj.weight.unflatten(-1, outputs.shape))


def _exact(value: Tensor) -> Tensor:
    """On the CPU in float64, which not every device has, so that the sums are not a matter of rounding."""
    return value.detach().cpu().double()


def _check_sum(vectors: list[Tensor], stream: Tensor) -> None:
    """Raises UserError unless the vectors add up to the stream, as far as its number format can tell."""
    missing = _exact(stream) - sum(vectors, torch.zeros(len(stream), dtype=torch.double))
    if not vectors or missing.norm() > torch.finfo(stream.dtype).eps ** 0.5 * _exact(stream).norm():
        raise UserError(
            "the residual stream of this model is not the sum of what its parts add: attribution needs a model whose"
            " blocks add to the stream (section 8 of the ladder and later), traced outside of `edit`"
        )


def _read_out(trace: Trace, token: int, against: int | None) -> tuple[Tensor, float | None]:
    """The direction (C,) whose product with the features is the logit (or difference), and its bias if there is one.

    The head may be a module or a method, so both are found from what it computes: it is affine.
    """
    features = torch.zeros_like(trace["final"][0, 0], requires_grad=True)
    with torch.enable_grad():
        logits = trace.model.head(features)
        value = logits[token] if against is None else logits[token] - logits[against]
        (direction,) = torch.autograd.grad(value, features)
    has_bias = getattr(trace.model.head, "bias", None) is not None
    return _exact(direction), float(value.detach()) if has_bias else None


def _through_norm(norm: nn.Module, stream: Tensor, direction: Tensor) -> tuple[Tensor, float | None]:
    """The direction as it reads the stream before the norm, whose scale is kept, and what the norm's bias gives.

    LayerNorm computes (x - mean(x)) / σ · weight + bias. Subtracting the mean is linear: it can act on the direction.
    """
    if isinstance(norm, nn.Identity):
        return direction, None
    if not isinstance(norm, nn.LayerNorm):
        raise UserError(f"attribution through a {type(norm).__name__} is not known: the final norm must be a LayerNorm")
    bias = None if norm.bias is None else float(_exact(norm.bias) @ direction)
    scaled = direction if norm.weight is None else direction * _exact(norm.weight)
    return (scaled - scaled.mean()) / (stream.var(unbiased=False) + norm.eps).sqrt(), bias
