"""Prints a plan as text."""

from __future__ import annotations

import typer

from glassgpt.costs.hardware import RESERVE
from glassgpt.costs.memory import HEAP_MARGIN, LOSS
from glassgpt.planning.plan import CHINCHILLA_RATIO, Plan
from glassgpt.report.figures import duration

COLUMNS = {
    "weights": "weights", "gradients": "grads", "optimizer": "optim", "low-precision weights": "16-bit",
    "activations": "activ", LOSS: "logits", "unusable pieces": "pieces", "floor": "floor",
}  # fmt: skip


def print_plan(plan: Plan) -> None:
    """Prints parameters, FLOPs, memory and time, then the notes."""
    lines = [*_size(plan), "", *_arithmetic(plan), "", *_memory(plan), "", *_time(plan)]
    for line in (*lines, *(f"note: {note}" for note in plan.notes)):
        typer.echo(line)


def _size(plan: Plan) -> list[str]:
    tied = "tied: the token table again" if plan.tied else None
    rows = [f"  {part:<12} {count:>18,}" for part, count in plan.parameters.items()]
    rows += [f"  {'head':<12} {tied}"] if tied else []
    return [f"{plan.recipe}: {plan.n_parameters:,} parameters", *rows]


def _arithmetic(plan: Plan) -> list[str]:
    model, training, ratio = plan.config.model, plan.config.training, plan.tokens / plan.n_parameters
    counted = plan.n_parameters - plan.parameters.get("positions", 0)
    layers = round((plan.flops_per_token - 6 * counted) / (12 * model.n_embd * model.block_size))
    return [
        f"FLOPs per token   {plan.flops_per_token:.4g} = 6·N + 12·L·C·T, N = {counted:,}, L = {layers},"
        f" C = {model.n_embd}, T = {model.block_size}",
        "                  (Chowdhery et al. 2022, appendix B; N without the position table)",
        f"tokens            {training.max_steps:,} steps of {training.batch_tokens:,} = {plan.tokens:,},"
        f" {ratio:.3g} per parameter (Hoffmann et al. 2022: about {CHINCHILLA_RATIO})",
        f"FLOPs             {plan.flops:.4g}",
    ]


def _memory(plan: Plan) -> list[str]:
    device, block = plan.hardware, plan.config.model
    unit = block.block_size * block.n_embd * block.n_layer
    kept = ", ".join(f"{part} {count / unit:.4g}" for part, count in plan.activations.items() if count / unit > 0.05)
    shown = {key: title for key, title in COLUMNS.items() if any(row.parts.get(key) for row in plan.micro_batches)}
    table = [f"{'rows':>6}" + "".join(f"{title:>10}" for title in shown.values()) + f"{'peak':>10}"]
    for row in plan.micro_batches:
        parts = "".join(f"{size(row.parts.get(key, 0)):>10}" for key in shown)
        own = "  the recipe's own" if row.rows == plan.own_micro_batch else ""
        table.append(f"{row.rows:>6}{parts}{size(row.total):>10}{'' if row.fits else '  does not fit'}{own}")
    largest = plan.largest_micro_batch
    margin = f", ±{HEAP_MARGIN:.0%}" if device.kind == "cpu" else ""
    return [
        f"Memory of a step on {device.name}, {plan.precision}{margin},"
        f" by rows of {block.block_size} tokens in a micro-batch",
        *table,
        f"activations       bytes per B·T·C and layer: {kept}",
        f"fits              {largest or 'no'} row{'s' * (largest != 1)} of the {plan.config.batch_rows} of a step into"
        f" {size(device.usable)} of {size(device.memory)} ({RESERVE:.0%} kept back)",
    ]


def _time(plan: Plan) -> list[str]:
    lines = []
    if plan.seconds is not None and plan.hardware.peak_flops is not None:
        lines.append(
            f"time              {duration(plan.seconds)} on one {plan.hardware.name} at {plan.utilisation:.0%} of"
            f" {plan.hardware.peak_flops / 1e12:,.0f} TFLOP/s"
        )
    if plan.measured is not None:
        here = plan.measured
        lines.append(
            f"time here         {duration(here.seconds)} on {here.device}, measured: {here.tokens_per_second:,.0f}"
            f" tokens/s with {here.micro_batch} row{'s' * (here.micro_batch > 1)}"
        )
    if plan.price_per_hour is not None:
        cost = "unknown, as the time is" if plan.cost is None else f"{plan.cost:,.2f}"
        lines.append(f"cost              {cost} at {plan.price_per_hour:g} an hour")
    return lines


def size(count: float) -> str:
    """Formats bytes in a readable unit."""
    for unit, power in (("GiB", 30), ("MiB", 20)):
        if count >= 2**power:
            return f"{count / 2**power:,.1f} {unit}" if count < 1000 * 2**power else f"{count / 2**power:,.0f} {unit}"
    return f"{count / 2**10:,.0f} KiB"
