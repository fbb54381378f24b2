"""Atomic writes of files and folders: write to a temporary name in the same folder, flush, then rename.

A temporary name says that it is ours, what it is for, which process gave it, and 32 random bits, for example
`.glassgpt-new-report.html-4711-1f0c9a2b`. So it never meets a name of the user's, and only such names are cleaned up.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import filelock

from glassgpt.errors import UserError

LOCK = ".glassgpt-lock"  # name of the file that locks the folder it lies in
_TEMPORARY = re.compile(r"\.glassgpt-(new|replaced|discarded)-(.+)-(\d+)-[0-9a-f]{8}", re.DOTALL)
_DAY = 24 * 3600.0  # seconds; filling a folder never takes longer


def real_path(path: Path) -> Path:
    """The path without links. Unlike `Path.resolve` below Python 3.13, it raises OSError for a loop of links."""
    try:
        return path.resolve()
    except RuntimeError:
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path)) from None


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """Yields a binary file to fill, which becomes `path` on success; after an error `path` is unchanged."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(path, "new")
    try:
        with temporary.open("w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    flush(path.parent)


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yields a folder to fill, which becomes `path` on success; after an error nothing is left.

    Use it where every process would create the same content: if another process finished first, its folder stays and
    this one is deleted.
    """
    for leftover in _leftovers(path.parent, path.name):  # by age: processes of other machines may share the folder
        if time.time() - leftover.stat().st_mtime > _DAY:
            _remove(leftover)
    with _filling(path) as temporary:
        yield temporary
        _flush_tree(temporary)
        try:
            temporary.rename(path)
        except OSError:
            if not path.is_dir():
                raise
        flush(path.parent)


@contextlib.contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Yields a folder to fill, which replaces `path` on success; after an error nothing changes.

    Raises FileExistsError if `path` was created after this call began, because the caller did not expect to replace it.
    """
    recover_folder(path)
    existed = path.exists()  # checked first: "new/../old" does not exist until "new" is created
    replaced = _temporary(path, "replaced")
    with _filling(path) as temporary:
        yield temporary
        _flush_tree(temporary)
        if path.exists():
            if not existed:
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
            path.rename(replaced)
        temporary.rename(path)
        flush(path.parent)
    _remove(replaced)


@contextlib.contextmanager
def _filling(path: Path) -> Iterator[Path]:
    """Yields an empty folder beside `path` and removes it at the end, unless it was renamed."""
    temporary = _temporary(path, "new")
    try:
        temporary.mkdir(parents=True)
        yield temporary
    finally:
        _remove(temporary)


def discard_folder(path: Path) -> None:
    """Removes a folder: first renames it, which is atomic, then deletes it."""
    hidden = _temporary(path, "discarded")
    path.rename(hidden)
    _remove(hidden)


def recover_folder(path: Path) -> None:
    """Cleans up after processes that were killed while they replaced the folder `path`.

    If one was killed between its two renames, `path` is missing: the old folder gets its name back.
    """
    for leftover in _leftovers(path.parent, path.name):
        if _is_unfinished(leftover):
            if leftover.name.startswith(".glassgpt-replaced-") and not path.exists():
                leftover.rename(path)
            else:
                _remove(leftover)


def remove_unfinished(folder: Path) -> None:
    """Removes the temporary files and folders that dead processes left behind in `folder`."""
    for leftover in _leftovers(folder):
        if _is_unfinished(leftover):
            _remove(leftover)


def _temporary(path: Path, purpose: str) -> Path:
    """A new name beside `path`, of the form that `_TEMPORARY` recognises."""
    return path.with_name(f".glassgpt-{purpose}-{path.name}-{os.getpid()}-{secrets.token_hex(4)}")


def _leftovers(folder: Path, name: str | None = None) -> list[Path]:
    """Everything in `folder` that has a temporary name, or only what stands for the file or folder `name`."""
    found = [(path, _TEMPORARY.fullmatch(path.name)) for path in folder.glob(".glassgpt-*")]
    return [path for path, match in found if match and name in (None, match[2])]


def _is_unfinished(temporary: Path) -> bool:
    """Whether the process that gave this name is gone. This process has nothing unfinished when it asks."""
    match = _TEMPORARY.fullmatch(temporary.name)
    return match is not None and (int(match[3]) == os.getpid() or not _is_alive(int(match[3])))


def _remove(path: Path) -> None:
    """Removes a file or a folder, if it is there and the system allows it."""
    shutil.rmtree(path, ignore_errors=True)
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's process
        return True
    return True


@contextlib.contextmanager
def locked(path: Path, busy: str, wait: float = 0.0) -> Iterator[None]:
    """Holds a lock on the file `path`, then removes it. The lock is released even if the process is killed.

    Folders that are missing on the way to `path` are created, and removed again if they are still empty at the end.
    Raises UserError with the message `busy` if another process still holds the lock after `wait` seconds. Raises
    OSError if it cannot be created.
    """
    missing = [folder for folder in path.parents if not folder.exists()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(path)
        try:
            lock.acquire(timeout=wait)
        except filelock.Timeout:
            raise UserError(busy) from None
        try:
            yield
        finally:
            path.unlink(missing_ok=True)  # before the release: afterwards it may be another process's
            lock.release()
    finally:
        with contextlib.suppress(OSError):
            for folder in missing:
                folder.rmdir()


def write_text(path: Path, text: str) -> None:
    """Writes `text` as UTF-8, with "?" for a lone surrogate. Raises UserError if the file cannot be written."""
    try:
        with new_file(path) as file:
            file.write(text.encode("utf-8", "replace"))
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from None


def dump_json(value: Any, indent: int | None = None) -> str:
    """A value as JSON, on one line unless it has an `indent`. JSON has no NaN or infinity: they become null.

    A lone surrogate, as in the name of a file that is not UTF-8, is escaped: UTF-8 cannot encode it.
    """
    text = json.dumps(_without_nan(value), ensure_ascii=False, allow_nan=False, indent=indent)
    return re.sub("[\ud800-\udfff]", lambda found: f"\\u{ord(found[0]):04x}", text)


def _without_nan(value: Any) -> Any:
    match value:
        case float():
            return value if math.isfinite(value) else None
        case dict():
            return {name: _without_nan(part) for name, part in value.items()}
        case list() | tuple():
            return [_without_nan(part) for part in value]
        case _:
            return value


def user_path(name: str | Path) -> Path:
    """The path that a user has typed, with ~ expanded. Raises UserError for the home of a user who does not exist."""
    try:
        return Path(name).expanduser()
    except RuntimeError:
        raise UserError(f"there is no home folder for {name}: write the path without ~") from None


def read_file(path: Path, what: str = "") -> bytes:
    """The bytes of a file; `what` is its kind in messages, such as "tokenizer file".

    Raises UserError if it cannot be read, and for a pipe or a device: a pipe may wait forever for its writer, and a
    device such as /dev/zero has no end.
    """
    name = f"the {what} {path}" if what else str(path)
    try:
        check_regular(path, name)
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {name}: {error.strerror}") from None
    except ValueError as error:  # a NUL in the name, which only a file can bring
        raise UserError(f"cannot read {name}: {error}") from None


def check_regular(path: Path, name: str | None = None) -> None:
    """Raises UserError if `path` is a pipe, a socket or a device, and OSError if there is nothing."""
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # reading a folder fails by itself
        raise UserError(f"{name or path} is not a file on the disk but a pipe or a device: name a file")


def parse_json(data: bytes) -> Any:
    """Parses JSON. Raises ValueError with the reason for anything else."""
    try:
        return json.loads(data, parse_int=_parse_int)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _parse_int(digits: str) -> int:
    if len(digits) > 300:  # it would not fit a float either
        raise ValueError(f"it contains a number of {len(digits)} digits")
    return int(digits)


def read_json(path: Path, what: str = "") -> dict[str, Any]:
    """Parses a JSON object from a file; `what` as in `read_file`. Raises UserError, with the path, if there is none."""
    try:
        value = parse_json(read_file(path, what))
    except ValueError as error:  # not JSON, not UTF-8, or a number of thousands of digits
        raise UserError(f"{path} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise UserError(f"{path} does not contain a JSON object")
    return value


def flush(path: Path) -> None:
    """Forces the content of a file or folder to disk (fsync), so that a rename survives a power failure."""
    if os.name == "nt" and path.is_dir():  # Windows cannot open folders
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _flush_tree(folder: Path) -> None:
    """Forces a folder and everything in it to disk."""
    for path in (*folder.rglob("*"), folder):
        flush(path)
