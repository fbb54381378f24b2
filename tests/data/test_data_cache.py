"""Files and folders land whole or not at all."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from glassgpt.data.cache import cache_folder, writing
from glassgpt.errors import UserError
from glassgpt.files import locked, new_file, new_folder


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("GLASSGPT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "glassgpt"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_folder() == tmp_path / "home" / ".cache" / "glassgpt"


def test_a_user_without_a_home_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("GLASSGPT_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    with pytest.raises(UserError, match="name a folder in GLASSGPT_CACHE"):
        cache_folder()


def test_a_folder_that_cannot_be_renamed_is_an_error(tmp_path: Path) -> None:
    target = tmp_path / "folder"
    target.write_text("a file is in the way")
    with pytest.raises(UserError, match="cannot write"), writing(target), new_folder(target):
        pass
    assert names(tmp_path) == ["folder"]


def test_a_file_appears_only_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    with new_file(path) as file:
        file.write(b"half")
        assert not path.exists()
    assert path.read_bytes() == b"half"
    assert names(path.parent) == ["file"]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(RuntimeError), new_file(path) as file:
        file.write(b"new")
        raise RuntimeError
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_of_two_folders_made_at_once_the_first_stays(tmp_path: Path) -> None:
    target = tmp_path / "folder"
    with new_folder(target) as slow:
        (slow / "made-by").write_text("slow")
        with new_folder(target) as quick:
            (quick / "made-by").write_text("quick")
    assert (target / "made-by").read_text() == "quick"
    assert names(tmp_path) == ["folder"]


def test_a_failed_folder_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), new_folder(tmp_path / "folder"):
        raise RuntimeError
    assert names(tmp_path) == []


def test_leftovers_of_killed_processes_go_after_a_day(tmp_path: Path) -> None:
    old, fresh = tmp_path / ".folder.old", tmp_path / ".folder.fresh"
    old.mkdir()
    fresh.mkdir()
    os.utime(old, (time.time() - 90_000,) * 2)
    with new_folder(tmp_path / "folder"):
        pass
    assert names(tmp_path) == [".folder.fresh", "folder"]


def test_a_write_that_the_system_refuses_is_a_user_error(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file where a folder must be")
    target = tmp_path / "taken" / "file"
    message = r"cannot write .*taken/file: .*GLASSGPT_CACHE"
    with pytest.raises(UserError, match=message), writing(target), new_file(target):
        pass


def test_a_lock_is_held_once_and_leaves_no_file(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with locked(path, "busy"):
        with pytest.raises(UserError, match="busy"), locked(path, "busy"):
            pass
        assert path.exists()
    with locked(path, "busy"):
        pass
    assert names(tmp_path) == []
