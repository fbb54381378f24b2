"""Files that are written whole or not at all: under a temporary name beside their own, flushed, renamed."""

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

_DAY = 24 * 3600.0  # seconds; no folder takes longer to fill


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """A binary file to fill, which becomes `path` at the end; after an error `path` is what it was before."""
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
    """A folder to fill, which becomes `path` at the end; after an error nothing is there.

    For what is the same whoever makes it: where another process was first, its folder stays and this one is dropped.
    """
    for leftover in path.parent.glob(f".{path.name}.*"):  # of processes that were killed
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
    """A folder to fill, which becomes `path` at the end, in place of what was there; after an error nothing changes.

    Raises FileExistsError for what comes to be at `path` only meanwhile: nobody has agreed to replace that.
    """
    agreed = path.exists()  # "new/../old" is nowhere until "new" is made
    replaced = path.with_name(f".tmp-replaced-{path.name}")
    with _filling(path.with_name(f".tmp-{path.name}")) as temporary:
        yield temporary
        _flush_tree(temporary)
        if path.exists():
            if not agreed:
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
            shutil.rmtree(replaced, ignore_errors=True)
            path.rename(replaced)
        temporary.rename(path)
        flush(path.parent)
    shutil.rmtree(replaced, ignore_errors=True)


@contextlib.contextmanager
def _filling(temporary: Path) -> Iterator[Path]:
    """An empty folder, which is removed at the end unless it has been renamed."""
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def recover_folder(path: Path) -> None:
    """Ends what a kill left half done in `replacing_folder`: the old folder comes back where the new one is missing."""
    replaced = path.with_name(f".tmp-replaced-{path.name}")
    if not replaced.exists():
        return
    if path.exists():
        shutil.rmtree(replaced, ignore_errors=True)
    else:
        replaced.rename(path)


def remove_unfinished(folder: Path) -> None:
    """Removes what processes that are gone had not yet made a file of with `new_file`."""
    for path in folder.glob(".*.tmp"):
        pid = path.name.split(".")[-2]
        if pid.isdigit() and not _is_alive(int(pid)):
            path.unlink(missing_ok=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        return True
    return True


@contextlib.contextmanager
def locked(path: Path, busy: str) -> Iterator[None]:
    """Holds the lock file `path`, which ends with the process, however that ends, and is removed.

    Raises UserError, saying `busy`, where another process holds it, and OSError where it cannot be made.
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
    """Writes `text` in UTF-8; half a surrogate pair, which UTF-8 cannot say, as "?". Raises UserError if refused."""
    try:
        with new_file(path) as file:
            file.write(text.encode("utf-8", "replace"))
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from None


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file. Raises UserError, with the file and the reason, where there is none."""
    try:
        value = json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise UserError(f"{path} holds no JSON object")
    return value


def flush(path: Path) -> None:
    """Forces a file's or a folder's content onto the disk, so that a rename outlasts a power cut."""
    if os.name == "nt" and path.is_dir():  # Windows does not open folders
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _flush_tree(folder: Path) -> None:
    """Forces a folder and all in it onto the disk."""
    for path in (*folder.rglob("*"), folder):
        flush(path)
