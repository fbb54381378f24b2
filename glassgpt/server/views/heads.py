"""Heads: every head of a model with its scores on one text, which is the same for every checkpoint and run."""

from __future__ import annotations

from glassgpt.inspection.ablation import head_effects
from glassgpt.inspection.attention import KINDS, describe_head, head_scores, heads_of, repeated_ids
from glassgpt.inspection.sight import visible_of
from glassgpt.inspection.trace import attention_blocks, trace
from glassgpt.server.views.inside import Question
from glassgpt.server.wire import pack
from glassgpt.server.workbench import Bench

SCORES = (*KINDS, "entropy")


def list_heads(bench: Bench, question: Question) -> bytes:
    """The scores of all heads on random tokens that are said twice; nothing but looking back predicts the second half.

    If the question asks for effects, also by how much the mean loss of that text rises without each head: one forward
    pass for each.
    """
    bench.check_decoder()
    layers = attention_blocks(bench.model)
    ids = repeated_ids(bench.model)
    if not layers:
        return pack({"step": bench.run.step, "n_tokens": len(ids), "heads": []}, {})
    names = [f"blocks.{layer}.attn.pattern" for layer in layers]
    scores = head_scores(heads_of(trace(bench.model, ids, names)), ids, visible_of(bench.model, len(ids)))
    off = head_effects(bench.model, ids) if question.effects else None
    heads = [
        {
            "layer": layer,
            "head": head,
            "kind": describe_head(scores[n, head]),
            **{name: float(getattr(scores, name)[n, head]) for name in SCORES},
            "effect": None if off is None else float(off[n, head]),
        }
        for n, layer in enumerate(layers)
        for head in range(scores.entropy.size(1))
    ]
    return pack({"step": bench.run.step, "n_tokens": len(ids), "heads": heads}, {})
