"""The tests of a language model that are known by name."""

from __future__ import annotations

from pathlib import Path

from glassgpt.errors import unknown
from glassgpt.evaluation.hellaswag import HellaSwag, load_items
from glassgpt.tokenizers.base import Tokenizer

SUITES = ("hellaswag",)


def open_suite(
    name: str, tokenizer: Tokenizer, *, file: str | Path | None = None, limit: int | None = None
) -> HellaSwag:
    """A suite as ids of `tokenizer`: of a file, or its published validation split; the first `limit` items, or all."""
    check_suite(name)
    return HellaSwag(load_items(file, limit), tokenizer)


def check_suite(name: str) -> None:
    """Raises UserError, with the nearest name, for a suite that there is not."""
    if name not in SUITES:
        raise unknown("suite", name, SUITES)
