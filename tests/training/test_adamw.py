"""Our AdamW beside torch's: the same bits, the same state, and no import of the compiler."""

from __future__ import annotations

import copy
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import nn

from glassgpt.training.adamw import AdamW

KINDS: list[dict[str, Any]] = [{"fused": True}, {"foreach": True}, {"foreach": False, "fused": False}]


def train(model: nn.Linear, optimizer: torch.optim.Optimizer, steps: int) -> None:
    draw = torch.Generator().manual_seed(steps)
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(4, 5, generator=draw)).square().sum().backward()
        optimizer.step()


def build(kind: type[torch.optim.Optimizer], **settings: Any) -> tuple[nn.Linear, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = nn.Linear(5, 3)
    return model, kind(model.parameters(), lr=0.01, betas=(0.8, 0.97), weight_decay=0.3, **settings)  # type: ignore[call-arg]


@pytest.mark.parametrize("settings", KINDS, ids=["fused", "foreach", "loop"])
def test_weights_and_state_are_torchs_bit_for_bit(settings: dict[str, Any]) -> None:
    ours, theirs = build(AdamW, **settings), build(torch.optim.AdamW, **settings)
    for model, optimizer in (ours, theirs):
        train(model, optimizer, 5)
    torch.testing.assert_close(ours[0].state_dict(), theirs[0].state_dict(), rtol=0, atol=0)
    torch.testing.assert_close(ours[1].state_dict(), theirs[1].state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("settings", KINDS, ids=["fused", "foreach", "loop"])
def test_it_goes_on_from_torchs_state(settings: dict[str, Any]) -> None:
    model, theirs = build(torch.optim.AdamW, **settings)
    train(model, theirs, 3)
    other, ours = build(AdamW, **settings)
    other.load_state_dict(model.state_dict())
    ours.load_state_dict(copy.deepcopy(theirs.state_dict()))
    train(model, theirs, 4)
    train(other, ours, 4)
    torch.testing.assert_close(other.state_dict(), model.state_dict(), rtol=0, atol=0)


def test_hooks_of_a_step_and_the_gradient_mode_are_kept() -> None:
    model, optimizer = build(AdamW)
    seen = []
    optimizer.register_step_pre_hook(lambda *_: seen.append("before"))
    optimizer.register_step_post_hook(lambda *_: seen.append("after"))
    train(model, optimizer, 1)
    assert seen == ["before", "after"]
    assert torch.is_grad_enabled()


WITHOUT_COMPILER = """
import sys
import torch
from glassgpt.models import build_model
from glassgpt.models.modern import ModernConfig
from glassgpt.runtime.device import build_runtime
from glassgpt.training.fit import train_step
from glassgpt.training.losses import Batch, next_token_loss
from glassgpt.training.optimizers import OptimizerConfig, build_optimizer

runtime = build_runtime("cpu", "float32")
tokens = torch.zeros(2, 8, dtype=torch.long)
model = build_model("modern", ModernConfig(vocab_size=8, block_size=8, n_layer=1, n_head=2, n_embd=8))
for name in ("adamw", "muon"):
    optimizer = build_optimizer(model, OptimizerConfig(name))
    train_step(
        runtime.wrap(model, next_token_loss), optimizer, runtime.build_scaler(), [Batch(tokens, tokens)], runtime,
        grad_clip=1.0, seed=0, step=0, expected_weight=16,
    )
print(sorted({"sympy", "torch._dynamo"} & sys.modules.keys()))
"""


def test_a_training_step_loads_no_compiler() -> None:
    """It takes more than a second, and torch loads it for each of its own optimizers."""
    done = subprocess.run([sys.executable, "-c", WITHOUT_COMPILER], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
