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
from glassgpt.inspection.neurons import check_neuron
from glassgpt.inspection.taps import Part, parts
from glassgpt.inspection.trace import Trace, check_position


@dataclass(frozen=True)
class Attribution:
    """The parts of a logit, or of the difference of two logits, in order of computation. They add up to `total`.

    Heads and MLPs have the names by which `edit` switches them off: `blocks.2.head.5`, `blocks.2.mlp`. The others are
    `token_embedding`, `position_embedding`, `ngram_embeddings`, `blocks.2.attn.bias`, `norm.bias` and `head.bias`,
    where the model has them.
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
    vectors = [(name, _exact(vector)) for name, vector in _vectors(trace, position)]
    stream = _sum_of([vector for _, vector in vectors], trace, position)
    direction, head_bias = _read_out(trace, token, against)
    scaled, norm_bias = _through_norm(final_norm(trace), stream, direction)
    found = [(name, float(vector @ scaled)) for name, vector in vectors]
    found += [] if norm_bias is None else [("norm.bias", norm_bias)]
    found += [] if head_bias is None else [("head.bias", head_bias)]
    return Attribution(found, total)


@torch.no_grad()
def attribute_neuron(trace: Trace, layer: int, neuron: int, position: int) -> Tensor:
    """What a neuron of an MLP adds directly to each logit at a position: (V,) float32 on the CPU.

    It is the neuron's activation times its column of the MLP's last matrix, on the way through the final norm and the
    head. Those of all neurons and of the bias of that matrix add up to the part `blocks.N.mlp` of `attribute`.

    Beside what `attribute` needs, the trace must have `blocks.N.mlp.hidden` of that block. Raises UserError for a
    neuron or position that does not exist, and for a model for which `attribute` raises it.
    """
    check_neuron(trace.model, layer, neuron)
    check_position(trace, position)
    stream = _sum_of([_exact(vector) for _, vector in _vectors(trace, position)], trace, position)
    mlp: Any = parts(trace.model)[layer].mlp
    added = _exact(trace[f"blocks.{layer}.mlp.hidden"][0, position, neuron]) * _exact(mlp.down.weight[:, neuron])
    norm: Any = final_norm(trace)
    if (scale := _scale(norm, stream)) is not None:
        added = _centred(norm, added) / scale
        added = added if norm.weight is None else added * _exact(norm.weight)
    features = trace["final"][0, position]
    logits: Tensor = trace.model.head(torch.stack([added.to(features), torch.zeros_like(features)]))  # it is affine
    return (logits[0] - logits[1]).float().cpu()


def _vectors(trace: Trace, position: int) -> Iterator[tuple[str, Tensor]]:
    """What was added to the residual stream at a position: vectors (C,) by name."""
    model: Any = trace.model
    for name, row in (("token_embedding", trace.ids[position]), ("position_embedding", position)):
        embedding = getattr(model, name, None)
        if isinstance(embedding, nn.Embedding):
            yield name, embedding.weight[row]
    if getattr(model, "ngram_embeddings", None):  # the rest of the embedding
        yield "ngram_embeddings", trace["embed"][0, position] - model.token_embedding.weight[trace.ids[position]]
    for n, part in enumerate(parts(model)):
        if part.attn is not None and part.inner is not None:
            for head, result in enumerate(_results(trace, n, position, part)):
                yield f"blocks.{n}.head.{head}", result
            if part.proj is not None and part.proj.bias is not None:
                yield f"blocks.{n}.attn.bias", part.proj.bias
        if part.mlp is not None:
            yield f"blocks.{n}.mlp", trace[f"blocks.{n}.mlp.out"][0, position]


def _results(trace: Trace, n: int, position: int, part: Part) -> Tensor:
    """What each head of block n adds to the stream at a position, (H, C)."""
    if (name := f"blocks.{n}.attn.result") in trace.activations:
        return trace[name][0, :, position]
    outputs = trace[f"blocks.{n}.attn.out"][0, :, position]  # (H, D)
    if part.proj is None and part.n_head > 1:
        raise UserError(f"the attention of block {n} has no linear layer `proj`, so what each head adds is not known")
    if part.proj is None:  # the one head of section 4 writes into the stream itself
        return outputs
    return torch.einsum("hd,chd->hc", outputs, part.proj.weight.unflatten(-1, outputs.shape))


def _exact(value: Tensor) -> Tensor:
    """On the CPU in float64, which not every device has, so that the sums are not a matter of rounding."""
    return value.detach().cpu().double()


def _sum_of(vectors: list[Tensor], trace: Trace, position: int) -> Tensor:
    """The last residual stream (C,) at a position. Raises UserError unless the vectors add up to it.

    They must do so as far as its number format can tell.
    """
    stream = streams(trace)[-1][0, position]
    missing = _exact(stream) - sum(vectors, torch.zeros(len(stream), dtype=torch.double))
    if not vectors or missing.norm() > torch.finfo(stream.dtype).eps ** 0.5 * _exact(stream).norm():
        raise UserError(
            "the residual stream of this model is not the sum of what its parts add: attribution needs a model whose"
            " blocks add to the stream (section 8 of the ladder and later) and in which nothing is switched off"
        )
    return _exact(stream)


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


def _through_norm(norm: Any, stream: Tensor, direction: Tensor) -> tuple[Tensor, float | None]:
    """The direction as it reads the stream before the norm, whose scale is kept, and what the norm's bias gives.

    LayerNorm computes (x - mean(x)) / σ · weight + bias. Subtracting the mean is linear: it can act on the direction.
    RMSNorm computes x / √(mean(x²)) · weight.
    """
    scale = _scale(norm, stream)
    if scale is None:
        return direction, None
    bias = getattr(norm, "bias", None)  # RMSNorm has none
    scaled = direction if norm.weight is None else direction * _exact(norm.weight)
    return _centred(norm, scaled) / scale, None if bias is None else float(_exact(bias) @ direction)


def _centred(norm: Any, vector: Tensor) -> Tensor:
    """What LayerNorm makes of a vector before it scales; RMSNorm leaves the mean as it is."""
    return vector - vector.mean() if isinstance(norm, nn.LayerNorm) else vector


def _scale(norm: Any, stream: Tensor) -> Tensor | None:
    """By what the final norm divides this stream; None without a norm. Raises UserError for an unknown norm."""
    if isinstance(norm, nn.Identity):
        return None
    if isinstance(norm, nn.LayerNorm):
        return (stream.var(unbiased=False) + norm.eps).sqrt()
    if isinstance(norm, nn.RMSNorm):
        return (stream.square().mean() + (torch.finfo(stream.dtype).eps if norm.eps is None else norm.eps)).sqrt()
    raise UserError(
        f"attribution through a {type(norm).__name__} is not known: the final norm must be a LayerNorm or an RMSNorm"
    )
