"""The estimate of arithmetic against torch's own count of every matrix product of a real pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from glassgpt.costs.flops import count_active_parameters, count_parameters, estimate_flops_per_token
from glassgpt.models import Model, is_tied
from glassgpt.models.attention import Attention
from glassgpt.models.gpt2 import GPT2, GPT2Config
from glassgpt.models.gpt_oss import GPTOss, GPTOssConfig
from glassgpt.models.ladder import SECTIONS, LadderConfig
from glassgpt.training.losses import Batch, next_token_loss

CONFIG = GPT2Config(vocab_size=128, block_size=64, n_layer=2, n_head=4, n_embd=32)


EXPERTS = GPTOssConfig(
    vocab_size=64, block_size=64, n_layer=2, n_head=4, n_embd=64, n_kv_head=2, head_size=32, n_hidden=96, n_expert=8,
    n_active=2, band_width=8,
)  # fmt: skip


@pytest.mark.parametrize("build", [lambda: GPT2(CONFIG), lambda: GPTOss(EXPERTS)], ids=["gpt2", "gpt_oss"])
def test_it_is_what_a_forward_and_backward_pass_costs(build: Callable[[], Model]) -> None:
    model = build()
    for module in model.modules():
        if isinstance(module, Attention):
            module.hook = lambda name, value: None  # step by step: the fused kernel would count its recomputation
    tokens = torch.zeros(3, model.config.block_size, dtype=torch.int64)
    with FlopCounterMode(display=False) as counter:
        found = next_token_loss(model, Batch(tokens, tokens))
        loss = found.sum
        loss.backward()
    measured = counter.get_total_flops() / tokens.numel()
    estimate = estimate_flops_per_token(model)
    if not is_tied(model):  # the estimate counts a lookup
        estimate -= 6 * model.get_parameter("token_embedding.weight").numel()
    assert estimate == pytest.approx(measured, rel=0.03)  # biases and gains count as if they were multiplied


def test_a_token_meets_the_experts_that_it_chooses() -> None:
    with torch.device("meta"):
        model, other = GPTOss(EXPERTS), GPTOss(replace(EXPERTS, n_active=5))
    one = 64 * 192 + 192 + 96 * 64 + 64  # parameters of an expert
    assert count_parameters(model) == count_parameters(other)
    assert count_active_parameters(model) == count_parameters(model) - 2 * 6 * one
    assert count_active_parameters(other) == count_parameters(other) - 2 * 3 * one
    assert estimate_flops_per_token(other) - estimate_flops_per_token(model) == 6 * 2 * 3 * one
    gpt2 = GPT2(CONFIG)
    assert count_active_parameters(gpt2) == count_parameters(gpt2)


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
