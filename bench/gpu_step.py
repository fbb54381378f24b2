"""One training step of GPT-2 124M beside nanoGPT's, on the same device in the same process, in turn.

    python bench/gpu_step.py --nanogpt ../nanoGPT --json

Prints for each side tokens per second, the share of the device's peak (MFU) and of the matrix rate that was measured
here, and the peak of memory. Both sides get the same random tokens, bfloat16 and `torch.compile`; nanoGPT's side is the
step of its train.py. It needs torch, numpy, safetensors and tiktoken alone: `PYTHONPATH=. python bench/gpu_step.py`
runs in an environment where glassgpt is not installed. `--tiny` is for checking the script where there is no GPU.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from glassgpt.costs.flops import estimate_flops_per_token
from glassgpt.models.gpt2 import GPT2, GPT2Config
from glassgpt.models.sizes import embedding_rows
from glassgpt.runtime.device import Runtime, build_runtime, describe_machine
from glassgpt.training.fit import train_step
from glassgpt.training.losses import Batch, next_token_loss, sum_token_losses
from glassgpt.training.optimizers import OptimizerConfig, build_optimizer

ADAMW = OptimizerConfig(lr=6e-4, beta1=0.9, beta2=0.95, weight_decay=0.1)


@dataclass
class Side:
    """One implementation: its step over micro-batches, and what was measured of it."""

    name: str
    step: Callable[[list[Batch]], None]
    held: int = 0  # bytes that stay between two steps
    peak: int = 0  # bytes at the highest point of a step, without what the other side holds
    seconds: list[float] = field(default_factory=list)


def build_ours(config: GPT2Config, runtime: Runtime) -> Callable[[list[Batch]], None]:
    """The step that `glassgpt train` runs."""
    torch.manual_seed(0)
    model = GPT2(config).to(runtime.device)
    optimizer = build_optimizer(model, ADAMW)
    scaler = runtime.build_scaler()
    summed = runtime.compiled(sum_token_losses)
    loss = partial(next_token_loss, sum_losses=summed)
    parallel = runtime.wrap(model, loss)

    def step(batches: list[Batch]) -> None:
        weight = sum(batch.n_tokens for batch in batches)
        train_step(parallel, optimizer, scaler, batches, runtime, grad_clip=1.0, seed=0, step=0, expected_weight=weight)

    return step


def build_theirs(checkout: Path, config: GPT2Config, runtime: Runtime) -> Callable[[list[Batch]], None]:
    """The step of nanoGPT's train.py, on its own model."""
    module = load_module(checkout / "model.py")
    torch.manual_seed(0)
    sizes = {name: getattr(config, name) for name in ("block_size", "n_layer", "n_head", "n_embd")}
    model = module.GPT(module.GPTConfig(vocab_size=embedding_rows(config), **sizes, dropout=0.0, bias=False)).to(
        runtime.device
    )
    betas = (ADAMW.beta1, ADAMW.beta2)
    optimizer = model.configure_optimizers(ADAMW.weight_decay, ADAMW.lr, betas, runtime.device.type)
    called: Any = torch.compile(model) if runtime.compile else model

    def step(batches: list[Batch]) -> None:
        for batch in batches:
            with runtime.autocast():
                _, loss = called(batch.inputs, batch.targets)
                loss = loss / len(batches)
            loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        loss.item()  # its log line reads the loss; ours does at every step

    return step


def load_module(path: Path) -> ModuleType:
    """nanoGPT is not a package: its model file, as a module."""
    spec = importlib.util.spec_from_file_location("nanogpt_model", path)
    if spec is None or spec.loader is None or not path.exists():
        raise SystemExit(f"{path} is not there: --nanogpt names a checkout of karpathy/nanoGPT")
    module = importlib.util.module_from_spec(spec)
    sys.modules["nanogpt_model"] = module
    spec.loader.exec_module(module)
    return module


def draw_batches(config: GPT2Config, rows: int, count: int, device: torch.device) -> list[Batch]:
    """`count` micro-batches of random ids of real tokens."""
    draw = torch.Generator().manual_seed(0)
    shape = (rows, config.block_size + 1)
    windows = [torch.randint(config.vocab_size, shape, generator=draw) for _ in range(count)]
    return [Batch(window[:, :-1].contiguous().to(device), window[:, 1:].contiguous().to(device)) for window in windows]


