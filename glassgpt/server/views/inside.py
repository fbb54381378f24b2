"""Inside: one text through one model: predictions, losses, all attention patterns, and the prediction layer by layer."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from glassgpt.errors import UserError
from glassgpt.generation.text import start_of_text
from glassgpt.inspection.capture import capture, capture_names
from glassgpt.inspection.edit import edit
from glassgpt.server.wire import pack
from glassgpt.server.workbench import Bench
from glassgpt.tokenizers import Tokenizer

MOST_TOKENS = 512  # of a text that is looked into: its maps take L·H·T² bytes


@dataclass(frozen=True)
class Question:
    """What a page asks about a text. Raises UserError for a field out of range."""

    run: str
    text: str
    step: int | None = None  # of the checkpoint; None: the best
    edits: tuple[str, ...] = ()  # parts that are switched off
    layer: int | None = None
    head: int | None = None

    @property
    def checkpoint(self) -> str | int:
        """The checkpoint, as `load` names it."""
        return "best" if self.step is None else self.step


def encode(bench: Bench, text: str) -> list[int]:
    """The ids of a text. Raises UserError if there are too many, and for a character that the run does not know."""
    tokenizer = bench.run.tokenizer
    ids = tokenizer.encode(text) or start_of_text(tokenizer)
    most = min(bench.run.config.model.block_size, MOST_TOKENS)
    if len(ids) > most:
        raise UserError(f"this text has {len(ids):,} tokens, and {most:,} can be looked into: shorten it")
    return ids


def tokens_of(tokenizer: Tokenizer, ids: Sequence[int]) -> list[dict[str, Any]]:
    """Each token with its id, its text, and its bytes where they are no whole characters."""
    found = []
    names = {id: name for name, id in tokenizer.special_tokens.items()}
    for id in ids:
        if id in names:
            found.append({"id": id, "text": names[id], "special": True})
            continue
        data = tokenizer.token_bytes(id) if id < tokenizer.vocab_size else b""
        try:
            found.append({"id": id, "text": data.decode()})
        except UnicodeDecodeError:
            found.append({"id": id, "text": data.decode(errors="replace"), "bytes": data.hex(" ")})
    return found


def look_inside(bench: Bench, question: Question) -> bytes:
    """The view's numbers, in one forward pass; with edits in two: the second one is without them."""
    began = time.perf_counter()
    ids = encode(bench, question.text)
    tokens = torch.tensor([ids], device=bench.run.runtime.device)
    patterns = [name for name in capture_names(bench.model) if name.endswith(".attn.pattern")]
    streams = ["embed", *(name for name in capture_names(bench.model) if name.endswith(".resid"))]
    names = [name for name in streams if name in capture_names(bench.model)]
    with edit(bench.model, zero=question.edits):
        logits, seen = capture(bench.model, tokens, [*patterns, *names])
    arrays = {
        "logits": _floats(logits[0, -1]),
        "losses": _floats(losses(logits, tokens)),
        "norms": _floats(torch.stack([seen[name][0].norm(dim=-1) for name in names])) if names else np.zeros((0, 0)),
    }
    if patterns:
        maps = torch.stack([seen[name][0] for name in patterns])  # (L, H, T, T)
        arrays["maps"] = (maps * 255).round().to(torch.uint8).cpu().numpy()
    if question.edits:
        with torch.inference_mode():
            plain = bench.model(tokens)
        arrays |= {"base_logits": _floats(plain[0, -1]), "base_losses": _floats(losses(plain, tokens))}
    vocabulary = bench.run.tokenizer.vocab_size
    meta = {
        "tokens": tokens_of(bench.run.tokenizer, ids),
        "step": bench.run.step,
        "layers": [name.split(".")[1] for name in patterns],
        "passes": 2 if question.edits else 1,
        "vocab_size": vocabulary,
        "seconds": time.perf_counter() - began,
    }
    return pack(meta, arrays)


def losses(logits: Tensor, tokens: Tensor) -> Tensor:
    """The loss of each token but the first, in nats: logits (1, T, V), tokens (1, T) to (T-1,)."""
    return F.cross_entropy(logits[0, :-1].float(), tokens[0, 1:], reduction="none")


def look_at_head(bench: Bench, question: Question) -> bytes:
    """One head: its pattern and scores (T, T), and q, k, v of every position (T, D)."""
    ids = encode(bench, question.text)
    tokens = torch.tensor([ids], device=bench.run.runtime.device)
    if question.layer is None or question.head is None:
        raise UserError("name a head: its layer and its number")
    prefix = f"blocks.{question.layer}.attn."
    steps = ("pattern", "scores", "q", "k", "v")
    with edit(bench.model, zero=question.edits):
        _, seen = capture(bench.model, tokens, [prefix + step for step in steps])
    if not 0 <= question.head < seen[prefix + "pattern"].size(1):
        raise UserError(f"layer {question.layer} has {seen[prefix + 'pattern'].size(1)} heads, counted from 0")
    arrays = {}
    for step in steps:
        value = seen[prefix + step][0]
        group = value.size(0) * question.head // seen[prefix + "pattern"].size(1)  # fewer keys with grouped queries
        arrays[step] = _floats(value[group])
    arrays["scores"][~np.isfinite(arrays["scores"])] = math.nan
    return pack({"layer": question.layer, "head": question.head, "head_size": arrays["q"].shape[1]}, arrays)


def _floats(tensor: Tensor) -> np.ndarray[Any, np.dtype[np.float32]]:
    return tensor.detach().float().cpu().numpy()
