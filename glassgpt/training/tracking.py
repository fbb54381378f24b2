"""The figures of a run: JSON lines that can be cut back to the step from which training goes on."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from glassgpt.errors import UserError

Record = dict[str, Any]


class JsonLines:
    """A file of one JSON object a line, each with a `step`. Appended lines reach the file at once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("a", encoding="utf-8")

    def append(self, record: Record) -> None:
        """Raises UserError when the disk refuses."""
        try:
            self._file.write(json.dumps(record, ensure_ascii=False) + "\n")
            self._file.flush()
        except OSError as error:
            raise UserError(f"cannot write {self.path}: {error.strerror}; make room, then --resume") from None

    def sync(self) -> None:
        """Forces the lines onto the disk, before a checkpoint that counts on them."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


def read_lines(path: Path) -> list[Record]:
    """The records of a file, [] where there is none. A last line that a kill cut short is left out.

    Raises UserError for any other line that is not a JSON object, with its number.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    records = []
    for number, line in enumerate(lines[:-1], start=1):  # what follows the last newline is empty or was cut short
        try:
            record = json.loads(line)
            record["step"]
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path}, line {number} is not a record with a step: {error}") from None
        records.append(record)
    return records


def cut_back(path: Path, keep: Callable[[Record], bool]) -> None:
    """Rewrites the file with the records that `keep` wants, atomically."""
    kept = [json.dumps(record, ensure_ascii=False) + "\n" for record in read_lines(path) if keep(record)]
    temporary = path.with_name(f".tmp-{path.name}")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.writelines(kept)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise UserError(f"cannot write {path}: {error.strerror}") from None
