"""Files and folders land whole or not at all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from glassgpt.data.cache import cache_folder, writing
from glassgpt.errors import UserError
from glassgpt.files import dump_json, locked, new_file, new_folder, recover_folder, remove_unfinished, replacing_folder

GONE = 2**22 + 1  # no process has such a number


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
    old, fresh = tmp_path / ".glassgpt-new-folder-1-00000000", tmp_path / ".glassgpt-new-folder-1-11111111"
    old.mkdir()
    fresh.mkdir()
    os.utime(old, (time.time() - 90_000,) * 2)
    with new_folder(tmp_path / "folder"):
        pass
    assert names(tmp_path) == [fresh.name, "folder"]


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


def test_folders_made_for_a_lock_go_with_it_unless_something_is_in_them(tmp_path: Path) -> None:
    with locked(tmp_path / "a" / "b" / "lock", "busy"):
        pass
    assert names(tmp_path) == []
    with locked(tmp_path / "a" / "b" / "lock", "busy"):
        (tmp_path / "a" / "kept").touch()
    assert names(tmp_path / "a") == ["kept"]


def test_a_users_hidden_files_are_never_taken_for_ours(tmp_path: Path) -> None:
    theirs = [
        ".tmp-run", ".tmp-replaced-run", ".run.old", ".draft.tmp", ".draft.99999999.tmp", ".lock", ".glassgpt-lock",
        ".glassgpt-new-run", ".glassgpt-new-run-99999999", ".glassgpt-new-run-99999999-0123456", ".glassgpt-notes",
    ]  # fmt: skip
    for name in theirs:
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (0, 0))
    with replacing_folder(tmp_path / "run"):
        pass
    with replacing_folder(tmp_path / "run"):
        pass
    with new_folder(tmp_path / "run"):
        pass
    recover_folder(tmp_path / "run")
    remove_unfinished(tmp_path)
    assert names(tmp_path) == sorted([*theirs, "run"])


def test_what_a_kill_between_the_renames_put_aside_comes_back(tmp_path: Path) -> None:
    for name in ("run", "run-2-00000000"):  # the second looks like the end of a temporary name
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine").write_text(name)
        (tmp_path / name).rename(tmp_path / f".glassgpt-replaced-{name}-{GONE}-0123abcd")
        (tmp_path / f".glassgpt-new-{name}-{GONE}-0123abcd").mkdir()
    recover_folder(tmp_path / "run")
    assert (tmp_path / "run" / "mine").read_text() == "run"
    assert len(names(tmp_path)) == 3
    recover_folder(tmp_path / "run-2-00000000")
    assert names(tmp_path) == ["run", "run-2-00000000"]


def test_a_lock_ends_with_its_process(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    code = "import sys, pathlib; from glassgpt.files import locked\n"
    code += "with locked(pathlib.Path(sys.argv[1]), 'busy'): print('held', flush=True); sys.stdin.read()"
    holder = subprocess.Popen([sys.executable, "-c", code, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
    with pytest.raises(UserError, match="busy"), locked(path, "busy"):
        pass
    holder.kill()
    holder.communicate()
    with locked(path, "busy"):
        pass
    assert names(tmp_path) == []


def test_json_has_no_nan_and_no_lone_surrogate() -> None:
    value = {"loss": float("nan"), "rows": [(1.5, float("-inf"))], "name": "é\udcff"}
    text = dump_json(value)
    assert json.loads(text.encode()) == {"loss": None, "rows": [[1.5, None]], "name": "é\udcff"}
