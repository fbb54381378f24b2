"""GPT-oss beside `transformers`: the same logits and gradients, both ways bit for bit, also from MXFP4 files.

Weights are so large that gates and ups reach their limits, and so different that a mistake in any tensor shows.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import glassgpt as gg
from glassgpt.costs.flops import count_parameters
from glassgpt.errors import UserError
from glassgpt.interop.huggingface import names_in, read_config
from glassgpt.interop.huggingface_export import write_hf_folder
from glassgpt.interop.layouts import layout_of
from glassgpt.models import Model, build_model
from glassgpt.models.attention import Attention
from glassgpt.models.context import KVCache
from glassgpt.models.gpt_oss import LIMIT, Experts
from glassgpt.tokenizers.bpe import BPETokenizer

transformers = pytest.importorskip("transformers")

TEXT = "The quick brown fox jumps over the lazy dog.\nSphinx of black quartz, judge my vow!\n" * 3
TOKENIZER = BPETokenizer.train(TEXT, 300, ["<|endoftext|>"])
V = TOKENIZER.vocab_size
YARN = {"rope_type": "yarn", "factor": 8.0, "beta_fast": 4.0, "beta_slow": 1.0, "truncate": False,
        "original_max_position_embeddings": 64, "rope_theta": 100.0}  # fmt: skip
SIZES = {"vocab_size": V, "hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2,
         "head_dim": 16, "intermediate_size": 32, "max_position_embeddings": 48, "num_local_experts": 6,
         "num_experts_per_tok": 2, "sliding_window": 5, "rope_parameters": YARN}  # fmt: skip
CASES: dict[str, dict[str, Any]] = {
    "yarn": {},
    "yarn-32": {"rope_parameters": None, "num_key_value_heads": 1, "num_experts_per_tok": 4},
    "plain-rope": {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}, "sliding_window": 1},
    "all-experts": {"num_local_experts": 3, "num_experts_per_tok": 3, "num_key_value_heads": 4, "head_dim": 6},
    "one-expert": {"num_experts_per_tok": 1, "sliding_window": 100},
}


def build(**fields: Any) -> Any:
    """A small model of transformers whose every tensor matters."""
    torch.manual_seed(0)
    config = transformers.GptOssConfig(**{**SIZES, **fields}, attn_implementation="eager")
    theirs = transformers.GptOssForCausalLM(config).eval()
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            gain = "norm" in name and name.endswith("weight")
            wide = "gate_up" in name or "sinks" in name
            parameter.normal_(mean=1.0 if gain else 0.0, std=0.8 if wide else 0.2)
    return theirs


@pytest.fixture(params=CASES)
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Any, Model]:
    """Their model, and ours from its files."""
    theirs = build(**CASES[request.param])
    theirs.save_pretrained(tmp_path)
    return theirs, gg.load_hf(tmp_path).eval()


def some_tokens(B: int, T: int) -> Tensor:
    return torch.randint(V, (B, T), generator=torch.Generator().manual_seed(2))


def relative(found: Tensor, expected: Tensor) -> float:
    return ((found - expected).abs().max() / expected.abs().max()).item()


def paired_gradients(theirs: Any, ours: Model) -> dict[str, tuple[Tensor, Tensor]]:
    """Our gradient and theirs of every parameter of ours, after a loss of the logits."""
    tokens = some_tokens(3, 48)
    for logits in (ours(tokens), theirs(tokens).logits):
        logits.square().mean().backward()
    names = names_in(dict(theirs.named_parameters()), layout_of(ours), ours.config)
    return {name: (p.grad, theirs.get_parameter(names[name][0]).grad) for name, p in ours.named_parameters()}


def test_logits_and_gradients_of_every_tensor_are_the_same(pair: tuple[Any, Model]) -> None:
    theirs, ours = pair
    tokens = some_tokens(3, 48)
    worst = relative(ours(tokens), theirs(tokens).logits)
    assert worst < 1e-5
    assert count_parameters(ours) == count_parameters(theirs)
    gradients = paired_gradients(theirs, ours)
    distances = {name: relative(mine, other) for name, (mine, other) in gradients.items() if other.abs().max() > 0}
    assert len(distances) == len(gradients) or ours.config.n_active == 1  # one weight of 1 does not move the router
    print(f"logits {worst:.1e}, gradients {max(distances.values()):.1e}")
    assert max(distances.values()) < 1e-4, distances
