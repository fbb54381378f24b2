"""Pair: a source and a target through an encoder-decoder: three kinds of attention, and what each step writes."""

from __future__ import annotations

import numpy as np
import torch

from glassgpt.inspection.attention import describe_head, head_scores
from glassgpt.inspection.pairs import PARTS, PairTrace, look_at_pair, sharpness
from glassgpt.inspection.sight import Sight
from glassgpt.inspection.surprise import losses_of
from glassgpt.server.views.inside import MOST_TOKENS, Question, TooLong, names_of
from glassgpt.server.wire import pack
from glassgpt.server.workbench import Bench
from glassgpt.tokenizers.pieces import tokens_of

TOP = 5  # tokens that were likely at a step


def look_inside_pair(bench: Bench, question: Question) -> bytes:
    """The patterns of the encoder (L, H, S, S), of the decoder (L, H, T, T) and between them (L, H, T, S), in 8 bits.

    The text of the question is the source. Without a target, it is what the model writes. Also the loss of the token
    that each of the T steps should write, and the most likely tokens there, (T, 5) with their probabilities.
    `sharpness` (L, H) is how much a query of cross-attention gives to one source token on average. `lens_ids`
    (L + 1, T) is what each layer of the decoder would write, and `lens_probabilities` in 8 bits.
    Raises UserError for a model of another kind.
    """
    model, tokenizer = bench.run.encoder_decoder, bench.run.tokenizer
    for text in (question.text, question.target or ""):
        if (count := len(tokenizer.encode(text))) > MOST_TOKENS:
            raise TooLong(f"this text has {count:,} tokens, and {MOST_TOKENS:,} can be looked into: shorten it")
    seen = look_at_pair(model, tokenizer, question.text, question.target)
    found = losses_of(seen.logits, torch.tensor(seen.outputs), TOP)
    expected = found.expected_ids.to(torch.int32).numpy()
    maps = {str(part): (seen.patterns(part) * 255).round().to(torch.uint8).numpy() for part in PARTS}
    arrays = {
        **maps,
        "losses": found.losses.numpy(),
        "expected": expected,
        "probabilities": found.expected_probabilities.numpy(),
        "sharpness": sharpness(seen.cross).numpy(),
        "lens_ids": seen.lens.ids[..., 0].to(torch.int32).numpy(),
        "lens_probabilities": (seen.lens.probabilities[..., 0] * 255).round().to(torch.uint8).numpy(),
    }
    meta = {
        "source": tokens_of(tokenizer, seen.source),
        "inputs": tokens_of(tokenizer, seen.inputs),
        "outputs": tokens_of(tokenizer, seen.outputs),
        "written": question.target is None,
        "kinds": {"encoder": _kinds(seen, "encoder"), "decoder": _kinds(seen, "decoder")},
        "names": names_of(bench, np.unique(np.concatenate([expected.ravel(), arrays["lens_ids"].ravel()]))),
        "step": bench.run.step,
    }
    return pack(meta, arrays)


def _kinds(seen: PairTrace, part: str) -> list[list[str | None]]:
    """The kind of each head of the encoder or of the decoder, in words."""
    patterns, ids = (seen.encoder, seen.source) if part == "encoder" else (seen.decoder, seen.inputs)
    visible = Sight(causal=part == "decoder").visible(len(ids), len(ids))
    scores = head_scores(patterns, ids, visible)
    L, H = patterns.shape[:2]
    return [[describe_head(scores[layer, head]) for head in range(H)] for layer in range(L)]
