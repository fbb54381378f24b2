"""`glassgpt look FOLDER`: which folders hold runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from glassgpt.runs.folder import find_folder_of_runs


def make_run(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text("format = 1\n[model]\n")
    (folder / "metrics.jsonl").touch()
    return folder


def test_a_folder_is_found_by_its_path_or_by_its_name_under_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make_run(Path("runs/ladder/s01-bigram"))
    make_run(tmp_path / "old" / "first")
    assert find_folder_of_runs("runs/ladder") == Path("runs/ladder")
    assert find_folder_of_runs("ladder") == Path("runs/ladder")
    assert find_folder_of_runs(str(tmp_path / "old")) == tmp_path / "old"


def test_a_run_and_a_folder_without_runs_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_run(Path("runs/first"))
    make_run(Path("runs/first/copy"))  # inside a run that the name stands for
    Path("empty").mkdir()
    assert [find_folder_of_runs(name) for name in ("first", "empty", "missing", "x" * 5000)] == [None] * 4
