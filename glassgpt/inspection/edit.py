"""Switches parts of a model off, or replaces what they compute, inside a `with` block.

    with edit(model, zero=["blocks.2.head.5"], replace={"blocks.1.resid": lambda stream: stream + direction}):
        logits = model(tokens)

What can be edited: every activation of `glassgpt.inspection.taps`, and the parts

    blocks.N.head.H    what head H adds to the residual stream          (B, T, C)
    blocks.N.neuron.K  hidden unit K of the MLP                         (B, T)
    blocks.N.attn      the attention's output, with its bias            (B, T, C)
    blocks.N.mlp       the output of the MLP                            (B, T, C)
    blocks.N           what the whole block adds to the stream          (B, T, C)
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from glassgpt.errors import UserError, shown
from glassgpt.inspection.taps import Site, Tap, Undo, checked_names, output_of, parts, sites
from glassgpt.models import Model

Replacement = Tensor | float | Callable[[Tensor], Tensor]  # a function maps the old activation to the new one
_PART = re.compile(r"blocks\.([0-9]{1,9})(?:\.(attn|mlp)|\.(head|neuron)\.([0-9]{1,9}))?")
_PARTS = ("blocks.N", "blocks.N.attn", "blocks.N.mlp", "blocks.N.head.H", "blocks.N.neuron.K")


@contextmanager
def edit(model: Model, *, zero: Iterable[str] = (), replace: Mapping[str, Replacement] | None = None) -> Iterator[None]:
    """Edits every forward pass of the model inside the `with` block; afterwards the model is as it was.

    `zero` names what is set to 0. `replace` gives a new value: a number, a tensor that broadcasts to the activation's
    shape, or a function of the activation. Edits may be nested, and `capture` inside sees what they have changed.

    Raises UserError for a name that this model lacks, for one named twice, and, in the forward pass, for a value whose
    shape does not fit.
    """
    changes: dict[str, Replacement] = {}
    for name, value in [*((name, 0.0) for name in zero), *(replace or {}).items()]:
        if name in changes:
            raise UserError(f"'{name}' is edited twice: name it once")
        changes[name] = value
    with ExitStack() as undo:
        for name, value in changes.items():
            undo.callback(_site(model, name)(_tap(name, value)))
        yield


def _site(model: Model, name: str) -> Site:
    """How to tap what is edited. Raises UserError if the model lacks it."""
    known = sites(model)
    match = _PART.fullmatch(name)
    if match is None:
        checked_names([name], [*known, *_PARTS])
        return known[name]
    blocks, n, sublayer, unit, index = parts(model), int(match[1]), match[2], match[3], int(match[4] or 0)
    if n >= len(blocks):
        raise UserError(f"there is no '{name}': this model has {len(blocks)} blocks, counted from 0")
    if sublayer is None and unit is None:
        return _added_by(blocks[n].block)
    in_attention = sublayer == "attn" or unit == "head"
    module: Any = blocks[n].attn if in_attention else blocks[n].mlp
    if module is None:
        raise UserError(f"there is no '{name}': a block of this model has no {'attention' if in_attention else 'MLP'}")
    if unit is None:
        return output_of(module)
    whole = known.get(f"blocks.{n}.attn.result" if in_attention else f"blocks.{n}.mlp.hidden")
    if whole is None:
        layer = "a linear layer `proj` after the heads" if in_attention else "a linear layer `down` after the neurons"
        raise UserError(f"'{name}' cannot be told from the others: block {n} of this model lacks {layer}")
    count = blocks[n].n_head if in_attention else module.down.in_features
    if index >= count:
        raise UserError(f"there is no '{name}': block {n} has {count} {unit}s, counted from 0")
    return _unit_of(whole, 1 if in_attention else -1, index)


def _added_by(block: nn.Module) -> Site:
    def add(tap: Tap) -> Undo:
        def hook(_: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor | None:
            changed = tap(output - inputs[0])
            return None if changed is None else inputs[0] + changed

        return block.register_forward_hook(hook).remove

    return add


def _unit_of(whole: Site, dim: int, index: int) -> Site:
    def add(tap: Tap) -> Undo:
        def one_of_all(value: Tensor) -> Tensor | None:
            changed = tap(value.select(dim, index))
            if changed is None:
                return None
            return value.index_copy(dim, torch.tensor([index], device=value.device), changed.unsqueeze(dim))

        return whole(one_of_all)

    return add


def _tap(name: str, value: Replacement) -> Tap:
    def replaced(activation: Tensor) -> Tensor:
        new = value(activation) if callable(value) else value
        try:
            return torch.as_tensor(new).to(activation).broadcast_to(activation.shape).clone()
        except (RuntimeError, TypeError, ValueError):
            kind = f"a tensor of shape {tuple(new.shape)}" if isinstance(new, Tensor) else shown(new)
            raise UserError(
                f"the new value of '{name}' is {kind}, which does not fit its shape {tuple(activation.shape)}"
            ) from None

    return replaced
