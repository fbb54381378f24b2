"""Which tokens surprise the model? The loss of each token, and what was expected in place of the worst ones."""

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
    fit,
    interlinear,
    labels_of,
    plain,
    quoted,
    sentences,
    share,
    widest,
)
from glassgpt.report.palette import INK, LOSS, PAPER
from glassgpt.report.surprise import level

WORST = 5  # tokens that are listed
LABEL = 16  # columns of a token in that list
# Paper and ink of the levels of a loss; an expected token has the colours of the terminal.
COLOURS = (
    ("", ""),
    *((colour.light, INK.light) for colour in LOSS[1:4]),
    *((colour.light, PAPER.light) for colour in LOSS[4:]),
)


@dataclass(frozen=True, repr=False, eq=False)
class LossView(View):
    """The loss of each token of a text of T tokens, in nats.

    Entry t of `losses` (T - 1,), `expected` (T - 1, k) and `expected_probabilities` (T - 1, k) is about token t + 1:
    nothing predicts the first token. The most likely token comes first.
    """

    question: ClassVar[str] = "Which tokens surprise the model?"

    source: str
    tokens: list[dict[str, Any]]
    losses: Tensor
    expected: list[list[dict[str, Any]]]
    expected_probabilities: Tensor

    @property
    def mean(self) -> float:
        """The mean loss in nats per token; NaN for a text of one token."""
        return float(self.losses.mean())

    def to_dict(self) -> dict[str, Any]:
        """The loss of each token with what was expected in its place."""
        shares = self.expected_probabilities.tolist()
        fields = [
            {
                "loss": round(loss, 6),
                "expected": [{**token, "probability": round(p, 6)} for token, p in zip(tokens, row, strict=True)],
            }
            for loss, tokens, row in zip(self.losses.tolist(), self.expected, shares, strict=True)
        ]
        first: dict[str, Any] = {"loss": None, "expected": []}
        return {
            "mean_loss": self.mean,
            "tokens": [token | more for token, more in zip(self.tokens, [first, *fields], strict=True)],
        }

    @property
    def answer(self) -> str:
        """What it says in sentences."""
        if not len(self.losses):
            return f"The text has one token, and nothing predicts the first token, in {self.source}."
        return f"The mean loss is {self.mean:.2f} nats per token in {self.source}. Nothing predicts the first token."

    def _worst(self) -> list[tuple[int, float, list[tuple[str, float]]]]:
        """Position, loss and expected tokens of the greatest losses."""
        order = self.losses.argsort(descending=True, stable=True)[:WORST].tolist()
        return [
            (
                at + 1,
                float(self.losses[at]),
                list(zip(labels_of(self.expected[at]), self.expected_probabilities[at].tolist(), strict=True)),
            )
            for at in order
        ]

    def drawing(self, width: int) -> list[Line]:
        """The tokens with their losses below them, then the worst ones with what was expected."""
        labels = labels_of(self.tokens)
        cells = [(Span(labels[0]), "")]
        for label, loss in zip(labels[1:], self.losses.tolist(), strict=True):
            paper, ink = COLOURS[level(loss)]
            cells.append((Span(label, ink=ink, paper=paper), f"{loss:.1f}"))
        lines = interlinear(cells, width)
        worst = self._worst()
        if not worst:
            return lines
        digits, side = len(str(len(labels))), widest((labels[at] for at, _, _ in worst), LABEL)
        lines += [[], *sentences("The greatest losses, and what was expected", width)]
        for at, loss, expected in worst:
            row = f"{at:>{digits}} {fit(labels[at], side)} {loss:6.2f}"
            for label, p in expected:
                guess = f"  {fit(label, widest([label], LABEL))} {share(p)}"
                if widest([row + guess], width + 1) > width:
                    break
                row += guess
            lines.append(plain(row))
        return lines

    def html(self) -> str:
        """The text coloured by loss: the stronger the colour, the less likely the model found the token."""
        labels = labels_of(self.tokens)
        spans = [f"<span>{escape(labels[0])}</span>"]
        for number, loss in enumerate(self.losses.tolist()):
            best = (
                f"{quoted(labels_of(self.expected[number])[0])} {share(float(self.expected_probabilities[number, 0]))}"
            )
            title = escape(f"{loss:.2f} nats; expected {best}")
            spans.append(f'<span class="loss-{level(loss)}" title="{title}">{escape(labels[number + 1])}</span>')
        broken = [span + "\n" * token["text"].count("\n") for span, token in zip(spans, self.tokens, strict=True)]
        rows = [
            (
                f"{at} {escape(quoted(labels[at]))}",
                f"{loss:.2f}",
                escape(", ".join(f"{quoted(label)} {share(p)}" for label, p in expected)),
            )
            for at, loss, expected in self._worst()
        ]
        table = page.table(rows, ("The greatest losses", "nats", "expected")) if rows else ""
        return f'<div class="tokens">{"".join(broken)}</div>\n{table}'
