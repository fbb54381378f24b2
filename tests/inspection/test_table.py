"""The table of bench/instruments.py: each instrument beside an independent value, and the copy of it in the docs."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def rows() -> list[Any]:
    pytest.importorskip("transformers")
    return list(runpy.run_path(str(ROOT / "bench" / "instruments.py"))["rows"]("tiny"))


def test_every_instrument_equals_its_independent_value(rows: list[Any]) -> None:
    assert {row.instrument: row.difference for row in rows if not row.difference <= 2e-5} == {}
    assert all(len(row.line()) <= 80 for row in rows)


def test_the_docs_show_the_rows_of_the_table(rows: list[Any]) -> None:
    text = (ROOT / "docs" / "inspection.md").read_text(encoding="utf-8")
    (table,) = re.findall(r"```text\n(instrument .*?)```", text, re.DOTALL)
    shown = [line[:48].rstrip() for line in table.splitlines()[2:]]
    assert shown == [f"{row.instrument:<24} {row.against}" for row in rows]
