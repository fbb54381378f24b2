"""The colours of every picture: one for each thing inside a model, and a series for everything else.

They are safe for colour-blind readers. Those of pages are custom properties in `server/assets/glass.css`,
`report/assets/report.css` and `report/assets/look.css`; a test checks that they equal these.
"""

from __future__ import annotations

from typing import NamedTuple


class Colour(NamedTuple):
    """A colour (#rrggbb) on light and on dark paper."""

    light: str
    dark: str


PAPER = Colour("#ffffff", "#14171c")
INK = Colour("#1b1f26", "#e7eaef")
QUIET = Colour("#5d6675", "#9aa4b3")
LINE = Colour("#dfe2e7", "#323843")

# What is inside a model.
QUERY = Colour("#2f6fdb", "#7fb0ff")
KEY = Colour("#c2600a", "#ffb066")
VALUE = Colour("#0f8a6d", "#56d6b4")
ATTENTION = Colour("#5b3fa8", "#b9a4ff")  # of the weight 1; the weight 0 has the colour of the paper
STREAM = Colour("#6b7280", "#9aa3af")  # the residual stream

# What an edit, or a part of a model, adds or takes away.
ADDED = Colour("#1565c0", "#82b1ff")
REMOVED = Colour("#b3261e", "#ff8a80")

# The loss of a token, from expected to a great surprise. Text on the first four is INK, on the others PAPER.
LOSS = (
    Colour("#fff4e0", "#241a12"),
    Colour("#f1d8be", "#453122"),
    Colour("#e3bc9d", "#664831"),
    Colour("#d6a17b", "#875e41"),
    Colour("#b45f2c", "#d39465"),
    Colour("#a33b00", "#ffb27a"),
)

# Curves: the palette of Okabe and Ito, darkened where contrast on white is low. The eighth curve has the colour of the
# first again, and another stroke.
SERIES = (
    Colour("#0072b2", "#56b4e9"),
    Colour("#d55e00", "#e69f00"),
    Colour("#009e73", "#2bbf94"),
    Colour("#b0548f", "#dc93bf"),
    Colour("#a07800", "#f0e442"),
    Colour("#3f9fd6", "#8fa8ff"),
    Colour("#5d6675", "#b4bcc8"),
)
TRAINING, VALIDATION = SERIES[0], SERIES[1]

# A terminal does not say whether it is light or dark: these can be read on both.
TERMINAL_ATTENTION = "#8f6fe0"
