"""Small models of every architecture, with weights that all matter."""

from __future__ import annotations

import torch
from torch import nn

from glassgpt.models import ARCHITECTURES
from glassgpt.models.gpt2 import GPT2

B, T, C, H, V = 2, 9, 16, 4, 11
DECODERS = [name for name, architecture in ARCHITECTURES.items() if architecture.kind == "decoder"]


def build(architecture: str, dropout: float = 0.0) -> nn.Module:
    torch.manual_seed(0)
    found = ARCHITECTURES[architecture]
    sizes = {"vocab_size": V, "block_size": 12, "n_layer": 3, "n_head": H, "n_embd": C, "dropout": dropout}
    if "head_size" in found.config.__dataclass_fields__:
        sizes["head_size"] = None  # C / H
    model = found.model(found.config(**sizes))
    for parameter in model.parameters():  # away from zero heads and tiny scores, which would hide a mistake
        nn.init.normal_(parameter, std=0.3)
    if architecture in (
        "bert",
        "transformer",
    ):  # in post-norm every gain scales the whole stream: with small ones it would vanish
        for module in model.modules():
            if isinstance(module, nn.LayerNorm):
                nn.init.normal_(module.weight, mean=1.0, std=0.3)
    return model


def state(model: GPT2) -> list[tuple[bool, int, int, object]]:
    return [
        (module.training, len(module._forward_hooks), len(module._forward_pre_hooks), getattr(module, "hook", None))
        for module in model.modules()
    ]
