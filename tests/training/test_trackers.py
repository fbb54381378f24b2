"""What the libraries are told, with stand-ins for three of them; TensorBoard's files as its own reader reads them."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from glassgpt.errors import UserError
from glassgpt.training import trackers
from glassgpt.training.trackers import (
    TrackedRun,
    check_installed,
    check_tracker,
    finite_figures,
    indented,
    open_tracker,
)

CONFIG = {"model": {"n_layer": 2}, "training": {"seed": 1}}


class Library:
    """A module with `init`, `log` and `finish` that remembers what it was told, and chats on stdout."""

    def __init__(self, text_class: str) -> None:
        self.told: list[tuple[Any, ...]] = []
        setattr(self, text_class, lambda text: ("text", text))

    def Settings(self, **settings: Any) -> dict[str, Any]:
        return settings

    def init(self, **options: Any) -> Any:
        print("welcome")
        self.told.append(("init", options))
        return SimpleNamespace(
            id="r1", name=options["name"], log=lambda figures, step: self.told.append(("log", figures, step))
        )

    def finish(self) -> None:
        print("bye")
        self.told.append(("finish",))


def start(folder: Path, step: int = 0, known_id: str | None = None) -> TrackedRun:
    return TrackedRun("first", folder, CONFIG, step, known_id)


@pytest.mark.parametrize(
    ("name", "text_class", "id", "shown"),
    [
        ("swanlab", "Text", "r1", "a\n<b>"),
        ("trackio", "Markdown", "first", "    a\n    <b>"),
        ("wandb", "Html", "r1", "<pre>a\n&lt;b&gt;</pre>"),
    ],
)
def test_init_log_finish(
    name: str, text_class: str, id: str, shown: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    library = Library(text_class)
    monkeypatch.setitem(sys.modules, name, library)
    monkeypatch.setenv(f"{name.upper()}_PROJECT", "mine")
    tracker = open_tracker(name, start(tmp_path))
    tracker.log({"val/loss": 1.5}, 3)
    tracker.log_text("sample", "a\n<b>", 3)
    tracker.finish()
    (_, options), *rest = library.told
    assert (options["project"], options["name"], options["config"]) == ("mine", "first", CONFIG)
    assert "resume" not in options
    assert rest == [("log", {"val/loss": 1.5}, 3), ("log", {"sample": ("text", shown)}, 3), ("finish",)]
    assert tracker.id == id
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("name", "option"), [("swanlab", "id"), ("trackio", "name"), ("wandb", "id")])
def test_a_known_record_is_gone_on_with(
    name: str, option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = Library("Text")
    monkeypatch.setitem(sys.modules, name, library)
    open_tracker(name, start(tmp_path, 10, "known"))
    options = library.told[0][1]
    assert (options["resume"], options[option]) == ("allow", "known")


@pytest.mark.extras
def test_tensorboard_forgets_what_comes_again(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="needs tensorboard: pip install 'glassgpt[track]'")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    first = open_tracker("tensorboard", start(tmp_path))
    for step in range(1, 6):
        first.log({"train/loss": float(step)}, step)
    first.finish()
    second = open_tracker("tensorboard", start(tmp_path, 3, first.id))
    second.log({"train/loss": 40.0}, 4)
    second.log_text("sample", "a\n<b>", 4)
    second.finish()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("train/loss")] == [(1, 1), (2, 2), (3, 3), (4, 40)]
    assert events.Tensors("sample/text_summary")[0].tensor_proto.string_val == [b"    a\n    <b>"]
    assert b"model.n_layer = 2" in events.Tensors("config/text_summary")[0].tensor_proto.string_val[0]


def test_unknown_and_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="unknown tracker 'swan': did you mean 'swanlab'"):
        check_tracker("swan")
    monkeypatch.setattr(trackers, "find_spec", lambda _: None)
    with pytest.raises(
        UserError, match=r"wandb is not installed: pip install wandb, or pip install 'glassgpt\[track\]'"
    ):
        check_installed("wandb")


def test_only_finite_numbers_are_figures() -> None:
    record = {"step": 3, "a": 1, "b": 2.5, "c": float("nan"), "d": None, "e": True, "f": "x", "g": float("inf")}
    assert finite_figures(record) == {"a": 1, "b": 2.5}
    assert indented("a\nb") == "    a\n    b"
