"""Which tokens have similar embeddings, and a map of them in two dimensions.

Shapes: V = vocab_size, C = n_embd, n tokens, k neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glassgpt.errors import UserError, counted
from glassgpt.inspection.ids import checked_ids
from glassgpt.models import Model


@dataclass(frozen=True)
class Neighbours:
    """The ids whose embeddings point in the most similar direction, the nearest first. Tensors are on the CPU."""

    ids: Tensor  # (k,) int64
    similarities: Tensor  # (k,) float32: cosine of the angle, from -1 to 1


@dataclass(frozen=True)
class EmbeddingMap:
    """Embeddings in two dimensions. `shares` says how much of their variance the map shows. Tensors are on the CPU."""

    points: Tensor  # (n, 2) float32, in the units of the embedding, around (0, 0)
    shares: Tensor  # (2,) float32: the part of the variance along each axis, from 0 to 1


@torch.no_grad()
def neighbours(model: Model, id: int, k: int = 10) -> Neighbours:
    """The `k` other ids with the highest cosine similarity to the embedding of `id`, or all if there are fewer.

    Rows that only pad the embedding take no part. An embedding of zeros has similarity 0 to all.
    Raises UserError for a model without a token embedding, an id outside its vocabulary, or `k` below 1.
    """
    if k < 1:
        raise UserError(f"k = {k} is out of range: it must be at least 1")
    rows = F.normalize(_embeddings(model).float(), dim=-1)
    chosen = checked_ids(model, [id])
    similarities = (rows @ rows[chosen[0]]).index_fill(0, chosen, -torch.inf)  # never its own neighbour
    nearest = similarities.topk(min(k, len(rows) - 1))
    return Neighbours(nearest.indices.cpu(), nearest.values.cpu())


@torch.no_grad()
def embedding_map(model: Model, ids: Sequence[int] | Tensor | None = None) -> EmbeddingMap:
    """The embeddings of the ids, by default of the whole vocabulary, on their first two principal components.

    A principal component is determined up to its sign; here the point farthest along it is on the positive side. An
    axis along which the embeddings do not differ is 0: with one id both, with two ids the second.
    Raises UserError for a model without a token embedding, no ids, or an id outside its vocabulary.
    """
    rows = _embeddings(model)
    if ids is not None:
        if len(ids) == 0:
            raise UserError("there are no tokens to put on the map: give at least one id")
        rows = rows[checked_ids(model, ids)]
    x = rows.cpu().double()  # in double precision, because the squares in the covariance lose half of the digits
    x = x - x.mean(dim=0)
    variances, directions = torch.linalg.eigh(x.T @ x)  # ascending
    total = variances.clamp(min=0.0).sum()
    shares = (variances / total).flip(0)[:2] if total > 0 else torch.zeros(2)
    points = (x @ directions).flip(1)[:, :2]
    farthest = points.gather(0, points.abs().argmax(dim=0, keepdim=True))
    points = points * farthest.sign()
    missing = 2 - points.size(1)  # an embedding of one channel has one component
    return EmbeddingMap(F.pad(points, (0, missing)).float(), F.pad(shares, (0, 2 - len(shares))).float())


def _embeddings(model: Model) -> Tensor:
    """The token embedding without its padding rows, (V, C)."""
    found = getattr(model, "token_embedding", None)
    if not isinstance(found, nn.Embedding):
        raise UserError(
            f"this model has no token embedding: its {counted(model.config.vocab_size, 'token')} have no vectors"
            " to compare"
        )
    return found.weight.detach()[: model.config.vocab_size]
