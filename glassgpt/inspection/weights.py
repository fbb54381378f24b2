"""The weights of one attention head, and how many directions it reads and writes.

A head's weights act in two pairs (Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits"). Two inputs
x and y of attention have the score xᵀ (W_Qᵀ W_K) y / √D, apart from biases: this product says whom the head hears. What
it adds to the stream for an input y that it hears is (W_O W_V) y: this product says what it passes on. If queries and
keys are normalised and turned by their positions, the first product is the one before that.

Shapes: C = n_embd, D head size, H heads.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from glassgpt.errors import UserError, counted
from glassgpt.inspection.taps import parts
from glassgpt.models import Model


@dataclass(frozen=True)
class HeadWeights:
    """The matrices of one head, views of the model's weights. Biases are left out."""

    q: Tensor  # (D, C), W_Q: an input of attention to its query
    k: Tensor  # (D, C), W_K
    v: Tensor  # (D, C), W_V
    o: Tensor | None  # (C, D), W_O: the head's output to the stream; None if the output is the stream (section 4)


@dataclass(frozen=True)
class SingularValues:
    """The D largest singular values of a head's two C×C products, the largest first. All others are 0: the rank is D.

    Few large ones mean that the head compares, or passes on, few directions of its input. float32 on the CPU.
    """

    qk: Tensor  # (D,), of W_Qᵀ W_K
    ov: Tensor  # (D,), of W_O W_V; of W_V alone for a head without W_O


def head_weights(model: Model, layer: int, head: int) -> HeadWeights:
    """The weights of head `head` in block `layer`, both counted from 0.

    Raises UserError if the model has no such head.
    """
    blocks = parts(model)
    attn = blocks[layer].attn if 0 <= layer < len(blocks) else None
    if not any(block.attn for block in blocks):
        raise UserError("this model has no attention, so it has no heads")
    if attn is None:
        raise UserError(
            f"there is no attention in block {layer}: this model has {counted(len(blocks), 'block')}, counted from 0"
        )
    H = blocks[layer].n_head
    if not 0 <= head < H:
        raise UserError(f"there is no head {head} in block {layer}: it has {counted(H, 'head')}, counted from 0")
    if H == 1 and hasattr(attn, "query"):  # the one head of section 4
        return HeadWeights(_weight(attn, "query"), _weight(attn, "key"), _weight(attn, "value"), None)
    qkv, proj = getattr(attn, "qkv", None), blocks[layer].proj
    if proj is not None and all(isinstance(getattr(attn, name, None), nn.Linear) for name in "qkv"):
        q, k, v = (_weight(attn, name).unflatten(0, (-1, proj.in_features // H)) for name in "qkv")  # (heads, D, C)
        shared = head // (len(q) // len(k))  # the key/value head of this query head (grouped queries)
        return HeadWeights(q[head], k[shared], v[shared], proj.weight.detach().unflatten(-1, (H, -1))[:, head])
    if not isinstance(qkv, nn.Linear) or qkv.out_features != 3 * model.config.n_embd or proj is None:
        raise UserError(
            "the weights of single heads are known only where attention has linear layers `q`, `k` and `v`, or one"
            " `qkv` with as many keys and values as queries, and `proj`"
        )
    # The rows are those of the heads of q, then of k, then of v.
    q, k, v = qkv.weight.detach().view(3, H, -1, model.config.n_embd)[:, head]
    return HeadWeights(q, k, v, proj.weight.detach().unflatten(-1, (H, -1))[:, head])


def singular_values(model: Model, layer: int, head: int) -> SingularValues:
    """The singular values of W_Qᵀ W_K and W_O W_V of head `head` in block `layer`, both counted from 0.

    They come from the small factors: with Aᵀ = Q R and B = Q' R', those of A B are those of the D×D product of the
    triangles. Raises UserError if the model has no such head.
    """
    weights = head_weights(model, layer, head)
    q, k, v = (part.cpu().double() for part in (weights.q, weights.k, weights.v))
    ov = torch.linalg.svdvals(v) if weights.o is None else _of_product(weights.o.cpu().double(), v)
    return SingularValues(_of_product(q.T, k).float(), ov.float())


def _of_product(left: Tensor, right: Tensor) -> Tensor:
    """The first D singular values of left (C, D) @ right (D, C)."""
    a = torch.linalg.qr(left, mode="r").R
    b = torch.linalg.qr(right.T, mode="r").R
    return torch.linalg.svdvals(a @ b.T)


def _weight(attn: nn.Module, name: str) -> Tensor:
    return attn.get_submodule(name).get_parameter("weight").detach()
