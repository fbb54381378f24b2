"""Captures the activations inside a model during a forward pass, by name.

The names are the same for every architecture; N counts the blocks from 0:

    name                    shape         what it is
    embed                   (B, T, C)     the residual stream before the first block: token + position embeddings
    blocks.N.attn.q .k .v   (B, H, T, D)  queries, keys and values of the heads
    blocks.N.attn.scores    (B, H, T, T)  q·k / √D, -∞ where the mask hides a key
    blocks.N.attn.pattern   (B, H, T, T)  the softmax of the scores: the weight of each key for each query
    blocks.N.attn.out       (B, H, T, D)  the output of each head: pattern · v
    blocks.N.resid          (B, T, C)     the residual stream after block N
    final                   (B, T, C)     the input of the output head: the last residual stream, normalised

Shapes: B batch, T positions, C = n_embd, H heads (fewer for k and v with grouped-query attention), D head size.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack

import torch
from torch import Tensor, nn

from glassgpt.errors import UserError
from glassgpt.models import Model, evaluating
from glassgpt.models.attention import Attention

ATTENTION_NAMES = ("q", "k", "v", "scores", "pattern", "out")
Keep = Callable[[str, Tensor], None]


def capture_names(model: Model) -> list[str]:
    """The names of all activations that can be captured in this model, in order of computation."""
    names = ["embed"] if model.blocks else []  # without blocks, the only activation is the input of the head
    for n, block in enumerate(model.blocks):
        if attention_of(block) is not None:
            names += [f"blocks.{n}.attn.{name}" for name in ATTENTION_NAMES]
        names.append(f"blocks.{n}.resid")
    return [*names, "final"]


@torch.no_grad()
def capture(model: Model, tokens: Tensor, names: Iterable[str] | None = None) -> tuple[Tensor, dict[str, Tensor]]:
    """Runs the model on tokens (B, T); returns its logits (B, T, V) and the named activations, by default all.

    The model runs in evaluation mode without gradients, and its state is restored afterwards. Attention with a hook is
    computed unfused, so logits agree up to rounding. The attention patterns take B·H·T² numbers per block: if that is
    too much memory, request only the names that you need.

    Raises UserError for a name that does not exist in this model.
    """
    wanted = checked_names(names, capture_names(model))
    found: dict[str, Tensor] = {}

    def keep(name: str, value: Tensor) -> None:
        if name in wanted:
            found[name] = value

    with evaluating(model), ExitStack() as undo:
        _add_hooks(model, wanted, keep, undo)
        features = model.features(tokens)
        keep("final", features)
        logits = model.head(features)
    return logits, {name: found[name] for name in wanted}


def checked_names(names: Iterable[str] | None, known: Sequence[str]) -> list[str]:
    """The names without duplicates, or all known ones for None. Raises UserError for an unknown name."""
    wanted = known if names is None else list(dict.fromkeys(names))
    for name in wanted:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean '{near[0]}'? " if near else ""
            raise UserError(f"nothing in this model has the name '{name}': {hint}Known: {_described(known)}")
    return list(wanted)


def _described(known: Sequence[str]) -> str:
    """The names in short form, with N for the number of a block."""
    numbers = [int(name.split(".")[1]) for name in known if name.startswith("blocks.")]
    patterns = dict.fromkeys(re.sub(r"\d+", "N", name) for name in known)
    return ", ".join(patterns) + (f" (N from 0 to {max(numbers)})" if numbers else "")


def attention_of(block: nn.Module) -> Attention | None:
    """The block's `Attention` module; None if it has none."""
    inner = getattr(getattr(block, "attn", None), "inner", None)
    return inner if isinstance(inner, Attention) else None


def _add_hooks(model: Model, wanted: Sequence[str], keep: Keep, undo: ExitStack) -> None:
    """Adds hooks that pass the wanted activations to `keep`; `undo` removes them again."""
    for n, block in enumerate(model.blocks):
        if n == 0:
            before = block.register_forward_pre_hook(lambda _, inputs: keep("embed", inputs[0]))
            undo.callback(before.remove)
        after = block.register_forward_hook(lambda _, inputs, output, n=n: keep(f"blocks.{n}.resid", output))
        undo.callback(after.remove)
        attention = attention_of(block)
        # Attention whose activations are not wanted stays fused.
        if attention is not None and any(name.startswith(f"blocks.{n}.attn.") for name in wanted):
            undo.callback(setattr, attention, "hook", attention.hook)
            attention.hook = lambda name, value, n=n: keep(f"blocks.{n}.attn.{name}", value)
