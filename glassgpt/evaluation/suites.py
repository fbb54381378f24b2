"""Evaluation suites, selected by name."""

from __future__ import annotations

from pathlib import Path

from glassgpt.errors import unknown
from glassgpt.evaluation.hellaswag import HellaSwag, load_items
from glassgpt.tokenizers.base import Tokenizer

SUITES = ("hellaswag",)


def open_suite(
    name: str, tokenizer: Tokenizer, *, file: str | Path | None = None, limit: int | None = None
) -> HellaSwag:
    """Loads a suite from a file or its published validation split, and encodes its first `limit` items (None: all)."""
    check_suite(name)
    return HellaSwag(load_items(file, limit), tokenizer)


def check_suite(name: str) -> None:
    """Raises UserError, with the closest name, for an unknown suite."""
    if name not in SUITES:
        raise unknown("suite", name, SUITES)
