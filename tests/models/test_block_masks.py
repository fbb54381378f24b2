"""FlexAttention with block masks equals the dense masks; where it cannot run, the dense ones take its place.

Its kernels are for GPUs. On a CPU torch computes the same function step by step, the gradient too if its check of the
device is taken away. The compiler's front end is the same on both.
"""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch._dynamo
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.nn.attention import flex_attention as flex

from glassgpt.models import block_masks
from glassgpt.models.attention import Attention
from glassgpt.models.block_masks import BlockMasks
from glassgpt.models.context import Documents
from glassgpt.models.gpt2 import GPT2, GPT2Config
from glassgpt.models.gpt3 import GPT3, GPT3Config
from glassgpt.runs.pretraining import Pretraining
from glassgpt.runtime.device import Runtime
from glassgpt.training.losses import Batch, BuildContext, next_token_loss

SEPARATOR, BLOCK, BAND = 0, 24, 5
SIZES: dict[str, Any] = {"vocab_size": 11, "block_size": BLOCK, "n_layer": 2, "n_head": 2, "n_embd": 32}
CASES = [("gpt2", SEPARATOR), ("gpt3", SEPARATOR), ("gpt3", None)]
pytestmark = pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")


@pytest.fixture
def with_backward(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets FlexAttention compute gradients on a CPU."""
    monkeypatch.setattr(flex, "_validate_device", lambda *_: None)


def build(name: str) -> GPT2 | GPT3:
    torch.manual_seed(0)
    model = GPT2(GPT2Config(**SIZES)) if name == "gpt2" else GPT3(GPT3Config(**SIZES, band_width=BAND))
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model


@pytest.mark.parametrize(("window", "built"), [(None, 1), (BAND, 2)])
def test_no_mask_is_built_twice(window: int | None, built: int, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[object] = []
    monkeypatch.setattr(block_masks, "create_block_mask", lambda *args, **_: calls.append(args))
    BlockMasks(some_tokens(), SEPARATOR, window)
    assert len(calls) == built


def some_tokens(B: int = 3, T: int = BLOCK, seed: int = 1) -> Tensor:
    """About three documents a row."""
    draw = torch.Generator().manual_seed(seed)
    return torch.randint(1, 11, (B, T), generator=draw).masked_fill(torch.rand(B, T, generator=draw) < 0.12, SEPARATOR)


def window_of(name: str) -> int | None:
    return BAND if name == "gpt3" else None


def dense(name: str, eot_id: int | None) -> BuildContext | None:
    return None if eot_id is None else partial(Documents, eot_id=eot_id, window=window_of(name))


def blocks(name: str, eot_id: int | None) -> BuildContext:
    return partial(BlockMasks, eot_id=eot_id, window=window_of(name))


@torch.no_grad()
@given(st.integers(1, 3), st.integers(1, 30), st.sampled_from([None, 1, 4, 40]), st.booleans(), st.integers(1, 2))
@settings(max_examples=8, deadline=None)
def test_attention_is_that_of_the_dense_mask(B: int, T: int, window: int | None, packed: bool, groups: int) -> None:
    draw = torch.Generator().manual_seed(T)
    q, k, v = (torch.randn(B, heads, T, 16, generator=draw) for heads in (2 * groups, 2, 2))
    tokens = some_tokens(B, T)
    context = BlockMasks(tokens, SEPARATOR if packed else None, window)
    mask = context.append(0, k, v, window=window)[2]
    starts = tokens == SEPARATOR if packed else torch.zeros_like(tokens, dtype=torch.bool)
    exact = Documents.from_starts(starts).append(0, k, v, window=window)[2]
    torch.testing.assert_close(Attention()(q, k, v, mask), Attention()(q, k, v, exact), atol=1e-5, rtol=1e-5)


@pytest.mark.usefixtures("with_backward")
@pytest.mark.parametrize(
    ("name", "eot_id", "compiled"), [(*case, False) for case in CASES] + [("gpt3", SEPARATOR, True)]
)
def test_loss_and_gradients_are_those_of_the_dense_mask(name: str, eot_id: int | None, compiled: bool) -> None:
    """Compiled, one graph serves all batches, whatever their documents."""
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    expected, found = build(name), build(name)
    called: Any = torch.compile(found, backend=counter, fullgraph=True) if compiled else found
    for seed in (1, 2):
        tokens = some_tokens(T=BLOCK + 1, seed=seed)
        batch = Batch(tokens[:, :-1], tokens[:, 1:])
        exact = next_token_loss(expected, batch, build_context=dense(name, eot_id)).sum
        loss = next_token_loss(called, batch, build_context=blocks(name, eot_id)).sum
        torch.testing.assert_close(loss, exact, rtol=1e-5, atol=1e-4)
        exact.backward()
        loss.backward()
    for ours, theirs in zip(found.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-4, rtol=1e-4)
    assert counter.frame_count == compiled


def test_a_hook_sees_the_exact_pattern_and_dropout_has_its_way() -> None:
    tokens = some_tokens()
    q, k, v = torch.randn(3, 3, 2, BLOCK, 16, generator=torch.Generator().manual_seed(0))
    mask = BlockMasks(tokens, SEPARATOR, BAND).append(0, k, v, window=BAND)[2]
    exact = Documents(tokens, SEPARATOR, BAND).append(0, k, v, window=BAND)[2]
    outs, patterns = [], []
    for given_mask in (mask, exact):
        attention, seen = Attention(dropout=0.5).train(), {}
        torch.manual_seed(3)
        outs.append(attention(q, k, v, given_mask))
        attention.eval().hook = seen.__setitem__
        attention(q, k, v, given_mask)
        patterns.append(seen["pattern"])
    assert torch.equal(*outs)
    assert torch.equal(*patterns)
    assert torch.equal(patterns[0] > 0, exact.expand_as(patterns[0]))


def test_masks_are_made_once_for_all_layers() -> None:
    tokens = some_tokens()
    for context in (BlockMasks(tokens, SEPARATOR, BAND), Documents(tokens, SEPARATOR, BAND)):
        for window in (None, BAND):
            masks = [context.append(layer, *torch.zeros(2, 3, 2, BLOCK, 16), window=window)[2] for layer in (0, 1)]
            assert masks[0] is masks[1]
    assert BlockMasks(tokens, None, BAND)._masks[BAND] is BlockMasks(some_tokens(seed=2), None, BAND)._masks[BAND]
    assert torch.equal(
        BlockMasks(tokens, SEPARATOR, None).positions(BLOCK, tokens.device),
        Documents(tokens, SEPARATOR).positions(BLOCK, tokens.device),
    )


GPU = Runtime(torch.device("cuda"), "bfloat16", compile=True)


@pytest.mark.parametrize(
    ("runtime", "changes", "eot_id", "chosen"),
    [
        (GPU, {}, SEPARATOR, BlockMasks),
        (GPU, {"band_width": 5}, None, BlockMasks),
        (GPU, {}, None, None),  # causality needs no mask
        (GPU, {"band_width": BLOCK}, None, None),
        (GPU, {"dropout": 0.1}, SEPARATOR, Documents),
        (GPU, {"n_head": 4}, SEPARATOR, Documents),  # heads of 8
        (Runtime(torch.device("cuda"), "bfloat16"), {}, SEPARATOR, Documents),
        (Runtime(torch.device("cuda"), "bfloat16", compile=True, parallel="ddp"), {}, SEPARATOR, Documents),
        (Runtime(torch.device("cuda"), "bfloat16", compile=True, parallel="fsdp"), {}, SEPARATOR, BlockMasks),
        (
            Runtime(torch.device("cuda"), "bfloat16", compile=True, activation_checkpointing=True),
            {}, SEPARATOR, Documents,
        ),
        (Runtime(torch.device("cpu"), "float32", compile=True), {}, SEPARATOR, Documents),
        (Runtime(torch.device("cpu"), "float32", compile=True), {"band_width": 5}, None, None),
    ],
)  # fmt: skip
def test_training_takes_block_masks_on_a_compiled_gpu_alone(
    runtime: Runtime, changes: dict[str, Any], eot_id: int | None, chosen: type | None
) -> None:
    sizes = GPT3Config(**SIZES | changes) if "band_width" in changes else GPT2Config(**SIZES | changes)
    stage: Any = SimpleNamespace(_runtime=runtime, _config=SimpleNamespace(model=sizes), _eot_id=eot_id)
    build_context = Pretraining._choose_context(stage)
    assert (None if build_context is None else build_context.func) is chosen
