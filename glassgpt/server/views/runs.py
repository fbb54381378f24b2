"""Runs: what they are, their figures, and what happens to them while they train."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from glassgpt.errors import UserError
from glassgpt.files import dump_json
from glassgpt.report.daybook import read_notes
from glassgpt.report.diagnosis import read_diagnosis
from glassgpt.report.page import flattened
from glassgpt.report.run_record import read_measurements, read_record
from glassgpt.server.library import card_fields, describe
from glassgpt.server.wire import pack
from glassgpt.training.metrics import Line

POLL_SECONDS = 1.0  # between two looks at the files of a run that is watched
MOST_SAMPLES = 200  # of a run in one answer: the first half and the last half of them
NO_FIGURES = {"final", "at_end", "skipped", "prompt", "text"}


def run_details(id: str, folder: Path) -> dict[str, Any]:
    """A run with its settings, samples, notes and what the doctor found. `problem` says what is damaged."""
    card = describe(id, folder)
    details: dict[str, Any] = {
        **card_fields(card), "config": {}, "machine": {}, "samples": [], "notes": [], "diagnosis": None, "final": None,
        "ln_vocab": math.log(card.vocab_size) if card.vocab_size else None,
    }  # fmt: skip
    try:
        record = read_record(folder)
    except UserError:
        return details  # the card says why
    details |= {
        "config": flattened(record.config),
        "machine": flattened(record.machine),
        "samples": [sample_of(line) for line in _ends(record.samples)],
        "final": figures_of(record.final) if record.final else None,
    }
    readers: dict[str, Callable[[Path], Any]] = {"notes": _notes, "diagnosis": read_diagnosis}
    for name, read in readers.items():
        try:
            details[name] = read(folder)
        except UserError as error:
            details["problem"] = "; ".join(filter(None, (details["problem"], str(error))))
    return details


def _notes(folder: Path) -> list[dict[str, str]]:
    return [{"time": note.time.isoformat(), "text": note.text} for note in read_notes(folder)]


def _ends(lines: Sequence[Line]) -> Sequence[Line]:
    half = MOST_SAMPLES // 2
    return lines if len(lines) <= MOST_SAMPLES else [*lines[:half], *lines[-half:]]


def sample_of(line: Line) -> dict[str, Any]:
    """A sample as JSON."""
    return {"step": line["step"], "prompt": line.get("prompt", ""), "text": line.get("text", "")}


def figures_of(line: Line) -> dict[str, float]:
    """The numbers of a line that are finite: JSON has no others."""
    return {name: value for name, value in line.items() if _is_figure(name, value) and math.isfinite(value)}


def _is_figure(name: str, value: object) -> bool:
    return name not in NO_FIGURES and isinstance(value, int | float)


def pack_metrics(folder: Path) -> bytes:
    """Every figure of a run as columns: `train/NAME` over the logged steps, `val/NAME` over the validations.

    A figure that a line lacks, or that was not finite, is NaN. The meta data has the size of the file that was read,
    from which `follow` goes on.
    """
    path = folder / "metrics.jsonl"
    size = path.stat().st_size if path.exists() else 0
    lines = read_measurements(path)
    kinds = {
        "train": [line for line in lines if "train/loss" in line and "final" not in line],
        "val": [line for line in lines if "val/loss" in line],
        "other": [line for line in lines if "train/loss" not in line and "val/loss" not in line],
    }
    arrays = {}
    for kind, chosen in kinds.items():
        names = dict.fromkeys(name for line in chosen for name, value in line.items() if _is_figure(name, value))
        for name in names:
            values = [value if _is_figure(name, value := line.get(name)) else math.nan for line in chosen]
            arrays[f"{kind}:{name}"] = np.array(values, dtype=np.float64)
    return pack({"size": size, "skipped": [line["step"] for line in lines if "skipped" in line]}, arrays)


@dataclass
class Followed:
    """A file of JSON lines that grows, and how far it has been read."""

    path: Path
    position: int = 0
    inode: int = 0
    lines: list[Line] = field(default_factory=list)

    def look(self) -> bool:
        """Reads the lines that are new. Returns False if the file was cut or replaced, and is read from its start."""
        self.lines = []
        try:
            found = self.path.stat()
        except OSError:
            return True
        same = self.inode in (0, found.st_ino) and found.st_size >= self.position
        self.inode = found.st_ino
        if not same:
            self.position = 0
        if found.st_size > self.position:
            with self.path.open("rb") as file:
                file.seek(self.position)
                data = file.read()
            whole = data[: data.rfind(b"\n") + 1]  # the last line may be half written
            self.position += len(whole)
            self.lines = [line for line in map(_parsed, whole.splitlines()) if line is not None]
        return same


def _parsed(line: bytes) -> Line | None:
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) and isinstance(value.get("step"), int) else None


async def follow(
    folders: dict[str, Path], positions: dict[str, int], is_gone: Callable[[], Awaitable[bool]]
) -> AsyncIterator[bytes]:
    """Server-sent events of what is added to the figures and samples of runs, from those positions on.

    Events: `figures` {run, lines}, `sample` {run, step, text}, `again` {run}: read the run again from its start.
    """
    figures = {id: Followed(folder / "metrics.jsonl", positions.get(id, 0)) for id, folder in folders.items()}
    samples = {id: Followed(folder / "samples.jsonl") for id, folder in folders.items()}
    for followed in samples.values():
        followed.look()  # what is there already belongs to the page's first answer
    yield b": open\n\n"
    while not await is_gone():
        for id, followed in figures.items():
            if not followed.look():
                yield _event("again", {"run": id})
            elif followed.lines:
                lines = [{**figures_of(line), **{k: True for k in ("final",) if k in line}} for line in followed.lines]
                yield _event("figures", {"run": id, "lines": lines})
            samples[id].look()
            for line in samples[id].lines:
                yield _event("sample", {"run": id, **sample_of(line)})
        await asyncio.sleep(POLL_SECONDS)


def _event(name: str, data: dict[str, Any]) -> bytes:
    return f"event: {name}\ndata: {dump_json(data)}\n\n".encode()
