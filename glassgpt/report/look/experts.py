"""Which experts does each token choose? The choices of a mixture of experts, as tokens × experts for each block."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import Any, ClassVar

from glassgpt.errors import counted
from glassgpt.inspection.experts import Routes
from glassgpt.report.look.drawing import (
    CELL,
    LABEL,
    LETTER,
    MOST_DRAWN,
    Line,
    Span,
    View,
    above,
    details,
    fit,
    labels_of,
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

BETWEEN = 2  # columns between two blocks
APART = 16  # pixels between two blocks
NUMBERED = 7  # every so many pixels at least a number of an expert


@dataclass(frozen=True, repr=False, eq=False)
class ExpertsView(View):
    """The experts that the T tokens of a text chose in some blocks, see `Routes`."""

    question: ClassVar[str] = "Which experts does each token choose?"

    source: str
    tokens: list[dict[str, Any]]
    routes: Routes

    def to_dict(self) -> dict[str, Any]:
        """The choices of each block, best expert first, and how many tokens chose each expert."""
        rows = zip(self.routes.layers, self.routes.experts.tolist(), self.routes.weights.tolist(), strict=True)
        return {
            "tokens": self.tokens,
            "n_expert": self.routes.n_expert,
            "layers": [
                {
                    "layer": layer,
                    "experts": experts,
                    "weights": [[round(weight, 6) for weight in row] for row in weights],
                    "loads": loads,
                }
                for (layer, experts, weights), loads in zip(rows, self.routes.loads.tolist(), strict=True)
            ],
        }

    @property
    def answer(self) -> str:
        """What it says in sentences."""
        loads, K, T = self.routes.loads, self.routes.experts.size(-1), len(self.tokens)
        row, expert = divmod(int(loads.argmax()), self.routes.n_expert)
        return (
            f"In each block of {self.source}, a token chooses {K} of {counted(self.routes.n_expert, 'expert')}."
            f" The busiest is expert {expert} of block {self.routes.layers[row]}:"
            f" {int(loads[row, expert])} of {counted(T, 'token')} chose it."
            f" With equal shares, an expert would serve {K * T / self.routes.n_expert:.1f}."
        )

    def drawing(self, width: int) -> list[Line]:
        """The weights as shaded blocks, with as many blocks of the model side by side as fit; then the loads."""
        labels, T, E, shares = labels_of(self.tokens), len(self.tokens), self.routes.n_expert, self.routes.shares
        digits, beside = len(str(T - 1)), widest(labels, LABEL)
        side = digits + 1 + beside + 1
        if width - side < E:
            return self._listed(width)
        layers = self.routes.layers
        cell = 2 if len(layers) * (2 * E + BETWEEN) <= width - side else 1
        group = max(1, (width - side + BETWEEN) // (E * cell + BETWEEN))
        lines: list[Line] = []
        for start in range(0, len(layers), group):
            shown = range(start, min(start + group, len(layers)))
            gap = " " * BETWEEN
            lines.append(plain(" " * side + gap.join(fit(f"block {layers[row]}", E * cell) for row in shown)))
            numbers = above([(str(expert), cell) for expert in range(E)])
            lines += [plain(" " * side + gap.join([line] * len(shown))) for line in numbers]
            for at in range(T):
                cells = [
                    "".join((shade(weight) if weight > 0 else " ") * cell for weight in shares[row, at].tolist())
                    for row in shown
                ]
                lines.append([
                    Span(f"{at:>{digits}} {fit(labels[at], beside)} "), Span(gap.join(cells), ink=TERMINAL_ATTENTION),
                ])  # fmt: skip
            lines.append([])
        lines += [plain(shade_steps()), *sentences("Blank: not chosen. The weights of a token sum to 1.", width)]
        return [*lines, [], *self._loads(width)]

    def _listed(self, width: int) -> list[Line]:
        """The choices in numbers, for more experts than a line has columns."""
        labels = labels_of(self.tokens)
        digits, beside = len(str(len(labels) - 1)), widest(labels, LABEL)
        lines: list[Line] = []
        for row, layer in enumerate(self.routes.layers):
            lines += sentences(f"block {layer}: the experts of each token, and their weights", width)
            for at, label in enumerate(labels):
                line = f"{at:>{digits}} {fit(label, beside)}{self._chosen(row, at, between='  ', first='  ')}"
                lines.append(plain(fit(line, width).rstrip()))
            lines.append([])
        return lines

    def _loads(self, width: int) -> list[Line]:
        """How many tokens chose each expert, if that fits."""
        loads = self.routes.loads
        side = widest((f"block {layer}" for layer in self.routes.layers), width)
        room = max(len(str(int(loads.max()))), len(str(self.routes.n_expert - 1))) + 1
        if side + room * self.routes.n_expert > width:
            return []
        lines = sentences("How many tokens chose each expert", width)
        lines.append(plain(" " * side + "".join(f"{expert:>{room}}" for expert in range(self.routes.n_expert))))
        for layer, row in zip(self.routes.layers, loads.tolist(), strict=True):
            lines.append(plain(fit(f"block {layer}", side) + "".join(f"{load:>{room}}" for load in row)))
        return lines

    def _chosen(self, row: int, at: int, between: str = ", ", first: str = "") -> str:
        pairs = zip(self.routes.experts[row, at].tolist(), self.routes.weights[row, at].tolist(), strict=True)
        return first + between.join(f"{expert} {share(weight)}" for expert, weight in pairs)

    def html(self) -> str:
        """The weights as a picture, and the table that says the same."""
        labels = labels_of(self.tokens)
        rows = [
            (f"{at} {escape(quoted(label))}", *(self._chosen(row, at) for row in range(len(self.routes.layers))))
            for at, label in enumerate(labels)
        ]
        header = ("Token", *(f"experts of block {layer}" for layer in self.routes.layers))
        return f"{self._svg(labels)}\n{details(rows, header)}"

    def _svg(self, labels: list[str]) -> str:
        first, E, shares = max(0, len(labels) - MOST_DRAWN), self.routes.n_expert, self.routes.shares
        names = [fit(label, LABEL).rstrip() for label in labels[first:]]
        left, top = widest(names, LABEL) * LETTER + 8, 36
        cell = CELL if E <= 16 else CELL // 2
        every = 1 if len(str(E - 1)) * NUMBERED <= cell else 4
        height, step = len(names) * CELL, E * cell + APART
        parts = [svg_text(left - 4, top + row * CELL + 11, name, "end") for row, name in enumerate(names)]
        cells = []
        for row, layer in enumerate(self.routes.layers):
            x = left + row * step
            parts.append(f'<rect class="frame" x="{x:.0f}" y="{top}" width="{E * cell}" height="{height}"/>')
            parts.append(svg_text(x, 14, f"block {layer}", "start"))
            parts += [
                svg_text(x + expert * cell + cell / 2, top - 5, str(expert), "middle") for expert in range(0, E, every)
            ]
            for at in range(len(names)):
                for expert, weight in enumerate(shares[row, first + at].tolist()):
                    if weight > 0:
                        words = f"{quoted(labels[first + at])}, block {layer}: expert {expert}, {share(weight)}"
                        cells.append(rect(x + expert * cell, top + at * CELL, cell, weight, words))
        note = f'<p class="quiet">The last {MOST_DRAWN} of {len(labels)} tokens</p>\n' if first else ""
        whole = left + len(self.routes.layers) * step
        return (
            f'{note}<svg xmlns="http://www.w3.org/2000/svg" width="{whole:.0f}" height="{top + height + 2}" role="img"'
            f' aria-label="{escape(self.answer)}">\n{"".join(parts)}\n<g class="cells">{"".join(cells)}</g>\n</svg>'
        )
