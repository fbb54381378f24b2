"""Follows the files of runs while they grow, and tells pages by server-sent events.

Only the files' new bytes are read, so that watching costs a training run next to nothing.
"""

from __future__ import annotations

import asyncio
import json
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glassgpt.files import dump_json
from glassgpt.training.metrics import Line

POLL_SECONDS = 1.0  # between two looks at the files of a run that is watched
RUNS_EVERY = 5  # looks; how often the folder of the runs is read, for those that are new
MOST_BYTES = 1 << 20  # of a file that one look reads; the rest waits for the next
TAIL = 256  # bytes before a mark that must still be the same
MOST = 1e300  # a larger number, such as an integer of a thousand digits, cannot be drawn
NO_FIGURES = {"final", "at_end", "skipped", "prompt", "text"}


@dataclass(frozen=True)
class Mark:
    """How far a file was read: a position, and a checksum of the bytes before it.

    A file that was cut back or replaced has other bytes there, also where it is longer again.
    """

    position: int = 0
    checksum: int = 0

    def __str__(self) -> str:
        return f"{self.position}-{self.checksum}"

    @classmethod
    def parse(cls, text: str) -> Mark:
        """The mark that a page sends back; the start of the file for anything else."""
        position, _, checksum = text.partition("-")
        numbers = [int(part) for part in (position, checksum) if part.isascii() and part.isdecimal() and len(part) < 16]
        return cls(*numbers) if len(numbers) == 2 else cls()


@dataclass
class Followed:
    """A file of JSON lines that grows."""

    path: Path
    mark: Mark = Mark()
    _seen: tuple[int, int] | None = None  # size and time of the last change, at the last look

    def look(self, most: int | None = None) -> list[Line] | None:
        """The new lines that are whole; None if the file was cut back or replaced, and must be read from its start.

        Lines that are not JSON objects with a step are left out. `most`: bytes to read.
        """
        try:
            found = self.path.stat()
            seen = found.st_size, found.st_mtime_ns
            if seen == self._seen:
                return []
            position = self.mark.position
            with self.path.open("rb") as file:
                start = max(0, position - TAIL)
                file.seek(start)
                tail = file.read(position - start)
                if len(tail) < position - start or _checksum(tail) != self.mark.checksum:
                    self.mark, self._seen = Mark(), None
                    return None
                data = file.read() if most is None else file.read(most)
        except FileNotFoundError:
            replaced = self.mark != Mark()
            self.mark, self._seen = Mark(), None
            return None if replaced else []
        except OSError:  # not readable at this moment
            return []
        whole = data[: data.rfind(b"\n") + 1]  # the last line may be half written
        if most is None or len(data) < most:
            self._seen = seen
        self.mark = Mark(position + len(whole), _checksum((tail + whole)[-TAIL:]))
        return parse_lines(whole)


def _checksum(data: bytes) -> int:
    return zlib.crc32(data) if data else 0


def parse_lines(data: bytes) -> list[Line]:
    """The JSON objects with a step, one on each line; anything else is left out."""
    lines = data.split(b"\n")[:-1]
    try:  # as one list: several times as fast
        values = json.loads(b"[" + b",\n".join(lines) + b"]")
    except (ValueError, RecursionError):
        values = [_parsed(line) for line in lines]
    return [value for value in values if isinstance(value, dict) and type(value.get("step")) is int]


def _parsed(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def is_figure(name: str, value: object) -> bool:
    """Whether a field of a line is a number that can be drawn."""
    return name not in NO_FIGURES and isinstance(value, int | float) and type(value) is not bool and abs(value) < MOST


def figures_of(line: Line) -> dict[str, float]:
    """The finite numbers of a line: JSON has no others."""
    return {name: value for name, value in line.items() if is_figure(name, value)}


def sample_of(line: Line) -> dict[str, Any]:
    """A sample as JSON."""
    return {"step": line["step"], "prompt": str(line.get("prompt", "")), "text": str(line.get("text", ""))}


@dataclass
class Watched:
    """A run whose files are followed."""

    id: str
    figures: Followed
    samples: Followed

    def events(self) -> list[bytes]:
        """What is new in its files: `figures` {run, mark, lines}, `sample` {run, mark, sample}.

        `again` {run}: its files were cut back or replaced, so that a page has to read them from their start.
        """
        lines, samples = self.figures.look(MOST_BYTES), self.samples.look(MOST_BYTES)
        if lines is None or samples is None:
            return [_event("again", {"run": self.id})]
        found = []
        if lines:
            rows = [figures_of(line) | {k: True for k in ("final", "skipped") if line.get(k)} for line in lines]
            found.append(_event("figures", {"run": self.id, "mark": str(self.figures.mark), "lines": rows}))
        for line in samples:
            found.append(_event("sample", {"run": self.id, "mark": str(self.samples.mark), **sample_of(line)}))
        return found


async def follow(
    watched: Sequence[Watched], list_runs: Callable[[], Mapping[str, Path]], is_gone: Callable[[], Awaitable[bool]]
) -> AsyncIterator[bytes]:
    """Server-sent events: what is new in the files of the watched runs, and `runs` {ids} when there are other runs."""
    known: list[str] | None = None
    looks = 0
    while not await is_gone():
        if looks % RUNS_EVERY == 0 and (ids := list(list_runs())) != known:
            known = ids
            yield _event("runs", {"ids": ids})
        for run in watched:
            for event in run.events():
                yield event
        looks += 1
        await asyncio.sleep(POLL_SECONDS)


def _event(name: str, data: dict[str, Any]) -> bytes:
    return f"event: {name}\ndata: {dump_json(data)}\n\n".encode()
