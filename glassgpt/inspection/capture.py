"""What happens inside a model on its way from tokens to logits, by name.

The names are the same for every architecture; N counts the blocks from 0:

    name                    shape         what it is
    embed                   (B, T, C)     the residual stream before the first block: tokens and their positions
    blocks.N.attn.q .k .v   (B, H, T, D)  queries, keys and values of the heads
    blocks.N.attn.scores    (B, H, T, T)  q·k / √D, -∞ where a key lies in the future of its query
    blocks.N.attn.pattern   (B, H, T, T)  the softmax of the scores: how much each query hears of each key
    blocks.N.attn.out       (B, H, T, D)  what each head heard: pattern · v
    blocks.N.resid          (B, T, C)     the residual stream after block N
    final                   (B, T, C)     what the head reads logits from: the last stream, normalised

Shapes: B batch, T positions, C = n_embd, H heads (fewer for k and v where heads share them), D size of a head.
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
    """The names of all that can be captured in this model, in the order in which it is computed."""
    names = ["embed"] if model.blocks else []  # without blocks there is no stream, only what the head reads
    for n, block in enumerate(model.blocks):
        if attention_of(block) is not None:
            names += [f"blocks.{n}.attn.{name}" for name in ATTENTION_NAMES]
        names.append(f"blocks.{n}.resid")
    return [*names, "final"]


@torch.no_grad()
def capture(model: Model, tokens: Tensor, names: Iterable[str] | None = None) -> tuple[Tensor, dict[str, Tensor]]:
    """Runs the model on tokens (B, T); returns its logits (B, T, V) and the named activations, by default all.

    The pass is that of evaluation, without dropout and gradients; afterwards the model is as it was. Attention that is
    watched computes step by step what is fused otherwise, so logits agree within rounding. Memory: all the patterns of
    a pass are B·H·T² numbers a block; name what is needed where that is much.

    Raises UserError for a name that the model does not have.
    """
    wanted = checked_names(names, capture_names(model))
    found: dict[str, Tensor] = {}

    def keep(name: str, value: Tensor) -> None:
        if name in wanted:
            found[name] = value

    with evaluating(model), ExitStack() as undo:
        _watch(model, wanted, keep, undo)
        features = model.features(tokens)
        keep("final", features)
        logits = model.head(features)
    return logits, {name: found[name] for name in wanted}


def checked_names(names: Iterable[str] | None, known: Sequence[str]) -> list[str]:
    """The wanted names, each once; all where none are given. Raises UserError for one that is not known."""
    wanted = known if names is None else list(dict.fromkeys(names))
    for name in wanted:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean '{near[0]}'? " if near else ""
            raise UserError(f"nothing in this model has the name '{name}': {hint}Known: {_described(known)}")
    return list(wanted)


def _described(known: Sequence[str]) -> str:
    """The names in short, with N for the number of a block."""
    numbers = [int(name.split(".")[1]) for name in known if name.startswith("blocks.")]
    patterns = dict.fromkeys(re.sub(r"\d+", "N", name) for name in known)
    return ", ".join(patterns) + (f" (N from 0 to {max(numbers)})" if numbers else "")


def attention_of(block: nn.Module) -> Attention | None:
    """The block's attention primitive; None in a block that has none."""
    inner = getattr(getattr(block, "attn", None), "inner", None)
    return inner if isinstance(inner, Attention) else None


def _watch(model: Model, wanted: Sequence[str], keep: Keep, undo: ExitStack) -> None:
    """Has the blocks hand what is wanted to `keep` as they compute it; `undo` removes every hook and hook again."""
    for n, block in enumerate(model.blocks):
        if n == 0:
            before = block.register_forward_pre_hook(lambda _, inputs: keep("embed", inputs[0]))
            undo.callback(before.remove)
        after = block.register_forward_hook(lambda _, inputs, output, n=n: keep(f"blocks.{n}.resid", output))
        undo.callback(after.remove)
        attention = attention_of(block)
        # Attention that nobody asked for stays fused.
        if attention is not None and any(name.startswith(f"blocks.{n}.attn.") for name in wanted):
            undo.callback(setattr, attention, "hook", attention.hook)
            attention.hook = lambda name, value, n=n: keep(f"blocks.{n}.attn.{name}", value)
