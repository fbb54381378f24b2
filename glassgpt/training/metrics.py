"""The figures of a run: JSON lines that can be cut back to the step from which training goes on."""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from glassgpt.errors import UserError
from glassgpt.files import write_text

Line = dict[str, Any]


class JsonLines:
    """A file of one JSON object a line, each with a `step`. Appended lines reach the file at once.

    A number that JSON does not know, NaN or infinity, is written as null.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._refusals():
            self._file = path.open("a", encoding="utf-8")

    def append(self, record: Line) -> None:
        """Raises UserError when the disk refuses."""
        with self._refusals():
            self._file.write(_dump(record))
            self._file.flush()

    def sync(self) -> None:
        """Forces the lines onto the disk."""
        with self._refusals():
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Never fails: what the disk refused, `append` has said."""
        with contextlib.suppress(OSError):
            self._file.close()

    @contextlib.contextmanager
    def _refusals(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(
                f"cannot write {self.path}: {error.strerror}; once it can be written, go on with --resume"
            ) from None


def read_lines(path: Path) -> list[Line]:
    """The records of a file, [] where there is none. A last line that a kill cut short is left out.

    Raises UserError for any other line that is not a JSON object, with its number.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    records = []
    if len(lines) == 1 and lines[0] and not lines[0].startswith(b"{"):  # no record was ever begun in this file
        raise UserError(f"{path}, line 1 is not a record with a step: the file is damaged")
    for number, line in enumerate(lines[:-1], start=1):  # what follows the last newline is empty or was cut short
        try:
            record = json.loads(line)
            record["step"]
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path}, line {number} is not a record with a step: {error}") from None
        records.append(record)
    return records


def final_record(lines: Sequence[Line]) -> Line | None:
    """The last figures of a run, on the whole validation split; None while it has not ended."""
    return next((line for line in reversed(lines) if line.get("final")), None)


def cut_back(path: Path, keep: Callable[[Line], bool]) -> None:
    """Rewrites the file with the records that `keep` wants, atomically."""
    write_text(path, "".join(_dump(record) for record in read_lines(path) if keep(record)))


def _dump(record: Line) -> str:
    finite = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in record.items()
    }
    return json.dumps(finite, ensure_ascii=False, allow_nan=False) + "\n"


class RunLog:
    """metrics.jsonl and samples.jsonl while a run trains; without `writes`, as on other ranks, lines go nowhere."""

    def __init__(self, folder: Path, *, writes: bool) -> None:
        names = ("metrics.jsonl", "samples.jsonl") if writes else ()
        self._files = {name: JsonLines(folder / name) for name in names}

    def add(self, record: Line, file: str = "metrics.jsonl") -> None:
        """A line of figures, or of another file."""
        if file in self._files:
            self._files[file].append(record)

    def train_losses(self, count: int) -> list[float]:
        """Those of the last `count` steps that were applied; fewer where there are not so many."""
        lines = read_lines(self._files["metrics.jsonl"].path) if self._files else []
        steps = [line for line in lines if "train/loss" in line and "skipped" not in line and not line.get("final")]
        return [line["train/loss"] for line in steps[-count:]]

    def sync(self) -> None:
        """Forces all lines onto the disk: a checkpoint never knows more than the figures beside it."""
        for file in self._files.values():
            file.sync()

    def close(self) -> None:
        """Never fails: what the disk refused, adding has said."""
        for file in self._files.values():
            file.close()
