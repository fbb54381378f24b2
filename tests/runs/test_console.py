"""Progress lines: which figures they show, and how old these are."""

from __future__ import annotations

from pathlib import Path

import pytest

from glassgpt.runs.config import parse_run_config
from glassgpt.runs.console import PlainListener, describe_figures, indent
from glassgpt.runs.listener import RunInfo
from glassgpt.training.fit import TrainState

RECORD = {"train/loss": 4.5, "lr": 1e-3, "grad_norm": 1.0, "tokens_per_second": 100.0}


def test_a_validation_loss_is_shown_with_its_step(capsys: pytest.CaptureFixture[str]) -> None:
    listener = PlainListener()
    listener.started(
        RunInfo(Path("runs/a"), parse_run_config({"model": {"vocab_size": 9, "block_size": 8}}), 1, ()), TrainState()
    )
    assert "val" not in listener.figures(RECORD).split("  ")[1]
    listener.evaluated(250, {"val/loss": 4.5002}, 0.1, False)
    listener.evaluated(300, {"val/reward": 1.0}, 0.1, False)  # figures of another stage
    assert "  val 4.5002 @250  " in listener.figures(RECORD)


def test_a_sample_commands_no_terminal() -> None:
    assert indent("\nred \x1b[31m\tand\r\x00\n今天\u3000天\n") == "    red �[31m\tand��\n    今天\u3000天"


def test_what_was_measured_is_counted_in_the_singular_too() -> None:
    assert describe_figures({"val/loss": 1.0, "val/pairs": 1}) == ", 1 pair: loss 1.0000 nats per token"
    assert (
        describe_figures({"val/loss": 1.0, "val/hidden": 2000}) == ", 2,000 hidden tokens: loss 1.0000 nats per token"
    )
