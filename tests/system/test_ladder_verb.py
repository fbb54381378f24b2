"""glassgpt ladder: the table, the JSON list, the files it leaves, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

from command_line import glassgpt, weights


def test_all_ten_sections_as_a_json_list(text_file: Path, tmp_path: Path) -> None:
    result = glassgpt("ladder", "--data", text_file, "--steps", 2, "--seeds", 1, "--out", tmp_path / "out", "--json")
    rows = json.loads(result.out)
    assert [row["section"] for row in rows] == list(range(1, 11))
    assert rows[9]["name"] == "decoder" and rows[9]["n_params"] > rows[8]["n_params"]
    assert all(row["val_loss"] > 0 and row["seconds"] > 0 for row in rows)
    assert len(json.loads((tmp_path / "out" / "ladder.json").read_text())) == 10
    assert "10 decoder" in (tmp_path / "out" / "ladder.svg").read_text()
    assert "decoder" in result.err  # progress, where it belongs


def test_one_section_as_a_table_with_its_spread(text_file: Path, tmp_path: Path) -> None:
    result = glassgpt("ladder", "--data", text_file, "--section", 4, "--steps", 2, "--out", tmp_path / "out")
    head, row, picture, runs = result.out.splitlines()
    assert "validation loss" in head and "it writes" in head
    assert row.split()[:2] == ["4", "head"] and " ± " in row
    assert picture == f"picture  {tmp_path / 'out' / 'ladder.svg'}"
    assert runs.startswith(f"runs     {tmp_path / 'out' / 's04-head'}, …")


def test_the_trainings_are_runs_that_train_would_make(text_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert glassgpt("ladder", "--data", text_file, "--section", 4, "--steps", 6, "--out", out).code == 0
    listed = json.loads(glassgpt("runs", out, "--json").out)["runs"]
    assert sorted(entry["run"] for entry in listed) == ["s04-head", "s04-head-seed1"]
    assert glassgpt("sample", out / "s04-head", "--max-new-tokens", 5).code == 0
    assert Path(glassgpt("report", out / "s04-head").out.strip()).is_file()
    assert glassgpt("train", out / "s04-head-seed1" / "config.toml", "--run", tmp_path / "again").code == 0
    assert weights(tmp_path / "again") == weights(out / "s04-head-seed1")
    assert glassgpt("train", "--run", out / "s04-head", "--resume", "--max-steps", 8).code == 0


def test_what_cannot_be_is_refused_before_anything_is_written(text_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert "sections 1 to 10" in glassgpt("ladder", "--data", text_file, "--section", 11, "--out", out).error
    assert "--steps 0" in glassgpt("ladder", "--data", text_file, "--steps", 0, "--out", out).error
    assert "--seeds 0" in glassgpt("ladder", "--data", text_file, "--seeds", 0, "--out", out).error
    assert not out.exists()


def test_earlier_results_are_not_replaced(text_file: Path, tmp_path: Path) -> None:
    command = ("ladder", "--data", text_file, "--section", 1, "--steps", 1, "--seeds", 1, "--out", tmp_path / "out")
    assert glassgpt(*command).code == 0
    assert "ladder.json exists" in glassgpt(*command).error


def test_overwrite_replaces_the_results_and_the_runs(text_file: Path, tmp_path: Path) -> None:
    command = ("ladder", "--data", text_file, "--section", 2, "--seeds", 1, "--steps", 2, "--out", tmp_path / "out")
    assert glassgpt(*command).code == 0
    before = weights(tmp_path / "out" / "s02-embedding")
    assert glassgpt(*command, "--steps", 3, "--overwrite").code == 0
    assert weights(tmp_path / "out" / "s02-embedding") != before
