"""The model and the text that most tests of instruments look at."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from toy_models import B, T, V, build

from glassgpt.models.gpt2 import GPT2


@pytest.fixture
def tokens() -> Tensor:
    return torch.randint(V, (B, T), generator=torch.Generator().manual_seed(1))


@pytest.fixture
def model() -> GPT2:
    built = build("gpt2")
    assert isinstance(built, GPT2)
    return built
