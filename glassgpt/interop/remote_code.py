"""Refuses repositories that bring code of their own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from glassgpt.errors import UserError


def refuse_code(saved: Mapping[str, Any], path: Path) -> None:
    """Raises UserError if a config asks for classes of its repository, which `transformers` runs on demand."""
    if saved.get("auto_map"):
        raise UserError(
            f"{path} asks for code of its repository (auto_map): such code is never run here, so only models that need"
            " none can be loaded"
        )
