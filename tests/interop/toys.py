"""Small models whose every weight matters, for tests."""

from __future__ import annotations

import torch
from torch import nn

from glassgpt.models.gpt2 import GPT2, GPT2Config
from glassgpt.models.modern import Modern, ModernConfig


def shake(model: nn.Module) -> None:
    """Weights so large, and biases and gains so different, that a mistake in any of them shows."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            gain = ("norm" in name or "ln_" in name) and name.endswith("weight")
            parameter.normal_(mean=1.0 if gain else 0.0, std=0.2)


SIZES = {"block_size": 48, "n_layer": 2, "n_head": 3, "n_embd": 24}


def toy_model(vocab_size: int, padding: int = 0) -> GPT2:
    """Two layers, in evaluation mode."""
    torch.manual_seed(1)
    model = GPT2(GPT2Config(vocab_size, **SIZES, padded_vocab_size=vocab_size + padding))
    shake(model)
    return model.eval()


def toy_modern(vocab_size: int, ngram: int = 1) -> Modern:
    """The same sizes; without n-grams by default."""
    torch.manual_seed(1)
    model = Modern(ModernConfig(vocab_size, **SIZES, ngram=ngram, ngram_rows=97))
    shake(model)
    return model.eval()
