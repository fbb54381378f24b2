"""Figures and settings as a person reads them."""

from __future__ import annotations

import pytest

from glassgpt.report.figures import comparability, count, duration
from glassgpt.report.page import flattened
from glassgpt.report.run_record import RunRecord


@pytest.mark.parametrize(
    ("n", "shown"),
    [
        (0, "0"),
        (1_536_000, "1,536,000"),
        (9_999_999, "9,999,999"),
        (124_439_808, "124.4 M"),
        (1_557_611_200, "1.558 B"),
    ],
)
def test_count(n: int, shown: str) -> None:
    assert count(n) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.5, "0.5 s"), (41.72, "41.7 s"), (59.97, "1 min 0 s"), (60, "1 min 0 s"), (147, "2 min 27 s"),
        (11_100, "3 h 5 min"), (352_800, "4 d 2 h"), (400 * 86400, "1 y 35 d"), (1e12, "31,709 y 289 d"),
    ],
)  # fmt: skip
def test_duration(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


def test_settings_are_shown_as_one_would_type_them() -> None:
    config = {"model": {"n_head": 4, "bias": True}, "betas": [0.9, 0.99], "special_tokens": [], "note": None}
    assert flattened(config) == {
        "model.n_head": "4",
        "model.bias": "true",
        "betas": "0.9, 0.99",
        "special_tokens": "[]",
        "note": "–",
    }


def test_losses_of_two_stages_are_not_compared() -> None:
    """Not by bits per byte either, which only pretraining has."""

    def record(stage: str, tokenizer: str) -> RunRecord:
        return RunRecord(stage, {"run": {"stage": stage}}, {}, {"tokenizer": tokenizer}, [], [], [], None, [])

    told = "They learned different things (run.stage): their losses are not comparable."
    assert comparability([record("pretrain", "char"), record("mlm", "char")]) == told
    assert comparability([record("pretrain", "char"), record("seq2seq", "bpe")]) == told
    assert "different tokenizers" in comparability([record("mlm", "char"), record("mlm", "bpe")])