def synchronize(device: torch.device) -> None:
    """Waits until the device has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measure(side: Side, batches: list[Batch], steps: int, device: torch.device) -> None:
    """Times `steps` steps of one side, and watches the memory where the device tells."""
    others = 0
    if device.type == "cuda":
        others = torch.cuda.memory_allocated(device) - side.held
        torch.cuda.reset_peak_memory_stats(device)
    synchronize(device)
    began = time.perf_counter()
    for _ in range(steps):
        side.step(batches)
    synchronize(device)
    side.seconds.append((time.perf_counter() - began) / steps)
    if device.type == "cuda":
        side.peak = max(side.peak, torch.cuda.max_memory_allocated(device) - others)


def warm_up(side: Side, batches: list[Batch], steps: int, device: torch.device) -> None:
    """Compiles, allocates, and notes what the side holds from then on."""
    before = torch.cuda.memory_allocated(device) if device.type == "cuda" else 0
    for _ in range(steps):
        side.step(batches)
    synchronize(device)
    if device.type == "cuda":
        side.held = torch.cuda.memory_allocated(device) - before


def measure_matrix_rate(runtime: Runtime, size: int) -> float:
    """FLOP/s of a square product in the precision of the run: what its matrix units give at best."""
    dtype = getattr(torch, runtime.precision) if runtime.precision in ("bfloat16", "float16") else torch.float32
    a = torch.randn(size, size, device=runtime.device, dtype=dtype)
    best = float("inf")
    for _ in range(10):
        synchronize(runtime.device)
        began = time.perf_counter()
        for _ in range(5):
            product: Tensor = a @ a
        synchronize(runtime.device)
        best = min(best, (time.perf_counter() - began) / 5)
    del product
    return 2.0 * size**3 / best


def profile(side: Side, batches: list[Batch], path: Path) -> str:
    """Writes a trace of three steps for chrome://tracing, and returns the table of what took longest."""
    with torch.profiler.profile() as trace:
        for _ in range(3):
            side.step(batches)
    trace.export_chrome_trace(str(path))
    key = "self_cuda_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
    return str(trace.key_averages().table(sort_by=key, row_limit=15))


def figures(side: Side, tokens: int, flops: float, peak: float | None, rate: float) -> dict[str, Any]:
    """One side as JSON has it."""
    seconds = statistics.median(side.seconds)
    done = flops * tokens / seconds
    return {
        "side": side.name,
        "ms_per_step": seconds * 1e3,
        "tokens_per_second": tokens / seconds,
        "mfu": None if peak is None else done / peak,
        "of_matrix_rate": done / rate,
        "peak_memory_gib": side.peak / 2**30 if side.peak else None,
        "rounds": [round(second * 1e3, 3) for second in side.seconds],
    }


def main() -> None:
    """Prints a line a side, or one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nanogpt", type=Path, help="a checkout of karpathy/nanoGPT; without it only ours is measured")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--micro-batch", type=int, default=16)
    parser.add_argument("--accumulate", type=int, default=1, help="micro-batches of a step")
    parser.add_argument("--steps", type=int, default=10, help="steps of a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--profile", type=Path, help="write a trace of ours here")
    parser.add_argument("--tiny", action="store_true", help="two small layers, to check the script")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()

    runtime = build_runtime(options.device, options.dtype, not options.no_compile)
    config = GPT2Config(vocab_size=50257, padded_vocab_size=50304)
    if options.tiny:
        config = GPT2Config(vocab_size=512, block_size=64, n_layer=2, n_head=2, n_embd=64)
    rate = measure_matrix_rate(runtime, 8192 if runtime.device.type == "cuda" else 1024)
    sides = [Side("glassgpt", build_ours(config, runtime))]
    if options.nanogpt:
        sides.append(Side("nanoGPT", build_theirs(options.nanogpt, config, runtime)))

    batches = draw_batches(config, options.micro_batch, options.accumulate, runtime.device)
    for side in sides:
        warm_up(side, batches, 3, runtime.device)
    gc.collect()
    for _ in range(options.rounds):
        for side in sides:
            measure(side, batches, options.steps, runtime.device)

    flops = estimate_flops_per_token(GPT2(config))
    tokens = options.micro_batch * options.accumulate * config.block_size
    rows = [figures(side, tokens, flops, runtime.peak_flops, rate) for side in sides]
    result: dict[str, Any] = {"machine": describe_machine(runtime), "matrix_rate_tflops": rate / 1e12, "sides": rows}
    if len(sides) == 2:
        pairs = zip(sides[0].seconds, sides[1].seconds, strict=True)
        result["times_nanogpt"] = statistics.median(theirs / ours for ours, theirs in pairs)
    if options.profile:
        print(profile(sides[0], batches, options.profile), file=sys.stderr)
    if options.json:
        print(json.dumps(result))
        return
    print(f"{runtime.describe()}; matrix products at {rate / 1e12:.1f} TFLOP/s")
    for row in rows:
        mfu = "" if row["mfu"] is None else f", MFU {row['mfu']:.1%}"
        memory = "" if row["peak_memory_gib"] is None else f", peak {row['peak_memory_gib']:.2f} GiB"
        print(
            f"{row['side']:<9} {row['ms_per_step']:8.2f} ms a step, {row['tokens_per_second']:,.0f} tokens/s"
            f"{mfu}, {row['of_matrix_rate']:.1%} of the matrix rate{memory}"
        )
    if "times_nanogpt" in result:
        print(f"glassgpt is {result['times_nanogpt']:.2f} times as fast, pair by pair")


if __name__ == "__main__":
    main()
