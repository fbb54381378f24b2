"""The runs that the app shows, by the names that requests use: never by a path."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Literal

from glassgpt.course.climb import run_name
from glassgpt.course.results import RESULTS
from glassgpt.errors import UserError, printable
from glassgpt.models import ARCHITECTURES, Kind
from glassgpt.models.ladder import SECTIONS
from glassgpt.ownership import is_run_folder, split_runs
from glassgpt.report.daybook import describe as summarise
from glassgpt.report.daybook import read_notes
from glassgpt.report.run_record import RunRecord, read_record
from glassgpt.training.checkpoint import best_checkpoint, list_checkpoints

RECENT = 60.0  # seconds since the last figure, within which a run counts as training


class UnknownRun(UserError):
    """There is no run of that name."""


@dataclass(frozen=True)
class Card:
    """What a list of runs shows of one. Losses in nats per token; None: not known."""

    id: str
    state: Literal["training", "finished", "stopped", "imported", "damaged"]
    problem: str | None  # why the run, or a part of it, cannot be shown
    stage: str
    architecture: str
    model: str
    data: str
    tokenizer: str
    parameters: int | None
    n_layer: int | None
    n_head: int | None
    n_embd: int | None
    block_size: int | None
    vocab_size: int | None
    step: int | None
    max_steps: int | None
    val_loss: float | None
    best_step: int | None
    steps: list[int]  # of the checkpoints
    begun: str

    @property
    def kind(self) -> Kind | None:
        """What the model reads and predicts; None for an architecture that this version does not know."""
        return ARCHITECTURES[self.architecture].kind if self.architecture in ARCHITECTURES else None

    @property
    def inspectable(self) -> bool:
        """Whether there is a model to look into."""
        return bool(self.steps) and self.architecture in ARCHITECTURES


class Library:
    """The given runs, or all under `root` with those of its climbs. More may come while the app is open."""

    def __init__(self, given: Sequence[Path], root: Path) -> None:
        self._given, self._root = list(given), root
        self._kept: dict[tuple[str, Path], tuple[object, Card, RunRecord | None]] = {}

    def folders(self) -> dict[str, Path]:
        """The folder of each run by its id: the folder's name, with a number where two have the same."""
        found: dict[str, Path] = {}
        for folder, name in self._named():
            name = printable(name)  # an address holds text, and a name may be any bytes
            names = [name, *(f"{name}-{number}" for number in range(2, len(found) + 2))]
            found[next(name for name in names if name not in found)] = folder
        return found

    def _named(self) -> list[tuple[Path, str]]:
        """The runs with their names. The name of a run of a climb is what the verbs take: ladder/s04-head."""
        direct = [(folder, folder.resolve().name) for folder in self._given or split_runs(self._root)[0]]
        climbed = [
            (folder / run_name(section, 0), f"{folder.name}/{run_name(section, 0)}")
            for folder in self.climbs()
            if folder != self._root
            for section in SECTIONS
        ]
        return direct + [(folder, name) for folder, name in climbed if is_run_folder(folder)]

    def climbs(self) -> list[Path]:
        """The folders with results of `glassgpt ladder`, the newest first: the root, and those in it."""
        if self._given:
            return []
        files = [*self._root.glob(RESULTS), *self._root.glob(f"*/{RESULTS}")]
        return [file.parent for file in sorted(files, key=_time_of, reverse=True)]

    def find(self, id: str) -> Path:
        """The folder of a run. Raises UnknownRun."""
        folders = self.folders()
        if id not in folders:
            raise UnknownRun(f"there is no run '{id}' here")
        return folders[id]

    def cards(self) -> list[Card]:
        """A card of each run, the newest first. A damaged run has its problem."""
        cards = [self._open(id, folder)[0] for id, folder in self.folders().items()]
        return sorted(cards, key=lambda card: card.begun, reverse=True)

    def open(self, id: str) -> tuple[Card, RunRecord | None]:
        """The card of a run, and its record without the lines; None if that is damaged. Raises UnknownRun."""
        return self._open(id, self.find(id))

    def _open(self, id: str, folder: Path) -> tuple[Card, RunRecord | None]:
        """They are read again only if the run's files have changed: a long run has megabytes of figures."""
        files = _changes(folder)
        known = self._kept.get((id, folder))
        if known is None or known[0] != files:
            card, record = read_run(id, folder)
            small = record and replace(record, train=[], validations=[], skipped=[], samples=[], lines=[])
            self._kept[id, folder] = known = files, card, small
        _, card, record = known
        stopped = card.state == "training" and not _recent(folder)
        return (replace(card, state="stopped") if stopped else card), record


def _changes(folder: Path) -> list[tuple[int, int] | None]:
    """Size and time of the last change of the files that a card is made of."""
    found: list[tuple[int, int] | None] = []
    for name in ("config.toml", "metrics.jsonl", "machine.json", "data.json", "notes.jsonl", "checkpoints"):
        try:
            status = (folder / name).stat()
            found.append((status.st_size, status.st_mtime_ns))
        except OSError:
            found.append(None)
    return found


def read_run(id: str, folder: Path) -> tuple[Card, RunRecord | None]:
    """The card of a run with as much as can be read, and its record; None if that is damaged."""
    problems, record, entry = [], None, None
    try:
        record = read_record(folder)
        begun = datetime.fromtimestamp((folder / "config.toml").stat().st_mtime).astimezone()
        entry = summarise(folder, record, read_notes(folder), begun)
    except (UserError, OSError) as error:
        problems.append(str(error))
    steps, best = [], None
    try:
        checkpoints = list_checkpoints(folder / "checkpoints")
        steps = [checkpoint.step for checkpoint in checkpoints]
        chosen = best_checkpoint(checkpoints)
        best = chosen.step if chosen is not None else None
    except UserError as error:
        problems.append(str(error))
    config = record.config if record is not None else {}
    model, final = config.get("model", {}), record.final if record is not None else None
    sizes = {name: model.get(name) for name in ("n_layer", "n_head", "n_embd", "block_size", "vocab_size")}
    card = Card(
        id=id,
        state="damaged" if record is None else state_of(folder, record),
        problem="; ".join(problems) or None,
        stage=config.get("run", {}).get("stage", "pretrain"),
        architecture=str(model.get("architecture", config.get("architecture", ""))),
        model=entry.model if entry else "",
        data=entry.data if entry else "",
        tokenizer=str(config.get("tokenizer", {}).get("name", "")),
        parameters=entry.parameters if entry else None,
        **{name: size if isinstance(size, int) else None for name, size in sizes.items()},
        step=record.last_step if record else None,
        max_steps=config.get("training", {}).get("max_steps"),
        val_loss=entry.val_loss if entry else None,
        best_step=final["best/step"] if final and "best/step" in final else best,
        steps=steps,
        begun=entry.begun.isoformat() if entry else "",
    )
    return card, record


def state_of(folder: Path, record: RunRecord) -> Literal["training", "finished", "stopped", "imported"]:
    """Whether a run is being trained: a trainer writes figures every few seconds, so its file is never old."""
    if record.imported:
        return "imported"
    if record.final is not None:
        return "finished"
    return "training" if _recent(folder) else "stopped"


def _time_of(file: Path) -> float:
    try:
        return file.stat().st_mtime
    except OSError:  # removed a moment ago
        return 0.0


def _recent(folder: Path) -> bool:
    try:
        return time.time() - (folder / "metrics.jsonl").stat().st_mtime < RECENT
    except OSError:
        return False


def card_fields(card: Card) -> dict[str, object]:
    """A card as JSON."""
    return {**asdict(card), "kind": card.kind, "inspectable": card.inspectable}
