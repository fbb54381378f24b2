"""The memory of a step: autograd's own account against sums by hand, and against every tensor of a real step."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from live_bytes import LiveBytes

from glassgpt.costs.hardware import KNOWN, find_hardware, resident_bytes
from glassgpt.costs.memory import (
    LOSS,
    GatheredBytes,
    StepMemory,
    count_parameters_by_part,
    estimate_step_memory,
    is_tied,
    largest_micro_batch,
    part_of,
)
from glassgpt.costs.speed import measure_tokens_per_second
from glassgpt.costs.typical import loss_function, random_batch
from glassgpt.errors import UserError
from glassgpt.models import ARCHITECTURES, build_model
from glassgpt.models.gpt2 import GPT2Config
from glassgpt.runtime.device import Runtime
from glassgpt.training.fit import train_step
from glassgpt.training.losses import next_token_loss
from glassgpt.training.optimizers import OptimizerConfig, build_optimizer

CONFIG = GPT2Config(vocab_size=128, block_size=64, n_layer=3, n_head=4, n_embd=32)
CPU = Runtime(torch.device("cpu"), "float32")


def estimate(config: Any = CONFIG, architecture: str = "gpt2", **options: Any) -> StepMemory:
    return estimate_step_memory(architecture, config, OptimizerConfig(), **{"precision": "float32"} | options)


def test_the_weights_by_hand() -> None:
    """12·C² + 13·C per block; a second number of each for the gradient, two and a step count for AdamW."""
    C, L, V, T = CONFIG.n_embd, CONFIG.n_layer, CONFIG.vocab_size, CONFIG.block_size
    n_parameters = L * (12 * C**2 + 13 * C) + (V + T) * C + 2 * C
    memory = estimate()
    n_tensors = 12 * L + 4
    assert memory.weights == memory.gradients == 4 * n_parameters
    assert memory.optimizer == 8 * n_parameters + 4 * n_tensors
    assert memory.table_gradient == 4 * V * C


@pytest.mark.parametrize(
    ("precision", "norms", "attention", "mlp"),
    [
        ("float32", 8, 4 + 12 + 4, 4 + 16 + 16 + 16),  # input, q k v, out; input, before and after GELU, its slope
        ("bfloat16", 8, 2 + 6 + 2, 2 + 8 + 8),  # the residual stream stays in float32, the products' inputs do not
        ("float16", 8, 2 + 6 + 2, 2 + 8 + 8),
    ],
)
def test_the_activations_of_a_layer_by_hand(precision: str, norms: int, attention: int, mlp: int) -> None:
    """Bytes per B·T·C and layer; the final norm, row statistics and ids come on top."""
    B, T, C, L, H = 1, CONFIG.block_size, CONFIG.n_embd, CONFIG.n_layer, CONFIG.n_head
    kept = estimate(precision=precision).activations
    assert kept["norms"] == (2 * L + 1) * (norms // 2 * B * T * C + 8 * B * T)
    assert kept["attention"] == L * (attention * B * T * C + 4 * B * H * T)  # no pattern: one number a row instead
    assert kept["MLP"] == L * mlp * B * T * C


def test_logits_take_three_float32_numbers_each() -> None:
    B, T, C, V = 1, CONFIG.block_size, CONFIG.n_embd, CONFIG.vocab_size
    assert estimate().loss == 12 * B * T * V + 4 * B * T * C + 8 * B * T  # and the head's input, and the targets


def test_autocast_keeps_a_copy_of_the_matrices() -> None:
    assert estimate().low_precision_weights < 1000  # the positions' indices, whatever the rows
    matrices = CONFIG.n_layer * 12 * CONFIG.n_embd**2 + CONFIG.vocab_size * CONFIG.n_embd
    copies = estimate(precision="bfloat16").low_precision_weights
    assert copies == pytest.approx(2 * matrices, rel=0.02)


def test_a_gpu_drops_out_without_the_pattern() -> None:
    dropping = GPT2Config(vocab_size=128, block_size=64, n_layer=1, n_head=4, n_embd=32, dropout=0.1)
    pattern = 4 * CONFIG.n_head * CONFIG.block_size**2
    on_cpu, on_gpu = (estimate(dropping, device_type=kind).activations["attention"] for kind in ("cpu", "cuda"))
    assert on_cpu - on_gpu >= pattern


@pytest.mark.parametrize("architecture", ["gpt2", "decoder", "multihead", "bert", "transformer", "t5"])
@pytest.mark.parametrize("passes", [1, 2])
def test_a_real_step_takes_what_is_predicted(architecture: str, passes: int) -> None:
    """Every tensor of two steps is followed from its birth to its end: the peak of their bytes is the estimate."""
    sizes = {"vocab_size": 300, "block_size": 64, "n_layer": 4, "n_head": 4, "n_embd": 64}
    config = ARCHITECTURES[architecture].config(**sizes)
    with LiveBytes() as bytes_:
        torch.manual_seed(0)
        model = ARCHITECTURES[architecture].model(config)
        optimizer = build_optimizer(model, OptimizerConfig())
        for step in range(2):
            batches = [random_batch(model, 4, CPU.device) for _ in range(passes)]
            train_step(
                CPU.wrap(model, loss_function(model)), optimizer, CPU.build_scaler(), batches, CPU,
                grad_clip=1.0, seed=0, step=step, expected_weight=sum(batch.n_tokens for batch in batches),
            )  # fmt: skip
    predicted = estimate(config, architecture).peak(4, accumulates=passes > 1)
    assert predicted == pytest.approx(bytes_.peak, rel=0.05)


@pytest.mark.parametrize(
    "options",
    [{"activation_checkpointing": True}, {"loss_chunk": 64}, {"activation_checkpointing": True, "loss_chunk": 64}],
)
def test_what_saves_memory_is_predicted_too(options: dict[str, Any]) -> None:
    config = GPT2Config(vocab_size=2000, block_size=64, n_layer=6, n_head=4, n_embd=64)
    runtime = replace(CPU, activation_checkpointing="activation_checkpointing" in options)
    chunk = options.get("loss_chunk", 0)
    with LiveBytes() as bytes_:
        torch.manual_seed(0)
        model = build_model("gpt2", config)
        parallel = runtime.wrap(model, partial(next_token_loss, chunk=chunk), in_parts=chunk > 0)
        optimizer = build_optimizer(model, OptimizerConfig())
        for step in range(2):
            batches = [random_batch(model, 8, CPU.device)]
            train_step(
                parallel, optimizer, CPU.build_scaler(), batches, runtime,
                grad_clip=1.0, seed=0, step=step, expected_weight=8 * config.block_size,
            )  # fmt: skip
    predicted = estimate(config, **options).peak(8, accumulates=False)
    assert predicted == pytest.approx(bytes_.peak, rel=0.1)
    assert predicted < estimate(config).peak(8, accumulates=False)


def test_the_peak_is_at_the_beginning_or_at_the_end_of_the_backward_pass() -> None:
    memory = StepMemory(
        weights=10, gradients=10, optimizer=20, low_precision_weights=0, activations={"MLP": 3}, loss=2,
        table_gradient=1, floor=100,
    )  # fmt: skip
    assert memory.peak(1, accumulates=False) == 100 + 10 + 20 + 10 + 1  # all gradients, nothing else
    assert memory.peak(4, accumulates=False) == 100 + 10 + 20 + 4 * (3 + 2)
    assert memory.peak(4, accumulates=True) == 100 + 10 + 20 + 10 + 4 * (3 + 2)
    assert memory.at_peak(4, accumulates=True)[LOSS] == 8


def test_weights_gradients_and_optimizer_are_divided_by_the_ranks() -> None:
    """With mixed precision and Adam, ZeRO-3 has 16 bytes a parameter divided by the ranks (Rajbhandari 2020, fig. 1).

    Here too: 4 for the weights, 4 for the gradients and 8 for the moments, and nothing else in 16 bits but what is
    gathered.
    """
    whole, config = estimate(), replace(CONFIG, n_embd=64, vocab_size=1024)
    for ranks in (2, 8, 64):
        part = estimate(config, precision="bfloat16", device_type="cuda", parallel="fsdp", ranks=ranks)
        all_ = estimate(config, precision="bfloat16", device_type="cuda")
        n_parameters = all_.weights / 4
        assert part.weights + part.gradients + part.optimizer == pytest.approx(16 * n_parameters / ranks, rel=0.01)
        assert part.gathered is not None and part.low_precision_weights == 0
        assert part.activations == all_.activations
    copied = estimate(parallel="ddp", ranks=64)
    assert (copied.weights, copied.gradients, copied.optimizer) == (whole.weights, whole.gradients, whole.optimizer)


def test_a_tensor_that_ranks_cannot_divide_evenly_counts_by_its_largest_part() -> None:
    """A vocabulary of 5 rows on 4 ranks: the first has 2."""
    tiny = GPT2Config(vocab_size=5, block_size=4, n_layer=1, n_head=1, n_embd=4)
    two, one = (estimate(replace(tiny, vocab_size=n), parallel="fsdp", ranks=4).weights for n in (5, 4))
    assert two - one == 4 * tiny.n_embd


def test_the_peak_with_fsdp_by_hand() -> None:
    """Parts at the four moments; the largest one counts."""
    gathered = GatheredBytes(root=100, block=1000, table=10, exchanged_block=2000, exchanged_root=200)
    memory = StepMemory(
        weights=1, gradients=1, optimizer=2, low_precision_weights=0, activations={"MLP": 30}, loss=20,
        table_gradient=7, gathered=gathered,
    )  # fmt: skip
    assert memory.peak(1, accumulates=False) == 3 + 30 + (100 + 2 * 1000) + (10 + 1000 + 2000)
    assert memory.peak(1, accumulates=True) - memory.peak(1, accumulates=False) == 1
    assert memory.peak(1000, accumulates=False) == 3 + 1000 * (30 + 20) + 100
    chunked = replace(memory, loss_limit=10_000)
    assert chunked.peak(1000, accumulates=False) == 3 + 1000 * 30 + 10_000 + 100
    few = replace(memory, activations={}, loss=0, gradients=2000)
    assert few.peak(1, accumulates=False) == 3 + 2000 + (100 + 1000) + (10 + 1000 + 2000)
    large_root = replace(gathered, root=5000, exchanged_root=10_000)
    end = replace(memory, gradients=9000, gathered=large_root)
    assert end.peak(1, accumulates=False) == 3 + 9000 + (5000 + 10 + 10_000)


def test_the_largest_micro_batch_fits_and_divides() -> None:
    memory = StepMemory(
        weights=0, gradients=10, optimizer=0, low_precision_weights=0, activations={}, loss=1, table_gradient=0
    )
    assert largest_micro_batch(memory, rows=12, usable=12) == 12  # in one pass no gradients are held beside it
    assert largest_micro_batch(memory, rows=24, usable=15) == 4  # 5 would fit and does not divide 24
    assert largest_micro_batch(memory, rows=24, usable=9) is None


def test_parts_of_a_model() -> None:
    with torch.device("meta"):
        model = build_model("gpt2", GPT2Config())
    counts = count_parameters_by_part(model)
    assert counts == {
        "token table": 50257 * 768,
        "positions": 1024 * 768,
        "norms": 25 * 2 * 768,
        "attention": 12 * (4 * 768**2 + 4 * 768),
        "MLP": 12 * (8 * 768**2 + 5 * 768),
    }
    assert sum(counts.values()) == 124_439_808
    assert is_tied(model)
    assert not is_tied(build_model("decoder", ARCHITECTURES["decoder"].config()))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_part_of_every_architecture_has_a_name(architecture: str) -> None:
    found = ARCHITECTURES[architecture]
    model = found.model(found.config(vocab_size=10, n_layer=1))
    assert "rest" not in {part_of(name) for name, _ in model.named_parameters()}


@pytest.mark.parametrize("name", KNOWN)
def test_every_device_has_memory(name: str) -> None:
    hardware = find_hardware(name)
    assert 0 < hardware.usable < hardware.memory
    if name not in ("this", "cpu"):
        assert hardware.peak_flops is not None and hardware.memory > 2**33


def test_an_unknown_device_is_refused_with_the_nearest() -> None:
    with pytest.raises(UserError, match=r"unknown device 'h1000': did you mean 'h100'\? Known: 3090, 4090, 5090"):
        find_hardware("h1000")


def test_this_process_has_a_floor() -> None:
    assert 2**26 < resident_bytes() < 2**36


def test_speed_is_measured_at_a_micro_batch_no_larger_than_asked() -> None:
    model = build_model("gpt2", CONFIG)
    rate, rows = measure_tokens_per_second(model, OptimizerConfig(), CPU, micro_batch=3, seconds=0.05)
    assert rate > 0 and 1 <= rows <= 3
