"""A small scaling law: the loss of a modern GPT by its size, the tokens it reads and the length of its text.

    L(N, T, U) = E + A / N^alpha + B / D^beta,    D = U · R · (1 - exp(-T / (U · R)))

N counts the parameters of the blocks, T the tokens that are read, and U the tokens of the text. A text that is read
again teaches less each time: D is what T tokens are worth, at most R times the text. The first equation is that of
Hoffmann et al. 2022 (equation 2), the second is like that of Muennighoff et al. 2023 (equation 5).

The constants were fitted to runs on Tiny Shakespeare, whose losses are in docs/planning.md. `bench/scaling_law.py`
trains them again and fits the law.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class ScalingLaw:
    """L(N, T, U), see above. Losses are in nats per token."""

    E: float
    A: float
    alpha: float
    B: float
    beta: float
    R: float

    def worth(self, tokens: float, text: float) -> float:
        """D: as many tokens that are read once teach as much as `tokens` of a text of `text` tokens."""
        most = text * self.R
        return -most * math.expm1(-tokens / most)

    def loss(self, parameters: float, tokens: float, text: float) -> float:
        """The loss to expect on Tiny Shakespeare's characters; on another text it differs by about a constant."""
        return self.E + self.A / parameters**self.alpha + self.B / self.worth(tokens, text) ** self.beta


# alpha is taken from outside the fit, near the 0.34 of Hoffmann et al.: every value from 0.3 to 1 fits our small sizes
# as well as their seeds differ, and a large one would say that no large model ever pays.
MODERN = ScalingLaw(E=1.373, A=5.22, alpha=0.4, B=1237.0, beta=0.675, R=6.0)
