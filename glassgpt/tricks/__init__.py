"""What the usual tricks of training give on this device: `measure_tricks`, and `explanation` for the reason."""

from __future__ import annotations

from glassgpt.tricks.explanation import explanation
from glassgpt.tricks.measure import Measured, Results, TrickRow, measure_tricks
from glassgpt.tricks.variants import TRICKS, Setup, Trick

__all__ = ["TRICKS", "Measured", "Results", "Setup", "Trick", "TrickRow", "explanation", "measure_tricks"]
