"""When does the model know what comes next? Its best guesses after each block (logit lens)."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import Any, ClassVar

from torch import Tensor

from glassgpt.report import page
from glassgpt.report.look.drawing import (
    Line,
    Span,
    View,
    bar,
    ending,
    fit,
    labels_of,
    plain,
    quoted,
    share,
    widest,
)
from glassgpt.report.palette import TERMINAL_ATTENTION

LABEL = 12  # columns of a predicted token
GAP = 2  # columns between two predictions
WRITTEN = 40  # columns of what stands before a step of a target


@dataclass(frozen=True, repr=False, eq=False)
class LensView(View):
    """The k most likely next tokens after one position, read from the stream at each of L + 1 layers.

    `predictions` are the tokens (L + 1, k), `probabilities` (L + 1, k) theirs. `following` is the token that the text
    has next and `following_probabilities` (L + 1,) what each layer gives it; None after the last token.
    """

    question: ClassVar[str] = "When does the model know what comes next?"

    source: str
    tokens: list[dict[str, Any]]
    position: int
    layers: list[str]
    predictions: list[list[dict[str, Any]]]
    probabilities: Tensor
    following: dict[str, Any] | None
    following_probabilities: Tensor | None

    def to_dict(self) -> dict[str, Any]:
        """The predictions by layer."""
        rows = zip(self.layers, self.predictions, self.probabilities.tolist(), self._of_following(), strict=True)
        return {
            "tokens": self.tokens,
            "position": self.position,
            "next": self.following,
            "layers": [
                {
                    "layer": layer,
                    "predictions": [
                        {**token, "probability": round(p, 6)} for token, p in zip(tokens, shares, strict=True)
                    ],
                    "next_probability": None if of_next is None else round(of_next, 6),
                }
                for layer, tokens, shares, of_next in rows
            ],
        }

    def _of_following(self) -> list[float | None]:
        if self.following_probabilities is None:
            return [None] * len(self.layers)
        return list(self.following_probabilities.tolist())

    @property
    def answer(self) -> str:
        """What it says in sentences."""
        here = quoted(labels_of([self.tokens[self.position]])[0])
        said = f"After token {self.position}, {here}, in {self.source}."
        if self.following is not None:
            said += f" The text goes on with {quoted(labels_of([self.following])[0])}."
        return said

    told: ClassVar[str] = "what comes"  # the title of the column of `following`

    def _columns(self) -> list[tuple[str, list[tuple[str, float]]]]:
        """A title for each column, and its (token, probability) at each layer."""
        found = []
        if self.following is not None:
            (name,) = labels_of([self.following])
            found.append((self.told, [(name, p or 0.0) for p in self._of_following()]))
        rows = [
            list(zip(labels_of(tokens), shares, strict=True))
            for tokens, shares in zip(self.predictions, self.probabilities.tolist(), strict=True)
        ]
        ranks = [
            ("best guess" if rank == 0 else f"{rank + 1}.", list(column))
            for rank, column in enumerate(zip(*rows, strict=True))
        ]
        return [*found, *ranks]

    def drawing(self, width: int) -> list[Line]:
        """A row for each layer with as many guesses as fit; the probability follows each guess."""
        side = widest(self.layers, LABEL)
        rows: list[Line] = [plain(" " * side), *([Span(fit(layer, side))] for layer in self.layers)]
        taken = side
        for number, (title, cells) in enumerate(self._columns()):
            room = widest((label for label, _ in cells), LABEL)
            whole = max(room + 5, len(title))
            if number and taken + GAP + whole > width:
                break
            taken += GAP + whole
            rows[0].append(Span(" " * GAP + fit(title, whole)))
            for row, (label, p) in zip(rows[1:], cells, strict=True):
                row.append(Span(f"{' ' * GAP}{fit(label, room)} "))
                row.append(Span(fit(f"{share(p):>4}", whole - room - 1), ink=TERMINAL_ATTENTION if p >= 0.5 else ""))
        return rows

    def html(self) -> str:
        """A table of layers and guesses. The bar below a guess is as long as its probability."""
        table = self._columns()
        rows = [
            (
                escape(layer),
                *(bar(f"{cells[number][0]} {share(cells[number][1])}", cells[number][1]) for _, cells in table),
            )
            for number, layer in enumerate(self.layers)
        ]
        return page.table(rows, ("", *(title for title, _ in table)))


class TargetLensView(LensView):
    """The same for an encoder-decoder: what each layer of the decoder would write at a step of the target."""

    question: ClassVar[str] = "When does the model know what it writes?"
    told: ClassVar[str] = "the target"

    @property
    def answer(self) -> str:
        """What it says in sentences."""
        assert self.following is not None  # a target ends with its stop, so each step has something to write
        following = quoted(labels_of([self.following])[0])
        written = "".join(labels_of(self.tokens[: self.position]))
        after = f", after {quoted(ending(written, WRITTEN))}" if written else ""
        return f"At step {self.position} of the target{after}, in {self.source}. The target has {following} there."


class HiddenLensView(LensView):
    """The same for an encoder: the k most likely tokens at the position itself. `following` is what the text has there.

    The position was hidden, if the tokenizer has a mask token. `following` is None where the text itself hides it.
    """

    question: ClassVar[str] = "When does the model know the hidden token?"
    told: ClassVar[str] = "its own"

    @property
    def answer(self) -> str:
        """What it says in sentences."""
        here = quoted(labels_of([self.tokens[self.position]])[0])
        return f"At token {self.position}, {here}, in {self.source}."
