"""Captures the activations inside a model during a forward pass, by name, and gradients with respect to them.

The names are those of `glassgpt.inspection.taps`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

import torch
from torch import Tensor

from glassgpt.errors import UserError
from glassgpt.inspection.taps import checked_names, sites, tapped
from glassgpt.models import AnyModel, EncoderDecoderModel, Model, evaluating


def capture_names(model: AnyModel) -> list[str]:
    """The names of all activations that can be captured in this model, in order of computation."""
    return list(sites(model))


@torch.no_grad()
def capture(model: Model, tokens: Tensor, names: Iterable[str] | None = None) -> tuple[Tensor, dict[str, Tensor]]:
    """Runs the model on tokens (B, T); returns its logits (B, T, V) and the named activations, by default all.

    The model runs in evaluation mode without gradients, and its state is restored afterwards. Attention of which
    something is captured is computed unfused, so logits agree up to rounding. The attention patterns take B·H·T²
    numbers per block and the results of the heads B·H·T·C: if that is too much memory, request only what you need.

    Raises UserError for a name that does not exist in this model.
    """
    return _captured(model, (tokens,), names)


@torch.no_grad()
def capture_pair(
    model: EncoderDecoderModel, source: Tensor, target: Tensor, names: Iterable[str] | None = None
) -> tuple[Tensor, dict[str, Tensor]]:
    """As `capture`, for an encoder-decoder: a source (B, S) and a target (B, T), which begins with its start.

    The names are those of an encoder-decoder, such as `decoder.blocks.0.cross.pattern`.
    """
    return _captured(model, (source, target), names)


def _captured(
    model: AnyModel, inputs: tuple[Tensor, ...], names: Iterable[str] | None
) -> tuple[Tensor, dict[str, Tensor]]:
    wanted = checked_names(names, capture_names(model))
    found: dict[str, Tensor] = {}
    with evaluating(model), tapped(model, {name: partial(found.__setitem__, name) for name in wanted}):
        logits = model(*inputs)
    return logits, {name: found[name] for name in wanted}


def gradients(
    model: Model, tokens: Tensor, objective: Callable[[Tensor], Tensor], names: Iterable[str]
) -> tuple[Tensor, dict[str, Tensor]]:
    """Runs the model on tokens (B, T); returns `objective(logits)` and its gradient for each named activation.

    `objective` maps the logits (B, T, V) to one number, for example the loss at one position. A gradient has the shape
    of its activation; it is 0 where the objective does not depend on it. The parameters collect no gradients.

    Raises UserError for a name that does not exist in this model, for the numbers of chosen experts, which are
    integers, and if the objective is not one number.
    """
    wanted = checked_names(names, capture_names(model))
    if whole := next((name for name in wanted if name.endswith(".mlp.experts")), None):
        raise UserError(f"'{whole}' has no gradient: it is a choice, and its numbers are integers")
    found: dict[str, Tensor] = {}

    def keep(name: str, value: Tensor) -> Tensor:
        # Where no parameter needs a gradient, nothing before this activation does, so it can start the graph.
        found[name] = value if value.requires_grad else value.detach().requires_grad_()
        return found[name]

    with torch.enable_grad(), evaluating(model), tapped(model, {name: partial(keep, name) for name in wanted}):
        value = objective(model(tokens))
        if value.numel() != 1:
            raise UserError(f"the objective is a tensor of shape {tuple(value.shape)}: it must be one number")
        slopes = torch.autograd.grad(value.sum(), [found[name] for name in wanted], allow_unused=True)
    pairs = zip(wanted, slopes, strict=True)
    filled = {name: torch.zeros_like(found[name]) if slope is None else slope for name, slope in pairs}
    return value.detach(), {name: slope.detach() for name, slope in filled.items()}
