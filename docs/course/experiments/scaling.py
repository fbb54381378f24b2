"""Why scores are divided by √D: without it a wide head is sure of itself before it has learned anything.

Queries and keys are drawn as independent numbers of variance 1, for heads of several sizes D.
"""

from __future__ import annotations

import math

import torch
from lab import row

N_KEYS = 64


def look(D: int, scaled: bool) -> tuple[float, float, float]:
    """For a head of size D: the scores' variance, the mean largest weight, the median gradient behind the softmax."""
    generator = torch.Generator().manual_seed(0)
    q, k = torch.randn(256, D, generator=generator), torch.randn(N_KEYS, D, generator=generator)
    scores = q @ k.T / (math.sqrt(D) if scaled else 1.0)
    scores.requires_grad_()
    pattern = scores.softmax(dim=-1)
    # The gradient that reaches the scores when a random direction of the outputs is asked for.
    values = torch.randn(N_KEYS, generator=generator)
    (gradient,) = torch.autograd.grad((pattern @ values).sum(), scores)
    return scores.var().item(), pattern.max(dim=-1).values.mean().item(), gradient.norm(dim=-1).median().item()


def main() -> None:
    """Prints the table."""
    row("", "without √D", "", "", "with √D", width=12)
    row("", *("variance", "largest", "gradient") * 2, width=12)
    for D in (8, 32, 64, 256, 1024):
        row(f"D = {D}", *(f"{figure:.4g}" for scaled in (False, True) for figure in look(D, scaled)), width=12)


if __name__ == "__main__":
    main()
