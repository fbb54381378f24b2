"""One training step of GPT-2 124M beside nanoGPT's, on the same device in the same process, in turn.

    python bench/gpu_step.py --nanogpt ../nanoGPT --json

    python bench/gpu_step.py --item all

measures, instead, single decisions that are made for a GPU, each in turn with what it replaced: see ITEMS.

Prints for each side tokens per second, the share of the device's peak (MFU) and of the matrix rate that was measured
here, and the peak of memory. Both sides get the same random tokens, bfloat16 and `torch.compile`; nanoGPT's side is the
step of its train.py. It needs torch, numpy, safetensors, tiktoken and pydantic: `PYTHONPATH=. python bench/gpu_step.py`
runs in an environment where glassgpt is not installed. `--tiny` is for checking the script where there is no GPU.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from glassgpt.costs.flops import estimate_flops_per_token
from glassgpt.data.loader import Loader
from glassgpt.evaluation.scoring import Pair, score
from glassgpt.evaluation.validation import evaluate
from glassgpt.generation.engine import generate
from glassgpt.generation.sampling import SamplingConfig
from glassgpt.models import Model, ModelConfig
from glassgpt.models.block_masks import BlockMasks
from glassgpt.models.context import Documents
from glassgpt.models.gpt2 import GPT2, GPT2Config
from glassgpt.models.gpt3 import GPT3, GPT3Config
from glassgpt.runtime.device import Runtime, build_runtime, describe_machine
from glassgpt.training.checkpoint import write_checkpoint
from glassgpt.training.fit import train_step
from glassgpt.training.losses import Batch, BuildContext, next_token_loss, sum_token_losses
from glassgpt.training.optimizers import OptimizerConfig, build_optimizer
from glassgpt.training.prefetch import Prefetched
from glassgpt.tricks.step_speed import build_nanogpt_step, draw_batches, measure_matrix_rate, synchronize

ADAMW = OptimizerConfig(lr=6e-4, beta1=0.9, beta2=0.95, weight_decay=0.1)


@dataclass
class Side:
    """One implementation: its step over micro-batches, and what was measured of it."""

    name: str
    step: Callable[[Sequence[Batch]], object]
    held: int = 0  # bytes that stay between two steps
    peak: int = 0  # bytes at the highest point of a step, without what the other side holds
    seconds: list[float] = field(default_factory=list)


def build_ours(
    model: Model, runtime: Runtime, *, build_context: BuildContext | None = None, seed: int | None = None
) -> Callable[[Sequence[Batch]], None]:
    """The step that `glassgpt train` runs."""
    model.to(runtime.device)
    optimizer = build_optimizer(model, ADAMW)
    scaler = runtime.build_scaler()
    summed = runtime.compiled(sum_token_losses)
    loss = partial(next_token_loss, build_context=build_context, sum_losses=summed)
    parallel = runtime.wrap(model, loss)

    def step(batches: Sequence[Batch]) -> None:
        weight = sum(batch.n_tokens for batch in batches)
        train_step(
            parallel, optimizer, scaler, batches, runtime,
            grad_clip=1.0, seed=seed, step=0, expected_weight=weight,
        )  # fmt: skip

    return step


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


@dataclass(frozen=True)
class Setting:
    """What the items are measured with."""

    config: GPT2Config
    runtime: Runtime
    rows: int
    accumulate: int

    def batches(self, config: ModelConfig | None = None) -> list[Batch]:
        """The micro-batches of a step."""
        return draw_batches(config or self.config, self.rows, self.accumulate, self.runtime.device)

    @property
    def gpt3(self) -> GPT3Config:
        """The same sizes, with twice the context, padding and bands."""
        config = self.config
        return GPT3Config(
            config.vocab_size, 2 * config.block_size, config.n_layer, config.n_head, config.n_embd,
            band_width=config.block_size // 8, padded_vocab_size=-(-config.vocab_size // 128) * 128,
        )  # fmt: skip


Work = Callable[[], object]
Item = tuple[str, Work, str, Work]  # a name and the work: what was replaced, and what is done now


def documents(setting: Setting) -> Item:
    """Four documents in a row: a dense mask, and FlexAttention's (20 to 40% is expected)."""
    build, length = (lambda: GPT2(setting.config)), setting.config.block_size
    starts = torch.arange(0, length, length // 4, device=setting.runtime.device)
    batches = [replace(batch, inputs=batch.inputs.index_fill(1, starts, 0)) for batch in setting.batches()]
    dense = build_ours(build(), setting.runtime, build_context=partial(Documents, eot_id=0))
    blocks = build_ours(build(), setting.runtime, build_context=partial(BlockMasks, eot_id=0, window=None))
    return "dense mask", lambda: dense(batches), "block mask", lambda: blocks(batches)


def bands(setting: Setting) -> Item:
    """GPT-3's bands: a dense mask, and FlexAttention's (35% is expected)."""
    sizes, batches = setting.gpt3, setting.batches(setting.gpt3)
    dense = build_ours(GPT3(sizes), setting.runtime)
    context = partial(BlockMasks, eot_id=None, window=sizes.band_width)
    blocks = build_ours(GPT3(sizes), setting.runtime, build_context=context)
    return "dense mask", lambda: dense(batches), "block mask", lambda: blocks(batches)


def vocabulary(setting: Setting) -> Item:
    """GPT-3's head with as many columns as ids, and padded to a multiple of 128."""
    sizes, batches = setting.gpt3, setting.batches(setting.gpt3)
    plain = build_ours(GPT3(replace(sizes, padded_vocab_size=None)), setting.runtime)
    padded = build_ours(GPT3(sizes), setting.runtime)
    return "as many rows as ids", lambda: plain(batches), "padded", lambda: padded(batches)


def seeding(setting: Setting) -> Item:
    """A step that seeds torch at each micro-step, and one that does not."""
    batches = setting.batches()
    seeded, unseeded = (build_ours(GPT2(setting.config), setting.runtime, seed=seed) for seed in (0, None))
    return "seeded", lambda: seeded(batches), "not seeded", lambda: unseeded(batches)


def prefetch(setting: Setting) -> Item:
    """Ten steps whose batches are read between them, and one step ahead."""
    config, device = setting.config, setting.runtime.device
    step = build_ours(GPT2(config), setting.runtime)
    loader = Loader(RandomTokens(config), config.block_size, setting.rows * setting.accumulate)  # type: ignore[arg-type]

    def batches(number: int, pin: bool) -> list[Batch]:
        found = []
        for row in range(0, loader.batch_rows, setting.rows):
            pair = loader.rows(number, row, row + setting.rows)
            inputs, targets = (part.pin_memory() if pin else part for part in pair)
            found.append(Batch(inputs.to(device, non_blocking=True), targets.to(device, non_blocking=True)))
        return found

    def between() -> None:
        for number in range(10):
            step(batches(number, pin=False))

    def ahead() -> None:
        with Prefetched(partial(batches, pin=device.type == "cuda")) as prefetched:
            for number in range(10):
                step(cast(list[Batch], prefetched(number)))

    return "between steps", between, "one step ahead", ahead


def checkpoint(setting: Setting) -> Item:
    """Saving the best with the optimizer's state, and its weights alone."""
    model = GPT2(setting.config).to(setting.runtime.device)
    optimizer = build_optimizer(model, ADAMW)
    next_token_loss(model, setting.batches()[0]).sum.backward()
    optimizer.step()
    optimizer.zero_grad()
    state: dict[str, Any] = {"step": 1}

    def save(kept: torch.optim.Optimizer | None) -> None:
        with tempfile.TemporaryDirectory() as folder:
            write_checkpoint(Path(folder), model, kept, state)

    return "with optimizer", lambda: save(optimizer), "weights only", lambda: save(None)


def validation(setting: Setting) -> Item:
    """Validation of 2 rows a pass, and of as many as the features allow."""
    config = setting.config
    model = GPT2(config).to(setting.runtime.device)
    tokens, token_bytes = RandomTokens(config), np.ones(config.vocab_size, np.int64)
    run = partial(evaluate, model, tokens, token_bytes, setting.runtime, max_tokens=64 * config.block_size)  # type: ignore[arg-type]
    return "2 rows a pass", lambda: run(rows=2), "many rows", run


def hellaswag(setting: Setting) -> Item:
    """256 endings with the logits of all positions, and of those that are scored alone in a tenth of the passes."""
    config, runtime = setting.config, setting.runtime
    model = GPT2(config).to(runtime.device).eval()
    length, ending = min(100, config.block_size - 8), 8
    drawn = np.random.default_rng(0).integers(config.vocab_size, size=(256, length)).tolist()
    pairs = [Pair(row[:-ending], row[-ending:]) for row in drawn]
    rows = max(1, (1 << 25) // (length * config.vocab_size))

    @torch.no_grad()
    def whole() -> None:
        for start in range(0, len(drawn), rows):
            with runtime.autocast():
                logits = model(torch.tensor(drawn[start : start + rows], device=runtime.device))
            logits[:, -ending:].float().log_softmax(dim=-1).argmax(dim=-1).cpu()

    return "all positions", whole, "scored positions", lambda: score(model, pairs, runtime)


def sampling(setting: Setting) -> Item:
    """Writing 64 tokens with float32 weights, and with 16-bit ones."""
    models = [GPT2(setting.config).to(setting.runtime.device, dtype) for dtype in (torch.float32, torch.bfloat16)]
    n_tokens = min(64, setting.config.block_size // 2)

    def write(model: Model) -> None:
        list(generate(model, [0], SamplingConfig(temperature=0.0), max_new_tokens=n_tokens))

    return "float32", lambda: write(models[0]), "bfloat16", lambda: write(models[1])


ITEMS: dict[str, Callable[[Setting], Item]] = {
    item.__name__: item
    for item in (
        documents, bands, vocabulary, seeding, prefetch, checkpoint, validation, hellaswag, sampling
    )
}  # fmt: skip
NEED_BLOCK_MASKS = ("documents", "bands")


class RandomTokens:
    """A text of random ids in memory, with the interface of `TokenArray`."""

    def __init__(self, config: GPT2Config) -> None:
        self.ids = np.random.default_rng(0).integers(config.vocab_size, size=128 * config.block_size + 1)

    def __len__(self) -> int:
        return len(self.ids)

    def slice(self, start: int, stop: int) -> np.ndarray:
        """The ids from `start` to `stop`."""
        return self.ids[start:stop]


def compare(name: str, setting: Setting, rounds: int) -> dict[str, Any]:
    """Times both sides of an item in turn, after a warm-up of each; milliseconds."""
    if name in NEED_BLOCK_MASKS and not setting.runtime.block_masks:
        return {"item": name, "skipped": "FlexAttention trains on a GPU, compiled"}
    torch.compiler.reset()
    before_name, before, after_name, after = ITEMS[name](setting)
    times: dict[str, list[float]] = {before_name: [], after_name: []}
    sides = ((before_name, before), (after_name, after))
    for _ in range(2):
        for _, work in sides:
            work()
    for _ in range(rounds):
        for side, work in sides:
            synchronize(setting.runtime.device)
            began = time.perf_counter()
            work()
            synchronize(setting.runtime.device)
            times[side].append((time.perf_counter() - began) * 1e3)
    pairs = zip(times[before_name], times[after_name], strict=True)
    medians = {side: statistics.median(measured) for side, measured in times.items()}
    return {"item": name, "ms": medians, "times": statistics.median(old / new for old, new in pairs)}


def print_items(names: Sequence[str], setting: Setting, rounds: int, as_json: bool) -> None:
    """Measures the items and prints a line for each, or one JSON object."""
    results = []
    for name in names:
        results.append(compare(name, setting, rounds))
        gc.collect()
        if as_json:
            continue
        found = results[-1]
        text = found.get("skipped") or ", ".join(f"{side} {ms:.2f} ms" for side, ms in found["ms"].items())
        print(f"{name:<11} {text}" + (f": {found['times']:.2f} times as fast" if "times" in found else ""))
    waits = count_waits(setting)
    if as_json:
        machine = describe_machine(setting.runtime)
        print(json.dumps({"machine": machine, "items": results, "waits_per_step": waits}))
    elif waits is not None:
        print(f"{'waits':<11} the host waits {waits} times a step of {setting.accumulate} micro-batches")


def count_waits(setting: Setting) -> int | None:
    """How many copies from the GPU to the host a step of ours makes, each of which the host waits for."""
    if setting.runtime.device.type != "cuda":
        return None
    step, batches = build_ours(GPT2(setting.config), setting.runtime), setting.batches()
    step(batches)
    with torch.profiler.profile() as trace:
        step(batches)
    return sum(event.name.startswith("Memcpy DtoH") for event in trace.events() or [])


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
    parser.add_argument("--item", action="append", choices=[*ITEMS, "all"], help="measure this instead, or all")
    parser.add_argument("--tiny", action="store_true", help="two small layers, to check the script")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()

    runtime = build_runtime(options.device, options.dtype, not options.no_compile)
    config = GPT2Config(vocab_size=50257, padded_vocab_size=50304)
    if options.tiny:
        config = GPT2Config(vocab_size=512, block_size=64, n_layer=2, n_head=2, n_embd=64)
    if options.item:
        setting = Setting(config, runtime, options.micro_batch, options.accumulate)
        names = list(ITEMS) if "all" in options.item else options.item
        print_items(names, setting, options.rounds, options.json)
        return
    torch.manual_seed(0)
    rate = measure_matrix_rate(runtime, 8192 if runtime.device.type == "cuda" else 1024)
    sides = [Side("glassgpt", build_ours(GPT2(config), runtime))]
    if options.nanogpt:
        sides.append(Side("nanoGPT", build_nanogpt_step(options.nanogpt, config, ADAMW, runtime)))

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
