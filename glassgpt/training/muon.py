"""Muon: the step of a matrix is its momentum, with all singular values brought near 1.

Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks". A gradient is often large in a few
directions only. AdamW scales each number by itself and keeps these directions; Muon makes the step as long in all of
them. The size of a step is that of AdamW (Liu et al. 2025, "Muon is scalable for LLM training", equation 4), so that a
learning rate and a weight decay mean the same for both.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from glassgpt.training.adamw import AdamW

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of Jordan et al.: singular values come to about 0.7 to 1.2 in five rounds
ROUNDS = 5
RMS = 0.2  # of the numbers of a step, over the learning rate, as AdamW's usually is (Liu et al. 2025)


class Muon(AdamW):
    """Muon for `matrices`, and AdamW for the groups `others`.

    A parameter may be a stack of matrices, such as those of query, key and value. `matrices` has the number of matrices
    in each, and every one is orthogonalised by itself.
    """

    def __init__(
        self,
        matrices: Mapping[nn.Parameter, int],
        others: Sequence[dict[str, Any]],
        *,
        momentum: float,
        weight_decay: float,
        **settings: Any,
    ) -> None:
        groups = [{"params": list(matrices), "momentum": momentum, "weight_decay": weight_decay}, *others]
        super().__init__([group for group in groups if group["params"]], weight_decay=0.0, **settings)
        self.matrices = dict(matrices)

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:  # type: ignore[override]
        """One step of all parameters that have a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        held = [
            (group, parameter, parameter.grad)
            for group in self.param_groups
            for parameter in (group["params"] if "momentum" in group else ())
            if parameter.grad is not None
        ]
        for _, parameter, _ in held:
            parameter.grad = None  # AdamW leaves it alone
        super().step()
        for _, parameter, gradient in held:
            parameter.grad = gradient
        found_inf = getattr(self, "found_inf", None)  # of a loss scale that was too high; AdamW's kernel looks itself
        if found_inf is None or not found_inf.item():
            self._step_matrices(held)
        return loss

    def _step_matrices(self, held: Sequence[tuple[dict[str, Any], nn.Parameter, Tensor]]) -> None:
        alike: dict[tuple[int, ...], list[tuple[dict[str, Any], nn.Parameter, Tensor]]] = defaultdict(list)
        for group, parameter, gradient in held:
            state = self.state[parameter]
            if "momentum" not in state:
                state["momentum"] = torch.zeros_like(parameter)
            state["momentum"].lerp_(gradient, 1 - group["momentum"])
            ahead = gradient.lerp(state["momentum"], group["momentum"])  # Nesterov
            stacked = ahead.view(self.matrices[parameter], -1, ahead.size(-1))
            alike[tuple(stacked.shape[1:])].append((group, parameter, stacked))
        for (rows, columns), found in alike.items():  # equal shapes in one product
            steps = orthogonalise(torch.cat([stacked for _, _, stacked in found]))
            sizes = [stacked.size(0) for _, _, stacked in found]
            for (group, parameter, _), step in zip(found, steps.split(sizes), strict=True):
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                size = RMS * math.sqrt(max(rows, columns))
                parameter.add_(step.reshape(parameter.shape), alpha=-group["lr"] * size)


def orthogonalise(matrices: Tensor) -> Tensor:
    """Matrices (N, R, C) with their singular values brought near 1, by Newton and Schulz's iteration.

    It needs products only: in bfloat16 on a GPU, and in float32 elsewhere, where bfloat16 may be emulated.
    """
    a, b, c = COEFFICIENTS
    x = matrices.to(torch.bfloat16 if matrices.is_cuda else torch.float32)
    tall = x.size(-2) > x.size(-1)
    x = x.mT if tall else x
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)  # no singular value above 1
    for _ in range(ROUNDS):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return (x.mT if tall else x).to(matrices.dtype)
