"""Models built without weights: nothing is drawn, and once they are filled they are what they would have been."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

from glassgpt.models import ARCHITECTURES
from glassgpt.runtime.distributed import ALONE
from glassgpt.runtime.parallel import copy_weight, move, weights_later

CPU = torch.device("cpu")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_filled_model_is_the_model(architecture: str) -> None:
    found = ARCHITECTURES[architecture]
    config = found.config(vocab_size=11, block_size=8, n_layer=2, n_head=2, n_embd=8, dropout=0.5)
    torch.manual_seed(0)
    expected = found.model(config)
    before = torch.get_rng_state()
    with weights_later():
        model = found.model(config)
    assert torch.equal(torch.get_rng_state(), before)  # nothing was drawn
    assert all(parameter.is_meta for parameter in model.parameters())
    move(model, CPU)
    assert list(model.state_dict()) == list(expected.state_dict())
    for name, target in model.state_dict().items():
        copy_weight(expected.state_dict()[name], target, ALONE)
    assert [str(module) for module in model.modules()] == [str(module) for module in expected.modules()]
    tokens = [torch.randint(11, (2, 8)) for _ in range(2 if found.kind == "encoder-decoder" else 1)]
    for compared in (model, expected):
        torch.manual_seed(1)
        compared(*tokens).square().sum().backward()
    torch.manual_seed(1)
    ours = model(*tokens)
    torch.manual_seed(1)
    assert torch.equal(ours, expected(*tokens))
    for (name, parameter), (other, like) in zip(model.named_parameters(), expected.named_parameters(), strict=True):
        assert name == other
        assert parameter.requires_grad == like.requires_grad
        assert parameter.grad is None if like.grad is None else torch.equal(parameter.grad, like.grad)


class Odd(nn.Module):
    """What a constructor may also do: compute buffers, freeze a parameter, share one between two modules."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 4)
        self.head = nn.Linear(4, 5)
        self.head.weight = self.embedding.weight
        self.frozen = nn.Linear(4, 4, bias=False).requires_grad_(False)
        self.register_buffer("positions", torch.arange(3.0), persistent=False)
        self.register_buffer("table", torch.tril(torch.ones(3, 3)))
        self.register_parameter("none", None)


def test_buffers_and_shared_parameters_stay() -> None:
    with weights_later():
        model = Odd()
    move(model, CPU)
    assert model.head.weight is model.embedding.weight
    assert [name for name, parameter in model.named_parameters() if not parameter.requires_grad] == ["frozen.weight"]
    assert torch.equal(model.get_buffer("positions"), torch.arange(3.0))
    assert torch.equal(model.get_buffer("table"), torch.tril(torch.ones(3, 3)))
    assert not any(tensor.is_meta for tensor in model.state_dict().values())


def test_models_built_afterwards_have_weights() -> None:
    with pytest.raises(ZeroDivisionError), weights_later():
        raise ZeroDivisionError
    assert not any(parameter.is_meta for parameter in Odd().parameters())


WITHOUT_COMPILER = """
import sys
import torch
from glassgpt.models import build_model
from glassgpt.models.gpt2 import GPT2Config
from glassgpt.runtime.parallel import move, weights_later

with weights_later():
    model = build_model("gpt2", GPT2Config(n_layer=1))
move(model, torch.device("cpu"))
print(sorted({"sympy", "torch._dynamo"} & sys.modules.keys()))
"""


def test_no_compiler_is_loaded() -> None:
    """It takes seconds, and torch loads it for random operations on the meta device."""
    done = subprocess.run([sys.executable, "-c", WITHOUT_COMPILER], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
