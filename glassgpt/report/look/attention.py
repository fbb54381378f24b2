"""Whom does each token hear? The pattern of one head, and what kind of head each of the others is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, ClassVar

from torch import Tensor

from glassgpt.inspection.attention import KINDS
from glassgpt.inspection.sight import Sight
from glassgpt.report import page
from glassgpt.report.look.drawing import (
    CELL,
    LABEL,
    LETTER,
    MOST_DRAWN,
    Line,
    Span,
    View,
    above,
    bar,
    columns,
    details,
    fit,
    labels_of,
    letters_of,
    plain,
    quoted,
    rect,
    sentences,
    shade,
    shade_steps,
    share,
    svg_text,
    widest,
)
from glassgpt.report.palette import TERMINAL_ATTENTION

Kind = tuple[str, float] | None  # of a head, see `head_kind`
SINK = "sink"  # the label of its column
SINK_CELL, GAP = 9, 6  # pixels: its column is narrow, and apart from the tokens
LEAST_DRAWN = 0.01  # a weaker weight cannot be seen
STRONGEST = 3  # keys of a query that a table names


@dataclass(frozen=True, repr=False, eq=False)
class AttentionView(View):
    """One head on a text of T tokens, and the kinds of all L·H heads.

    `pattern` (T, T) holds the weights that query t gives to the keys. A row sums to 1, together with the weight of the
    head's sink in `sinks` (T,), which is None for a head without one. `blocks` are the numbers of the L blocks that
    have attention, and `sights` say what their queries see. `layer` is one of the blocks.
    """

    question: ClassVar[str] = "Whom does each token hear?"

    source: str
    tokens: list[dict[str, Any]]
    layer: int
    head: int
    pattern: Tensor
    blocks: list[int]
    kinds: list[list[Kind]]
    sights: list[Sight]
    sinks: Tensor | None

    @property
    def kind(self) -> Kind:
        """The kind of the head and its score; None if it is of no known kind."""
        return self.kinds[self.blocks.index(self.layer)][self.head]

    @property
    def sight(self) -> Sight:
        """What the queries of the head see."""
        return self.sights[self.blocks.index(self.layer)]

    @property
    def windowed(self) -> bool:
        """Whether a layer of the model has a window."""
        return any(sight.window is not None for sight in self.sights)

    def to_dict(self) -> dict[str, Any]:
        """The pattern by rows, and the kinds of all heads."""
        return {
            "tokens": self.tokens,
            "layer": self.layer,
            "head": self.head,
            **_kind_fields(self.kind),
            "causal": self.sight.causal,
            "window": self.sight.window,
            "pattern": [[round(weight, 6) for weight in row] for row in self.pattern.tolist()],
            "sink": None if self.sinks is None else [round(weight, 6) for weight in self.sinks.tolist()],
            "heads": [
                {"layer": block, "head": head, **_kind_fields(kind)}
                for block, row in zip(self.blocks, self.kinds, strict=True)
                for head, kind in enumerate(row)
            ],
        }

    def drawing(self, width: int) -> list[Line]:
        """The pattern in shaded blocks with the strongest key of each token at the right; then the heads."""
        return [*self._map(width), [], *self._heads(width)]

    @property
    def answer(self) -> str:
        """What it says in sentences."""
        told = [f"This is head {self.layer}.{self.head} of {self.source}."]
        if self.kind is None:
            told.append("It is of no known kind on this text: none takes half of its attention.")
        else:
            told.append(f"Kind: {KINDS[self.kind[0]]}, {share(self.kind[1])} of its attention.")
        if self.windowed or not self.sight.causal:
            told.append(f"A token sees {self.sight.told}.")
        if self.sinks is not None:
            told.append(f"On average, {share(float(self.sinks.mean()))} of the attention goes to the sink.")
        return " ".join(told)

    def _map(self, width: int) -> list[Line]:
        labels, T = labels_of(self.tokens), len(self.tokens)
        digits, beside = len(str(T - 1)), widest(labels, LABEL)
        sink = 0 if self.sinks is None else 2  # its column is narrow, and has a gap
        room = max(width - (digits + 1 + beside + 1) - sink - (1 + beside + 5), 4)
        cell = 2 if room >= 2 * T else max(columns(letter) for label in labels for letter in letters_of(label))
        drawn = min(T, room // cell)
        first = T - drawn
        lines: list[Line] = []
        if first:
            lines += [*sentences(f"These are the last {drawn} of {T} tokens.", width), []]
        blank = " " * (digits + 1 + beside + 1)
        heads = [(label, cell) for label in labels[first:]]
        lines += [plain(blank + row) for row in above(heads if self.sinks is None else [(SINK, sink), *heads])]
        for query in range(first, T):
            weights, seen = self.pattern[query].tolist(), self.sight.keys(query, T)
            key = max(seen, key=weights.__getitem__)
            row = [Span(f"{query:>{digits}} {fit(labels[query], beside)} ")]
            if self.sinks is not None:
                row.append(Span(shade(float(self.sinks[query])) + " ", ink=TERMINAL_ATTENTION))
            cells = "".join((shade(weights[at]) if at in seen else " ") * cell for at in range(first, T))
            row.append(Span(cells, ink=TERMINAL_ATTENTION))
            row.append(Span(f" {fit(labels[key], beside)} {share(weights[key]):>4}"))
            lines.append(row)
        legend = "Each row ends with the token that it hears most, of all tokens."
        if self.sight.window is not None:
            legend += " Blank: after the token, or outside of its window."
        if self.sinks is not None:
            legend += " The first column is the sink: weight that goes to no token."
        return [*lines, [], plain(shade_steps()), *sentences(legend, width)]

    def _heads(self, width: int) -> list[Line]:
        """A row for each block and a short name for each head; many heads of a block take several rows."""
        cells = [[_short(kind) for kind in row] for row in self.kinds]
        names = self._block_names(" ")
        side = widest(names, width) + 1
        room = max((width - side) // 5, 1)
        n_heads = len(cells[0])
        lines = sentences("All heads: the kind of each, and its share of the attention in percent", width)
        for start in range(0, n_heads, room):
            heads = range(start, min(start + room, n_heads))
            lines.append(plain(" " * side + "".join(f"{head:>5}" for head in heads)))
            for block, name, row in zip(self.blocks, names, cells, strict=True):
                line = [Span(fit(name, side))]
                for head in heads:
                    chosen = (block, head) == (self.layer, self.head)
                    line.append(Span(f"{row[head]:>5}", ink=TERMINAL_ATTENTION if chosen else ""))
                lines.append(line)
        found = {kind[0] for row in self.kinds for kind in row if kind is not None}
        words = [f"{_initial(kind)} {name}" for kind, name in KINDS.items() if kind in found]
        return [*lines, *sentences(", ".join([*words, "- no known kind"]), width)]

    def _block_names(self, between: str) -> list[str]:
        """The names of the blocks; where some layers have a window, each says what it sees."""
        if not self.windowed:
            return [f"block {block}" for block in self.blocks]
        return [f"block {block}{between}{sight.name}" for block, sight in zip(self.blocks, self.sights, strict=True)]

    def html(self) -> str:
        """The pattern as a picture, the table that says the same, and the table of all heads."""
        caption = '<p class="quiet">All heads, and the share of their attention that gives them their name</p>'
        return f"{self.picture_html()}\n{caption}\n{self.heads_html()}"

    def picture_html(self) -> str:
        """The pattern as a picture, and the table that says the same."""
        labels = labels_of(self.tokens)
        rows = []
        for query, weights in enumerate(self.pattern.tolist()):
            keys = sorted(self.sight.keys(query, len(labels)), key=weights.__getitem__, reverse=True)[:STRONGEST]
            heard = ", ".join(f"{quoted(labels[key])} {share(weights[key])}" for key in keys)
            if self.sinks is not None:
                heard += f"; the sink {share(float(self.sinks[query]))}"
            rows.append((f"{query} {escape(quoted(labels[query]))}", escape(heard)))
        return f"{self._svg(labels)}\n{details(rows, ('Token', 'hears most'))}"

    def heads_html(self) -> str:
        """The table of all heads with their kinds."""
        header = ["", *(f"head {head}" for head in range(len(self.kinds[0])))]
        heads = [
            (name, *(_html_kind(kind, (block, head) == (self.layer, self.head)) for head, kind in enumerate(row)))
            for block, name, row in zip(self.blocks, self._block_names(", "), self.kinds, strict=True)
        ]  # fmt: skip
        return page.table(heads, header)

    def _svg(self, labels: Sequence[str]) -> str:
        first, T = max(0, len(labels) - MOST_DRAWN), len(labels)
        names = [fit(label, LABEL).rstrip() for label in labels[first:]]
        beside = widest(names, LABEL) * LETTER + 8
        left = beside + (0 if self.sinks is None else SINK_CELL + GAP)
        upright = all(columns(name) <= 2 for name in names)
        top = 20.0 if upright and self.sinks is None else max(beside, 4 * LETTER + 8)
        side = len(names) * CELL
        parts = [f'<rect class="frame" x="{left:.0f}" y="{top:.0f}" width="{side}" height="{side}"/>']
        hidden, cells = [], []
        if self.sinks is not None:
            parts.append(svg_text(beside + 9, top - 5, SINK, "start", turned=True))
            parts.append(f'<rect class="frame" x="{beside:.0f}" y="{top:.0f}" width="{SINK_CELL}" height="{side}"/>')
        for row, name in enumerate(names):
            y = top + row * CELL
            parts.append(svg_text(beside - 4, y + 11, name, "end"))
            if upright:
                parts.append(svg_text(left + row * CELL + CELL / 2, top - 5, name, "middle"))
            else:
                parts.append(svg_text(left + row * CELL + 11, top - 5, name, "start", turned=True))
            query = quoted(labels[first + row])
            seen = self.sight.keys(first + row, T)
            before, after = max(0, seen.start - first), seen.stop - first  # columns
            for start, stop in ((0, before), (after, len(names))):
                if start < stop:
                    hidden.append(rect(left + start * CELL, y, (stop - start) * CELL))
            for column in range(before, after):
                weight = float(self.pattern[first + row, first + column])
                if weight >= LEAST_DRAWN:
                    words = f"{query} hears {quoted(labels[first + column])}: {share(weight)}"
                    cells.append(rect(left + column * CELL, y, CELL, weight, words))
            if self.sinks is not None and (weight := float(self.sinks[first + row])) >= LEAST_DRAWN:
                cells.append(rect(beside, y, SINK_CELL, weight, f"{query} gives its sink {share(weight)}"))
        note = f'<p class="quiet">The last {MOST_DRAWN} of {T} tokens</p>\n' if first else ""
        return (
            f'{note}<svg xmlns="http://www.w3.org/2000/svg" width="{left + side + 2:.0f}" height="{top + side + 2:.0f}"'
            f' role="img" aria-label="{escape(self.answer)}">\n<g class="unseen">{"".join(hidden)}</g>\n'
            f'{"".join(parts)}\n<g class="cells">{"".join(cells)}</g>\n</svg>'
        )


def _short(kind: Kind) -> str:
    """A head as the table of a terminal shows it, such as "p94"."""
    return "-" if kind is None else f"{_initial(kind[0])}{kind[1] * 100:.0f}"


def _initial(kind: str) -> str:
    return kind[0]


def _kind_fields(kind: Kind) -> dict[str, Any]:
    return {"kind": None, "score": None} if kind is None else {"kind": kind[0], "score": round(kind[1], 6)}


def _html_kind(kind: Kind, chosen: bool) -> str:
    if kind is None:
        return '<span class="chosen">–</span>' if chosen else "–"
    cell = bar(f"{KINDS[kind[0]]} {share(kind[1])}", kind[1])
    return f'<span class="chosen">{cell}</span>' if chosen else cell
