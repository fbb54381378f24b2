"""`glassgpt runs`, `note`, and `report` on the runs of some days."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from command_line import contents, glassgpt


def test_a_run_is_listed_noted_on_and_reported(elsewhere: Path, trained: Path) -> None:
    assert "no run under runs/ yet" in glassgpt("runs").out
    shutil.copytree(trained, "runs/one")
    noted = glassgpt("note", "one", "a “plateau” at first", "--json")
    assert json.loads(noted.out)["text"] == "a “plateau” at first"
    (entry,) = json.loads(glassgpt("runs", "--json").out)["runs"]
    assert (entry["run"], entry["steps"], entry["finished"], entry["problem"]) == ("one", 40, True, None)
    assert [note["text"] for note in entry["notes"]] == ["a “plateau” at first"]
    assert "a “plateau” at first" in glassgpt("runs").out
    day = entry["begun"][:10]
    page = json.loads(glassgpt("report", "--since", day, "--json").out)
    assert page == {"report": "log.html", "runs": ["runs/one"]}
    assert "a “plateau” at first" in Path("log.html").read_text(encoding="utf-8")
    assert "a “plateau” at first" in Path(glassgpt("report", "one").out.strip()).read_text(encoding="utf-8")


def test_losses_on_a_part_of_the_split_are_marked(
    elsewhere: Path, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")  # room for every column, also where the user has set it lower
    shutil.copytree(trained, "runs/whole")
    assert "~" not in glassgpt("runs").out
    metrics = Path(shutil.copytree(trained, "runs/stopped")) / "metrics.jsonl"
    lines = metrics.read_text(encoding="utf-8").splitlines(keepends=True)
    metrics.write_text("".join(line for line in lines if '"final"' not in line), encoding="utf-8")
    out = glassgpt("runs").out
    rows = {row.split()[0]: row for row in out.splitlines()}
    assert rows["whole"].count("~") == 0
    assert rows["stopped"].count("~") == 3  # val, best and bits per byte, but not train
    assert rows["~"] == "~ the run is not finished (…): measured on a part of the validation split"


def test_bad_input_changes_nothing(elsewhere: Path, trained: Path) -> None:
    shutil.copytree(trained, "runs/one")
    before = contents(Path("runs"))
    assert "the note is empty" in glassgpt("note", "one", " ").error
    assert "unknown run 'two'" in glassgpt("note", "two", "text").error
    assert "is not a date" in glassgpt("report", "--since", "tomorrow").error
    assert "name runs or days" in glassgpt("report", "one", "--since", "2026-01-01").error
    assert "no run under runs/" in glassgpt("report", "--until", "2020-01-01").error
    assert "name a run" in glassgpt("report").error
    assert "there is no folder elsewhere" in glassgpt("runs", "elsewhere").error
    assert contents(Path("runs")) == before
    assert not Path("log.html").exists()
