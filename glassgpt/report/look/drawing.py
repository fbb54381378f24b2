"""What the views of a look share: lines of a terminal, the HTML of a notebook, and tokens that can be seen.

A drawing for a terminal is a list of lines, and a line is a list of spans. A span names its colours, so that whoever
prints the drawing decides whether to use them. Every drawing can be read without colours.
"""

from __future__ import annotations

import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any, ClassVar, NamedTuple

from glassgpt.errors import printable
from glassgpt.report import page
from glassgpt.report.surprise import visible

USUAL_WIDTH = 80  # columns of a drawing whose place is not known
SHADES = ((0.75, "█"), (0.5, "▓"), (0.25, "▒"), (0.05, "░"), (0.0, "."))  # the least weight of each
LABEL = 12  # columns of a label beside its row
LETTERS = 6  # of a label above its column, one below the other
MOST_DRAWN = 64  # tokens in the picture of a notebook
CELL = 14  # pixels: a row of a picture
LETTER = 7.3  # pixels that a letter of the labels takes


class Span(NamedTuple):
    """A part of a line with its colours (#rrggbb). Empty: those of the terminal."""

    text: str
    ink: str = ""
    paper: str = ""


Line = list[Span]


class View(ABC):
    """One picture of a text in a model: shows itself in a terminal, in a notebook and as JSON."""

    question: ClassVar[str]

    @property
    @abstractmethod
    def answer(self) -> str:
        """What the view says about its question, in sentences."""

    @abstractmethod
    def drawing(self, width: int) -> list[Line]:
        """The picture for a terminal of `width` columns."""

    @abstractmethod
    def html(self) -> str:
        """The picture for a notebook."""

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """The numbers, ready for JSON."""

    def lines(self, width: int = USUAL_WIDTH) -> list[Line]:
        """Question, answer and picture for a terminal of `width` columns, at least 40."""
        return [*sentences(self.question, width), *sentences(self.answer, width), [], *self.drawing(width)]

    def __repr__(self) -> str:
        return "\n".join("".join(span.text for span in line).rstrip() for line in self.lines())

    def _repr_html_(self) -> str:
        return (
            f'<div class="glassgpt-look">\n<style>\n{page.asset("look.css")}</style>\n'
            f'<p class="question">{escape(self.question)}</p>\n<p>{escape(self.answer)}</p>\n{self.html()}\n</div>'
        )


def labels_of(tokens: Iterable[Mapping[str, Any]]) -> list[str]:
    """Each token (see `tokens_of`) as one line of printable characters, which no terminal obeys.

    Spaces and line ends become signs, other control characters and incomplete bytes are escaped as in Python. A mark
    that belongs on the letter before it is put on a dotted circle.
    """
    labels = []
    for token in tokens:
        if "bytes" in token:
            labels.append("".join(rf"\x{byte}" for byte in token["bytes"].split()))
            continue
        text = printable(visible(token["text"]))
        if text and unicodedata.category(text[0]).startswith("M"):
            text = "◌" + text
        labels.append(text or f"id {token['id']}")
    return labels


def columns(text: str) -> int:
    """The width of a printable text in a terminal: a Chinese character takes two columns, a mark on a letter none."""
    return sum(map(_columns, text))


def _columns(letter: str) -> int:
    if unicodedata.category(letter) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(letter) in "WF" else 1


def fit(text: str, width: int, *, right: bool = False) -> str:
    """The text in exactly `width` columns: padded, or cut so that it ends with an ellipsis."""
    if columns(text) > width:
        kept = text
        while columns(kept) > width - 1:
            kept = kept[:-1]
        text = kept + "…"
    blanks = " " * (width - columns(text))
    return blanks + text if right else text + blanks


def ending(text: str, width: int) -> str:
    """The text in at most `width` columns: if it is longer its end, after an ellipsis."""
    if columns(text) <= width:
        return text
    while columns(text) > width - 1:
        text = text[1:]
    return "…" + text


def widest(labels: Iterable[str], most: int) -> int:
    """The columns that the widest of the labels takes, but not more than `most`."""
    return min(max(map(columns, labels), default=0), most)


