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

    `keys` are the tokens of the columns, the same T. `pattern` (T, T) holds the weights that query t gives to the keys.
    A row sums to 1, together with the weight of the head's sink in `sinks` (T,), which is None for a head without one.
    `blocks` are the numbers of the L blocks that have attention, and `sights` say what their queries see. `layer` is
    one of the blocks.
    """

    question: ClassVar[str] = "Whom does each token hear?"

    source: str
    tokens: list[dict[str, Any]]
    keys: list[dict[str, Any]]
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
        labels, keys, T, S = labels_of(self.tokens), labels_of(self.keys), len(self.tokens), len(self.keys)
        digits, beside, after = len(str(T - 1)), widest(labels, LABEL), widest(keys, LABEL)
        sink = 0 if self.sinks is None else 2  # its column is narrow, and has a gap
        room = max(width - (digits + 1 + beside + 1) - sink - (1 + after + 5), 4)
        cell = 2 if room >= 2 * S else max(columns(letter) for label in keys for letter in letters_of(label))
        rows, shown = self._drawn(room // cell)
        lines: list[Line] = []
        if len(shown) < S:
            lines += [*sentences(self._told_of_part(len(shown)), width), []]
        blank = " " * (digits + 1 + beside + 1)
        heads = [(keys[key], cell) for key in shown]
        lines += [plain(blank + row) for row in above(heads if self.sinks is None else [(SINK, sink), *heads])]
        for query in rows:
            weights, seen = self.pattern[query].tolist(), self.sight.keys(query, S)
            key = max(seen, key=weights.__getitem__)
            row = [Span(f"{query:>{digits}} {fit(labels[query], beside)} ")]
            if self.sinks is not None:
                row.append(Span(shade(float(self.sinks[query])) + " ", ink=TERMINAL_ATTENTION))
            cells = "".join((shade(weights[at]) if at in seen else " ") * cell for at in shown)
            row.append(Span(cells, ink=TERMINAL_ATTENTION))
            row.append(Span(f" {fit(keys[key], after)} {share(weights[key]):>4}"))
            lines.append(row)
        legend = "Each row ends with the token that it hears most, of all tokens."
        if self.sight.window is not None:
            legend += " Blank: after the token, or outside of its window."
        if self.sinks is not None:
            legend += " The first column is the sink: weight that goes to no token."
        return [*lines, [], plain(shade_steps()), *sentences(legend, width)]

    def _drawn(self, most: int) -> tuple[range, range]:
        """The queries and the keys that a picture of at most `most` columns shows: the last ones."""
        T = len(self.tokens)
        return range(max(0, T - most), T), range(max(0, T - most), T)

    def _told_of_part(self, n_shown: int) -> str:
        return f"These are the last {n_shown} of {len(self.keys)} tokens."

    def _heads(self, width: int) -> list[Line]:
        cells = [[_short(kind) for kind in row] for row in self.kinds]
        found = {kind[0] for row in self.kinds for kind in row if kind is not None}
        words = [f"{_initial(kind)} {name}" for kind, name in KINDS.items() if kind in found]
        return [
            *sentences("All heads: the kind of each, and its share of the attention in percent", width),
            *self._table_of_heads(cells, width),
            *sentences(", ".join([*words, "- no known kind"]), width),
        ]

    def _table_of_heads(self, cells: list[list[str]], width: int) -> list[Line]:
        """A row for each block and a cell for each head; many heads of a block take several rows."""
        names = self._block_names(" ")
        side = widest(names, width) + 1
        room = max((width - side) // 5, 1)
        n_heads = len(cells[0])
        lines: list[Line] = []
        for start in range(0, n_heads, room):
            heads = range(start, min(start + room, n_heads))
            lines.append(plain(" " * side + "".join(f"{head:>5}" for head in heads)))
            for block, name, row in zip(self.blocks, names, cells, strict=True):
                line = [Span(fit(name, side))]
                for head in heads:
                    chosen = (block, head) == (self.layer, self.head)
                    line.append(Span(f"{row[head]:>5}", ink=TERMINAL_ATTENTION if chosen else ""))
                lines.append(line)
        return lines

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
        labels, names = labels_of(self.tokens), labels_of(self.keys)
        rows = []
        for query, weights in enumerate(self.pattern.tolist()):
            keys = sorted(self.sight.keys(query, len(names)), key=weights.__getitem__, reverse=True)[:STRONGEST]
            heard = ", ".join(f"{quoted(names[key])} {share(weights[key])}" for key in keys)
            if self.sinks is not None:
                heard += f"; the sink {share(float(self.sinks[query]))}"
            rows.append((f"{query} {escape(quoted(labels[query]))}", escape(heard)))
        return f"{self._svg(labels, names)}\n{details(rows, ('Token', 'hears most'))}"

    def heads_html(self) -> str:
        """The table of all heads with their kinds."""
        header = ["", *(f"head {head}" for head in range(len(self.kinds[0])))]
        heads = [
            (name, *(_html_kind(kind, (block, head) == (self.layer, self.head)) for head, kind in enumerate(row)))
            for block, name, row in zip(self.blocks, self._block_names(", "), self.kinds, strict=True)
        ]  # fmt: skip
        return page.table(heads, header)

    def _svg(self, labels: Sequence[str], keys: Sequence[str]) -> str:
        """The picture: a row for each of `labels`, a column for each of `keys`."""
        rows, shown = self._drawn(MOST_DRAWN)
        beside_names, above_names = ([fit(names[at], LABEL).rstrip() for at in part]
                                     for names, part in ((labels, rows), (keys, shown)))  # fmt: skip
        beside = widest(beside_names, LABEL) * LETTER + 8
        left = beside + (0 if self.sinks is None else SINK_CELL + GAP)
        upright = all(columns(name) <= 2 for name in above_names)
        top = 20.0 if upright and self.sinks is None else max(widest(above_names, LABEL), len(SINK)) * LETTER + 8
        width, height = len(shown) * CELL, len(rows) * CELL
        parts = [f'<rect class="frame" x="{left:.0f}" y="{top:.0f}" width="{width}" height="{height}"/>']
        hidden, cells = [], []
        if self.sinks is not None:
            parts.append(svg_text(beside + 9, top - 5, SINK, "start", turned=True))
            parts.append(f'<rect class="frame" x="{beside:.0f}" y="{top:.0f}" width="{SINK_CELL}" height="{height}"/>')
        for column, name in enumerate(above_names):
            if upright:
                parts.append(svg_text(left + column * CELL + CELL / 2, top - 5, name, "middle"))
            else:
                parts.append(svg_text(left + column * CELL + 11, top - 5, name, "start", turned=True))
        for row, (at, name) in enumerate(zip(rows, beside_names, strict=True)):
            y, query = top + row * CELL, quoted(labels[at])
            parts.append(svg_text(beside - 4, y + 11, name, "end"))
            seen = self.sight.keys(at, len(keys))
            before, after = max(0, seen.start - shown.start), min(seen.stop, shown.stop) - shown.start  # columns
            for start, stop in ((0, before), (after, len(shown))):
                if start < stop:
                    hidden.append(rect(left + start * CELL, y, (stop - start) * CELL))
            for column in range(before, after):
                weight = float(self.pattern[at, shown[column]])
                if weight >= LEAST_DRAWN:
                    words = f"{query} hears {quoted(keys[shown[column]])}: {share(weight)}"
                    cells.append(rect(left + column * CELL, y, CELL, weight, words))
            if self.sinks is not None and (weight := float(self.sinks[at])) >= LEAST_DRAWN:
                cells.append(rect(beside, y, SINK_CELL, weight, f"{query} gives its sink {share(weight)}"))
        note = f'<p class="quiet">{self._told_of_part(len(shown))}</p>\n' if len(shown) < len(keys) else ""
        return (
            f'{note}<svg xmlns="http://www.w3.org/2000/svg" width="{left + width + 2:.0f}"'
            f' height="{top + height + 2:.0f}" role="img" aria-label="{escape(self.answer)}">\n'
            f'<g class="unseen">{"".join(hidden)}</g>\n{"".join(parts)}\n'
            f'<g class="cells">{"".join(cells)}</g>\n</svg>'
        )


@dataclass(frozen=True, repr=False, eq=False)
class CrossAttentionView(AttentionView):
    """One head of cross-attention: a row for each token of the target as it is written, a column for each source token.

    `pattern` (T, S) holds the weights. `sharpness` (L, H) is the mean weight of the source token that is heard most.
    """

    question: ClassVar[str] = "Which source tokens does each target token hear?"

    sharpness: list[list[float]]

    @property
    def answer(self) -> str:
        """What it says in sentences."""
        mean = self.sharpness[self.blocks.index(self.layer)][self.head]
        return (
            f"This is head {self.layer}.{self.head} of the cross-attention of {self.source}. A row is the step that"
            f" writes its token. On average, {share(mean)} of its attention goes to one source token."
        )

    def to_dict(self) -> dict[str, Any]:
        """The pattern by rows, both texts, and the sharpness of all heads."""
        return {
            "tokens": self.tokens,
            "source_tokens": self.keys,
            "layer": self.layer,
            "head": self.head,
            "pattern": [[round(weight, 6) for weight in row] for row in self.pattern.tolist()],
            "heads": [
                {"layer": block, "head": head, "sharpness": round(value, 6)}
                for block, row in zip(self.blocks, self.sharpness, strict=True)
                for head, value in enumerate(row)
            ],
        }

    def _drawn(self, most: int) -> tuple[range, range]:
        """All queries, and the first keys."""
        return range(len(self.tokens)), range(min(most, len(self.keys)))

    def _told_of_part(self, n_shown: int) -> str:
        return f"These are the first {n_shown} of {len(self.keys)} source tokens."

    def _heads(self, width: int) -> list[Line]:
        said = "All heads: the share that goes to the source token that is heard most, in percent"
        cells = [[f"{value * 100:.0f}" for value in row] for row in self.sharpness]
        return [*sentences(said, width), *self._table_of_heads(cells, width)]

    def heads_html(self) -> str:
        """The table of all heads with their sharpness."""
        header = ["", *(f"head {head}" for head in range(len(self.sharpness[0])))]
        rows = [
            (f"block {block}", *(bar(share(value), value) for value in row))
            for block, row in zip(self.blocks, self.sharpness, strict=True)
        ]
        return page.table(rows, header)

    def html(self) -> str:
        """The pattern as a picture, the table that says the same, and the table of all heads."""
        caption = '<p class="quiet">All heads, and the mean share that goes to one source token</p>'
        return f"{self.picture_html()}\n{caption}\n{self.heads_html()}"


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
