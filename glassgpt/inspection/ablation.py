"""What a model loses without some of its parts: the effect of an edit on the loss of a text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from glassgpt.inspection.edit import Replacement, edit
from glassgpt.inspection.ids import one_pass
from glassgpt.inspection.surprise import check_reads_forward
from glassgpt.inspection.taps import parts
from glassgpt.inspection.trace import attention_blocks
from glassgpt.models import Model, evaluating


@dataclass(frozen=True)
class Effect:
    """The losses of the tokens 1 to T - 1 of a text, in nats, without an edit and with it."""

    before: Tensor  # (T - 1,)
    after: Tensor  # (T - 1,)

    @property
    def change(self) -> float:
        """By how much the edit raises the mean loss, in nats per token; below 0, the model is better with it."""
        return float(self.after.mean() - self.before.mean())


def effect(
    model: Model, ids: Sequence[int], *, zero: Iterable[str] = (), replace: Mapping[str, Replacement] | None = None
) -> Effect:
    """The losses of a text without and with an edit, which is given as to `edit`: names to set to 0, and new values.

    Raises UserError for an encoder, for an edit that `edit` refuses, and for a text that is longer than `block_size` or
    has fewer than 2 tokens.
    """
    tokens = one_pass(model, ids, least=2)
    before = _losses(model, tokens)
    with edit(model, zero=zero, replace=replace):
        return Effect(before, _losses(model, tokens))


def head_effects(model: Model, ids: Sequence[int]) -> Tensor:
    """By how much the mean loss of a text rises when a head is off, (L, H), in nats per token.

    Row l is block `attention_blocks(model)[l]`; a model without attention gives (0, 0). It takes one forward pass per
    head and one more. Raises UserError as `effect` does.
    """
    tokens = one_pass(model, ids, least=2)
    before = _losses(model, tokens).mean()
    blocks, rows = parts(model), []
    for n in attention_blocks(model):
        without = []
        for head in range(blocks[n].n_head):
            with edit(model, zero=[f"blocks.{n}.head.{head}"]):
                without.append(_losses(model, tokens).mean())
        rows.append(torch.stack(without) - before)
    return torch.stack(rows) if rows else torch.zeros(0, 0)


@torch.no_grad()
def _losses(model: Model, tokens: Tensor) -> Tensor:
    """The losses (T - 1,) of tokens (1, T), in nats, on the CPU. Raises UserError for an encoder."""
    check_reads_forward(model)
    with evaluating(model):
        logits = model(tokens)[0, :-1]
    return F.cross_entropy(logits.float(), tokens[0, 1:], reduction="none").cpu()
