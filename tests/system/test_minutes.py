"""`glassgpt train --minutes`: a run that takes the time it is given, and can be resumed like any other."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest
from command_line import contents, figures, glassgpt, settings, weights

from glassgpt.cli import train as verb
from glassgpt.errors import UserError
from glassgpt.runs import minutes as planning
from glassgpt.runs.config import load_config
from glassgpt.runs.minutes import Size, TimeLimit
from glassgpt.runs.pace import Pace
from glassgpt.training.metrics import read_lines

TINY = (Size(1, 2, 8), Size(1, 2, 16))


@pytest.fixture(autouse=True)
def from_now_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time begins with the test, not with the process that runs all of them."""
    monkeypatch.setattr(verb, "STARTED", time.monotonic())
    monkeypatch.setattr("glassgpt.runs.train.SIZES", TINY)


def small(*arguments: object) -> list[object]:
    """A planned run of tiny models; the length is left to the plan."""
    sets = ["--set", "model.ngram=2", "--set", "model.ngram_rows=64", "--set", "model.block_size=32"]
    return ["train", *arguments, *sets, "--set", "training.batch_tokens=128", "--set", "evaluation.log_every=1000"]


def test_it_takes_its_time_and_says_what_it_chose(
    text_file: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = glassgpt(*small("modern-tiny", "--data", text_file, "--max-steps", 1, "--run", "first"))
    assert first.code == 0, first.err  # imports what every run needs, which takes seconds once
    monkeypatch.setattr(planning, "MOST_EPOCHS", 1e6)  # on a fast machine the small text would end the run early
    monkeypatch.setattr(verb, "STARTED", time.monotonic())
    began = time.monotonic()
    result = glassgpt(*small("--data", text_file, "--minutes", 0.1, "--run", "quick"))
    assert result.code == 0, result.err
    assert time.monotonic() - began == pytest.approx(6.0, rel=0.3)  # a busy machine: the bench has the exact figure
    lines = result.err.splitlines()
    plan = next(line for line in lines if line.startswith("plan for 0.1 min: 1 block of "))
    config = load_config(Path("runs/quick/config.toml"))
    assert f"1 block of {config.model.n_embd} channels" in plan
    assert any(line.startswith("counting rows of 6 tokens, without any model, reaches a loss of ") for line in lines)
    assert any(line.startswith("twice the time, 0.2 min, would lower the loss by about ") for line in lines)
    assert config.training.minutes == 0.1
    steps = config.training.max_steps
    assert config.schedule.end == steps
    assert figures(Path("runs/quick"))[-1]["step"] == steps
    rates = [line["lr"] for line in read_lines(Path("runs/quick/metrics.jsonl")) if "lr" in line]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < 0.2 * rates[0]

    again = glassgpt("train", "--minutes", 0.1, "--run", "quick", "--resume")
    assert (again.code, "is finished at step" in again.err) == (0, True), again.err
    assert (
        "training.minutes was 0.1 and is now 0.2"
        in glassgpt("train", "--minutes", 0.2, "--run", "quick", "--resume").error
    )


def test_a_short_text_ends_the_run_early(text_file: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "MOST_EPOCHS", 0.0)
    monkeypatch.setattr(planning, "LEAST_LIMIT", 30)
    result = glassgpt(*small("--data", text_file, "--minutes", 2, "--run", "short"))
    assert result.code == 0, result.err
    assert "the text is short, and reading it more often would not make the model better" in result.err
    assert "twice the time" not in result.err
    assert load_config(Path("runs/short/config.toml")).training.max_steps == 30


def test_a_recipe_keeps_its_size(text_file: Path, elsewhere: Path) -> None:
    own = [part for value in settings()[1::2] if "max_steps" not in value for part in ("--set", value)]
    result = glassgpt("train", "char-tiny", "--data", text_file, "--minutes", 0.08, "--run", "own", *own)
    assert result.code == 0, result.err
    config = load_config(Path("runs/own/config.toml"))
    assert (config.architecture, config.model.n_embd) == ("gpt2", 32)
    assert config.schedule.warmup_steps <= 10
    assert "twice the time" not in result.err


def test_a_changed_plan_is_recorded_and_replayed(
    text_file: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning._Timed, "steps_in", lambda *_: 60)
    monkeypatch.setattr(Pace, "is_due", lambda self, step, max_steps: step in (20, 30))
    monkeypatch.setattr(Pace, "look", lambda self, step, max_steps: {20: 50, 30: 44}[step])
    command = small(
        "--data", text_file, "--run", "whole", "--set", "checkpoint.every=10", "--set", "checkpoint.keep_last=9"
    )
    result = glassgpt(*command, "--minutes", 1)
    assert result.code == 0, result.err
    assert "step 20: 50 steps instead of 60, to end in time" in result.err
    whole = Path("runs/whole")
    config = load_config(whole / "config.toml")
    assert config.schedule.replanned == ((20, 50), (30, 44))
    assert (config.schedule.decay_steps, config.training.max_steps) == (60, 44)

    for step in (10, 20, 30, 40):
        part = Path(shutil.copytree(whole, f"runs/from-{step}"))
        for later in (part / "checkpoints").iterdir():
            if int(later.name.removeprefix("step-")) > step:
                shutil.rmtree(later)
        resumed = glassgpt("train", "--run", f"from-{step}", "--resume")
        assert resumed.code == 0, resumed.err
        assert f"after step {step}" in resumed.err
        assert "to end in time" not in resumed.err
        assert weights(part) == weights(whole)
        assert figures(part) == figures(whole)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["--minutes", "0"], "--minutes 0.0 is out of range: it must be above 0"),
        (["--minutes", "-2"], "--minutes -2.0 is out of range"),
        (["--minutes", "nan"], "--minutes nan is out of range"),
        (["--minutes", "inf"], "--minutes inf is out of range"),
        (["--minutes", "1", "--max-steps", "9"], "--minutes chooses the number of steps, and so does --max-steps"),
        (["--minutes", "1", "--set", "training.max_steps=9"], "and so does training.max_steps: give one of them"),
        (["--set", "training.minutes=2"], "training.minutes only records what --minutes did"),
        (["--minutes", "1", "--overfit-batch"], "and so does --overfit-batch: give one of them"),
        (["--minutes", "0.0001"], "--minutes 0.0001 is too short for 20 steps on cpu: give at least 0."),
    ],
)
def test_a_time_that_cannot_be_is_refused(given: list[str], told: str, text_file: Path, elsewhere: Path) -> None:
    before = contents(elsewhere)
    assert told in glassgpt(*small("--data", text_file, *given)).error
    assert contents(elsewhere) == before


def test_a_long_text_is_validated_on_a_part() -> None:
    limit = TimeLimit(1.0, 0.0)
    assert limit.validation_fraction(1_115_394) == 0.1
    assert limit.validation_fraction(100_000_000) == pytest.approx(0.0015)
    assert TimeLimit(10.0, 0.0).validation_fraction(100_000_000) == pytest.approx(0.015)
    with pytest.raises(UserError, match="out of range"):
        TimeLimit(0.0, 0.0)
