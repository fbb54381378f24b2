"""The named activations of a model, and taps on them: functions that see them, and may change them, in a forward pass.

The names are the same for every architecture; N counts the blocks from 0:

    name                    shape         what it is
    embed                   (B, T, C)     the residual stream before the first block: token + position embeddings
    blocks.N.attn.q .k .v   (B, H, T, D)  queries, keys and values of the heads
    blocks.N.attn.scores    (B, H, T, T)  q·k / √D, -∞ where the mask hides a key
    blocks.N.attn.pattern   (B, H, T, T)  the softmax of the scores: the weight of each key for each query
    blocks.N.attn.out       (B, H, T, D)  the output of each head: pattern · v
    blocks.N.attn.result    (B, H, T, C)  what each head adds to the residual stream: its output times its part of W_O
    blocks.N.resid_mid      (B, T, C)     the residual stream between attention and MLP
    blocks.N.mlp.hidden     (B, T, F)     the F hidden units ("neurons") of the MLP, after the nonlinearity and its gate
    blocks.N.mlp.scores     (B, T, E)     how good the router of a mixture of experts finds each of the E experts
    blocks.N.mlp.experts    (B, T, K)     integers: the K experts that were chosen, the best one first
    blocks.N.mlp.weights    (B, T, K)     what the answers of these experts are multiplied by
    blocks.N.mlp.out        (B, T, C)     the output of the MLP
    blocks.N.resid          (B, T, C)     the residual stream after block N
    final                   (B, T, C)     the input of the output head: the last residual stream, normalised

Shapes: B batch, T positions, C = n_embd, F = 4C in most, H heads (fewer for k and v with grouped-query attention), D
head size. The bias of the attention's projection belongs to no head, so the results of the heads add up to its output
without bias.

An encoder-decoder has other names. S positions of the source, T of the target:

    encoder.embed                (B, S, C)    the stream before the first block of the encoder: the embedded source
    encoder.blocks.N.attn.STEP   as above     attention within the source: q, k, v, scores, pattern and out
    encoder.blocks.N.resid       (B, S, C)    the stream after block N of the encoder
    memory                       (B, S, C)    what the encoder makes of the source
    decoder.embed                (B, T, C)    the stream before the first block of the decoder: the embedded target
    decoder.blocks.N.attn.STEP   as above     attention within the target
    decoder.blocks.N.cross.STEP  as above     cross-attention: queries of the target, keys and values of the memory, so
                                              that scores and pattern are (B, H, T, S)
    decoder.blocks.N.resid       (B, T, C)    the stream after block N of the decoder
    final                        (B, T, C)    the input of the output head

A ladder section that has attention and no `blocks` counts as one block. Blocks without an MLP lack its names. What an
architecture must offer for each name is in docs/inspection.md; one that does not lacks the name.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from glassgpt.errors import UserError
from glassgpt.models import AnyModel, EncoderDecoderModel, Model
from glassgpt.models.attention import Attention

ATTENTION_STEPS = ("q", "k", "v", "scores", "pattern", "out")
ROUTING_STEPS = ("scores", "experts", "weights")
Tap = Callable[[Tensor], Tensor | None]  # None leaves the activation as it is
Undo = Callable[[], object]
Site = Callable[[Tap], Undo]  # adds a tap on one activation


@dataclass(frozen=True)
class Part:
    """One block of a model, and its sublayers if it has them."""

    block: nn.Module
    attn: nn.Module | None
    mlp: nn.Module | None
    n_head: int

    @property
    def inner(self) -> nn.Module | None:
        """The attention without its parameters."""
        found = getattr(self.attn, "inner", None)
        return found if isinstance(found, nn.Module) else None

    @property
    def proj(self) -> nn.Linear | None:
        """The projection of all heads into the stream."""
        found = getattr(self.attn, "proj", None)
        return found if isinstance(found, nn.Linear) else None

    @property
    def down(self) -> nn.Linear | None:
        """The layer of the MLP that reads the hidden units."""
        found = getattr(self.mlp, "down", None)
        return found if isinstance(found, nn.Linear) else None

    @property
    def routing(self) -> nn.Module | None:
        """The choice of experts, without its parameters."""
        found = getattr(self.mlp, "inner", None)
        return found if isinstance(found, nn.Module) else None

    @property
    def into_mlp(self) -> nn.Module | None:
        """The module that reads the stream for the MLP: its norm, or the MLP itself.

        The MLP itself reads it in a block without norms, and in one whose norms come after the additions (`post_norm`).
        """
        if getattr(self.block, "post_norm", False):
            return self.mlp
        if (norm := getattr(self.block, "norm2", None)) is not None:
            return norm
        return None if any("norm" in name for name, _ in self.block.named_children()) else self.mlp


def parts(model: Model) -> list[Part]:
    """The blocks of a model. A model with attention and no blocks is one block itself."""
    if not model.blocks:
        attn = getattr(model, "attn", None)
        return [Part(attn, attn, None, n_head=1)] if isinstance(attn, nn.Module) else []
    n_head = model.config.n_head
    return [Part(block, getattr(block, "attn", None), getattr(block, "mlp", None), n_head) for block in model.blocks]


def sites(model: AnyModel) -> dict[str, Site]:
    """The named activations of this model in order of computation, with how to tap each."""
    if isinstance(model, EncoderDecoderModel):
        return {**_sites_of_stack("encoder", model), "memory": _method_of(model, "encode"),
                **_sites_of_stack("decoder", model), "final": _method_of(model, "features")}  # fmt: skip
    found: dict[str, Site] = {}
    for n, part in enumerate(parts(model)):
        if n == 0:
            found["embed"] = _input_of(part.block)
        name = f"blocks.{n}"
        if part.attn is not None and part.inner is not None:
            for step in ATTENTION_STEPS:
                found[f"{name}.attn.{step}"] = _attention_step_of(part.inner, step)
            if part.proj is not None or part.n_head == 1:
                found[f"{name}.attn.result"] = _results_of(part.attn, part.n_head, part.proj)
        if part.mlp is not None:
            if part.into_mlp is not None:
                found[f"{name}.resid_mid"] = _stream_into(part.into_mlp)
            if part.down is not None:
                found[f"{name}.mlp.hidden"] = _input_of(part.down)
            if part.routing is not None:
                for step in ROUTING_STEPS:
                    found[f"{name}.mlp.{step}"] = _step_of(part.routing, step)
            found[f"{name}.mlp.out"] = output_of(part.mlp)
        found[f"{name}.resid"] = output_of(part.block)
    return found | {"final": _method_of(model, "features")}


def _sites_of_stack(stack: str, model: EncoderDecoderModel) -> dict[str, Site]:
    """The named activations of the encoder or of the decoder."""
    found: dict[str, Site] = {}
    for n, block in enumerate(model.get_submodule(f"{stack}.blocks").children()):
        if n == 0:
            found[f"{stack}.embed"] = _input_of(block)
        for name in ("attn", "cross"):
            inner = getattr(getattr(block, name, None), "inner", None)
            if isinstance(inner, Attention):
                for step in ATTENTION_STEPS:
                    found[f"{stack}.blocks.{n}.{name}.{step}"] = _step_of(inner, step)
        found[f"{stack}.blocks.{n}.resid"] = output_of(block)
    return found


@contextmanager
def tapped(model: AnyModel, taps: Mapping[str, Tap]) -> Iterator[None]:
    """Passes the named activations through functions in every forward pass inside the `with` block.

    A function returns a tensor that takes the activation's place, or None. Taps may be nested: the inner one gets what
    the outer one returned. Attention that is tapped is computed step by step, so its results agree up to rounding.
    Raises UserError for a name that this model lacks.
    """
    known = sites(model)
    with ExitStack() as undo:
        for name in checked_names(taps, list(known)):
            undo.callback(known[name](taps[name]))
        yield


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
    numbers = [int(n) for name in known for n in re.findall(r"blocks\.(\d+)", name)]
    patterns = dict.fromkeys(re.sub(r"blocks\.\d+", "blocks.N", name) for name in known)
    return ", ".join(patterns) + (f" (N from 0 to {max(numbers)})" if numbers else "")


def _input_of(module: nn.Module) -> Site:
    def add(tap: Tap) -> Undo:
        def hook(_: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
            changed = tap(inputs[0])
            return None if changed is None else (changed, *inputs[1:])

        return module.register_forward_pre_hook(hook).remove

    return add


def output_of(module: nn.Module) -> Site:
    """How to tap the output of a module."""
    return lambda tap: module.register_forward_hook(lambda _, inputs, output: tap(output)).remove


def _stream_into(module: nn.Module) -> Site:
    """The residual stream that a sublayer reads. The stream also goes on beside the sublayer.

    Both paths read one tensor, so a change is written into it: replacing the sublayer's input would miss the other.
    """

    def add(tap: Tap) -> Undo:
        def hook(_: nn.Module, inputs: tuple[Any, ...]) -> None:
            changed = tap(inputs[0])
            if changed is not None and changed is not inputs[0]:
                inputs[0].copy_(changed)

        return module.register_forward_pre_hook(hook).remove

    return add


def _step_of(inner: Any, step: str) -> Site:
    """How to tap a step that a module passes to its `hook`."""

    def add(tap: Tap) -> Undo:
        before = inner.hook

        def hook(name: str, value: Tensor) -> Tensor:
            changed = before(name, value) if before is not None else None
            value = value if changed is None else changed
            changed = tap(value) if name == step else None
            return value if changed is None else changed

        inner.hook = hook
        return partial(setattr, inner, "hook", before)

    return add


def _attention_step_of(inner: Any, step: str) -> Site:
    def add(tap: Tap) -> Undo:
        undo = ExitStack()
        if not isinstance(inner, Attention) and getattr(inner, "hook", None) is None:
            inner.hook = None
            undo.callback(delattr, inner, "hook")
            undo.callback(inner.register_forward_hook(_compute_with_hook).remove)
        undo.callback(_step_of(inner, step)(tap))
        return undo.close

    return add


def _compute_with_hook(inner: Any, inputs: tuple[Tensor, ...], _: Tensor) -> Tensor:
    """The output of section 4's attention, computed by the shared one, which passes each step through a hook.

    q, k and v are (B, T, D) there, without a dimension for heads.
    """
    shared = Attention()
    shared.hook = inner.hook
    out: Tensor = shared(*(value.unsqueeze(1) for value in inputs))
    return out.squeeze(1)


def _results_of(attn: Any, n_head: int, proj: nn.Linear | None) -> Site:
    """What each head adds to the stream, (B, H, T, C): its output times its part of the projection.

    The projection adds up all heads, so it is the sum of the results that takes its output's place. All taps share one
    hook, which makes the results once.
    """

    def add(tap: Tap) -> Undo:
        if not hasattr(attn, "result_taps"):
            attn.result_taps = []
            writer = attn if proj is None else proj  # the one head of section 4 writes into the stream itself
            attn.result_hook = writer.register_forward_hook(partial(_add_up_heads, attn, n_head, proj))
        attn.result_taps.append(tap)
        return partial(_remove_result_tap, attn)

    return add


def _remove_result_tap(attn: Any) -> None:
    attn.result_taps.pop()  # the last one added: taps are removed in reverse order
    if not attn.result_taps:
        attn.result_hook.remove()
        del attn.result_taps, attn.result_hook


def _add_up_heads(
    attn: Any, n_head: int, proj: nn.Linear | None, _: nn.Module, inputs: tuple[Tensor, ...], output: Tensor
) -> Tensor:
    if proj is None:
        results, bias = output.unsqueeze(1), None
    else:
        outputs = inputs[0].unflatten(-1, (n_head, -1))  # (B, T, H, D)
        weights = proj.weight.unflatten(-1, (n_head, -1))  # (C, H, D)
        results, bias = torch.einsum("bthd,chd->bhtc", outputs, weights), proj.bias
    for tap in attn.result_taps:
        changed = tap(results)
        results = results if changed is None else changed
    return results.sum(dim=1) if bias is None else results.sum(dim=1) + bias


def _method_of(model: AnyModel, name: str) -> Site:
    """How to tap what a method of the model returns."""

    def add(tap: Tap) -> Undo:
        before = getattr(model, name)

        def method(*arguments: Any, **keywords: Any) -> Tensor:
            value: Tensor = before(*arguments, **keywords)
            changed = tap(value)
            return value if changed is None else changed

        replaced = model.__dict__.get(name)
        model.__dict__[name] = method

        def undo() -> None:
            del model.__dict__[name]
            if replaced is not None:
                model.__dict__[name] = replaced

        return undo

    return add
