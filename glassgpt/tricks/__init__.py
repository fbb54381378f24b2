"""Measures the usual training optimisations on this device (`measure_tricks`) and explains them (`explanation`)."""

from __future__ import annotations

from glassgpt.tricks.explanation import explanation
from glassgpt.tricks.measure import Measured, Results, TrickRow, measure_tricks
from glassgpt.tricks.variants import TRICKS, Setup, Trick

__all__ = ["TRICKS", "Measured", "Results", "Setup", "Trick", "TrickRow", "explanation", "measure_tricks"]
