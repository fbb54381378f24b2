"""The ten ideas of the ladder as drawings, one for each section, in the visual language of `glassgpt look`."""

from __future__ import annotations

from collections.abc import Callable

from glassgpt.course.drawings.attention import head, multihead
from glassgpt.course.drawings.canvas import Drawing
from glassgpt.course.drawings.stack import blocks, decoder, feedforward, layernorm, residual
from glassgpt.course.drawings.tables import averaging, bigram, embedding

DRAWINGS: dict[str, Callable[[], Drawing]] = {  # by the name of the section
    "bigram": bigram,
    "embedding": embedding,
    "averaging": averaging,
    "head": head,
    "multihead": multihead,
    "feedforward": feedforward,
    "blocks": blocks,
    "residual": residual,
    "layernorm": layernorm,
    "decoder": decoder,
}

__all__ = ["DRAWINGS", "Drawing"]
