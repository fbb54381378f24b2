"""Whom does each token hear? The pattern of one head, and what kind of head each of the others is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, ClassVar

from torch import Tensor

from glassgpt.inspection.attention import KINDS
from glassgpt.report import page
from glassgpt.report.look.drawing import (
    Line,
    Span,
    View,
    bar,
    columns,
    details,
    fit,
    labels_of,
    plain,
    quoted,
    sentences,
    share,
    widest,
)
from glassgpt.report.palette import TERMINAL_ATTENTION

Kind = tuple[str, float] | None  # of a head, see `head_kind`
SHADES = ((0.75, "█"), (0.5, "▓"), (0.25, "▒"), (0.05, "░"), (0.0, "."))  # the least weight of each
LABEL = 12  # columns of a label beside its row
LETTERS = 6  # of a label above its column, one below the other
MOST_DRAWN = 64  # tokens in the picture of a notebook
CELL = 14  # pixels
LETTER = 7.3  # pixels that a letter of the labels takes
LEAST_DRAWN = 0.01  # a weaker weight cannot be seen
STRONGEST = 3  # keys of a query that a table names


@dataclass(frozen=True, repr=False, eq=False)
class AttentionView(View):
    """One head on a text of T tokens, and the kinds of all L·H heads.

    `pattern` (T, T) holds the weights that query t gives to the keys; each row sums to 1. `blocks` are the numbers of
    the L blocks that have attention. `layer` is one of them.
    """

    question: ClassVar[str] = "Whom does each token hear?"

    source: str
    tokens: list[dict[str, Any]]
    layer: int
    head: int
    pattern: Tensor
    blocks: list[int]
    kinds: list[list[Kind]]

    @property
    def kind(self) -> Kind:
        """The kind of the head and its score; None if it is of no known kind."""
        return self.kinds[self.blocks.index(self.layer)][self.head]

    def to_dict(self) -> dict[str, Any]:
        """The pattern by rows, and the kinds of all heads."""
        return {
            "tokens": self.tokens,
            "layer": self.layer,
            "head": self.head,
            **_kind_fields(self.kind),
            "pattern": [[round(weight, 6) for weight in row] for row in self.pattern.tolist()],
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
        name = f"head {self.layer}.{self.head} of {self.source}"
        if self.kind is None:
            return f"This is {name}. It is of no known kind on this text: none takes half of its attention."
        kind, score = self.kind
        return f"This is {name}. Kind: {KINDS[kind]}, {share(score)} of its attention."

    def _map(self, width: int) -> list[Line]:
        labels, T = labels_of(self.tokens), len(self.tokens)
        digits, beside = len(str(T - 1)), widest(labels, LABEL)
        room = max(width - (digits + 1 + beside + 1) - (1 + beside + 5), 4)
        cell = 2 if room >= 2 * T else max(columns(letter) for label in labels for letter in _letters(label))
        drawn = min(T, room // cell)
        first = T - drawn
        lines: list[Line] = []
        if first:
            lines += [*sentences(f"These are the last {drawn} of {T} tokens.", width), []]
        blank = " " * (digits + 1 + beside + 1)
        lines += [plain(blank + row) for row in _above(labels[first:], cell)]
        for query in range(first, T):
            weights = self.pattern[query].tolist()
            key = max(range(query + 1), key=weights.__getitem__)
            blocks = "".join(_shade(weights[at]) * cell for at in range(first, query + 1))
            lines.append([
                Span(f"{query:>{digits}} {fit(labels[query], beside)} "),
                Span(blocks, ink=TERMINAL_ATTENTION),
                Span(f"{' ' * ((T - 1 - query) * cell + 1)}{fit(labels[key], beside)} {share(weights[key]):>4}"),
            ])  # fmt: skip
        steps = [f"{SHADES[-1][1]} <{SHADES[-2][0]:.0%}", *(f"{sign} {least:.0%}+" for least, sign in SHADES[-2::-1])]
        legend = sentences("Each row ends with the token that it hears most, of all tokens.", width)
        return [*lines, [], plain("  ".join(steps)), *legend]

    def _heads(self, width: int) -> list[Line]:
        """A row for each block and a short name for each head; many heads of a block take several rows."""
        cells = [[_short(kind) for kind in row] for row in self.kinds]
        side = len("block ") + len(str(self.blocks[-1])) + 1
        room = max((width - side) // 5, 1)
        n_heads = len(cells[0])
        lines = sentences("All heads: the kind of each, and its share of the attention in percent", width)
        for start in range(0, n_heads, room):
            heads = range(start, min(start + room, n_heads))
            lines.append(plain(" " * side + "".join(f"{head:>5}" for head in heads)))
            for block, row in zip(self.blocks, cells, strict=True):
                line = [Span(fit(f"block {block}", side))]
                for head in heads:
                    chosen = (block, head) == (self.layer, self.head)
                    line.append(Span(f"{row[head]:>5}", ink=TERMINAL_ATTENTION if chosen else ""))
                lines.append(line)
        found = {kind[0] for row in self.kinds for kind in row if kind is not None}
        words = [f"{_initial(kind)} {name}" for kind, name in KINDS.items() if kind in found]
        return [*lines, *sentences(", ".join([*words, "- no known kind"]), width)]

    def html(self) -> str:
        """The pattern as a picture, the table that says the same, and the table of all heads."""
        caption = '<p class="quiet">All heads, and the share of their attention that gives them their name</p>'
        return f"{self.picture_html()}\n{caption}\n{self.heads_html()}"

    def picture_html(self) -> str:
        """The pattern as a picture, and the table that says the same."""
        labels = labels_of(self.tokens)
        rows = []
        for query, weights in enumerate(self.pattern.tolist()):
            keys = sorted(range(query + 1), key=weights.__getitem__, reverse=True)[:STRONGEST]
            heard = ", ".join(f"{quoted(labels[key])} {share(weights[key])}" for key in keys)
            rows.append((f"{query} {escape(quoted(labels[query]))}", escape(heard)))
        return f"{self._svg(labels)}\n{details(rows, ('Token', 'hears most'))}"

    def heads_html(self) -> str:
        """The table of all heads with their kinds."""
        header = ["", *(f"head {head}" for head in range(len(self.kinds[0])))]
        heads = [
            (f"block {block}", *(_html_kind(kind, (block, head) == (self.layer, self.head))
                                 for head, kind in enumerate(row)))
            for block, row in zip(self.blocks, self.kinds, strict=True)
        ]  # fmt: skip
        return page.table(heads, header)

    def _svg(self, labels: Sequence[str]) -> str:
        first = max(0, len(labels) - MOST_DRAWN)
        names = [fit(label, LABEL).rstrip() for label in labels[first:]]
        left = widest(names, LABEL) * LETTER + 8
        upright = all(columns(name) <= 2 for name in names)
        top = 20.0 if upright else left
        side = len(names) * CELL
        parts = [f'<rect class="frame" x="{left:.0f}" y="{top:.0f}" width="{side}" height="{side}"/>']
        cells = []
        for row, name in enumerate(names):
            parts.append(_text(left - 4, top + row * CELL + 11, name, "end"))
            if upright:
                parts.append(_text(left + row * CELL + CELL / 2, top - 5, name, "middle"))
            else:
                parts.append(_text(left + row * CELL + 11, top - 5, name, "start", turned=True))
            for column, weight in enumerate(self.pattern[first + row, first : first + row + 1].tolist()):
                if weight >= LEAST_DRAWN:
                    words = f"{quoted(labels[first + row])} hears {quoted(labels[first + column])}: {share(weight)}"
                    cells.append(
                        f'<rect x="{left + column * CELL:.0f}" y="{top + row * CELL:.0f}" width="{CELL}"'
                        f' height="{CELL}" fill-opacity="{weight:.2f}"><title>{escape(words)}</title></rect>'
                    )
        note = f'<p class="quiet">The last {MOST_DRAWN} of {len(labels)} tokens</p>\n' if first else ""
        return (
            f'{note}<svg xmlns="http://www.w3.org/2000/svg" width="{left + side + 2:.0f}" height="{top + side + 2:.0f}"'
            f' role="img" aria-label="{escape(self.answer)}">\n{"".join(parts)}\n'
            f'<g class="cells">{"".join(cells)}</g>\n</svg>'
        )


def _text(x: float, y: float, name: str, anchor: str, *, turned: bool = False) -> str:
    turn = f' transform="rotate(-90 {x:.0f} {y:.0f})"' if turned else ""
    return f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}"{turn}>{escape(name)}</text>'


def _above(labels: Sequence[str], cell: int) -> list[str]:
    """The labels of the columns, written downwards and ending just above the first row."""
    stacks = [_letters(label) for label in labels]
    stacks = [stack if len(stack) <= LETTERS else [*stack[: LETTERS - 1], "…"] for stack in stacks]
    height = max(map(len, stacks))
    rows = zip(*([""] * (height - len(stack)) + stack for stack in stacks), strict=True)
    return ["".join(fit(letter, cell) for letter in row) for row in rows]


def _letters(label: str) -> list[str]:
    """The letters of a label, each with the marks on it."""
    letters: list[str] = []
    for letter in label:
        if letters and not columns(letter):
            letters[-1] += letter
        else:
            letters.append(letter)
    return letters


def _shade(weight: float) -> str:
    return next((sign for least, sign in SHADES if weight >= least), "?")  # a model that diverged has NaN


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
