"""Atomic writes of files and folders: write to a temporary name in the same folder, flush, then rename."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import filelock

from glassgpt.errors import UserError

_DAY = 24 * 3600.0  # seconds; filling a folder never takes longer


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """Yields a binary file to fill, which becomes `path` on success; after an error `path` is unchanged."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
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
    for leftover in path.parent.glob(f".{path.name}.*"):  # from killed processes
        if time.time() - leftover.stat().st_mtime > _DAY:
            shutil.rmtree(leftover, ignore_errors=True)
    with _filling(path.with_name(f".{path.name}.{uuid.uuid4().hex}")) as temporary:
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
    existed = path.exists()  # checked first: "new/../old" does not exist until "new" is created
    replaced = path.with_name(f".tmp-replaced-{path.name}")
    with _filling(path.with_name(f".tmp-{path.name}")) as temporary:
        yield temporary
        _flush_tree(temporary)
        if path.exists():
            if not existed:
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
            shutil.rmtree(replaced, ignore_errors=True)
            path.rename(replaced)
        temporary.rename(path)
        flush(path.parent)
    shutil.rmtree(replaced, ignore_errors=True)


@contextlib.contextmanager
def _filling(temporary: Path) -> Iterator[Path]:
    """Yields an empty folder and removes it at the end, unless it was renamed."""
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def recover_folder(path: Path) -> None:
    """Cleans up after a kill inside `replacing_folder`: restores the old folder if the new one is missing."""
    replaced = path.with_name(f".tmp-replaced-{path.name}")
    if not replaced.exists():
        return
    if path.exists():
        shutil.rmtree(replaced, ignore_errors=True)
    else:
        replaced.rename(path)


def remove_unfinished(folder: Path) -> None:
    """Removes temporary files that dead processes left behind in `new_file`."""
    for path in folder.glob(".*.tmp"):
        pid = path.name.split(".")[-2]
        if pid.isdigit() and not _is_alive(int(pid)):
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
def locked(path: Path, busy: str) -> Iterator[None]:
    """Holds a lock on the file `path`, then removes it. The lock is released even if the process is killed.

    Raises UserError with the message `busy` if another process holds it, and OSError if it cannot be created.
    """
    lock = filelock.FileLock(path)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise UserError(busy) from None
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        lock.release()


def write_text(path: Path, text: str) -> None:
    """Writes `text` as UTF-8, with "?" for a lone surrogate. Raises UserError if the file cannot be written."""
    try:
        with new_file(path) as file:
            file.write(text.encode("utf-8", "replace"))
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from None


def read_json(path: Path) -> dict[str, Any]:
    """Parses a JSON object from a file. Raises UserError, with the path and the reason, if there is none."""
    try:
        value = json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
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
