"""The figures of a climb: those of the package, and those of a ladder.json."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path
from typing import Any

import pytest

from glassgpt.course.results import read_results, shipped_results
from glassgpt.errors import UserError
from glassgpt.models.ladder import SECTIONS

ROOT = Path(__file__).parents[2]
TABLE, TOOL = ROOT / "docs" / "course" / "README.md", ROOT / "tools" / "ladder_figures.py"


def test_the_figures_of_the_package_are_those_of_the_course() -> None:
    shipped = shipped_results()
    assert shipped["command"] and shipped["machine"] and shipped["text"]
    rows = re.findall(
        r"^\| (\d+) \[(\w+)\].*?\| \**([\d.]+) ± ([\d.]+)\** \| ([\d,]+) \| (\d+) s \|", TABLE.read_text(), re.M
    )
    assert len(rows) == len(SECTIONS) == len(shipped["rows"])
    for (number, name, loss, spread, n_params, seconds), row in zip(rows, shipped["rows"], strict=True):
        assert (int(number), name, n_params) == (row["section"], row["name"], f"{row['n_params']:,}")
        assert (loss, spread) == (f"{row['val_loss']:.4f}", f"{row['spread']:.4f}")
        assert int(seconds) == round(row["seconds"])


def test_the_tool_stores_a_climb_as_the_package_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = shipped_results()
    machine = {"python": "3.11", "torch": "2.13.0+cpu", "processor": "AMD EPYC", "cores": 2}
    climb = results(tmp_path, [{**row, "idea": "…"} for row in shipped["rows"]])
    (climb / "s01-bigram").mkdir()
    (climb / "s01-bigram" / "machine.json").write_text(json.dumps(machine))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["ladder_figures.py", str(climb)])
    runpy.run_path(str(TOOL), run_name="__main__")
    assert json.loads((tmp_path / "glassgpt" / "course" / "figures.json").read_text()) == shipped


def results(tmp_path: Path, rows: Any) -> Path:
    (tmp_path / "ladder.json").write_text(rows if isinstance(rows, str) else json.dumps(rows))
    return tmp_path


def test_results_without_sizes_can_be_read(tmp_path: Path) -> None:
    rows = [dict(row) for row in shipped_results()["rows"]]
    for row in rows:
        del row["sizes"]
    assert read_results(results(tmp_path, rows)) == rows


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": "head"}, "section 1 cannot be 'head'"),
        ({"section": 11}, "section 11 cannot be 'bigram'"),
        ({"section": 2, "name": "embedding"}, "or stands there twice"),
        ({"losses": [4.0]}, "needs one loss for each of its steps"),
        ({"steps": [], "losses": []}, "needs one loss for each of its steps"),
        ({"val_losses": []}, "needs one loss for each of its steps"),
        ({"val_loss": "low"}, "0.val_loss"),
        ({"sample": None}, "0.sample"),
    ],
)
def test_damaged_results(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    rows: list[dict[str, Any]] = [dict(row) for row in shipped_results()["rows"]]
    rows[0] |= change
    with pytest.raises(UserError, match=re.escape(said)) as caught:
        read_results(results(tmp_path, rows))
    assert "ladder.json is damaged" in str(caught.value)


@pytest.mark.parametrize("text", ["", "[{", '{"rows": []}', "\0", "[[1]]"])
def test_what_is_no_list_of_rows(tmp_path: Path, text: str) -> None:
    with pytest.raises(UserError, match=r"ladder\.json is damaged"):
        read_results(results(tmp_path, text))
