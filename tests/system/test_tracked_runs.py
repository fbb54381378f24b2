"""Whole runs with trackers: what is sent, what is not sent twice, and that none of them stops a run.

With stand-ins everywhere; with each real library, in its offline or local mode, where it is installed.
"""

from __future__ import annotations

import importlib
import json
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from command_line import contents, figures, glassgpt, settings

from glassgpt.runs import publisher as publishing
from glassgpt.training import trackers
from glassgpt.training.trackers import TRACKERS, TrackedRun


@dataclass
class Fake:
    """A tracker that keeps what it is sent; it may fail from a step on."""

    start: TrackedRun
    fails_at: float = float("inf")
    figures: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    texts: list[tuple[int, str]] = field(default_factory=list)
    finished: bool = False
    id: str = "r1"

    def log(self, figures: Mapping[str, float], step: int) -> None:
        if step >= self.fails_at:
            raise ConnectionError("the line is dead.\nreally")
        self.figures.append((step, dict(figures)))

    def log_text(self, name: str, text: str, step: int) -> None:
        self.texts.append((step, text))

    def finish(self) -> None:
        self.finished = True


Opened = dict[str, list[Fake]]


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Opened:
    """Stand-ins for all trackers: by name, those that were opened one after another."""
    made: Opened = {}

    def open_tracker(name: str, start: TrackedRun) -> Fake:
        made.setdefault(name, []).append(Fake(start))
        return made[name][-1]

    monkeypatch.setattr(publishing, "open_tracker", open_tracker)
    monkeypatch.setattr(trackers, "find_spec", lambda _: True)
    return made


def train(run: Path, *options: object) -> str:
    result = glassgpt("train", "--run", run, *options)
    assert result.code == 0, result.err
    return result.err


def steps_of(tracker: Fake, name: str) -> list[int]:
    return [step for step, figures in tracker.figures if name in figures]


