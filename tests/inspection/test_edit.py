"""An edited model computes what a model built with that change computes, and is as it was afterwards."""

from __future__ import annotations

import copy
from unittest import mock

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounter
from toy_models import DECODERS, B, C, H, T, build, state

import glassgpt as gg
from glassgpt.errors import UserError
from glassgpt.generation.engine import generate
from glassgpt.generation.sampling import SamplingConfig
from glassgpt.inspection.capture import capture, capture_names
from glassgpt.inspection.edit import edit
from glassgpt.models.gpt2 import GPT2

D = C // H


def test_a_head_that_is_off_has_no_weights_into_the_stream(model: GPT2, tokens: Tensor) -> None:
    without = copy.deepcopy(model)
    without.blocks[2].attn.proj.weight.data[:, 3 * D : 4 * D] = 0.0
    with edit(model, zero=["blocks.2.head.3"]):
        torch.testing.assert_close(model(tokens), without(tokens), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(model(tokens), without(tokens), atol=1e-3)


def test_a_neuron_that_is_off_has_no_weights_into_the_stream(model: GPT2, tokens: Tensor) -> None:
    without = copy.deepcopy(model)
    without.blocks[0].mlp.down.weight.data[:, 17] = 0.0
    with edit(model, zero=["blocks.0.neuron.17"]):
        torch.testing.assert_close(model(tokens), without(tokens))


@pytest.mark.parametrize(("name", "sublayer"), [("blocks.1.attn", "attn"), ("blocks.1.mlp", "mlp")])
def test_a_sublayer_that_is_off_adds_nothing(model: GPT2, tokens: Tensor, name: str, sublayer: str) -> None:
    without = copy.deepcopy(model)
    for parameter in getattr(without.blocks[1], sublayer).parameters():
        parameter.data.zero_()
    with edit(model, zero=[name]):
        torch.testing.assert_close(model(tokens), without(tokens))


@pytest.mark.parametrize("architecture", [name for name in DECODERS if build(name).blocks])
def test_a_block_that_is_off_is_not_there(architecture: str, tokens: Tensor) -> None:
    model = build(architecture)
    without = copy.deepcopy(model)
    del without.blocks[0]
    with edit(model, zero=["blocks.0"]):
        torch.testing.assert_close(model(tokens), without(tokens))


@pytest.mark.parametrize("architecture", DECODERS)
def test_every_activation_can_be_set_to_zero_and_seen_so(architecture: str, tokens: Tensor) -> None:
    model = build(architecture)
    plain, names = model(tokens), capture_names(model)
    for name in names:
        with edit(model, zero=[name]):
            logits, seen = capture(model, tokens, names)
            fused = model(tokens)
        assert not seen[name].any(), name
        assert not torch.allclose(logits, plain, atol=1e-4), name
        torch.testing.assert_close(logits, fused, atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(model(tokens), plain)


@pytest.mark.parametrize("architecture", DECODERS)
def test_an_activation_of_another_text_brings_its_logits(architecture: str, tokens: Tensor) -> None:
    """With the stream of another text at one depth, everything after it is as in that text."""
    model, other = build(architecture), tokens.flip(1)
    expected, seen = capture(model, other)
    for name in [name for name in seen if name.endswith(("embed", "resid", "final"))]:
        with edit(model, replace={name: seen[name]}):
            torch.testing.assert_close(model(tokens), expected, atol=1e-3, rtol=1e-3)  # without norms they are large


def test_the_stream_between_attention_and_mlp_changes_on_both_paths(model: GPT2, tokens: Tensor) -> None:
    _, seen = capture(model, tokens.flip(1), ["blocks.1.resid_mid", "blocks.1.resid"])
    with edit(model, replace={"blocks.1.resid_mid": seen["blocks.1.resid_mid"]}):
        _, edited = capture(model, tokens, ["blocks.1.resid"])
    torch.testing.assert_close(edited["blocks.1.resid"], seen["blocks.1.resid"])


def test_a_value_is_a_number_a_tensor_that_broadcasts_or_a_function(model: GPT2, tokens: Tensor) -> None:
    direction = torch.randn(C, generator=torch.Generator().manual_seed(3))
    _, plain = capture(model, tokens, ["blocks.1.resid"])
    for value, expected in (
        (2.0, torch.full((B, T, C), 2.0)),
        (direction, direction.expand(B, T, C)),
        (lambda stream: stream + direction, plain["blocks.1.resid"] + direction),
    ):
        with edit(model, replace={"blocks.1.resid": value}):
            torch.testing.assert_close(capture(model, tokens, ["blocks.1.resid"])[1]["blocks.1.resid"], expected)


def test_edits_nest(model: GPT2, tokens: Tensor) -> None:
    with edit(model, zero=["blocks.0.head.1", "blocks.0.head.2"]):
        together = model(tokens)
    with edit(model, zero=["blocks.0.head.1"]), edit(model, zero=["blocks.0.head.2"]):
        torch.testing.assert_close(model(tokens), together)


def test_an_edited_model_generates_with_a_cache_what_it_generates_without(model: GPT2) -> None:
    prompt = [1, 2, 3]
    with edit(model, zero=["blocks.1.head.0"], replace={"blocks.2.attn.k": lambda keys: 2 * keys}):
        cached = list(generate(model, prompt, SamplingConfig(0.0), max_new_tokens=6))
        for id in cached:
            assert id == int(model(torch.tensor([prompt]))[0, -1].argmax())
            prompt.append(id)


def test_the_model_is_afterwards_as_it_was_even_after_an_error(model: GPT2, tokens: Tensor) -> None:
    before, plain = state(model), model(tokens)
    with pytest.raises(KeyError), edit(model, zero=capture_names(model)):
        raise KeyError
    assert state(model) == before
    assert torch.equal(model(tokens), plain)
    assert "features" not in vars(model)


def test_nothing_is_paid_once_an_edit_is_left(model: GPT2, tokens: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    """No hook and no attribute is left, each layer runs the fused kernel, and code compiled before is used again."""
    compiled_code = CompileCounter()
    compiled = torch.compile(model, backend=compiled_code, fullgraph=True)
    compiled(tokens)
    assert compiled_code.frame_count == 1
    attributes = {name: set(vars(module)) for name, module in model.named_modules()}
    with edit(model, zero=[*capture_names(model), "blocks.0", "blocks.1.attn", "blocks.2.head.3", "blocks.2.mlp"]):
        model(tokens)
    for name, module in model.named_modules():
        assert set(vars(module)) == attributes[name]
        hooks = {kind: value for kind, value in vars(module).items() if "hook" in kind and kind != "hook"}
        assert len(hooks) > 5 and not any(hooks.values()), name
        assert getattr(module, "hook", None) is None
    compiled(tokens)
    assert compiled_code.frame_count == 1
    fused = mock.Mock(wraps=torch.nn.functional.scaled_dot_product_attention)
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", fused)
    model(tokens)
    assert [call.kwargs["is_causal"] for call in fused.call_args_list] == [True] * len(model.blocks)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("blocks.3", "there is no 'blocks.3': this model has 3 blocks, counted from 0"),
        ("blocks.0.head.4", "block 0 has 4 heads, counted from 0"),
        ("blocks.0.neuron.64", "block 0 has 64 neurons, counted from 0"),
        ("blocks.0.hed.H", "did you mean 'blocks.N.head.H'?"),
        ("blocks.1.mlp.hiden", "did you mean 'blocks.1.mlp.hidden'?"),
        (f"blocks.{'9' * 5000}", "nothing in this model has the name"),
    ],
)
def test_what_a_model_lacks_cannot_be_edited(model: GPT2, name: str, told: str) -> None:
    with pytest.raises(UserError) as error, edit(model, zero=[name]):
        pass
    assert told in str(error.value)


def test_a_section_without_mlp_has_no_neurons() -> None:
    with pytest.raises(UserError, match="a block of this model has no MLP"), edit(build("head"), zero=["blocks.0.mlp"]):
        pass


def test_values_that_do_not_fit(model: GPT2, tokens: Tensor) -> None:
    with pytest.raises(UserError, match="'embed' is edited twice"), edit(model, zero=["embed"], replace={"embed": 1.0}):
        pass
    for value, kind in ((torch.zeros(5), r"a tensor of shape \(5,\)"), (lambda x: None, "None"), ("high", "'high'")):
        told = rf"'embed' is {kind}, which does not fit its shape \(2, 9, 16\)"
        with pytest.raises(UserError, match=told), edit(model, replace={"embed": value}):
            model(tokens)


def test_it_is_public() -> None:
    assert gg.edit is edit
