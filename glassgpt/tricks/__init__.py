"""What the usual tricks of training give on this device: `measure_tricks`, and `reading` for the reason."""

from __future__ import annotations

from glassgpt.tricks.measure import Measured, Results, Row, measure_tricks
from glassgpt.tricks.reading import reading
from glassgpt.tricks.variants import TRICKS, Setup, Trick

__all__ = ["TRICKS", "Measured", "Results", "Row", "Setup", "Trick", "measure_tricks", "reading"]
