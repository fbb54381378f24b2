"""Ladder: the ten sections of the course, what each adds in code and in words, and what it reached."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from glassgpt.course.changes import code_changes, file_name, source
from glassgpt.course.climb import run_name
from glassgpt.course.drawings import lesson_drawing
from glassgpt.course.lessons import ADDS
from glassgpt.course.results import Row, read_results, shipped_results
from glassgpt.errors import UserError, counted, printable
from glassgpt.models.ladder import SECTIONS, Section
from glassgpt.server.library import Library

PACKAGE = "that of the course"  # the climb that comes with the package
SIZES = {  # what a section has from which number on
    "n_layer": (7, "layer"), "n_head": (5, "head"), "n_embd": (2, "channel"), "block_size": (2, "position"),
}  # fmt: skip


def describe_ladder(library: Library) -> dict[str, Any]:
    """The ten sections, and every climb among the runs, the newest first. The one of the package comes last."""
    ids = {folder: id for id, folder in library.folders().items()}
    found = [_climb(folder, ids) for folder in library.climbs()]
    return {"sections": [_described(section) for section in SECTIONS], "climbs": [*found, _shipped()]}


@cache
def _described(section: Section) -> dict[str, Any]:
    drawing, lines = lesson_drawing(section), code_changes(section)
    code = [line for line in lines if not line.aside and line.text.strip()]
    return {
        "number": section.number,
        "name": section.name,
        "idea": section.idea,
        "adds": ADDS[section.name],
        "file": f"glassgpt/models/ladder/{file_name(section)}",
        "n_lines": len(source(section).splitlines()),
        "n_added": sum(line.kind == "added" for line in code),
        "n_removed": sum(line.kind == "removed" for line in code),
        "lines": [asdict(line) for line in lines],
        "drawing": {"title": drawing.title, "svg": drawing.svg()},
    }


def _climb(folder: Path, ids: Mapping[Path, str]) -> dict[str, Any]:
    name = printable(folder.resolve().name)
    try:
        rows = read_results(folder)
    except UserError as error:
        return {"id": name, "measured": "", "problem": str(error), "answer": "", "rows": []}
    runs = {section.number: ids.get(folder / run_name(section, 0)) for section in SECTIONS}
    steps = max((row["steps"][-1] for row in rows), default=0)
    seeds = max((len(row["val_losses"]) for row in rows), default=0)
    found = figures(rows, runs)
    reached = "" if len(rows) == len(SECTIONS) else f", {len(rows)} of {len(SECTIONS)} sections"
    measured = f"Measured by your own climb, {name}: {counted(steps, 'step')}, {counted(seeds, 'seed')}{reached}."
    return {"id": name, "measured": measured, "problem": None, "answer": answer(found), "rows": found}


def _shipped() -> dict[str, Any]:
    found = shipped_results()
    rows = figures(found["rows"], {})
    steps, seeds = rows[0]["steps"][-1], rows[0]["n_seeds"]
    measured = (
        f"Measured with {found['command']} on {found['machine']}: {counted(steps, 'step')} on {found['text']}, "
        f"{counted(seeds, 'seed')}. These figures are part of the package; make your own with: glassgpt ladder"
    )
    return {"id": PACKAGE, "measured": measured, "problem": None, "answer": answer(rows), "rows": rows}


def figures(rows: Sequence[Row], runs: Mapping[int, str | None]) -> list[dict[str, Any]]:
    """The rows in order, each with its change to the section before and the id of its run.

    `change` is None where one of the two losses is missing. `verdict` says whether the change is larger than the
    spreads of both over their seeds.
    """
    known = {row["section"]: row for row in rows}
    found = []
    for number, row in sorted(known.items()):
        change, verdict = None, None
        before = known.get(number - 1)
        if before is not None and before["val_loss"] is not None and row["val_loss"] is not None:
            change = row["val_loss"] - before["val_loss"]
            unclear = abs(change) <= (row["spread"] or 0) + (before["spread"] or 0)
            verdict = "about the same" if unclear else "better" if change < 0 else "worse"
        losses = [*row["losses"][:-1], row["val_loss"]]  # as in ladder.svg, the last one is that on the whole split
        found.append({
            **{name: value for name, value in row.items() if name not in ("idea", "val_losses", "sizes")},
            "n_seeds": len(row["val_losses"]), "change": change, "verdict": verdict, "run": runs.get(number),
            "losses": losses, "shape": _shape(number, row.get("sizes", {})),
        })  # fmt: skip
    return found


def _shape(number: int, sizes: Mapping[str, float]) -> str:
    """The sizes that a section uses, in words; "" where they are not known."""
    used = [(name, noun) for name, (first, noun) in SIZES.items() if number >= first and name in sizes]
    return ", ".join(counted(round(sizes[name]), noun) for name, noun in used)


def answer(rows: Sequence[Mapping[str, Any]]) -> str:
    """What the ideas add, in sentences: the way of the loss, the idea that lowered the best one most, what is worse.

    `rows` are those of `figures`.
    """
    known = [(row["name"], row["val_loss"]) for row in rows if row["val_loss"] is not None]
    if len(known) < 2:
        return "One section alone shows no change: train all ten with glassgpt ladder."
    (first, start), *later = known
    best, gains = start, []
    for name, loss in later:
        if loss < best:
            gains.append((best - loss, name))
            best = loss
    if not gains:
        return f"No section is better than {first}, which reaches {start:.2f} nats per character: train them longer."
    most, idea = max(gains)
    said = (
        f"Together they lower the loss from {start:.2f} to {best:.2f} nats per character. "
        f"The largest gain over all before is that of {idea}: {most:.2f}."
    )
    if worse := [row["name"] for row in rows if row["verdict"] == "worse"]:
        names = " and ".join(filter(None, (", ".join(worse[:-1]), worse[-1])))
        said += f" Not every idea pays at once: {names} {'is' if len(worse) == 1 else 'are'} worse than the one before."
    return said
