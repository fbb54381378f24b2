"""The recipes of GPT-3: the figures of the paper, from one table."""

from __future__ import annotations

import pytest
import torch

from glassgpt.models import build_model
from glassgpt.runs.config import list_recipes, load_recipe, parse_run_config

# n_layer, n_head, n_embd, lr, min_lr, batch_tokens, warmup_steps, decay_steps, max_steps; millions of parameters (D.1)
PUBLISHED = {
    "gpt3-125m": (12, 12, 768, 0.0006, 6e-05, 524288, 715, 495911, 572205, 125),
    "gpt3-350m": (24, 16, 1024, 0.0003, 3e-05, 524288, 715, 495911, 572205, 356),
    "gpt3-760m": (24, 16, 1536, 0.00025, 2.5e-05, 524288, 715, 495911, 572205, 760),
    "gpt3-1.3b": (24, 16, 2048, 0.0002, 2e-05, 1048576, 358, 247955, 286102, 1320),
    "gpt3-2.7b": (32, 32, 2560, 0.00016, 1.6e-05, 1048576, 358, 247955, 286102, 2650),
    "gpt3-6.7b": (32, 32, 4096, 0.00012, 1.2e-05, 2097152, 179, 123978, 143051, 6660),
    "gpt3-13b": (40, 40, 5120, 0.0001, 1e-05, 2097152, 179, 123978, 143051, 12850),
    "gpt3-175b": (96, 96, 12288, 6e-05, 6e-06, 3276800, 114, 79346, 91553, 174600),
}


def test_there_is_a_recipe_for_each_size_and_the_smallest_comes_first() -> None:
    assert [name for name in list_recipes() if name.startswith("gpt3-")] == list(PUBLISHED)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_recipe_says_what_the_paper_says(name: str) -> None:
    n_layer, n_head, n_embd, lr, min_lr, batch_tokens, warmup_steps, decay_steps, max_steps, _ = PUBLISHED[name]
    assert load_recipe(name) == {
        "model": {
            "architecture": "gpt3", "vocab_size": 50257, "padded_vocab_size": 50304, "block_size": 2048,
            "n_layer": n_layer, "n_head": n_head, "n_embd": n_embd, "dropout": 0.0, "band_width": 128,
        },
        "tokenizer": {"name": "gpt2"},
        "optimizer": {"lr": lr, "beta1": 0.9, "beta2": 0.95, "weight_decay": 0.1},
        "schedule": {
            "name": "cosine", "warmup_steps": warmup_steps, "decay_steps": decay_steps, "min_lr": min_lr,
        },
        "training": {
            "max_steps": max_steps, "batch_tokens": batch_tokens, "micro_batch": "auto", "grad_clip": 1.0,
        },
        "machine": {"compile": True},
    }  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_recipe_has_the_parameters_of_the_paper(name: str) -> None:
    config = parse_run_config(load_recipe(name))
    with torch.device("meta"):
        model = build_model(config.architecture, config.model)
    millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    assert millions == pytest.approx(PUBLISHED[name][-1], rel=0.004)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_recipe_is_of_300_billion_tokens(name: str) -> None:
    config = parse_run_config(load_recipe(name))
    assert config.training.max_steps * config.training.batch_tokens == pytest.approx(300e9, rel=1e-4)
    assert config.schedule.decay_steps * config.training.batch_tokens == pytest.approx(260e9, rel=1e-4)
    assert config.schedule.warmup_steps * config.training.batch_tokens == pytest.approx(375e6, rel=0.01)
