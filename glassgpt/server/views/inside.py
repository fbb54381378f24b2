"""Inside: one text through one model: losses, all attention patterns, and what comes next, layer by layer."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from glassgpt.errors import UserError
from glassgpt.generation.text import start_of_text
from glassgpt.inspection.attention import describe_head, head_scores, heads_of
from glassgpt.inspection.capture import capture_names
from glassgpt.inspection.edit import edit
from glassgpt.inspection.lens import logit_lens, streams
from glassgpt.inspection.surprise import losses_of
from glassgpt.inspection.trace import Trace, attention_blocks, check_position, trace
from glassgpt.server.wire import pack
from glassgpt.server.workbench import Bench
from glassgpt.tokenizers.pieces import tokens_of

MOST_TOKENS = 512  # of a text that is looked into: its maps take L·H·T² bytes
MOST_EDITS = 256  # parts that a request may switch off: each is a hook in the forward pass
LENS_TOP = 5  # predictions after each layer
STEPS = ("pattern", "scores", "q", "k", "v")  # of one head


class TooLong(UserError):
    """A text has more tokens than can be looked into."""


@dataclass(frozen=True)
class Question:
    """What a page asks about a text."""

    run: str
    text: str = ""
    step: int | None = None  # of the checkpoint; None: the best
    edits: tuple[str, ...] = ()  # parts that are switched off
    position: int | None = None  # of a token; None: the last
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
    ids = tokenizer.encode(text) or start_of_text(tokenizer)
    most = min(bench.run.config.model.block_size, MOST_TOKENS)
    if len(ids) > most:
        raise TooLong(f"this text has {len(ids):,} tokens, and {most:,} can be looked into: shorten it")
    return ids


def look_inside(bench: Bench, question: Question) -> bytes:
    """The losses of the tokens, every head's pattern in 8 bits, and the size of the stream: one forward pass.

    With edits there is a second one, without them, for the losses to compare with.
    """
    ids = encode(bench, question.text)
    patterns = [name for name in capture_names(bench.model) if name.endswith(".attn.pattern")]
    with edit(bench.model, zero=question.edits):
        seen = trace(bench.model, ids, [*patterns, *_stream_names(bench)])
    heads = heads_of(seen)
    scores = head_scores(heads, ids)
    arrays = {
        "losses": _losses(seen),
        "norms": _floats(torch.stack([stream[0].norm(dim=-1) for stream in streams(seen)])),
        "maps": (heads * 255).round().to(torch.uint8).numpy(),
    }
    if question.edits:
        arrays["plain_losses"] = _losses(trace(bench.model, ids, []))
    meta = {
        "tokens": tokens_of(bench.run.tokenizer, ids),
        "step": bench.run.step,
        "layers": attention_blocks(bench.model),
        "kinds": [[describe_head(scores[n, head]) for head in range(heads.size(1))] for n in range(heads.size(0))],
        "passes": 2 if question.edits else 1,
    }
    return pack(meta, arrays)


def look_ahead(bench: Bench, question: Question) -> bytes:
    """What comes after one token: the logits (V,), and the most likely tokens after each layer (L + 1, 5).

    One forward pass; with edits a second one, without them.
    """
    ids = encode(bench, question.text)
    with edit(bench.model, zero=question.edits):
        seen = trace(bench.model, ids, _stream_names(bench))
    position = check_position(seen, len(ids) - 1 if question.position is None else question.position)
    lens = logit_lens(seen, [position], LENS_TOP)
    vocabulary = bench.run.tokenizer.vocab_size  # an imported model may have more ids than its tokenizer
    arrays = {
        "logits": _floats(seen.logits[0, position, :vocabulary]),
        "lens_ids": lens.ids[:, 0].to(torch.int32).numpy(),
        "lens_probabilities": _floats(lens.probabilities[:, 0]),
    }
    if question.edits:
        arrays["plain_logits"] = _floats(trace(bench.model, ids, []).logits[0, position, :vocabulary])
    likely = np.unique([
        *arrays["lens_ids"].ravel(),
        *(id for name in ("logits", "plain_logits") if name in arrays for id in np.argsort(arrays[name])[-50:]),
    ])  # fmt: skip
    known = [int(id) for id in likely if id < vocabulary]
    names = dict(zip(known, tokens_of(bench.run.tokenizer, known), strict=True))
    following = ids[position + 1] if position + 1 < len(ids) else None
    return pack({"position": position, "next": following, "names": names, "step": bench.run.step}, arrays)


def look_at_head(bench: Bench, question: Question) -> bytes:
    """One head: its pattern and scores (T, T), and q, k, v of every position (T, D)."""
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
    return pack({"layer": layer, "head": head}, arrays)


def _losses(seen: Trace) -> NDArray[np.float32]:
    """The loss of each token but the first, in nats: (T - 1,)."""
    return _floats(losses_of(seen.logits[0, :-1], seen.tokens[0, 1:], top=1).losses)


def _stream_names(bench: Bench) -> list[str]:
    known = capture_names(bench.model)
    return [name for name in known if name in ("embed", "final") or name.endswith(".resid")]


def _floats(tensor: Tensor) -> NDArray[np.float32]:
    return tensor.detach().float().cpu().numpy()
