"""Explains in one or two sentences why a trick helped or did not, from its figures and the model's sizes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from glassgpt.errors import counted
from glassgpt.runtime.device import cpu_has_bfloat16
from glassgpt.tricks.measure import Results, TrickRow

MIB = 1 << 20


@dataclass(frozen=True)
class Facts:
    """The facts that an explanation uses. Sizes in bytes."""

    on_cpu: bool
    faster: bool
    slower: bool
    logits: int  # (B·T, V) in float32
    pattern: int  # of one layer's attention, (B, H, T, T) in float32
    moments: int  # AdamW's state
    tokens: int  # per step
    window: int
    n_params: int


def explanation(row: TrickRow, results: Results) -> str:
    """The verdict on a trick, and the reason."""
    if row.missing is not None:
        return f"Not measured: {row.missing}."
    facts = _facts(row, results)
    reason = REASONS[row.trick.name](facts)
    memory = "" if abs(row.memory - 1) < 0.05 else f" Peak memory {_times(row.memory)}."
    return f"{_verdict(row, facts, results.noise)} {reason}{memory}"


def _facts(row: TrickRow, results: Results) -> Facts:
    setup = results.setup
    window, n_head = setup.model.block_size, getattr(setup.model, "n_head", 1)
    tokens = setup.rows * window
    return Facts(
        on_cpu=results.device.startswith("cpu"),
        faster=row.faster(results.noise),
        slower=row.slower(results.noise),
        logits=4 * tokens * setup.model.vocab_size,
        pattern=4 * tokens * window * n_head,
        moments=8 * results.n_params,
        tokens=tokens,
        window=window,
        n_params=results.n_params,
    )


def _verdict(row: TrickRow, facts: Facts, noise: float) -> str:
    if facts.faster or facts.slower:
        return f"{'Faster' if facts.faster else 'Slower'}: {_times(row.speed)} the speed."
    rounds = f"{counted(len(row.speeds), 'round')}"
    spread = f"{min(row.speeds):.2f} to {_times(max(row.speeds))} the speed in {rounds}"
    return f"Within noise: {spread}, where two equal steps differ by up to {noise:.0%}."


def _times(ratio: float) -> str:
    return f"{ratio:.2f} times"


def _bfloat16(facts: Facts) -> str:
    if not facts.on_cpu:
        return (
            "Tensor cores multiply it at least twice as fast as TF32."
            if facts.faster
            else "The model is too small to keep the tensor cores busy: launching kernels takes most of the time."
        )
    if not cpu_has_bfloat16():
        return "This processor has no instructions for it (AVX512-BF16 or AMX): every product is emulated."
    return (
        "This processor multiplies it in hardware."
        if facts.faster
        else "This processor multiplies it in hardware, but other operations become slower, such as the backward pass"
        " of attention, and weights are converted at every step. Here the faster products do not make up for it."
    )


def _float16(facts: Facts) -> str:
    if facts.on_cpu:
        return "CPUs convert it to float32 and back at every product; it is meant for GPUs without bfloat16."
    return "As fast as bfloat16 on tensor cores, but it needs a loss scale."


def _compile(facts: Facts) -> str:
    if facts.faster:
        return "Operations between products (norms, GELU, additions) are memory-bound; fused, they read data once."
    return (
        "Most of the time goes into matrix products, which use the same library as before; compilation time comes on"
        " top, see the first step."
    )


def _fused(facts: Facts) -> str:
    work = f"{facts.n_params:,} parameters are updated for {facts.tokens:,} tokens a step"
    if facts.faster:
        return f"{work}: the update is a large part of the step, and one kernel reads weights and moments once."
    return f"{work}: the update is a small part of the step."


def _flash(facts: Facts) -> str:
    size = f"one layer's attention pattern at context length {facts.window} has {facts.pattern / MIB:.0f} MiB"
    return f"Unfused, {size}, written and read several times; the saving grows with the context length."


def _padded(facts: Facts) -> str:
    if facts.on_cpu:
        if facts.faster:
            return "The matrix library of this processor is faster with the even size."
        return "CPU matrix libraries use small tiles, so an uneven size costs almost nothing."
    return "With a multiple of 128 the head uses full tiles of the tensor cores."


def _chunked(facts: Facts) -> str:
    return (
        f"All logits take {facts.logits / MIB:.0f} MiB here, stored several times; in chunks, the head's product"
        " is computed twice."
    )


def _recomputed(facts: Facts) -> str:
    return "Every block runs forward twice, about a third more work; use it if activations do not fit in memory."


def _accumulation(facts: Facts) -> str:
    return "The same gradient in smaller passes: less memory, but less parallel work for the device."


def _larger_batch(facts: Facts) -> str:
    if facts.faster:
        return "More rows per pass use the device better; each token teaches less, see the loss at the same step."
    return "The device was already busy: tokens per second stay the same, and a step takes four times as long."


REASONS: dict[str, Callable[[Facts], str]] = {
    "TF32": lambda _: "Products keep float32's range with 10 bits of mantissa, at the speed of the tensor cores.",
    "bfloat16": _bfloat16,
    "float16": _float16,
    "compile": _compile,
    "fused AdamW": _fused,
    "flash attention": _flash,
    "padded vocabulary": _padded,
    "chunked loss": _chunked,
    "recomputed blocks": _recomputed,
    "accumulation": _accumulation,
    "batch × 4": _larger_batch,
}
