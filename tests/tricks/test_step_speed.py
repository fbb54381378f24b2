"""`glassgpt bench step`: every contender does the same work, and what cannot be measured is refused or said."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
import torch

from glassgpt.errors import UserError
from glassgpt.models.gpt2 import GPT2Config
from glassgpt.models.modern import ModernConfig
from glassgpt.runtime.device import build_runtime
from glassgpt.training.optimizers import OptimizerConfig
from glassgpt.tricks import step_speed
from glassgpt.tricks.step_speed import StepSpeed, draw_batches, measure_step
from tests.system.command_line import glassgpt

needs_transformers = pytest.mark.skipif(importlib.util.find_spec("transformers") is None, reason="needs transformers")
SIZES = GPT2Config(vocab_size=50, block_size=8, n_layer=1, n_head=2, n_embd=8)
ADAMW = OptimizerConfig(lr=1e-2, weight_decay=0.0)  # transformers has one group of parameters: biases decay too
NANOGPT = """
from types import SimpleNamespace
import torch
from torch import nn
GPTConfig = SimpleNamespace

class GPT(nn.Module):
    def __init__(self, config):
        super().__init__()
        print("number of parameters: 0.00M")
        self.table = nn.Embedding(config.vocab_size, config.vocab_size)

    def configure_optimizers(self, weight_decay, lr, betas, device):
        return torch.optim.AdamW(self.parameters(), lr, betas, weight_decay=weight_decay)

    def forward(self, inputs, targets):
        logits = self.table(inputs)
        return logits, nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
"""


@pytest.fixture(autouse=True)
def small_products(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_speed, "SIDES", {"cpu": 64})


def measure(**settings: object) -> StepSpeed:
    options = {"rows": 2, "steps": 2, "rounds": 2, "device": "cpu", "precisions": ["float32"], "peer": False}
    return measure_step("gpt2", SIZES, ADAMW, **(options | settings))  # type: ignore[arg-type]


def test_a_row_has_the_tokens_and_the_seconds_of_its_rounds() -> None:
    found = measure(passes=3)
    (row,) = found.rows
    assert len(row.rounds) == 2 and row.seconds == pytest.approx(sum(row.rounds) / 2)
    assert row.tokens_per_second == pytest.approx(3 * 2 * 8 / row.seconds)
    assert row.share_of_matrix_rate > 0 and found.times_transformers is found.times_nanogpt is None
    json.dumps(found.to_dict())


@needs_transformers
def test_ours_and_transformers_learn_the_same() -> None:
    """The same weights, batches, settings and number of steps end at the same loss."""
    found = measure(peer=True)
    ours, theirs = found.rows
    assert (theirs.contender, theirs.precision) == ("transformers", "float32")
    assert ours.loss == pytest.approx(theirs.loss, abs=1e-5)
    assert found.times_transformers and found.times_transformers > 0


def test_several_micro_batches_are_one_step_of_all_their_rows() -> None:
    runtime = build_runtime("cpu", "float32")
    (whole,) = draw_batches(SIZES, 4, 1, runtime.device)
    halves = [
        step_speed.Batch(whole.inputs[part], whole.targets[part]) for part in (slice(0, 2), slice(2, 4))
    ]  # fmt: skip
    losses = []
    for batches in ([whole], halves):
        step = step_speed.build_ours("gpt2", SIZES, ADAMW, runtime)
        losses.append([step(batches) for _ in range(3)][-1])
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


def test_nanogpt_takes_part_and_prints_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "model.py").write_text(NANOGPT)
    found = measure(nanogpt=tmp_path)
    assert [row.contender for row in found.rows] == ["glassgpt", "nanoGPT"]
    assert found.times_nanogpt is not None
    assert capsys.readouterr().out == ""  # stdout is for the JSON


def test_bfloat16_is_measured_beside_float32() -> None:
    found = measure(precisions=["float32", "bfloat16"])
    assert [row.precision for row in found.rows] == ["float32", "bfloat16"]
    assert set(found.matrix_rates) == {"float32", "bfloat16"}
    assert found.rows[0].loss == pytest.approx(found.rows[1].loss, abs=0.05)


@pytest.mark.parametrize("name", ["rows", "passes", "steps", "rounds"])
def test_a_number_out_of_range_is_named(name: str) -> None:
    for value in (0, 1025):
        with pytest.raises(UserError, match=f"--{name} {value} is out of range"):
            measure(**{name: value})


def test_what_cannot_be_measured_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"model\.py is missing"):
        measure(nanogpt=tmp_path)
    with pytest.raises(UserError, match="nanoGPT has no model of the architecture modern"):
        measure_step("modern", ModernConfig(50, 8, 1, 2, 8, ngram=1), ADAMW, device="cpu", nanogpt=tmp_path, peer=False)


def test_the_drawn_ids_are_in_range_and_uneven() -> None:
    (batch,) = draw_batches(SIZES, 64, 1, torch.device("cpu"))
    assert batch.inputs.shape == (64, 8) and torch.equal(batch.inputs[:, 1:], batch.targets[:, :-1])
    assert batch.inputs.min() >= 0 and batch.inputs.max() < 50
    assert (batch.inputs == 0).float().mean() > 0.2


def test_the_command_prints_a_row_and_the_rate() -> None:
    settings = ["--set", "model.n_embd=8", "--set", "model.n_layer=1", "--set", "model.block_size=8"]
    options = ["--rows", "1", "--steps", "1", "--rounds", "1", "--no-peer", "--dtype", "float32", "--device", "cpu"]
    done = glassgpt("bench", "step", "char-tiny", *settings, *options)
    assert done.code == 0, done.err
    assert "glassgpt" in done.out and "matrix products in float32" in done.out


def test_auto_is_the_precision_that_it_stands_for() -> None:
    speed = measure_step(
        "gpt2", SIZES, ADAMW, steps=1, rounds=1, device="cpu", precisions=("auto", "float32"), peer=False
    )
    assert [row.precision for row in speed.rows] == ["float32"] and speed.matrix_rates.keys() == {"float32"}
