"""The norms of the residual stream are those of the hidden states of `transformers`."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from toy_models import DECODERS, T, V, build

from glassgpt.errors import UserError
from glassgpt.inspection.capture import capture
from glassgpt.inspection.norms import residual_norms
from glassgpt.interop.huggingface import load_hf


def test_they_are_those_of_the_hidden_states_of_transformers(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.GPT2Config(vocab_size=V, n_positions=T, n_layer=3, n_head=4, n_embd=16)
    theirs = transformers.GPT2LMHeadModel(config).eval()
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=0.3)
    theirs.save_pretrained(tmp_path)
    tokens = torch.randint(V, (1, T))
    last: list[Tensor] = []  # the hidden state after the last block, which transformers shows only normalised
    theirs.transformer.ln_f.register_forward_pre_hook(lambda _, inputs: last.append(inputs[0]))
    with torch.no_grad():
        states = theirs(tokens, output_hidden_states=True).hidden_states
    expected = torch.stack([state[0].norm(dim=-1) for state in (*states[:-1], *last)])
    _, activations = capture(load_hf(tmp_path), tokens)
    torch.testing.assert_close(residual_norms(activations), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("architecture", [name for name in DECODERS if hasattr(build(name), "token_embedding")])
def test_the_first_row_is_the_embedding(architecture: str) -> None:
    model, tokens = build(architecture), torch.tensor([[3, 1, 4, 1, 5]])
    _, activations = capture(model, tokens)
    if "embed" not in activations:
        with pytest.raises(UserError, match="there is no residual stream to measure"):
            residual_norms(activations)
        return
    if architecture == "modern":
        embedded = model.embed(tokens, torch.arange(5), None)[0]
    elif architecture == "bert":
        rows = model.token_embedding.weight[tokens[0]] + model.segment_embedding.weight[0]
        embedded = model.norm_embedding(rows + model.position_embedding.weight[:5])
    else:
        embedded = model.token_embedding.weight[tokens[0]]
        embedded = embedded + model.position_embedding.weight[:5] if hasattr(model, "position_embedding") else embedded
    norms = residual_norms(activations)
    assert norms.shape == (1 + max(1, len(model.blocks)), 5)
    assert norms[0].tolist() == pytest.approx([sum(x * x for x in row) ** 0.5 for row in embedded.tolist()], rel=1e-5)


def test_a_stream_with_a_hole_is_refused() -> None:
    _, activations = capture(build("gpt2"), torch.tensor([[3, 1]]), ["embed", "blocks.0.resid", "blocks.2.resid"])
    with pytest.raises(UserError, match=r"capture 'embed' and every 'blocks\.N\.resid' of a model with blocks"):
        residual_norms(activations)
