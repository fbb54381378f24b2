"""The load-balancing loss of a mixture of experts: a penalty on a router that sends most tokens to a few experts.

An expert that is chosen often learns faster, and so it is chosen even more often (Shazeer et al. 2017, section 4). The
cross-entropy alone does nothing against that. The penalty is that of the Switch Transformer (Fedus et al. 2021,
equations 4 to 6), in each row by itself, as in DeepSeek-V3 (DeepSeek-AI 2024, equations 17 to 20). A balance over all
tokens of a pass would depend on how a batch is split into passes; one within each row does not.

Shapes: B rows, T positions, L blocks with experts, E experts in a block, K of them for each token.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from glassgpt.models import Model
from glassgpt.training.losses import Batch, Loss, LossFunction


class Watch:
    """The hook of one block's routing. While it is open, it keeps what it sees."""

    def __init__(self) -> None:
        self._open = False
        self._seen: dict[str, Tensor] = {}

    def __call__(self, name: str, value: Tensor) -> None:
        if self._open:
            self._seen[name] = value

    def open(self) -> None:
        """Starts to keep what a pass shows it."""
        self._open = True

    def close(self) -> dict[str, Tensor]:
        """What it has seen, by name. Blocks that are run again for their gradients show it nothing more."""
        seen, self._seen, self._open = self._seen, {}, False
        return seen


class BalancedLoss:
    """A loss function with the balance of the model's experts as a penalty and as the figure "balance".

    The penalty is `coefficient` times the balance of each row, summed over the blocks. A row counts as often as it has
    targets to train on, as in the loss itself. The figure is the mean over rows and blocks: 1 if all experts are used
    equally, E / K if all tokens choose the same.
    """

    def __init__(self, loss: LossFunction, model: Model, coefficient: float) -> None:
        """`model` is the raw module, and the loss may be called with a wrapper of it.

        Raises ValueError for a model without experts.
        """
        self._loss, self._coefficient = loss, coefficient
        self._watches: list[Watch] = []
        for block in model.blocks:
            routing = getattr(getattr(block, "mlp", None), "inner", None)
            if isinstance(routing, nn.Module):
                watch: Any = Watch()
                routing.hook = watch
                self._watches.append(watch)
        if not self._watches:
            raise ValueError("there is nothing to balance: the MLP of each block computes for all tokens")

    def __call__(self, model: Any, batch: Batch) -> Loss:
        for watch in self._watches:
            watch.open()
        try:
            loss = self._loss(model, batch)
        finally:
            seen = [watch.close() for watch in self._watches]
        balances = torch.stack([balance_of(each["scores"], each["experts"]) for each in seen])  # (L, B)
        targets = batch.targets.size(1) if batch.mask is None else batch.mask.sum(dim=1, dtype=torch.float32)
        total = (balances * targets).sum()
        figures = {**loss.figures, "balance": (total.detach() / len(seen), loss.weight)}
        return replace(loss, penalty=self._coefficient * total, figures=figures)


def balance_of(scores: Tensor, experts: Tensor) -> Tensor:
    """How unevenly the tokens of each row use the experts: (B,), from the router's scores (B, T, E) and `experts`.

    `experts` (B, T, K) are the numbers of those chosen. It is E / (K·T) times the sum over the experts of how many
    tokens chose it, times its mean probability. Only the probabilities have a gradient, which makes an expert less
    likely the more tokens have chosen it.
    """
    E = scores.size(-1)
    chosen = experts.flatten(1)  # (B, T·K)
    probabilities = scores.float().softmax(dim=-1).mean(dim=1)  # (B, E)
    counts = torch.zeros_like(probabilities).scatter_add(1, chosen, torch.ones_like(chosen, dtype=torch.float32))
    return E / chosen.size(1) * (counts * probabilities).sum(dim=1)
