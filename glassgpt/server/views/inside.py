"""Inside: one text through one model: losses, all attention patterns, and what comes next, layer by layer.

The answers about one text share its forward pass, which the bench keeps.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from glassgpt.errors import UserError
from glassgpt.generation.text import start_of_text
from glassgpt.inspection.attention import describe_head, head_scores, heads_of, scale_of, sinks_of
from glassgpt.inspection.capture import capture_names
from glassgpt.inspection.edit import edit
from glassgpt.inspection.experts import expert_blocks, routes_of
from glassgpt.inspection.guesses import encode_for_encoder, mask_id_of
from glassgpt.inspection.lens import logit_lens, streams
from glassgpt.inspection.sight import sights_of, visible_of
from glassgpt.inspection.surprise import losses_of
from glassgpt.inspection.taps import ROUTING_STEPS, parts
from glassgpt.inspection.trace import Trace, attention_blocks, check_position, trace
from glassgpt.models import EncoderModel, Model
from glassgpt.models.sizes import embedding_rows
from glassgpt.server.wire import pack
from glassgpt.server.workbench import Bench
from glassgpt.tokenizers.pieces import tokens_of

MOST_TOKENS = 512  # of a text that is looked into: its maps take L·H·T² bytes
MOST_EDITS = 256  # parts that a request may switch off: each is a hook in the forward pass
LENS_TOP = 5  # predictions after each layer, of one position
LENS_LOGITS = (
    12_000_000  # of a grid: with GPT-2's vocabulary and 12 blocks 18 positions, for half a forward pass of 128
)
LENS_POSITIONS = 128  # of a grid: a page draws a cell for each, in each layer
STEPS = ("pattern", "scores", "q", "k", "v")  # of one head


class TooLong(UserError):
    """A text has more tokens than can be looked into."""


@dataclass(frozen=True)
class Question:
    """What a page asks about a text."""

    run: str
    text: str = ""
    target: str | None = None  # of an encoder-decoder, whose source is the text; None: the model writes it
    step: int | None = None  # of the checkpoint; None: the best
    edits: tuple[str, ...] = ()  # parts that are switched off
    position: int | None = None  # of a token; None: the last
    start: int = 0  # the first position of a grid
    id: int | None = None  # of a token of the vocabulary
    axes: int | None = None  # the checkpoint whose embeddings give the axes of a map; None: the same
    layer: int | None = None
    head: int | None = None
    neuron: int | None = None  # of the MLP of the layer
    effects: bool = False  # also measure what is lost without each head

    def __post_init__(self) -> None:
        if len(self.edits) > MOST_EDITS:
            raise UserError(f"{len(self.edits):,} parts are switched off at once, and at most {MOST_EDITS} can be")

    @property
    def checkpoint(self) -> str | int:
        """The checkpoint, as `load` names it."""
        return "best" if self.step is None else self.step


def encode(bench: Bench, text: str) -> list[int]:
    """The ids of a text. Raises TooLong if there are too many, UserError for a character that the run does not know."""
    tokenizer = bench.run.tokenizer
    encoded = encode_for_encoder(tokenizer, text) if _is_encoder(bench) else tokenizer.encode(text)
    ids = encoded or start_of_text(tokenizer)
    most = min(bench.run.config.model.block_size, MOST_TOKENS)
    if len(ids) > most:
        raise TooLong(f"this text has {len(ids):,} tokens, and {most:,} can be looked into: shorten it")
    return ids


def look_inside(bench: Bench, question: Question) -> bytes:
    """The losses of the tokens, every head's pattern in 8 bits, and the size of the stream: one forward pass.

    An encoder has no losses.

    The weights of the heads' sinks (L, H, T) are there if the model has any, and for a mixture of experts the chosen
    experts and their weights, (L, T, K), for the blocks that `experts` names. `windows` has a number for each layer, or
    None if its queries see all positions.

    With edits there is a second one, without them, for the losses to compare with.
    """
    ids = encode(bench, question.text)
    kept = (".attn.pattern", *(f".mlp.{step}" for step in ROUTING_STEPS))
    names = [name for name in capture_names(bench.model) if name.endswith(kept)]
    seen = _pass(bench, ids, question.edits, names)
    heads = heads_of(seen)
    scores = head_scores(heads, ids, visible_of(bench.model, len(ids)))
    arrays = {
        **({} if _is_encoder(bench) else {"losses": _losses(seen)}),
        "norms": _floats(torch.stack([stream[0].norm(dim=-1) for stream in streams(seen)])),
        "maps": (heads * 255).round().to(torch.uint8).numpy(),
    }
    if (sinks := sinks_of(seen)) is not None:
        arrays["sinks"] = _floats(sinks)
    routes = routes_of(seen) if expert_blocks(bench.model) else None
    if routes is not None:
        arrays["experts"] = routes.experts.to(torch.int32).numpy()
        arrays["expert_weights"] = routes.weights.numpy()
    twice = bool(question.edits) and "losses" in arrays
    if twice:
        arrays["plain_losses"] = _losses(read(bench, ids))
    meta = {
        "tokens": tokens_of(bench.run.tokenizer, ids),
        "step": bench.run.step,
        "layers": attention_blocks(bench.model),
        "causal": not _is_encoder(bench),
        "windows": [sight.window for sight in sights_of(bench.model)],
        "experts": None if routes is None else {"layers": routes.layers, "n_expert": routes.n_expert},
        "kinds": [[describe_head(scores[n, head]) for head in range(heads.size(1))] for n in range(heads.size(0))],
        "passes": 2 if twice else 1,
        "lens_positions": lens_positions(bench.model, len(ids)),
    }
    return pack(meta, arrays)


def look_ahead(bench: Bench, question: Question) -> bytes:
    """What comes after one token: the logits (V,), and the most likely tokens after each layer (L + 1, 5).

    Of an encoder, it is what stands at the position. A token that the text does not hide is hidden for that, if the
    tokenizer has a mask token. `next` is the id that the text has there, None if it is not known. With edits also the
    logits without them.
    """
    ids = encode(bench, question.text)
    position = len(ids) - 1 if question.position is None else question.position
    following, hidden = ids[position + 1] if 0 <= position < len(ids) - 1 else None, False
    if _is_encoder(bench) and 0 <= position < len(ids):
        mask_id = mask_id_of(bench.run.tokenizer)
        following, hidden = None if ids[position] == mask_id else ids[position], mask_id is not None
        if mask_id is not None:
            ids[position] = mask_id
    seen = read(bench, ids, question.edits)
    check_position(seen, position)
    lens = logit_lens(seen, [position], LENS_TOP)
    vocabulary = bench.run.tokenizer.vocab_size  # an imported model may have more ids than its tokenizer
    arrays = {
        "logits": _floats(seen.logits[0, position, :vocabulary]),
        "lens_ids": lens.ids[:, 0].to(torch.int32).numpy(),
        "lens_probabilities": _floats(lens.probabilities[:, 0]),
    }
    if question.edits:
        arrays["plain_logits"] = _floats(read(bench, ids).logits[0, position, :vocabulary])
    likely = np.unique([
        *arrays["lens_ids"].ravel(),
        *(id for name in ("logits", "plain_logits") if name in arrays for id in np.argsort(arrays[name])[-50:]),
    ])  # fmt: skip
    if following is not None:
        likely = np.append(likely, following)
    meta = {
        "position": position,
        "next": following,
        "hidden": hidden,
        "names": names_of(bench, likely),
        "step": bench.run.step,
    }
    return pack(meta, arrays)


def look_through_lens(bench: Bench, question: Question) -> bytes:
    """The logit lens as a grid: the most likely next token (L + 1, P) after each layer at P positions from `start`.

    Of an encoder, it is the most likely token in each place of the text as it is. P is that of `lens_positions`, or
    less at the end of the text. Probabilities are in 8 bits.
    """
    ids = encode(bench, question.text)
    seen = read(bench, ids, question.edits)
    start = check_position(seen, question.start)
    lens = logit_lens(seen, range(start, min(start + lens_positions(bench.model, len(ids)), len(ids))), top=1)
    arrays = {
        "ids": lens.ids[..., 0].to(torch.int32).numpy(),
        "probabilities": (lens.probabilities[..., 0] * 255).round().to(torch.uint8).numpy(),
    }
    return pack({"start": start, "names": names_of(bench, arrays["ids"].ravel()), "step": bench.run.step}, arrays)


def lens_positions(model: Model, n_tokens: int) -> int:
    """How many positions of a text one grid shows: all of them if that is cheap."""
    logits = (len(parts(model)) + 1) * embedding_rows(model.config)
    return min(n_tokens, LENS_POSITIONS, max(1, LENS_LOGITS // logits))


def look_at_head(bench: Bench, question: Question) -> bytes:
    """One head: its pattern and scores (T, T), and q, k, v of every position (T, D).

    `scale` is what the products of queries and keys are multiplied by.
    """
    ids = encode(bench, question.text)
    layer, head = question.layer, question.head
    if layer is None or head is None:
        raise UserError("name a head: its layer and its number")
    if layer not in attention_blocks(bench.model):
        raise UserError(f"this model has no attention in block {layer}")
    with edit(bench.model, zero=question.edits):
        seen = trace(bench.model, ids, [f"blocks.{layer}.attn.{step}" for step in STEPS])
    n_heads = seen[f"blocks.{layer}.attn.pattern"].size(1)
    if not 0 <= head < n_heads:
        raise UserError(f"block {layer} has {n_heads} heads, counted from 0")
    arrays = {}
    for step in STEPS:
        value = seen[f"blocks.{layer}.attn.{step}"][0]
        arrays[step] = _floats(value[head * len(value) // n_heads])  # with grouped-query attention, heads share keys
    arrays["scores"][~np.isfinite(arrays["scores"])] = math.nan
    return pack({"layer": layer, "head": head, "scale": scale_of(bench.model, layer)}, arrays)


def _is_encoder(bench: Bench) -> bool:
    return isinstance(bench.model, EncoderModel)


def read(bench: Bench, ids: Sequence[int], edits: Sequence[str] = ()) -> Trace:
    """The forward pass of a text with parts switched off, and its residual streams: a kept one, or a new one."""
    return bench.passes.find((tuple(ids), tuple(edits))) or _pass(bench, ids, edits)


def _pass(bench: Bench, ids: Sequence[int], edits: Sequence[str], more: Sequence[str] = ()) -> Trace:
    """A forward pass, with the residual streams, which are kept, and `more` activations, which are not."""
    streams = _stream_names(bench)
    with edit(bench.model, zero=edits):
        seen = trace(bench.model, ids, [*streams, *more])
    bench.passes.keep((tuple(ids), tuple(edits)), replace(seen, activations={name: seen[name] for name in streams}))
    return seen


def names_of(bench: Bench, ids: Iterable[int]) -> dict[int, dict[str, Any]]:
    """The tokens of these ids. An imported model may have more ids than its tokenizer: those have none."""
    known = sorted({int(id) for id in ids if id < bench.run.tokenizer.vocab_size})
    return dict(zip(known, tokens_of(bench.run.tokenizer, known), strict=True))


def _losses(seen: Trace) -> NDArray[np.float32]:
    """The loss of each token but the first, in nats: (T - 1,)."""
    return _floats(losses_of(seen.logits[0, :-1], seen.tokens[0, 1:], top=1).losses)


def _stream_names(bench: Bench) -> list[str]:
    known = capture_names(bench.model)
    return [name for name in known if name in ("embed", "final") or name.endswith(".resid")]


def _floats(tensor: Tensor) -> NDArray[np.float32]:
    return tensor.detach().float().cpu().numpy()