def interlinear(cells: Sequence[tuple[Span, str]], width: int) -> list[Line]:
    """Tokens side by side, each with a note below it. Longer texts go on in further pairs of lines."""
    lines: list[Line] = []
    upper: Line = []
    lower: Line = []
    taken = 0
    for span, note in cells:
        text = fit(span.text, min(columns(span.text), width - 1))
        room = max(columns(text), columns(note))
        if upper and taken + room + 1 > width:
            lines += [upper, lower, []]
            upper, lower, taken = [], [], 0
        upper += [span._replace(text=text), Span(" " * (room - columns(text) + 1))]
        lower.append(Span(fit(note, room + 1)))
        taken += room + 1
    return [*lines, upper, lower]


def share(value: float) -> str:
    """A probability or a weight of attention in words: "66%", and "<1%" for what rounds to nothing."""
    return "<1%" if 0 < value < 0.005 else f"{value:.0%}"


def plain(text: str) -> Line:
    """A line of one span without colours."""
    return [Span(text)]


def sentences(text: str, width: int) -> list[Line]:
    """Sentences as lines without colours, broken at blanks. A word that is wider than a line is cut."""
    rows: list[str] = []
    for word in text.split(" "):
        if rows and columns(f"{rows[-1]} {word}") <= width:
            rows[-1] += f" {word}"
        else:
            rows.append(fit(word, min(columns(word), width)))
    return [plain(row) for row in rows]


def quoted(label: str) -> str:
    """A token within a sentence."""
    return f"“{label}”"


def bar(text: str, part: float) -> str:
    """HTML for a text with a bar below it. All bars have the same scale, whose end is the part 1."""
    return f'<span class="bar" style="--part:{part:.2f}">{escape(text)}</span>'


def details(rows: Iterable[Sequence[str]], header: Sequence[str]) -> str:
    """HTML for a table that says the same as a picture, closed at first. The cells are already HTML."""
    return f"<details><summary>The same as a table</summary>\n{page.table(rows, header)}</details>"


def rect(x: float, y: float, width: float, weight: float | None = None, words: str = "") -> str:
    """A rectangle as high as a row; with a weight it is a cell, which `words` describe."""
    place = f'<rect x="{x:.0f}" y="{y:.0f}" width="{width:.0f}" height="{CELL}"'
    if weight is None:
        return f"{place}/>"
    return f'{place} fill-opacity="{weight:.2f}"><title>{escape(words)}</title></rect>'


def svg_text(x: float, y: float, name: str, anchor: str, *, turned: bool = False) -> str:
    """A text in an SVG picture; `turned` reads upwards."""
    turn = f' transform="rotate(-90 {x:.0f} {y:.0f})"' if turned else ""
    return f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}"{turn}>{escape(name)}</text>'


def above(heads: Sequence[tuple[str, int]]) -> list[str]:
    """The labels of columns of some width, written downwards and ending just above the first row."""
    stacks = [letters_of(label) for label, _ in heads]
    stacks = [stack if len(stack) <= LETTERS else [*stack[: LETTERS - 1], "…"] for stack in stacks]
    height = max(map(len, stacks))
    rows = zip(*([""] * (height - len(stack)) + stack for stack in stacks), strict=True)
    return ["".join(fit(letter, width) for letter, (_, width) in zip(row, heads, strict=True)) for row in rows]


def letters_of(label: str) -> list[str]:
    """The letters of a label, each with the marks on it."""
    letters: list[str] = []
    for letter in label:
        if letters and not columns(letter):
            letters[-1] += letter
        else:
            letters.append(letter)
    return letters


def shade(weight: float) -> str:
    """A weight from 0 to 1 as a sign."""
    return next((sign for least, sign in SHADES if weight >= least), "?")  # a model that diverged has NaN


def shade_steps() -> str:
    """What the signs of `shade` mean."""
    least = [f"{SHADES[-1][1]} <{SHADES[-2][0]:.0%}", *(f"{sign} {least:.0%}+" for least, sign in SHADES[-2::-1])]
    return "  ".join(least)
