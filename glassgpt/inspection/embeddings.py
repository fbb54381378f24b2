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

TINY = 1e-12  # the length of a row of zeros, to divide by


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
    rows = _embeddings(model).float()
    chosen = checked_ids(model, [id])
    lengths = rows.norm(dim=-1).clamp(min=TINY)
    similarities = rows @ (rows[chosen[0]] / lengths[chosen]) / lengths  # without a normalised copy of all rows
    similarities = similarities.index_fill(0, chosen, -torch.inf)  # never its own neighbour
    nearest = similarities.topk(min(k, len(rows) - 1))
    return Neighbours(nearest.indices.cpu(), nearest.values.cpu())


@torch.no_grad()
def embedding_map(
    model: Model, ids: Sequence[int] | Tensor | None = None, *, axes_of: Model | None = None
) -> EmbeddingMap:
    """The embeddings of the ids, by default of the whole vocabulary, on their first two principal components.

    With `axes_of`, another checkpoint of the same model, the axes are the principal components of its embeddings: on
    the same axes, the maps of several checkpoints can be compared. Each map is centred on its own mean.

    A principal component is determined up to its sign; here the point farthest along it is on the positive side. An
    axis along which the embeddings do not differ is 0: with one id both, with two ids the second.
    Raises UserError for a model without a token embedding, no ids, an id outside its vocabulary, or an `axes_of` with
    embeddings of another width.
    """
    x = _centred(model, ids)
    other = x if axes_of is None else _centred(axes_of, ids)
    if other.size(1) != x.size(1):
        raise UserError(
            f"the axes are of embeddings with {counted(other.size(1), 'channel')}, and this model has {x.size(1)}:"
            " take the axes of a checkpoint of the same run"
        )
    points = x @ _principal_axes(other)
    total = x.square().sum()
    shares = points.square().sum(dim=0) / total if total > 0 else torch.zeros(2)
    return EmbeddingMap(points.float(), shares.float())


def _centred(model: Model, ids: Sequence[int] | Tensor | None) -> Tensor:
    """The embeddings of the ids minus their mean, (n, C), in double precision because a covariance squares them."""
    rows = _embeddings(model)
    if ids is not None:
        if len(ids) == 0:
            raise UserError("there are no tokens to put on the map: give at least one id")
        rows = rows[checked_ids(model, ids)]
    x = rows.cpu().double()
    return x - x.mean(dim=0)


def _principal_axes(x: Tensor) -> Tensor:
    """The first two principal components of centred rows (n, C), as the columns of (C, 2); one that is missing is 0."""
    if len(x) < x.size(1):  # a few rows: about ten times as fast as their covariance (C, C)
        directions = torch.linalg.svd(x, full_matrices=False).Vh.T[:, :2]
    else:
        ascending = torch.linalg.eigh(x.T @ x).eigenvectors
        directions = ascending.flip(1)[:, :2]
    points = x @ directions
    farthest = points.gather(0, points.abs().argmax(dim=0, keepdim=True))
    return F.pad(directions * farthest.sign(), (0, 2 - directions.size(1)))  # one row or one channel has one component


def _embeddings(model: Model) -> Tensor:
    """The token embedding without its padding rows, (V, C)."""
    found = getattr(model, "token_embedding", None)
    if not isinstance(found, nn.Embedding):
        raise UserError(
            f"this model has no token embedding: its {counted(model.config.vocab_size, 'token')} have no vectors"
            " to compare"
        )
    return found.weight.detach()[: model.config.vocab_size]
