"""The tokens of the last sample have the colours of their losses, and a table says the same in words."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest

from glassgpt.errors import UserError
from glassgpt.report.run_page import write_report
from glassgpt.report.surprise import level

PIECES = [("T", 0.1), ("h<e", 1.0), (" ", 1.7), ("\n", 2.5), ("é", 4.0), ("z", 4.5)]


def page(folder: Path, *samples: list[Any] | None) -> str:
    """The report of a run with these samples, the last of them at step 100."""
    (folder / "config.toml").write_text("[model]\nn_layer = 1\n")
    lines = [
        {"step": 100, "prompt": "", "text": "x"} | ({} if pieces is None else {"pieces": pieces}) for pieces in samples
    ]
    (folder / "samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return write_report(folder).read_text(encoding="utf-8")


def pieces(pairs: list[tuple[str, float | None]]) -> list[dict[str, Any]]:
    return [{"text": text, "loss": loss} for text, loss in pairs]


def test_every_token_has_the_colour_of_its_chance(tmp_path: Path) -> None:
    html = page(tmp_path, pieces(PIECES))
    drawn = re.search(r'<pre class="surprise" aria-hidden="true">\n(.*?)</pre>', html, re.DOTALL)
    assert drawn is not None
    assert re.findall(r'<span class="loss-(\d)" title="([\d.]+) nats">(.*?)</span>', drawn[1]) == [
        ("0", "0.10", "T"), ("1", "1.00", "h&lt;e"), ("2", "1.70", "·"), ("3", "2.50", "↵"), ("4", "4.00", "é"),
        ("5", "4.50", "z"),
    ]  # fmt: skip
    assert drawn[1].count("\n") == 1  # the line ends where the sample's does
    assert "The mean is 2.30 nats; the greatest surprise was “z” with 4.50." in html


def test_the_table_says_it_in_words(tmp_path: Path) -> None:
    html = page(tmp_path, pieces(PIECES))
    rows = re.findall(r"<tr><th>(.*?)</th><td[^>]*>([\d.]+)</td><td[^>]*>([\d.]+%)</td></tr>", html)
    assert rows[:4] == [
        ("T", "0.10", "90.5%"),
        ("h&lt;e", "1.00", "36.8%"),
        ("·", "1.70", "18.3%"),
        ("↵", "2.50", "8.2%"),
    ]
    assert len(rows) == len(PIECES)


def test_the_last_sample_counts(tmp_path: Path) -> None:
    assert "“z” with 4.50" in page(tmp_path, pieces([("a", 9.0)]), pieces(PIECES))
    for samples in ((pieces(PIECES), None), (None,), (pieces([]),), ()):  # an older run, another stage, no samples
        assert "How sure it was" not in page(tmp_path, *samples)


def test_the_steps_of_the_colours_are_halves_of_the_chance() -> None:
    assert [level(bits * math.log(2) - 1e-9) for bits in (1, 2, 3, 4, 6)] == [0, 1, 2, 3, 4]
    assert [level(bits * math.log(2) + 1e-9) for bits in (1, 2, 3, 4, 6)] == [1, 2, 3, 4, 5]


def test_a_loss_that_is_no_number_of_nats_costs_no_report(tmp_path: Path) -> None:
    html = page(tmp_path, pieces([("a", None), ("b", -1e9), ("c", 1e9)]))
    assert re.findall(r'class="loss-(\d)" title="(.*?) nats"', html) == [
        ("5", "inf"), ("0", "0.00"), ("5", "1000000000.00"),
    ]  # fmt: skip


@pytest.mark.parametrize("damaged", [5, [5], [{"text": "a"}], [{"text": 5, "loss": 1.0}], [{"text": "a", "loss": "b"}]])
def test_damaged_pieces_are_named(tmp_path: Path, damaged: Any) -> None:
    with pytest.raises(UserError, match=r"samples\.jsonl, line 1 is not a record with a step: pieces"):
        page(tmp_path, damaged)
