"""Rotary position embeddings (RoPE, Su et al. 2021, "RoFormer"), which architectures share.

Queries and keys are turned by angles that grow with their positions, so that their product depends on the distance of
the two positions alone. Each pair of dimensions turns with a frequency of its own. Architectures differ in the
frequencies, and those are in their own files.

Shapes: B batch, H heads, T positions, D head size.
"""

from __future__ import annotations

import torch
from torch import Tensor

Turn = tuple[Tensor, Tensor]  # the cosines and the sines of the angles, each (…, 1, T, D)


def frequencies(head_size: int, base: float, device: torch.device | None = None) -> Tensor:
    """Radians per position of each pair of dimensions, (D / 2): base^(-2i / D) (section 3.2.2 of Su et al.)."""
    pairs = torch.arange(0, head_size, 2, device=device, dtype=torch.float32)
    return base ** (-pairs / head_size)


def rotation(positions: Tensor, frequencies: Tensor) -> Turn:
    """Cosines and sines of the angles of `positions`, (T,) or (B, T), to (…, 1, T, D) for every head.

    Dimension i of the first half turns together with dimension i of the second.
    """
    angles = positions[..., None, :, None] * frequencies
    angles = torch.cat([angles, angles], dim=-1)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, turn: Turn) -> Tensor:
    """x (B, H, T, D), each pair of dimensions turned by its angle (equation 34 of Su et al. 2021)."""
    cos, sin = turn
    first, second = x.chunk(2, dim=-1)
    return (x * cos + torch.cat([-second, first], dim=-1) * sin).to(x.dtype)
