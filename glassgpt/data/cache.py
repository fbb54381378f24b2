"""The user's cache folder, and what is said where it cannot be written."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from glassgpt.errors import UserError


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
