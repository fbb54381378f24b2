"""The user's cache folder, and the error for a cache that cannot be written."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from glassgpt.errors import UserError
from glassgpt.files import user_path


def cache_folder() -> Path:
    """`$GLASSGPT_CACHE`, else `$XDG_CACHE_HOME/glassgpt`, else `~/.cache/glassgpt`. It may not exist yet."""
    if own := os.environ.get("GLASSGPT_CACHE"):
        return user_path(own).absolute()
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base) / "glassgpt"
    try:
        return Path.home() / ".cache" / "glassgpt"
    except RuntimeError as error:  # a user without a passwd entry, as in some containers
        raise UserError("this user has no home folder for the cache; name a folder in GLASSGPT_CACHE") from error


@contextlib.contextmanager
def writing(target: Path) -> Iterator[None]:
    """Context manager: an OSError while writing `target` (full disk, read-only folder) becomes a UserError."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise UserError(
            f"cannot write {target}: {reason}; check disk space and permissions, "
            "or name another folder in GLASSGPT_CACHE"
        ) from error
