"""Which experts each token chose in a mixture of experts (Shazeer et al. 2017), and with what weight.

Shapes: L blocks with experts, T tokens, E experts, K of them for each token.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from glassgpt.errors import UserError
from glassgpt.inspection.taps import parts
from glassgpt.inspection.trace import Trace
from glassgpt.models import Model


@dataclass(frozen=True)
class Routes:
    """The experts of a text. The tensors are on the CPU."""

    layers: tuple[int, ...]  # the numbers of the L blocks with experts
    n_expert: int
    experts: Tensor  # (L, T, K) int64, the best one first
    weights: Tensor  # (L, T, K) float32: what their answers are multiplied by

    @property
    def shares(self) -> Tensor:
        """(L, T, E): the weight of each expert for each token, 0 for one that was not chosen."""
        L, T, _ = self.experts.shape
        return torch.zeros(L, T, self.n_expert).scatter(-1, self.experts, self.weights)

    @property
    def loads(self) -> Tensor:
        """(L, E) int64: how many of the T tokens chose each expert."""
        L = len(self.layers)
        return torch.zeros(L, self.n_expert, dtype=torch.long).scatter_add(
            -1, self.experts.flatten(1), torch.ones_like(self.experts).flatten(1)
        )


def expert_blocks(model: Model) -> list[int]:
    """The numbers of the blocks whose MLP is a mixture of experts."""
    return [n for n, part in enumerate(parts(model)) if part.routing is not None]


def routes_of(trace: Trace) -> Routes:
    """The experts that the tokens of a trace chose. Raises UserError for a model without experts."""
    layers = expert_blocks(trace.model)
    if not layers:
        raise UserError("this model has no experts: the MLP of each block computes for all tokens")
    experts, weights = (
        torch.stack([trace[f"blocks.{n}.mlp.{step}"][0].cpu() for n in layers]) for step in ("experts", "weights")
    )
    return Routes(tuple(layers), int(vars(trace.model.config)["n_expert"]), experts, weights.float())
