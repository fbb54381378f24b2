"""The last sample of a run in coloured tokens: the stronger the colour, the less likely the model found the token."""

from __future__ import annotations

import math
from html import escape

from glassgpt.report import page
from glassgpt.report.figures import count
from glassgpt.report.run_record import RunRecord

# A token has the first colour whose chance it reaches; below the last one, it has the darkest colour, .loss-5.
CHANCES = ((1 / 2, "1 in 2"), (1 / 4, "1 in 4"), (1 / 8, "1 in 8"), (1 / 16, "1 in 16"), (1 / 64, "1 in 64"))


def surprise_html(record: RunRecord) -> str:
    """The tokens of the last sample by their loss; empty if the run did not record it. A table says the same in words.

    Its colours are those of the loss of a token everywhere (report.css).
    """
    last = record.samples[-1] if record.samples else {}
    pieces = [(piece["text"], _nats(piece["loss"])) for piece in last.get("pieces") or ()]
    if not pieces:
        return ""
    mean = sum(loss for _, loss in pieces) / len(pieces)
    most = max(pieces, key=lambda piece: piece[1])
    lead = (
        f"The sample of step {count(last['step'])}, coloured by the loss of each token: the stronger the colour, the"
        f" less likely the model found what it wrote. The mean is {mean:.2f} nats; the greatest surprise was"
        f" “{visible(most[0])}” with {most[1]:.2f}."
    )
    tokens = "".join(
        f'<span class="loss-{level(loss)}" title="{loss:.2f} nats">{escape(visible(piece))}</span>'
        + "\n" * piece.count("\n")
        for piece, loss in pieces
    )
    key = "".join(f'<span class="loss-{n}">{words}</span> ' for n, (_, words) in enumerate(CHANCES))
    rows = [(escape(visible(piece)), f"{loss:.2f}", f"{math.exp(-loss):.1%}") for piece, loss in pieces]
    return (
        f"<h2>How sure it was of each token</h2>\n<p>{escape(lead)}</p>\n"
        f'<p class="quiet surprise">A chance of at least {key}<span class="loss-{len(CHANCES)}">less</span></p>\n'
        f'<pre class="surprise" aria-hidden="true">\n{tokens}</pre>\n'
        "<details><summary>The same as a table</summary>\n"
        f"{page.table(rows, ('Token', 'Loss in nats', 'Chance'))}</details>"
    )


def _nats(loss: float | None) -> float:
    """A loss as recorded. One that was not finite is null in the file."""
    return math.inf if loss is None else max(0.0, loss)


def level(loss: float) -> int:
    """The number of a token's colour, 0 (expected) to 5."""
    return next((n for n, (chance, _) in enumerate(CHANCES) if math.exp(-loss) >= chance), len(CHANCES))


def visible(piece: str) -> str:
    """A token with its spaces and line ends as signs."""
    return piece.replace(" ", "·").replace("\n", "↵").replace("\t", "→")
