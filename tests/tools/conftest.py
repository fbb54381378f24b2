"""The tools are scripts, not a package: their tests import them by name."""

from __future__ import annotations

import sys
from pathlib import Path

TOOLS = Path(__file__).resolve().parent.parent.parent / "tools"
sys.path += [str(TOOLS), str(TOOLS / "site")]
