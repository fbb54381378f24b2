"""Packed weights: the same model up to rounding, or a sentence where there is no kernel."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from glassgpt.errors import UserError
from glassgpt.generation import packed
from glassgpt.generation.engine import Request, generate_batch
from glassgpt.generation.packed import WEIGHTS, Float16Linear, Int8Linear, PackedLinear, lacks_kernel, pack
from glassgpt.generation.sampling import SamplingConfig
from glassgpt.models import Model
from glassgpt.models.context import KVCache
from glassgpt.models.gpt2 import GPT2, GPT2Config
from glassgpt.models.gpt3 import GPT3, GPT3Config
from glassgpt.models.ladder import LadderConfig
from glassgpt.models.ladder.s10_decoder import DecoderModel

CPU = torch.device("cpu")
TOLERANCE = {"float32": 1e-5, "float16": 3e-3, "bfloat16": 0.03, "int8": 0.06}  # of the largest logit
HERE = [
    pytest.param(name, marks=pytest.mark.skipif(lacks_kernel(name, CPU) is not None, reason="no kernel"))
    for name in WEIGHTS
]


def build(name: str) -> Model:
    torch.manual_seed(0)
    if name == "gpt2":
        return GPT2(GPT2Config(50, 32, n_layer=2, n_head=2, n_embd=32, padded_vocab_size=64)).eval()
    if name == "gpt3":
        return GPT3(GPT3Config(50, 32, n_layer=2, n_head=2, n_embd=32, band_width=4)).eval()
    return DecoderModel(LadderConfig(50, 32, n_layer=2, n_head=2, n_embd=32)).eval()  # its head is a layer of its own


@pytest.mark.parametrize("texts", [1, 16])
@pytest.mark.parametrize("weights", HERE)
@pytest.mark.parametrize("name", ["gpt2", "gpt3", "decoder"])
@torch.no_grad()
def test_logits_are_those_of_the_model_up_to_rounding(name: str, weights: str, texts: int) -> None:
    model = build(name)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    fast = pack(model, weights, rows=texts)
    for rows, length in ((1, 1), (3, 7), (20, 2)):
        tokens = torch.randint(50, (rows, length), generator=torch.Generator().manual_seed(1))
        expected = model(tokens)
        assert fast(tokens).shape == expected.shape
        error = (fast(tokens) - expected).abs().max() / expected.abs().max()
        assert error < TOLERANCE[weights]
    assert not any(type(module) is torch.nn.Linear for module in fast.modules())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert fast.token_embedding.weight is model.token_embedding.weight  # type: ignore[union-attr]


@pytest.mark.parametrize("weights", ["float32", "bfloat16", "int8"])
def test_a_packed_model_counts_its_weights(weights: str) -> None:
    if lacks_kernel(weights, CPU) is not None:
        pytest.skip("no kernel")
    kind = Int8Linear if weights == "int8" else PackedLinear
    fast = pack(build("gpt2"), weights)
    layers = [module for module in fast.modules() if isinstance(module, kind)]
    assert len(layers) == 4 * 2 + 1
    assert sum(layer.weight.numel() for layer in layers) == 2 * 12 * 32 * 32 + 50 * 32


NO_FBGEMM = pytest.mark.skipif(lacks_kernel("float16", CPU) is not None, reason="no kernel")


@NO_FBGEMM
@pytest.mark.parametrize(("weights", "size"), [("float32", 4), ("float16", 2)])
def test_float16_weights_are_counted_in_bytes(weights: str, size: int) -> None:
    fast = pack(build("gpt2"), weights, rows=1)
    layers = [module for module in fast.modules() if isinstance(module, Float16Linear)]
    biases = 2 * (3 + 1 + 4 + 1) * 32
    assert len(layers) == 4 * 2 + 1
    assert sum(layer.packed_bytes for layer in layers) == size * (2 * 12 * 32 * 32 + 50 * 32) + 4 * biases


@NO_FBGEMM
@given(st.integers(0, 2**32 - 1), st.integers(-12, 14))
def test_two_float16_numbers_have_22_bits_of_a_weight(seed: int, power: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight = (torch.rand(24, 32, generator=generator) - 0.5) * 2.0**power
    bias = torch.randn(24, generator=generator)
    found = Float16Linear(weight, bias, halves=True)(torch.eye(32))  # a column of the weight each
    exact = weight.t().double() + bias.double()
    allowed = weight.t().abs() * 2.0**-21 + exact.abs() * 2.0**-22  # of the weight, and of the last sum
    assert bool(((found - exact).abs() <= allowed.clamp(min=2.0**-35)).all())
    rounded = Float16Linear(weight, None)(torch.eye(32)).t()
    assert torch.equal(rounded, weight.half().float())


@NO_FBGEMM
def test_weights_beyond_float16_stay_float32() -> None:
    model = build("gpt2")
    with torch.no_grad():
        model.get_parameter("blocks.1.mlp.up.weight")[3, 4] = 1e5
    with pytest.raises(UserError, match="a weight is above 65,504, the largest float16 number: use float32"):
        pack(model, "float16")
    assert not any(isinstance(module, Float16Linear) for module in pack(model, rows=1).modules())


@pytest.mark.skipif(lacks_kernel("float32", CPU) is not None, reason="no kernel")
@pytest.mark.parametrize("name", ["gpt2", "gpt3", "decoder"])
@pytest.mark.parametrize("texts", [1, 3])
def test_packed_float32_writes_the_same_text(name: str, texts: int) -> None:
    model = build(name)
    requests = [Request([1, 2, n], SamplingConfig(0.0), 40) for n in range(3)]
    fast = pack(model, rows=texts)
    assert [one.ids for one in generate_batch(fast, requests, slots=texts)] == [
        one.ids for one in generate_batch(model, requests)
    ]


@pytest.mark.parametrize("texts", [1, 16])
@pytest.mark.parametrize("weights", HERE)
@torch.no_grad()
def test_cached_logits_of_packed_weights_equal_those_of_one_pass(weights: str, texts: int) -> None:
    fast, tokens = pack(build("gpt2"), weights, rows=texts), torch.arange(12)[None]
    cache = KVCache(32)
    cached = torch.cat([fast(tokens[:, t : t + 1], context=cache) for t in range(12)], dim=1)
    whole = fast(tokens)
    assert (cached - whole).abs().max() / whole.abs().max() < TOLERANCE[weights]


@pytest.mark.skipif(lacks_kernel("int8", CPU) is not None, reason="no kernel")
def test_int8_products_are_those_of_the_rounded_numbers() -> None:
    generator = torch.Generator().manual_seed(0)
    weight, bias, x = (torch.randn(*shape, generator=generator) for shape in ((24, 32), (24,), (5, 32)))
    x[0] = 0.0
    q, rows = [(values / (values.abs().amax(1, keepdim=True).clamp(min=1e-30) / 127)).round() for values in (weight, x)]
    scale = [values.abs().amax(1, keepdim=True).double() / 127 for values in (weight, x)]
    expected = (rows.double() @ q.double().t()) * scale[1] * scale[0].t() + bias
    torch.testing.assert_close(Int8Linear(weight, bias)(x), expected.float(), rtol=1e-5, atol=1e-5)


class SoftCapped(GPT2):
    def head(self, features: Tensor) -> Tensor:
        return 3.0 * torch.tanh(super().head(features) / 3.0)


@torch.no_grad()
def test_a_head_that_is_more_than_a_product_stays() -> None:
    torch.manual_seed(0)
    model = SoftCapped(GPT2Config(50, 32, n_layer=1, n_head=2, n_embd=32)).eval()
    model.token_embedding.weight *= 100
    torch.testing.assert_close(pack(model)(torch.tensor([[1, 2]])), model(torch.tensor([[1, 2]])), rtol=1e-4, atol=1e-4)


def test_where_there_is_no_kernel_a_sentence_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build("gpt2")
    with pytest.raises(UserError, match="unknown weights 'int4'"):
        pack(model, "int4")
    monkeypatch.setattr(packed, "cpu_has_bfloat16", lambda: False)
    monkeypatch.setattr(packed, "_cpu_has_int8", lambda: False)
    with pytest.raises(UserError, match=r"this processor has no products of int8 .*: use float32 weights"):
        pack(model, "int8")
    with pytest.raises(UserError, match=r"this processor has no products of bfloat16 .*: use float32 weights"):
        pack(model, "bfloat16")
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    with pytest.raises(UserError, match="no oneDNN"):
        pack(model)
    monkeypatch.setattr(packed, "_has_fbgemm", lambda: False)
    with pytest.raises(UserError, match=r"no FBGEMM, or this processor no AVX2: use float32 weights"):
        pack(model, "float16")
    assert lacks_kernel("int8", torch.device("meta")) == (
        "int8 weights for generation are packed for a CPU, and the model is on meta"
    )
