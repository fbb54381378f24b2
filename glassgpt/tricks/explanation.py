"""Why a trick helped here, or did not: one or two sentences from its figures and the sizes of the model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from glassgpt.runtime.device import cpu_has_bfloat16
from glassgpt.tricks.measure import Results, TrickRow

MIB = 1 << 20


@dataclass(frozen=True)
class Facts:
    """What a reason is made of. Sizes in bytes."""

    on_cpu: bool
    faster: bool
    slower: bool
    logits: int  # (B·T, V) in float32
    pattern: int  # of one layer's attention, (B, H, T, T) in float32
    moments: int  # AdamW's state
    tokens: int  # of a step
    window: int
    n_params: int


def explanation(row: TrickRow, results: Results) -> str:
    """What the figures say, and why."""
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
        faster=row.speed > 1 + results.noise,
        slower=row.speed < 1 - results.noise,
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
    return f"No difference beyond the noise of {noise:.0%}."


def _times(ratio: float) -> str:
    return f"{ratio:.2f} times"


def _bfloat16(facts: Facts) -> str:
    if not facts.on_cpu:
        return (
            "Matrix units multiply it at twice the rate of TF32 or more."
            if facts.faster
            else "The model is too small to keep the matrix units busy: launching kernels takes the time."
        )
    if not cpu_has_bfloat16():
        return "This processor has no instructions for it (AVX512-BF16 or AMX): every product is emulated."
    return (
        "This processor multiplies it in hardware."
        if facts.faster
        else "This processor multiplies it in hardware, but autocast converts weights and activations at every step,"
        " and products of this size do not win that back."
    )


def _float16(facts: Facts) -> str:
    if facts.on_cpu:
        return "Processors convert it to float32 and back at every product; it is made for GPUs without bfloat16."
    return "As fast as bfloat16 where matrix units have it, and it needs a loss scale."


def _compile(facts: Facts) -> str:
    if facts.faster:
        return "What lies between the products, norms, GELU and additions, is bound by memory: fused, it is read once."
    return (
        "Most of the time goes into matrix products, which it leaves to the same library; the time to compile comes on"
        " top, see the first step."
    )


def _fused(facts: Facts) -> str:
    share = f"{facts.n_params:,} parameters are updated for {facts.tokens:,} tokens a step"
    if facts.faster:
        return f"{share}: the update is a large part of the step, and one kernel reads weights and moments once."
    return f"{share}: the update is a small part of the step."


def _flash(facts: Facts) -> str:
    size = f"a layer's pattern of window {facts.window} has {facts.pattern / MIB:.0f} MiB"
    return f"Spelt out, {size}, written and read several times; what the fused kernel saves grows with the window."


def _padded(facts: Facts) -> str:
    if facts.on_cpu:
        return "Tiles of a processor's matrix library are small: a ragged edge costs it nothing to speak of."
    return "A multiple of 128 lets the head use whole tiles of the matrix units."


def _chunked(facts: Facts) -> str:
    return (
        f"All logits are {facts.logits / MIB:.0f} MiB here, and are held several times; without them the head's product"
        " runs a second time."
    )


def _recomputed(facts: Facts) -> str:
    return "Every block runs forward twice, about a third more work; it pays where activations do not fit."


def _accumulation(facts: Facts) -> str:
    return "The same gradient in smaller passes: less memory, and less for the device to do at once."


def _larger_batch(facts: Facts) -> str:
    if facts.faster:
        return "More rows a pass keep the device busier; per token it learns less, see the loss for the same steps."
    return "The device was busy before: tokens per second stay, and a step takes four times as long."


REASONS: dict[str, Callable[[Facts], str]] = {
    "tf32": lambda _: "Products keep float32's range with 10 bits of mantissa, at the rate of the matrix units.",
    "bfloat16": _bfloat16,
    "float16": _float16,
    "compile": _compile,
    "fused AdamW": _fused,
    "flash attention": _flash,
    "padded vocabulary": _padded,
    "chunked loss": _chunked,
    "recomputed blocks": _recomputed,
    "accumulation": _accumulation,
    "batch x 4": _larger_batch,
}
