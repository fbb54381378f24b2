"""The drawings of the course, one for each page, in the visual language of `glassgpt look`.

FAMILY has those of docs/family.md, one for each model; `draw_family` draws one of them.
"""

from __future__ import annotations

from collections.abc import Callable

from glassgpt.course.drawings.attention import head, multihead, scaling
from glassgpt.course.drawings.attention_training import last_token, where_qkv
from glassgpt.course.drawings.bases import meaning
from glassgpt.course.drawings.canvas import Drawing
from glassgpt.course.drawings.changes import since_gpt2
from glassgpt.course.drawings.costs import tricks, validation
from glassgpt.course.drawings.counting import beyond_counting
from glassgpt.course.drawings.curves import journal, metrics
from glassgpt.course.drawings.family import FAMILY
from glassgpt.course.drawings.family import draw as draw_family
from glassgpt.course.drawings.generation import kv_cache, sampling
from glassgpt.course.drawings.laws import scaling_law
from glassgpt.course.drawings.merges import bpe
from glassgpt.course.drawings.mixing import convolution
from glassgpt.course.drawings.reach import longer_window
from glassgpt.course.drawings.scales import initialisation, normalisation
from glassgpt.course.drawings.sides import both_sides
from glassgpt.course.drawings.sources import cross_attention
from glassgpt.course.drawings.stack import blocks, decoder, feedforward, layernorm, residual
from glassgpt.course.drawings.stream import intermediate, stream
from glassgpt.course.drawings.tables import averaging, bigram, embedding
from glassgpt.course.drawings.training import adamw, schedule, training_loop
from glassgpt.course.drawings.windows import batches
from glassgpt.models.ladder import Section

DRAWINGS: dict[str, Callable[[], Drawing]] = {  # by the name of the page
    "01-bigram": bigram,
    "02-embedding": embedding,
    "03-averaging": averaging,
    "04-head": head,
    "05-multihead": multihead,
    "06-feedforward": feedforward,
    "07-blocks": blocks,
    "08-residual": residual,
    "09-layernorm": layernorm,
    "10-decoder": decoder,
    "batches": batches,
    "scaling": scaling,
    "intermediate": intermediate,
    "stream": stream,
    "sampling": sampling,
    "kv-cache": kv_cache,
    "tricks": tricks,
    "validation": validation,
    "bpe": bpe,
    "last-token": last_token,
    "where-qkv": where_qkv,
    "convolution": convolution,
    "meaning": meaning,
    "initialisation": initialisation,
    "normalisation": normalisation,
    "training-loop": training_loop,
    "adamw": adamw,
    "schedule": schedule,
    "cross-attention": cross_attention,
    "both-sides": both_sides,
    "since-gpt2": since_gpt2,
    "longer-window": longer_window,
    "metrics": metrics,
    "beyond-counting": beyond_counting,
    "journal": journal,
    "scaling-law": scaling_law,
}


def lesson_drawing(section: Section) -> Drawing:
    """That of the page about a section of the ladder."""
    return DRAWINGS[f"{section.number:02}-{section.name}"]()


__all__ = ["DRAWINGS", "FAMILY", "Drawing", "draw_family", "lesson_drawing"]
