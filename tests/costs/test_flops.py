"""The estimate of arithmetic against torch's own count of every matrix product of a real pass."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from glassgpt.costs.flops import count_parameters, estimate_flops_per_token
from glassgpt.models.attention import Attention
from glassgpt.models.gpt2 import GPT2, GPT2Config
from glassgpt.models.ladder import SECTIONS, LadderConfig
from glassgpt.training.losses import Batch, next_token_loss

CONFIG = GPT2Config(vocab_size=128, block_size=64, n_layer=2, n_head=4, n_embd=32)


def test_it_is_what_a_forward_and_backward_pass_costs() -> None:
    model = GPT2(CONFIG)
    for module in model.modules():
        if isinstance(module, Attention):
            module.hook = lambda name, value: None  # step by step: the fused kernel would count its recomputation
    tokens = torch.zeros(3, CONFIG.block_size, dtype=torch.int64)
    with FlopCounterMode(display=False) as counter:
        found = next_token_loss(model, Batch(tokens, tokens))
        loss = found.sum
        loss.backward()
    measured = counter.get_total_flops() / tokens.numel()
    estimate = estimate_flops_per_token(model)
    assert estimate == pytest.approx(measured, rel=0.03)  # biases and gains count as if they were multiplied


def test_gpt2_by_hand() -> None:
    with torch.device("meta"):
        model = GPT2(GPT2Config())
    expected = 6 * (124_439_808 - 1024 * 768) + 12 * 12 * 768 * 1024
    assert estimate_flops_per_token(model) == expected


def test_a_model_without_attention_has_no_quadratic_part() -> None:
    config = LadderConfig(vocab_size=10, block_size=8, n_embd=8)
    bigram = SECTIONS[0].model(config)
    assert estimate_flops_per_token(bigram) == 6 * count_parameters(bigram)


def test_a_shared_parameter_counts_once() -> None:
    model = torch.nn.ModuleList([torch.nn.Linear(3, 4), torch.nn.Linear(3, 4)])
    assert count_parameters(model) == 32
    model[1].weight = model[0].weight
    assert count_parameters(model) == 20
