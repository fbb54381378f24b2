"""The ladder: ten small models from a bigram table to a decoder; each adds one idea to the one before.

Each file can be read on its own. A diff of two neighbours shows the new idea: `diff s08_residual.py s09_layernorm.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from glassgpt.models.ladder.config import LadderConfig
from glassgpt.models.ladder.s01_bigram import BigramModel
from glassgpt.models.ladder.s02_embedding import EmbeddingModel
from glassgpt.models.ladder.s03_averaging import AveragingModel
from glassgpt.models.ladder.s04_head import HeadModel
from glassgpt.models.ladder.s05_multihead import MultiHeadModel
from glassgpt.models.ladder.s06_feedforward import FeedForwardModel
from glassgpt.models.ladder.s07_blocks import BlocksModel
from glassgpt.models.ladder.s08_residual import ResidualModel
from glassgpt.models.ladder.s09_layernorm import LayerNormModel
from glassgpt.models.ladder.s10_decoder import DecoderModel
from glassgpt.models.model import Model


@dataclass(frozen=True)
class Section:
    """One step of the ladder: its number, its name (also the architecture's name), its idea in one line, its model."""

    number: int
    name: str
    idea: str
    model: Callable[[LadderConfig], Model]


SECTIONS = (
    Section(1, "bigram", "the next token depends on the current one alone", BigramModel),
    Section(2, "embedding", "a token is a vector, and so is its position", EmbeddingModel),
    Section(3, "averaging", "hear the past: the mean of all tokens so far", AveragingModel),
    Section(4, "head", "choose whom to hear: one self-attention head", HeadModel),
    Section(5, "multihead", "hear several things at once: more heads", MultiHeadModel),
    Section(6, "feedforward", "think about what was heard: an MLP", FeedForwardModel),
    Section(7, "blocks", "again, on what came out: stacked blocks", BlocksModel),
    Section(8, "residual", "add to the stream instead of replacing it", ResidualModel),
    Section(9, "layernorm", "read the stream at one scale: layer norm", LayerNormModel),
    Section(10, "decoder", "size: a longer window and six wider blocks", DecoderModel),
)

__all__ = ["SECTIONS", "LadderConfig", "Section"]
