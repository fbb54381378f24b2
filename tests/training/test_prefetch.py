"""Batches prepared one step ahead are those of the step, whatever is asked for, and errors wait for their step."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from glassgpt.errors import UserError
from glassgpt.runs.session import Session
from glassgpt.runtime.device import Runtime
from glassgpt.training.prefetch import Prefetched


def test_every_step_gets_its_own_batches() -> None:
    """In order, and again from an earlier step, as after a resume."""
    calls: list[int] = []

    def batches(step: int) -> Any:
        calls.append(step)
        return [f"batch of {step}"]

    with Prefetched(batches) as prefetched:
        for step in (3, 4, 5, 1, 2):
            assert prefetched(step) == [f"batch of {step}"]
    assert calls[:5] == [3, 4, 5, 6, 1]  # each once, and one too many where the order breaks


def test_the_next_batches_are_prepared_while_the_caller_is_busy() -> None:
    prepared = threading.Event()

    def batches(step: int) -> Any:
        if step == 1:
            prepared.set()
        return []

    with Prefetched(batches) as prefetched:
        prefetched(0)
        assert prepared.wait(timeout=30)


def test_an_error_is_raised_at_its_step_and_only_there() -> None:
    def batches(step: int) -> Any:
        if step == 2:
            raise UserError("damaged shards")
        return [step]

    with Prefetched(batches) as prefetched:
        assert [prefetched(0), prefetched(1)] == [[0], [1]]
        with pytest.raises(UserError, match="damaged shards"):
            prefetched(2)
    with Prefetched(batches) as prefetched:  # a run of two steps never sees it
        assert [prefetched(0), prefetched(1)] == [[0], [1]]


@pytest.mark.parametrize(
    ("device", "batches_ahead", "overfit_batch", "ahead"),
    [
        ("cuda", True, False, True),
        ("cpu", True, False, False),
        ("cuda", False, False, False),
        ("cuda", True, True, False),
    ],
)
def test_only_batches_that_depend_on_the_step_alone_are_prepared_ahead(
    device: str, batches_ahead: bool, overfit_batch: bool, ahead: bool
) -> None:
    session: Any = SimpleNamespace(
        runtime=Runtime(torch.device(device), "float32"),
        stage=SimpleNamespace(batches=lambda step: [step], batches_ahead=batches_ahead),
        config=SimpleNamespace(training=SimpleNamespace(overfit_batch=overfit_batch)),
        _batches=lambda step: [step],
    )
    with Session._open_batches(session) as batches:
        assert isinstance(batches, Prefetched) == ahead
        assert batches(7) == [7]
