"""The user's cache folder, and how anything gets into it: whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from glassgpt.errors import UserError
from glassgpt.files import flush


def cache_folder() -> Path:
    """`$GLASSGPT_CACHE`, else `$XDG_CACHE_HOME/glassgpt`, else `~/.cache/glassgpt`, whether it exists yet or not."""
    if own := os.environ.get("GLASSGPT_CACHE"):
        return Path(own).expanduser().absolute()
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base) / "glassgpt"
    try:
        return Path.home() / ".cache" / "glassgpt"
    except RuntimeError as error:  # a user without an entry, as in some containers
        raise UserError("this user has no home folder to keep a cache in; name a folder in GLASSGPT_CACHE") from error


@contextlib.contextmanager
def writing(target: Path) -> Iterator[None]:
    """Turns a full disk or a read-only folder, met while writing `target`, into a UserError."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise UserError(
            f"cannot write {target}: {reason}; check space and rights there, or name another folder in GLASSGPT_CACHE"
        ) from error


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Gives a temporary folder beside `path` to fill; on success it becomes `path`, else it is removed.

    Where another process was first, its folder stays and ours is dropped: both hold the same.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(path)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        yield temporary
        temporary.chmod(0o755)
        flush(temporary)
        _rename_unless_taken(temporary, path)
        flush(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _remove_leftovers(path: Path) -> None:
    """Removes the temporary folders of processes killed while they made `path`; a day is more than any needs."""
    for leftover in path.parent.glob(f".{path.name}.*"):
        if time.time() - leftover.stat().st_mtime > 24 * 3600:
            shutil.rmtree(leftover, ignore_errors=True)


def _rename_unless_taken(temporary: Path, path: Path) -> None:
    try:
        temporary.rename(path)
    except OSError:
        if not path.is_dir():
            raise
