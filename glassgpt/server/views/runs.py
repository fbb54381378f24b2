"""Runs: what they are, and their figures."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from types import NoneType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glassgpt.errors import UserError
from glassgpt.report.daybook import read_notes
from glassgpt.report.diagnosis import read_diagnosis
from glassgpt.report.figures import text_read, tokenizer_used
from glassgpt.report.page import flattened
from glassgpt.server.library import Library, card_fields
from glassgpt.server.live import NO_FIGURES, Followed, figures_of, is_figure, sample_of
from glassgpt.server.wire import pack
from glassgpt.training.metrics import Line

MOST_SAMPLES = 200  # of a run in one answer: the first half and the last half of them
AXES = ("step", "tokens_seen", "seconds")  # more digits than float32 has


def run_details(library: Library, id: str) -> dict[str, Any]:
    """A run with its settings, samples, notes and what the doctor found. `problem` says what is damaged."""
    folder = library.find(id)
    card, record = library.open(id)
    samples = Followed(folder / "samples.jsonl")
    lines = samples.look() or []
    details: dict[str, Any] = {
        **card_fields(card), "config": {}, "machine": {}, "notes": [], "diagnosis": None, "final": None,
        "text_read": None, "tokenizer_used": None, "samples": [sample_of(line) for line in _ends(lines)],
        "samples_mark": str(samples.mark),
    }  # fmt: skip
    if record is not None:
        details |= {
            "config": flattened(record.config),
            "machine": flattened(record.machine),
            "final": figures_of(record.final) if record.final else None,
            "text_read": text_read(record),
            "tokenizer_used": tokenizer_used(record),
        }
    readers: dict[str, Callable[[Path], Any]] = {"notes": _notes, "diagnosis": read_diagnosis}
    for name, read in readers.items():
        try:
            details[name] = read(folder)
        except UserError as error:
            known = details["problem"] or ""
            details["problem"] = known if str(error) in known else "; ".join(filter(None, (known, str(error))))
    return details


def _notes(folder: Path) -> list[dict[str, str]]:
    return [{"time": note.time.isoformat(), "text": note.text} for note in read_notes(folder)]


def _ends(lines: Sequence[Line]) -> Sequence[Line]:
    half = MOST_SAMPLES // 2
    return lines if len(lines) <= MOST_SAMPLES else [*lines[:half], *lines[-half:]]


def pack_metrics(folder: Path) -> bytes:
    """Every figure of a run as columns: `train:NAME` over the applied steps, `val:NAME` over the validations, `other:`.

    A figure that a line lacks, or that was not finite, is NaN. The meta data has the mark from which `follow` goes on,
    the steps that were skipped, and whether the run is finished: its last validation is then that on the whole split.
    A damaged line is left out; the run's card names it.
    """
    file = Followed(folder / "metrics.jsonl")
    lines = file.look() or []
    final = next((line for line in reversed(lines) if line.get("final")), None)
    at_end = final["step"] if final is not None and "val/loss" in final else math.inf
    kinds: dict[str, list[Line]] = {"train": [], "val": [], "other": []}
    for line in lines:
        if line.get("final"):
            if line is final and "val/loss" in line:
                kinds["val"].append(line)
        elif "val/loss" in line:
            if line["step"] < at_end:
                kinds["val"].append(line)
        elif "train/loss" not in line:
            kinds["other"].append(line)
        elif "skipped" not in line:
            kinds["train"].append(line)
    arrays = {}
    for kind, chosen in kinds.items():
        for name in dict.fromkeys(chain.from_iterable(chosen)):
            if (values := column(chosen, name)) is not None:
                arrays[f"{kind}:{name}"] = values
    skipped = [line["step"] for line in lines if "skipped" in line]
    return pack({"mark": str(file.mark), "skipped": skipped, "finished": final is not None}, arrays)


def column(lines: Sequence[Line], name: str) -> NDArray[Any] | None:
    """A figure of every line; NaN where a line lacks it or it is not finite. None if it is no figure at all."""
    found = [line.get(name) for line in lines]
    if name in NO_FIGURES or not set(map(type, found)) <= {float, NoneType}:
        found = [value if is_figure(name, value) else None for value in found]
    values = np.array(found, np.float64)  # None becomes NaN
    if name not in AXES:
        with np.errstate(over="ignore"):
            values = values.astype(np.float32)
    values[np.isinf(values)] = np.nan
    return None if np.isnan(values).all() else values
