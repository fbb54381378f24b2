"""One drawing for each model of docs/family.md: a tower of blocks, or an encoder and a decoder side by side.

A model is a few words: what goes in, the parts of a block, where the norms are, what comes out. `draw` makes the
drawing from them. Sizes are those of one published model of each kind.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from glassgpt.course.drawings.canvas import (
    WIDTH,
    Drawing,
    arrow,
    frame,
    ink,
    label,
    line,
    operation,
    weight_map,
)
from glassgpt.course.drawings.stack import Part, Picture, sublayer

PLACES, CELL = 5, 5.0  # of a small map of attention: a row for each query, a column for each key
GAP = 12.0  # between an encoder and a decoder


@dataclass(frozen=True)
class Tower:
    """Blocks of one kind. `head` is empty for an encoder whose result is the memory of a decoder."""

    title: str
    embedding: str
    parts: Sequence[Part]
    blocks: int
    head: str = ""
    answer: str = ""  # what the head's scores are for


@dataclass(frozen=True)
class Family:
    """A model: one tower, or an encoder and a decoder. `after`: the norms are behind the sums."""

    name: str
    size: str  # which published model the numbers are from
    towers: Sequence[Tower]
    facts: Sequence[str]  # what the boxes do not say, in lines
    description: str
    after: bool = False


def sees(who: Callable[[int, int], bool]) -> Picture:
    """A small map: filled where a query (row) may attend to a key (column)."""

    def draw(left: float, y: float) -> Sequence[str]:
        weights = [[0.75 if who(query, key) else None for key in range(PLACES)] for query in range(PLACES)]
        size, top = PLACES * CELL, y - PLACES * CELL / 2
        return frame(left, top, size, size, round=1), weight_map(left, top, weights, CELL)

    return Picture(PLACES * CELL, draw)


BOTH = sees(lambda query, key: True)
LEFT = sees(lambda query, key: key <= query)
BAND = sees(lambda query, key: query - 2 < key <= query)


def groups(queries: int, keys: int) -> Picture:
    """Query heads above, and below them the key/value heads that they share."""
    width = 6.5 * queries

    def draw(left: float, y: float) -> Sequence[str]:
        each = queries // keys
        parts = []
        for head in range(queries):
            x, own = left + 6.5 * head + 3, left + 6.5 * (head // each * each + (each - 1) / 2) + 3
            parts += [line((x, y - 9), (own, y + 9), colour="attention", thick=1), dot(x, y - 9, "query")]
            if head % each == 0:
                parts.append(dot(own, y + 9, "key"))
        return parts

    return Picture(width, draw)


def experts(count: int, active: Sequence[int]) -> Picture:
    """Experts as boxes, of which a few compute."""
    size = 11.0

    def draw(left: float, y: float) -> Sequence[str]:
        return [
            frame(left + 13 * (i % 4), y - 12 + 13 * (i // 4), size, size, colour="stream", fill="stream",
                  opacity=0.85 if i in active else 0.0, round=2)
            for i in range(count)
        ]  # fmt: skip

    return Picture(13.0 * min(4, count) - 2, draw)


def dot(x: float, y: float, colour: str) -> str:
    """A head."""
    return f'<circle cx="{x:g}" cy="{y:g}" r="2.8" fill="{ink(colour)}"/>'


def draw(model: Family) -> Drawing:
    """The drawing of a model: data run down, along the thick lines."""
    parts, ends = [label(8, 16, model.name, anchor="start", bold=True, size=17)], []
    parts.append(label(WIDTH - 8, 16, model.size, anchor="end", colour="quiet"))
    pair = len(model.towers) > 1
    top = 44.0 if pair else 24.0
    memory: tuple[float, float] | None = None  # where the encoder's result leaves it
    for i, tower in enumerate(model.towers):
        left = 3 + i * (WIDTH - 6 + GAP) / 2 if pair else 8.0
        wide = (WIDTH - 6 - GAP) / 2 if pair else 328.0
        middle = left + wide / 2
        x = left + 34 if not pair or i == 0 else left + wide - 34  # a decoder beside an encoder is its mirror image
        box = wide - 76 if pair else 244.0
        centre = (left + wide - 8 - box / 2) if x < middle else left + 8 + box / 2
        if pair:
            parts.append(label(middle, top, tower.title, bold=True))
        parts.append(operation(middle, top + 30, wide - 8, tower.embedding, height=28))
        y, begin = top + 84, top + 62
        inside: list[str] = []
        crossing = 0.0
        for part in tower.parts:
            own, end = sublayer(x, centre, y, box, part, after=model.after)
            inside += own
            if part.name == "cross-attention":
                crossing = end - (53 if model.after else 24) - part.height / 2
            y = end + 14
        bottom = y
        parts += [
            frame(left, begin, wide, bottom - begin, colour="quiet", fill="raised", round=10),
            line((x, top + 44), (x, bottom + 16), thick=5),
            *inside,
        ]
        if pair:
            parts.append(label(centre, begin + 12, f"× {tower.blocks}", bold=True, size=14))
        else:
            parts.append(label(left + wide + 34, (begin + bottom) / 2 - 10, f"× {tower.blocks}", size=18, bold=True))
            parts.append(label(left + wide + 34, (begin + bottom) / 2 + 10, "blocks", colour="quiet"))
        y = bottom + 12
        if not model.after:
            parts.append(operation(x, y + 10, 56, "norm", height=22))
            y += 21
        if tower.head:
            parts += [
                arrow((x, y), (x, y + 16), thick=3),
                operation(middle, y + 31, wide - 8, tower.head, height=28),
                label(middle, y + 58, tower.answer, colour="quiet"),
            ]
            y += 66
        else:
            memory = (x, y + 12)
            parts.append(line((x, y - 2), (x, y + 14), thick=5))
            parts.append(label(left + 52, y + 28, "the memory: one", anchor="start", colour="quiet"))
            parts.append(label(left + 52, y + 45, "vector per token", anchor="start", colour="quiet"))
            y += 40
        if crossing and memory:
            parts.append(
                arrow(memory, (WIDTH / 2, memory[1]), (WIDTH / 2, crossing), (left + 7, crossing),
                      colour="key", thick=3)
            )  # fmt: skip
        ends.append(y)
    y = max(ends) + 10
    for i, fact in enumerate(model.facts):
        parts.append(label(8, y + 18 * i + 8, fact, anchor="start"))
    return Drawing(model.name, model.description, math.ceil(y + 18 * len(model.facts) + 6), parts)


def mlp(*notes: str, name: str = "MLP", pictures: Sequence[Picture] = ()) -> Part:
    """The part that processes each position."""
    return Part(name, "stream", notes, pictures)


def attention(name: str, seen: Picture | Sequence[Picture], *notes: str) -> Part:
    """An attention, with what it sees."""
    return Part(name, "attention", notes, (seen,) if isinstance(seen, Picture) else seen)


SCORES = "scores for the next token"
FAMILY = {
    "transformer": Family(
        "The Transformer, 2017", "base: 63 million",
        (
            Tower(
                "encoder: reads the source", "tokens + sines",
                (attention("self-attention", BOTH, "both sides"), mlp("ReLU")), 6,
            ),
            Tower(
                "decoder: writes the target", "tokens + sines",
                (
                    attention("self-attention", LEFT, "left side"),
                    attention("cross-attention", BOTH, "the source"),
                    mlp("ReLU"),
                ),
                6, "head = embedding", SCORES,
            ),
        ),
        (
            "Norms: LayerNorm, behind each sum (post-norm).",
            "Positions: fixed sines and cosines, added.",
        ),
        "An encoder and a decoder side by side. A block of the encoder has self-attention to both sides and an MLP. A "
        "block of the decoder has self-attention to the left side, cross-attention to the memory, which an arrow "
        "brings from the end of the encoder, and an MLP. Behind each sum with the stream stands a norm.",
        after=True,
    ),
    "gpt2": Family(
        "GPT-2, 2019", "small: 124 million",
        (
            Tower(
                "decoder", "tokens + learned positions",
                (attention("self-attention", LEFT, "the left side, 12 heads"), mlp("GELU, 4 C units")),
                12, "head = token embedding (tied)", SCORES,
            ),
        ),
        ("Norms: LayerNorm, in front of each part (pre-norm).", "Biases in every layer."),
        "One tower of 12 blocks. Each has self-attention to the left side with 12 heads and an MLP with GELU, each "
        "behind a norm. Learned positions are added to the tokens, and the head is the token embedding.",
    ),
    "bert": Family(
        "BERT, 2018", "base: 110 million",
        (
            Tower(
                "encoder", "norm of tokens + positions + segments",
                (attention("self-attention", BOTH, "both sides, 12 heads"), mlp("GELU, 4 C units")),
                12, "layer, GELU, norm, token embedding", "scores for each hidden token",
            ),
        ),
        ("Norms: LayerNorm, behind each sum (post-norm),", "and behind the embeddings. Positions are learned."),
        "One tower of 12 blocks. Each has self-attention to both sides with 12 heads and an MLP with GELU. A norm "
        "stands behind each sum. Positions and segments are added to the tokens. The head is a layer, GELU, a norm and "
        "the token embedding.",
        after=True,
    ),
    "t5": Family(
        "T5, 2020", "small: 60 million",
        (
            Tower(
                "encoder: reads the source", "tokens",
                (attention("self-attention", BOTH, "both sides"), mlp("ReLU")), 6,
            ),
            Tower(
                "decoder: writes the target", "tokens",
                (
                    attention("self-attention", LEFT, "left side"),
                    attention("cross-attention", BOTH, "the source"),
                    mlp("ReLU"),
                ),
                6, "head = embedding", SCORES,
            ),
        ),
        (
            "Norms: RMSNorm, in front of each part. No biases.",
            "Positions: each head of self-attention has learned",
            "numbers, added to scores by distance.",
            "Version 1.1: a gated GELU, and a head of its own.",
        ),
        "An encoder and a decoder side by side, as in the Transformer of 2017. The norms are in front of the parts. "
        "Nothing is added to the tokens: self-attention adds a number for each distance to its scores.",
    ),
    "llama": Family(
        "Llama 3, 2024", "8 billion",
        (
            Tower(
                "decoder", "tokens",
                (
                    attention("self-attention", (LEFT, groups(8, 2)), "32 query heads", "share 8 of k, v"),
                    mlp("SiLU(gate) · up, 3.5 C units", name="gated MLP"),
                ),
                32, "head of its own", SCORES,
            ),
        ),
        (
            "Blue: query heads. Orange: heads of keys and values.",
            "Positions: queries and keys are turned (rotary).",
            "Norms: RMSNorm, in front of each part. No biases.",
        ),
        "One tower of 32 blocks. Each has self-attention to the left side, in which 32 query heads share 8 key and "
        "value heads, and a gated MLP, each behind a norm. Nothing is added to the tokens: positions turn queries and "
        "keys. The head has weights of its own.",
    ),
    "qwen3": Family(
        "Qwen3, 2025", "0.6 billion",
        (
            Tower(
                "decoder", "tokens",
                (
                    attention(
                        "self-attention", (LEFT, groups(8, 4)),
                        "16 query heads", "share 8 of k, v;", "a norm for q and k",
                    ),
                    mlp("SiLU(gate) · up, 3 C units", name="gated MLP"),
                ),
                28, "head = token embedding (tied)", SCORES,
            ),
        ),
        (
            "Positions: q and k are normalised, then turned.",
            "Norms: RMSNorm, in front of each part. No biases.",
        ),
        "One tower of 28 blocks, as in Llama. 16 query heads share 8 key and value heads, and queries and keys have a "
        "norm of their own. The head is the token embedding.",
    ),
    "gpt_oss": Family(
        "GPT-oss, 2025", "21 billion, 3.6 for a token",
        (
            Tower(
                "decoder", "tokens",
                (
                    attention(
                        "self-attention", (BAND, LEFT, groups(8, 1)), "64 heads share", "8 of k, v;", "each has a sink"
                    ),
                    mlp(
                        "a router chooses", "4 of 32 gated MLPs", name="mixture of experts",
                        pictures=[experts(8, (1, 6))],
                    ),
                ),
                24, "head of its own", SCORES,
            ),
        ),
        (
            "Even blocks see the last 128 positions, odd all.",
            "A sink is a learned score: attend to nothing.",
            "Positions: rotary, stretched (YaRN). Norms:",
            "RMSNorm, before. Biases, but not in the head.",
        ),
        "One tower of 24 blocks. In its self-attention, blocks with a band of 128 positions alternate with blocks that "
        "see all of the left side; 64 query heads share 8 key and value heads, and each has a sink. In place of an MLP "
        "a router chooses 4 of 32 experts for each token.",
    ),
}  # fmt: skip
