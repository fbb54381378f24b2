"""The peer of nanoGPT: its model gets our weights under its own names and in its own layout."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from glassgpt.errors import UserError
from glassgpt.interop.nanogpt import NanoGPTPeer
from glassgpt.models.gpt2 import GPT2, GPT2Config
from glassgpt.models.modern import Modern, ModernConfig

# The names and shapes of a checkout's model, for one block. Its real file is not ours to keep.
STAND_IN = """
from dataclasses import dataclass

from torch import nn


@dataclass
class GPTConfig:
    block_size: int
    vocab_size: int
    n_layer: int
    n_head: int
    n_embd: int
    dropout: float
    bias: bool


class GPT(nn.Module):
    def __init__(self, config):
        super().__init__()
        print("number of parameters: 1M")
        C, norm = config.n_embd, nn.LayerNorm
        block = nn.ModuleDict({"ln_1": norm(C), "ln_2": norm(C)})
        block["attn"] = nn.ModuleDict({"c_attn": nn.Linear(C, 3 * C), "c_proj": nn.Linear(C, C)})
        block["mlp"] = nn.ModuleDict({"c_fc": nn.Linear(C, 4 * C), "c_proj": nn.Linear(4 * C, C)})
        parts = {"wte": nn.Embedding(config.vocab_size, C), "wpe": nn.Embedding(config.block_size, C)}
        self.transformer = nn.ModuleDict(parts | {"h": nn.ModuleList([block]), "ln_f": norm(C)})
        self.lm_head = nn.Linear(C, config.vocab_size, bias=False)
        self.lm_head.weight = self.transformer.wte.weight

    def generate(self, tokens, new_tokens, top_k):
        return tokens
"""


def test_every_weight_arrives_in_its_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "model.py").write_text(STAND_IN, encoding="utf-8")
    model = GPT2(GPT2Config(50, 32, n_layer=1, n_head=2, n_embd=16, padded_vocab_size=64))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    peer = NanoGPTPeer(model, tmp_path)
    theirs, block = dict(peer.model.named_parameters()), model.blocks[0]
    assert len(theirs) == len(list(model.parameters()))
    for name, ours in {
        "transformer.wte.weight": model.token_embedding.weight,
        "transformer.wpe.weight": model.position_embedding.weight,
        "transformer.h.0.attn.c_attn.weight": block.get_parameter("attn.qkv.weight"),
        "transformer.h.0.attn.c_proj.weight": block.get_parameter("attn.proj.weight"),
        "transformer.h.0.mlp.c_fc.weight": block.get_parameter("mlp.up.weight"),
        "transformer.h.0.mlp.c_proj.bias": block.get_parameter("mlp.down.bias"),
        "transformer.h.0.ln_2.weight": block.get_parameter("norm2.weight"),
        "transformer.ln_f.bias": model.norm.bias,
    }.items():
        assert torch.equal(theirs[name], ours)
    assert peer.write(torch.tensor([[1, 2]]), 3).tolist() == [[1, 2]]
    assert capsys.readouterr().out == ""


def test_another_model_or_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nanoGPT is measured beside GPT-2 only, not beside Modern"):
        NanoGPTPeer(Modern(ModernConfig(50, 32, n_layer=1, n_head=2, n_embd=16)), tmp_path)
    with pytest.raises(UserError, match=r"is no checkout of karpathy/nanoGPT: model\.py is missing"):
        NanoGPTPeer(GPT2(GPT2Config(50, 32, n_layer=1, n_head=2, n_embd=16)), tmp_path)