def test_config_figures_and_samples_are_sent(opened: Opened, text_file: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(run, "--data", text_file, *settings(evaluation__log_every=5), "--track", "wandb", "--track", "swanlab")
    (tracker,), (other,) = opened["wandb"], opened["swanlab"]
    assert tracker.start.name == "run"
    assert tracker.start.config["model"]["n_layer"] == 2
    assert tracker.start.config["run"]["parameters"] > 1000
    assert steps_of(tracker, "train/loss") == [1, *range(5, 41, 5)]
    assert steps_of(tracker, "val/loss") == [0, 10, 20, 30, 40]
    assert steps_of(tracker, "final/val/loss") == [40]
    assert [step for step, _ in tracker.texts] == [0, 20, 40]
    assert tracker.finished
    assert (other.figures, other.texts) == (tracker.figures, tracker.texts)
    assert json.loads((run / "trackers.json").read_text()) == {"wandb": "r1", "swanlab": "r1"}


def test_a_resumed_run_goes_on_in_its_record(opened: Opened, text_file: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(run, "--data", text_file, *settings(), "--track", "wandb", "--track", "tensorboard", "--max-steps", 20)
    with (run / "metrics.jsonl").open("a") as file:  # as if it had gone on to step 25 and been killed there
        for step in range(21, 26):
            file.write(json.dumps({"step": step, "train/loss": 1.0}) + "\n")
    train(run, "--resume", "--max-steps", 40)
    first, second = opened["wandb"]
    assert (first.start.known_id, second.start.known_id, second.start.step) == (None, "r1", 20)
    assert steps_of(second, "train/loss") == list(range(25, 41))
    assert steps_of(opened["tensorboard"][1], "train/loss") == list(range(21, 41))
    train(run, "--resume", "--max-steps", 41, "--track", "swanlab")
    assert len(opened["wandb"]) == 2
    assert opened["swanlab"][0].start.known_id is None
    assert json.loads((run / "trackers.json").read_text()).keys() == {"wandb", "tensorboard", "swanlab"}


def test_a_tracker_that_fails_never_stops_a_run(
    opened: Opened, text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def open_tracker(name: str, start: TrackedRun) -> Fake:
        if name == "swanlab":
            raise RuntimeError("no API key.")
        opened[name] = [Fake(start, fails_at=7)]
        return opened[name][0]

    monkeypatch.setattr(publishing, "open_tracker", open_tracker)
    run, alone = tmp_path / "run", tmp_path / "alone"
    err = train(run, "--data", text_file, *settings(), "--track", "swanlab", "--track", "wandb")
    assert err.count("tracker swanlab is off: no API key; the run goes on without it\n") == 1
    assert err.count("tracker wandb is off from here: the line is dead. really; the run goes on without it\n") == 1
    assert steps_of(opened["wandb"][0], "train/loss") == list(range(1, 7))
    assert not opened["wandb"][0].finished
    train(alone, "--data", text_file, *settings())
    assert figures(run) == figures(alone)


def test_bad_names_and_missing_libraries_are_known_before_anything_begins(
    text_file: Path, tmp_path: Path, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new, before = tmp_path / "new", contents(run)
    assert (
        "unknown tracker 'swan'"
        in glassgpt("train", "char-tiny", "--data", text_file, "--run", new, "--track", "swan").error
    )
    monkeypatch.setattr(trackers, "find_spec", lambda _: None)
    assert (
        "pip install wandb"
        in glassgpt("train", "char-tiny", "--data", text_file, "--run", new, "--track", "wandb").error
    )
    assert not new.exists()
    more = ("train", "--run", run, "--resume", "--max-steps", 41, "--track", "wandb")
    assert "pip install wandb" in glassgpt(*more).error
    assert contents(run) == before


def test_a_damaged_list_of_records(opened: Opened, run: Path) -> None:
    (run / "trackers.json").write_text("[]")
    more = ("train", "--run", run, "--resume", "--max-steps", 41, "--track", "wandb")
    assert "trackers.json is damaged" in glassgpt(*more).error


def read_trackio(folder: Path) -> list[int]:
    rows = sqlite3.connect(folder / "trackio" / "glassgpt.db").execute("select step, metrics from metrics order by id")
    return [step for step, metrics in rows if b"train/loss" in metrics]


def read_tensorboard(folder: Path) -> list[int]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "runs" / "tracked" / "tensorboard"))
    events.Reload()
    return [event.step for event in events.Scalars("train/loss")]


def read_swanlab(folder: Path) -> None:
    runs = sorted((folder / "swanlog").glob("run-*"))
    assert len(runs) == 2
    assert len({run.name.rpartition("-")[2] for run in runs}) == 1  # two stretches of one record
    assert all(list(run.glob("*.swanlab")) for run in runs)
    assert list(runs[0].glob("media/text/*"))


def read_wandb(folder: Path) -> None:
    runs = sorted((folder / "wandb").glob("offline-run-*"))
    assert len(runs) == 2
    assert len({run.name.rpartition("-")[2] for run in runs}) == 1
    assert all(list(run.glob("run-*.wandb")) for run in runs)
    assert list(runs[0].glob("files/media/html/sample*"))


READERS: dict[str, Callable[[Path], list[int] | None]] = {
    "swanlab": read_swanlab, "trackio": read_trackio, "wandb": read_wandb, "tensorboard": read_tensorboard
}  # fmt: skip


@pytest.mark.extras
@pytest.mark.slow
@pytest.mark.parametrize("name", TRACKERS)
def test_the_real_library(name: str, text_file: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip(name, reason=f"needs {name}: pip install 'glassgpt[track]'")
    for variable, value in {
        "SWANLAB_MODE": "offline", "WANDB_MODE": "offline", "WANDB_SILENT": "true", "HOME": str(elsewhere),
        "TRACKIO_DIR": str(elsewhere / "trackio"),
    }.items():  # fmt: skip
        monkeypatch.setenv(variable, value)
    if name == "trackio":  # it reads its variable when it is imported
        for module in ("trackio.utils", "trackio.sqlite_storage"):
            monkeypatch.setattr(importlib.import_module(module), "TRACKIO_DIR", elsewhere / "trackio")
    common = ["--run", "tracked", "--json"]
    first = glassgpt(
        "train", "char-tiny", "--data", text_file, *settings(), *common, "--max-steps", 20, "--track", name
    )
    assert first.code == 0, first.err
    again = glassgpt("train", *common, "--resume", "--max-steps", 30)
    assert (first.code, again.code) == (0, 0), again.err
    for result in (first, again):
        assert " is off" not in result.err
        json.loads(result.out)  # nothing of the library's among the results
    steps = READERS[name](elsewhere)
    assert steps in (None, list(range(1, 31)))
