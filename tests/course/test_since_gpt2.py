"""The page on what changed since GPT-2 quotes the measurement of bench/family.py."""

from __future__ import annotations

import json
import re
import statistics

from glassgpt.course.pages import find_page, pages_folder

BENCH = pages_folder().parents[1] / "bench" / "figures" / "family.json"


def test_the_table_of_changes_is_that_of_the_benchmark() -> None:
    page = find_page("since-gpt2").markdown.replace("−", "-").replace("**", "")
    table = page.partition("lowest to highest of three seeds")[2].partition("\n\n")[0].splitlines()[2:]
    rows = [[cell.strip() for cell in row.strip("| ").split("|")] for row in table]
    measured = json.loads(BENCH.read_text(encoding="utf-8"))["result"]
    assert [row[0] for row in rows] == [row["change"] for row in measured["rows"]]
    for (_, change, span, loss, steps), true in zip(rows, measured["rows"], strict=True):
        assert (loss, steps) == (f"{statistics.mean(true['losses']):.3f}", f"{statistics.mean(true['steps']):.0f}")
        if found := true["differences"]:
            assert float(change) == round(statistics.mean(found), 3)
            assert re.findall(r"[+-][\d.]+", span) == [f"{each:+.3f}" for each in (min(found), max(found))]
    assert f"--seconds {measured['seconds']:g} --seeds {len(measured['rows'][0]['losses'])}" in page
