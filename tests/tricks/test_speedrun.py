"""The speedrun compares whole processes of the same round, and claims only what every round supports."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glassgpt.errors import UserError
from glassgpt.tricks import speedrun as module
from glassgpt.tricks.nanogpt import NanoGPT
from glassgpt.tricks.speedrun import Round, Speedrun, Timed, measure_speedrun, read_curve, steps_within

TEXT = "The cat sat on the mat, and the dog ran home. " * 60


def one_round(seed: int, fast: float, loss: float = 1.87, control: float = 100.0, after: float = 98.0) -> Round:
    return Round(
        seed, Timed(control, 1.9, 2000), Timed(fast, loss, 40), Timed(95.0, 1.47, 900), Timed(after, 1.43, 900),
        Timed(2 * control, 1.8983, 2000),
    )  # fmt: skip


def test_ratios_are_of_the_same_round_and_medians_over_rounds() -> None:
    rounds = [one_round(1, 5.0), one_round(2, 20.0, control=200.0), one_round(3, 6.0, control=50.0)]
    found = Speedrun(rounds, 1.8983).figures()
    assert found["ratio"] == pytest.approx(0.1)  # of 0.05, 0.1 and 0.12
    assert found["ratio_nanogpt"] == pytest.approx(0.05)
    assert (found["seconds"], found["control_seconds"]) == (6.0, 100.0)
    assert [one["seed"] for one in found["rounds"]] == [1, 2, 3]
    assert found["rounds"][1]["fast"] == {"seconds": 20.0, "val_loss": 1.87, "steps": 40, "curve": ()}
    json.dumps(found)


def test_a_round_that_missed_the_target_or_the_time_ends_the_claim() -> None:
    missed = Speedrun([one_round(1, 5.0), one_round(2, 5.0, loss=1.91)], 1.8983)
    assert missed.reached == 1 and missed.figures()["ratio"] is missed.figures()["ratio_nanogpt"] is None
    assert Speedrun([one_round(1, 5.0)], None).target == 1.9  # the control's own loss on another text
    late = Speedrun([one_round(1, 5.0), one_round(2, 5.0, after=101.0)], 1.8983)
    figures = late.figures()
    assert late.in_time == 1
    assert figures["val_loss_at_control_time"] is figures["open_val_loss_at_control_time"] is None
    assert figures["ratio"] == pytest.approx(0.05)


@given(st.floats(1, 10), st.floats(0.001, 1), st.integers(1, 5000))
def test_the_planned_steps_take_the_time_that_is_given(start: float, step: float, steps: int) -> None:
    trials = [Timed(start + n * step, 2.0, n) for n in (40, 240)]
    assert abs(steps_within(start + steps * step, trials) - steps) <= 1


def test_a_curve_has_the_seconds_since_the_process_began(tmp_path: Path) -> None:
    records = [
        {"step": 0, "val/loss": 4.0}, {"step": 5, "train/loss": 3.5, "seconds": 2.0}, {"step": 5, "val/loss": 3.4},
        {"step": 7, "val/loss": 3.2}, {"step": 9, "train/loss": 3.1, "seconds": 5.0}, {"step": 9, "val/loss": 3.0},
        {"step": 9, "final": True, "train/loss": 3.1, "val/loss": 2.9, "seconds": 6.0},
    ]  # fmt: skip
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_text("".join(json.dumps(record) + "\n" for record in records))
    assert read_curve(metrics, 10.0) == ((4.0, 4.0), (6.0, 3.4), (7.5, 3.2), (9.0, 3.0))


def test_there_is_always_a_step() -> None:
    assert steps_within(0.5, [Timed(3.0, 2.0, 20), Timed(2.9, 2.0, 80)]) == 1


def test_the_order_of_the_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every contender once a round, after a run that nobody times; the last one fills the control's time."""
    done: list[Sequence[str]] = []

    def pretend(arguments: Sequence[str]) -> tuple[float, dict[str, Any]]:
        done.append(arguments)
        if arguments[0] == "eval":
            return 3.0, {"val_loss": 1.43}
        steps = (
            int(arguments[-1].partition("=")[2]) if "--set" in arguments else {"char-tiny": 2000}.get(arguments[1], 40)
        )
        return 2.0 + 0.05 * steps, {"val_loss": 1.8, "steps": steps}

    monkeypatch.setattr(module, "_glassgpt", pretend)
    monkeypatch.setattr(module, "read_curve", lambda *_: ())
    (tmp_path / "text.txt").write_text(TEXT)
    found = measure_speedrun(str(tmp_path / "text.txt"), [5, 6])
    first = [one[1] if one[0] == "train" else "eval" for one in done[2:9]]
    assert first == ["char-tiny", "speedrun", "modern-tiny", "modern-tiny", "eval", "modern-tiny", "eval"]
    assert [one[one.index("--seed") + 1] for one in done if one[0] == "train"] == ["5"] * 7 + ["6"] * 5
    assert found.given_target is None
    for one in found.rounds:
        assert 0.85 * one.control.seconds < one.open.seconds <= one.control.seconds
        assert one.open.steps == one.far.steps and one.open.val_loss == 1.43


def test_a_process_that_fails_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"glassgpt train speedrun failed in the speedrun: .*the validation split has 1 token"
    ):
        (tmp_path / "text.txt").write_text("ab")
        measure_speedrun(str(tmp_path / "text.txt"), [1])


def test_a_text_that_can_be_read_once_is_refused() -> None:
    with pytest.raises(UserError, match="stdin can be read once: give a file"):
        measure_speedrun("-", [1])


def test_a_folder_that_is_no_checkout_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is no checkout of karpathy/nanoGPT: train.py is missing"):
        NanoGPT(tmp_path, TEXT, tmp_path)


@pytest.mark.heavy
def test_a_whole_speedrun_of_tiny_recipes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real processes, with recipes so small that their start is all of their time."""
    text = tmp_path / "text.txt"
    text.write_text(TEXT)
    for name, architecture, steps in (("CONTROL", "gpt2", 9), ("FAST", "modern", 12), ("FAR", "modern", 2)):
        recipe = tmp_path / f"{name.lower()}.toml"
        recipe.write_text(
            f'[model]\narchitecture = "{architecture}"\nblock_size = 8\nn_layer = 1\nn_head = 2\nn_embd = 16\n'
            f"[training]\nmax_steps = {steps}\nbatch_tokens = 64\n"
        )
    monkeypatch.setattr(module, "CONTROL", str(tmp_path / "control.toml"))
    monkeypatch.setattr(module, "TRIALS", (1, 3))
    told: list[str] = []
    recipes = {"fast": str(tmp_path / "fast.toml"), "far": str(tmp_path / "far.toml")}
    found = measure_speedrun(str(text), [3], **recipes, note=told.append)
    (one,) = found.rounds
    assert (one.control.steps, one.fast.steps) == (9, 12)
    assert one.nanogpt is None
    assert 0 < one.open.val_loss != one.far.val_loss
    assert one.fast.curve and all(0 < seconds < one.fast.seconds for seconds, _ in one.fast.curve)
    assert all(timed.seconds > 0.5 for timed in (one.control, one.fast, one.far))
    assert [line.split()[2] for line in told[1:]] == ["control", "fast", "far", "open"]
