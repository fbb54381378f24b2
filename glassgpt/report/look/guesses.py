"""What does an encoder put in a hidden place? Its best guesses for each, with what the text has there."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import Any, ClassVar

from glassgpt.errors import counted
from glassgpt.inspection.guesses import Guesses
from glassgpt.report import page
from glassgpt.report.look.drawing import (
    LABEL,
    Line,
    Span,
    View,
    bar,
    fit,
    labels_of,
    plain,
    quoted,
    sentences,
    share,
    widest,
)
from glassgpt.report.palette import TERMINAL_ATTENTION

GAP = 2  # columns between two guesses


@dataclass(frozen=True, repr=False, eq=False)
class GuessesView(View):
    """The guesses at P positions of a text of T tokens; `predictions` are their tokens (P, k)."""

    question: ClassVar[str] = "What does the model put in a hidden place?"

    source: str
    tokens: list[dict[str, Any]]
    guesses: Guesses
    predictions: list[list[dict[str, Any]]]

    @property
    def own(self) -> list[float | None]:
        """The probability of the token that the text has at each position; None where the text hides it."""
        return [None if p != p else p for p in self.guesses.own_probabilities.tolist()]

    def to_dict(self) -> dict[str, Any]:
        """The guesses for each position."""
        rows = zip(self.guesses.positions, self.predictions, self.guesses.probabilities.tolist(), self.own, strict=True)
        return {
            "tokens": self.tokens,
            "hidden": self.guesses.hidden,
            "places": [
                {
                    "position": at,
                    "probability": None if own is None else round(own, 6),
                    "guesses": [{**token, "probability": round(p, 6)} for token, p in zip(tokens, row, strict=True)],
                }
                for at, tokens, row, own in rows
            ],
        }

    @property
    def answer(self) -> str:
        """What it says in sentences."""
        known = [(best[0]["id"], self.tokens[at]["id"]) for at, best, own in
                 zip(self.guesses.positions, self.predictions, self.own, strict=True) if own is not None]  # fmt: skip
        if not known:
            return f"The text hides {counted(len(self.own), 'token')} from {self.source}."
        right = sum(guess == true for guess, true in known)
        found = f"The best guess is right for {right} of {counted(len(known), 'token')}."
        if not self.guesses.hidden:
            return f"The tokenizer of {self.source} has no mask token, so the text is read as it is. {found}"
        return f"Each token was hidden from {self.source} in turn, with all others visible. {found}"

    def drawing(self, width: int) -> list[Line]:
        """A row for each position with as many guesses as fit; the probability follows each guess."""
        labels = labels_of(self.tokens)
        digits, side = len(str(len(labels) - 1)), widest((labels[at] for at in self.guesses.positions), LABEL)
        whole = any(own is not None for own in self.own)
        guessed = [labels_of(row) for row in self.predictions]
        room = widest((label for row in guessed for label in row), LABEL)
        lines: list[Line] = [
            plain(" " * (digits + 1 + side) + (fit("  its own", 9) if whole else "") + "  best guesses")
        ]
        for at, row, shares, own in zip(
            self.guesses.positions, guessed, self.guesses.probabilities.tolist(), self.own, strict=True
        ):
            line = [Span(f"{at:>{digits}} {fit(labels[at], side)}")]
            if whole:
                line.append(Span(fit("" if own is None else f"  {share(own):>4}", 9)))
            taken = digits + 1 + side + (9 if whole else 0)
            for label, p in zip(row, shares, strict=True):
                taken += GAP + room + 5
                if taken > width:
                    break
                right = own is not None and label == labels[at]
                line.append(Span(f"{' ' * GAP}{fit(label, room)} ", ink=TERMINAL_ATTENTION if right else ""))
                line.append(Span(f"{share(p):>4}", ink=TERMINAL_ATTENTION if right else ""))
            lines.append(line)
        words = "Its own: the probability of the token that the text has there." if whole else ""
        return [*lines, [], *sentences(words, width)] if words else lines

    def html(self) -> str:
        """A table of positions and guesses. The bar below a guess is as long as its probability."""
        labels, count = labels_of(self.tokens), self.guesses.ids.size(-1)
        rows = []
        for at, tokens, shares, own in zip(
            self.guesses.positions, self.predictions, self.guesses.probabilities.tolist(), self.own, strict=True
        ):
            guesses = (bar(f"{label} {share(p)}", p) for label, p in zip(labels_of(tokens), shares, strict=True))
            rows.append((f"{at} {escape(quoted(labels[at]))}", "" if own is None else share(own), *guesses))
        header = ("Place", "its own", "best guess", *(f"{rank}." for rank in range(2, count + 1)))
        return page.table(rows, header)
