"""Runs of a mixture of experts with a penalty on an uneven choice: what is reported, and what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from command_line import figures, glassgpt, settings, weights

from glassgpt.config import read_toml

SMALL = {
    "model__dropout": 0.0, "model__n_kv_head": 1, "model__head_size": 16, "model__n_hidden": 32,
    "training__max_steps": 6, "evaluation__every": 3, "evaluation__sample_every": 0,
}  # fmt: skip


@pytest.fixture(scope="module")
def runs(text_file: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[float, Path]:
    """The run of each coefficient."""
    folder, found = tmp_path_factory.mktemp("balanced"), {}
    for coefficient in (0.0, 0.5):
        found[coefficient] = folder / str(coefficient)
        options = ["--data", text_file, "--run", found[coefficient]]
        done = glassgpt("train", "moe-tiny", *options, *settings(**SMALL, training__expert_balance=coefficient))
        assert done.code == 0, done.err
        assert ("  balance " in done.err) == (coefficient > 0)
    return found


def test_the_balance_is_a_figure_and_no_part_of_the_losses(runs: dict[float, Path]) -> None:
    without, with_it = figures(runs[0.0]), figures(runs[0.5])
    assert not any("train/balance" in line for line in without)
    steps = [line for line in with_it if "grad_norm" in line]
    assert len(steps) == 6
    assert all(0.9 < line["train/balance"] < 4.0 for line in steps)  # at most E / K = 4
    # Before the first step both have the same weights, and so the same losses; the gradients differ.
    for name in ("val/loss", "train/loss"):
        first, other = (next(line[name] for line in lines if name in line) for lines in (without, with_it))
        assert first == other
    norms = [next(line["grad_norm"] for line in lines if "grad_norm" in line) for lines in (without, with_it)]
    assert norms[0] != norms[1]
    assert weights(runs[0.0]) != weights(runs[0.5])


def test_it_is_written_down_and_does_not_change_on_the_way(runs: dict[float, Path], tmp_path: Path) -> None:
    assert read_toml(runs[0.5] / "config.toml")["training"]["expert_balance"] == 0.5
    run = Path(shutil.copytree(runs[0.5], tmp_path / "run"))
    more = ["train", "--run", run, "--resume", "--max-steps", 7]
    assert "training.expert_balance was 0.5 and is now 0" in glassgpt(*more, "--set", "training.expert_balance=0").error
    assert glassgpt(*more).code == 0
    assert [line["step"] for line in figures(run) if "train/balance" in line][-1] == 7


@pytest.mark.parametrize(
    ("recipe", "value", "told"),
    [
        (
            "char-tiny",
            "0.01",
            "expert_balance = 0.01 is for a mixture of experts, and the architecture 'gpt2' has",
        ),
        (
            "bert-tiny",
            "0.01",
            "expert_balance = 0.01 is for a mixture of experts, and the architecture 'bert' has",
        ),
        ("moe-tiny", "-1", "training.expert_balance = -1.0 is out of range: it must be at least 0"),
        ("moe-tiny", "inf", "training.expert_balance = inf is out of range: it must be finite and at least 0"),
        ("moe-tiny", "much", "training.expert_balance = 'much'"),
    ],
)
def test_bad_input_has_one_sentence(text_file: Path, tmp_path: Path, recipe: str, value: str, told: str) -> None:
    options = ["--data", text_file, "--run", tmp_path / "new", "--set", f"training.expert_balance={value}"]
    assert told in glassgpt("train", recipe, *options).error
    assert not (tmp_path / "new").exists()
