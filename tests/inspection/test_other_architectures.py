"""An architecture that lacks what an instrument needs gets a sentence, and no wrong number."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from toy_models import C, T, V

from glassgpt.errors import UserError
from glassgpt.inspection.ablation import head_effects
from glassgpt.inspection.attribution import attribute
from glassgpt.inspection.capture import capture, capture_names
from glassgpt.inspection.edit import edit
from glassgpt.inspection.lens import logit_lens
from glassgpt.inspection.neurons import exciting_texts, neuron_summary
from glassgpt.inspection.trace import trace
from glassgpt.inspection.weights import singular_values
from glassgpt.models.gpt2 import GPT2
from glassgpt.models.llama import Llama, LlamaConfig

IDS = torch.randint(V, (T,), generator=torch.Generator().manual_seed(1)).tolist()


class OtherBlock(nn.Module):
    """A block whose second norm has another name."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.norm1, self.attn, self.norm_of_mlp, self.mlp = block.norm1, block.attn, block.norm2, block.mlp

    def forward(self, x: Tensor, context: None = None) -> Tensor:
        x = x + self.attn(self.norm1(x), context)
        return x + self.mlp(self.norm_of_mlp(x))


@pytest.mark.parametrize("eps", [None, 0.1])
@pytest.mark.parametrize("weighted", [True, False])
def test_attribution_through_an_rmsnorm(model: GPT2, eps: float | None, weighted: bool) -> None:
    model.norm = nn.RMSNorm(C, eps=eps, elementwise_affine=weighted)
    if weighted:
        nn.init.normal_(model.norm.weight)
    found = attribute(trace(model, IDS), 5, 2, against=7)
    logits = model(torch.tensor([IDS]))[0, 5].detach()
    assert sum(value for _, value in found.parts) == pytest.approx(float(logits[2] - logits[7]), abs=1e-4)
    assert "norm.bias" not in dict(found.parts)


def test_another_final_norm_is_named(model: GPT2) -> None:
    model.norm = nn.Sequential(nn.LayerNorm(C))
    with pytest.raises(UserError, match=r"through a Sequential is not known: .* a LayerNorm or an RMSNorm"):
        attribute(trace(model, IDS), 5, 2)
    assert logit_lens(trace(model, IDS)).ids.shape == (4, T, 5)  # which only applies it


def test_a_final_norm_of_another_name_is_no_identity(model: GPT2) -> None:
    last = model.norm
    del model.norm
    model.__dict__["norm"] = lambda x: last(x)  # what `features` calls, and no module of that name
    seen = trace(model, IDS)
    for instrument in (lambda: logit_lens(seen), lambda: attribute(seen, 5, 2)):
        with pytest.raises(UserError, match="between its last block and its head is not a module `norm`"):
            instrument()


def test_heads_that_cannot_be_told_apart(model: GPT2) -> None:
    whole, tokens = model.blocks[1].attn, torch.tensor([IDS])
    expected = model(tokens)
    whole.proj = nn.Sequential(whole.proj)
    assert "blocks.1.attn.result" not in capture_names(model)
    assert "blocks.1.attn.pattern" in capture_names(model)
    torch.testing.assert_close(capture(model, tokens)[0], expected)
    with pytest.raises(UserError, match=r"'blocks.1.head.0' cannot be told .* lacks a linear layer `proj`"):
        head_effects(model, IDS)
    with pytest.raises(UserError, match="the attention of block 1 has no linear layer `proj`"):
        attribute(trace(model, IDS), 5, 2)
    with pytest.raises(UserError, match="known only where attention has linear layers `q`, `k` and `v`, or one `qkv`"):
        singular_values(model, 1, 0)


def test_grouped_keys_have_no_weights_of_single_heads(model: GPT2) -> None:
    model.blocks[0].attn.qkv = nn.Linear(C, 2 * C)
    with pytest.raises(UserError, match="as many keys and values as queries"):
        singular_values(model, 0, 0)


def test_a_head_that_shares_its_keys_has_the_weights_of_both() -> None:
    model = Llama(LlamaConfig(V, 12, 1, 4, C, n_kv_head=2, head_size=6)).double()
    found = singular_values(model, 0, 3)
    attn = model.blocks[0].attn
    q, k = attn.get_parameter("q.weight")[18:24], attn.get_parameter("k.weight")[6:12]  # head 3, and the second pair
    v, proj = attn.get_parameter("v.weight")[6:12], attn.get_parameter("proj.weight")[:, 18:24]
    for values, product in ((found.qk, q.T @ k), (found.ov, proj @ v)):
        torch.testing.assert_close(values, torch.linalg.svdvals(product.detach())[:6].float(), rtol=1e-4, atol=1e-6)


def test_neurons_without_a_layer_that_reads_them(model: GPT2) -> None:
    mlp = model.blocks[0].mlp
    mlp.down = nn.Sequential(mlp.down)
    names = capture_names(model)
    assert "blocks.0.mlp.hidden" not in names
    assert {"blocks.0.mlp.out", "blocks.1.mlp.hidden"} <= set(names)
    with (
        pytest.raises(UserError, match=r"'blocks.0.neuron.3' cannot be told .* lacks a linear layer `down`"),
        edit(model, zero=["blocks.0.neuron.3"]),
    ):
        pass
    assert neuron_summary(model, [IDS]).layers == (1, 2)
    with pytest.raises(UserError, match=r"MLP of block 0 has no linear layer `down`"):
        exciting_texts(model, IDS, 0, 3)
    for block in model.blocks[1:]:
        block.mlp.down = nn.Sequential(block.mlp.down)
    with pytest.raises(UserError, match="the MLPs of this model have no linear layer `down`"):
        neuron_summary(model, [IDS])


def test_a_second_norm_of_another_name_hides_the_stream_before_it(model: GPT2) -> None:
    expected = capture(model, torch.tensor([IDS]))[1]
    model.blocks[1] = OtherBlock(model.blocks[1])
    found = capture(model, torch.tensor([IDS]))[1]
    assert expected.keys() - found.keys() == {"blocks.1.resid_mid"}  # and not the input of the MLP in its place
    for name, value in found.items():
        torch.testing.assert_close(value, expected[name])
