"""Which tokens does the model read? Each piece of the text with its id."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import Any, ClassVar

from glassgpt.errors import counted
from glassgpt.report.look.drawing import Line, Span, View, interlinear, labels_of


@dataclass(frozen=True, repr=False, eq=False)
class TokensView(View):
    """The T tokens of a text (see `tokens_of`), and the number of its bytes in UTF-8."""

    question: ClassVar[str] = "Which tokens does the model read?"

    source: str
    tokens: list[dict[str, Any]]
    n_bytes: int

    @property
    def ids(self) -> list[int]:
        """The T ids."""
        return [token["id"] for token in self.tokens]

    def to_dict(self) -> dict[str, Any]:
        """The tokens and their number of bytes."""
        return {"tokens": self.tokens, "bytes": self.n_bytes}

    @property
    def answer(self) -> str:
        """What it says in sentences."""
        n = len(self.tokens)
        return (
            f"{counted(n, 'token')} for {counted(self.n_bytes, 'byte')} in {self.source}:"
            f" {self.n_bytes / n:.2f} bytes per token."
        )

    def drawing(self, width: int) -> list[Line]:
        """The tokens with their ids below them."""
        cells = [
            (Span(label), str(token["id"])) for label, token in zip(labels_of(self.tokens), self.tokens, strict=True)
        ]
        return interlinear(cells, width)

    def html(self) -> str:
        """The tokens on alternating backgrounds with their ids below them."""
        spans = [
            f'<span class="{"even" if number % 2 else "odd"}">{escape(label)}<small>{token["id"]}</small></span>'
            for number, (label, token) in enumerate(zip(labels_of(self.tokens), self.tokens, strict=True))
        ]
        return f'<div class="tokens pairs">{"".join(spans)}</div>'
