"""Prints a plan as text that fits the terminal, also in a file or pipe."""

from __future__ import annotations

from typing import Any

import typer

from glassgpt.cli.output import USUAL_WIDTH, beside, fold, table_width
from glassgpt.costs.hardware import RESERVE
from glassgpt.costs.memory import HEAP_MARGIN, LOSS
from glassgpt.errors import counted
from glassgpt.models import find_architecture
from glassgpt.planning.plan import CHINCHILLA_RATIO, Plan
from glassgpt.report.figures import duration

TITLES = {
    "weights": "weights", "gradients": "grads", "optimizer": "optim", "gathered weights": "gathered",
    "exchange": "exchange", "low-precision weights": "16-bit", "activations": "activ", LOSS: "logits",
    "unusable pieces": "pieces", "floor": "floor",
}  # fmt: skip
OTHER = "other"  # the smallest parts together, if the terminal is too narrow for a column each
MOMENT = (
    "Each line shows the moment of a step that needs the most memory: the start of the backward pass, when all"
    " activations are held, or its end, when all gradients are."
)
# Parameters that are looked up and not multiplied: costs/flops.py leaves them out too.
LOOKUPS = {"positions": "the position table", "segments": "the segment table", "n-gram tables": "the n-gram tables"}
NO_BREAK = "\N{NO-BREAK SPACE}"
INDENT = 18  # where the text of a line begins, after its name


def print_plan(plan: Plan) -> None:
    """Prints parameters, FLOPs, memory and time, then the notes."""
    width = table_width() or USUAL_WIDTH
    lines = [*_size(plan, width), "", *_arithmetic(plan, width), "", *_memory(plan, width), "", *_time(plan, width)]
    for note in plan.notes:
        lines += beside("note: ", note, width)
    for line in lines:
        typer.echo(line)


def _named(name: str, text: str, width: int) -> list[str]:
    return [line.replace(NO_BREAK, " ") for line in beside(f"{name:<{INDENT}}", text, width)]


def _size(plan: Plan, width: int) -> list[str]:
    counts = {part: f"{count:>18,}" for part, count in plan.parameters.items()}
    if plan.tied:  # some have a bias or a layer of their own beside it
        own = counts.pop("head", None)
        counts["head"] = "tied to the token table" if own is None else f"{own}, and tied to the token table"
    rows = [f"  {part:<12} {text}" for part, text in counts.items()]
    return [fold(f"{plan.recipe}: {plan.n_parameters:,} parameters", width), *rows]


def _arithmetic(plan: Plan, width: int) -> list[str]:
    training, ratio = plan.config.training, plan.tokens / plan.n_parameters
    model: Any = plan.config.model
    lookups = [part for part in LOOKUPS if plan.parameters.get(part)]
    counted = plan.n_active - sum(plan.parameters[part] for part in lookups)
    without = f"; N without {' and '.join(LOOKUPS[part] for part in lookups)}" if lookups else ""
    if plan.n_active < plan.n_parameters:
        without += f"; N has {model.n_active} of {model.n_expert} experts"
    if find_architecture(plan.config.architecture).kind == "encoder-decoder":
        without += "; L counts the self-attention of both parts and the cross-attention, for one token of each"
    head_size = getattr(model, "head_dim", None)
    channels = model.n_embd if head_size is None else model.n_head * head_size  # of all heads together
    layers = round((plan.flops_per_token - 6 * counted) / (12 * channels * model.block_size))
    flops = (
        f"{plan.flops_per_token:.4g} = 6·N + 12·L·C·T, {_equal('N', counted)}, {_equal('L', layers)},"
        f" {_equal('C', channels)}, {_equal('T', model.block_size)} (Chowdhery et al. 2022, appendix B{without})"
    )
    paired = find_architecture(plan.config.architecture).kind == "encoder-decoder"
    tokens = (
        f"{training.max_steps:,} steps of {training.batch_tokens:,} = {plan.tokens:,}"
        f"{' if each pair filled its row' if paired else ''}, {ratio:.3g} per parameter"
        f" (Hoffmann et al. 2022: about {CHINCHILLA_RATIO})"
    )
    return [
        *_named("FLOPs per token", flops, width),
        *_named("tokens", tokens, width),
        *_named("FLOPs", f"{plan.flops:.4g}", width),
    ]


def _equal(letter: str, count: int) -> str:
    """`letter = count`, which stays on one line."""
    return NO_BREAK.join((letter, "=", f"{count:,}"))


def _memory(plan: Plan, width: int) -> list[str]:
    device, block = plan.hardware, plan.config.model
    unit = block.block_size * block.n_embd * block.n_layer
    kept = ", ".join(f"{part} {count / unit:.4g}" for part, count in plan.activations.items() if count / unit > 0.05)
    largest = plan.largest_micro_batch
    where = device.name if plan.devices == 1 else f"each of {plan.devices:,} devices ({device.name})"
    way = "" if plan.parallel == "none" else f" with {plan.parallel}"
    margin = f", ±{HEAP_MARGIN:.0%}" if device.kind == "cpu" else ""
    title = (
        f"Memory of a step on {where}{way}, {plan.precision}{margin}, in {_unit(plan)[0]}, by rows of"
        f" {block.block_size} tokens in a micro-batch"
    )
    fits = (
        f"{largest or 'no'} row{'s' * (largest != 1)} of the {plan.rank_rows} of a step"
        f"{' on each device' * (plan.devices > 1)} into {size(device.usable)} of {size(device.memory)}"
        f" ({RESERVE:.0%} kept back)"
    )
    return [
        fold(title, width),
        *_memory_table(plan, width),
        fold(MOMENT, width),
        *_named("activations", f"bytes per B·T·C and layer: {kept}", width),
        *_named("fits", fits, width),
    ]


def _memory_table(plan: Plan, width: int) -> list[str]:
    """A line for each micro-batch; the recipe's own has a star. Parts without a column of their own are in `other`."""
    divisor = _unit(plan)[1]
    seen = 0.005 * divisor  # what is smaller is shown as 0.00
    titles = [key for key in TITLES if any(row.parts.get(key, 0) >= seen for row in plan.micro_batches)]
    smallest_first = sorted(titles, key=lambda key: max(row.parts.get(key, 0) for row in plan.micro_batches))
    for folded in range(len(titles) + 1):
        shown = [key for key in titles if key not in smallest_first[:folded]]
        table = [["rows", *(TITLES[key] for key in shown), *[OTHER] * (folded > 0), "peak", "fits"]]
        for row in plan.micro_batches:
            parts = [row.parts.get(key, 0) for key in shown]
            rest = [row.total - sum(parts)] * (folded > 0)
            cells = [_number(count / divisor) for count in (*parts, *rest, row.total)]
            own = "*" * (row.rows == plan.own_micro_batch)
            table.append([f"{own}{row.rows}", *cells, "yes" if row.fits else "no"])
        widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
        lines = [" ".join(cell.rjust(room) for cell, room in zip(line, widths, strict=True)) for line in table]
        if len(lines[0]) <= width:
            break
    has_own = any(row.rows == plan.own_micro_batch for row in plan.micro_batches)
    return [*lines, "* the recipe's own"] if has_own else lines


def _unit(plan: Plan) -> tuple[str, int]:
    """The unit of the table and its bytes."""
    largest = max(row.total for row in plan.micro_batches)
    return ("GiB", 2**30) if largest >= 2**30 else ("MiB", 2**20)


def _number(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 1000 else f"{value:,.0f}"


def _time(plan: Plan, width: int) -> list[str]:
    lines = []
    if plan.seconds is not None and plan.hardware.peak_flops is not None:
        text = (
            f"{duration(plan.seconds)} on {'one' if plan.devices == 1 else f'{plan.devices:,} ×'} {plan.hardware.name}"
            f" at {plan.utilisation:.0%} of {plan.hardware.peak_flops / 1e12:,.0f} TFLOP/s"
        )
        lines += _named("time", text, width)
    if plan.measured is not None:
        here = plan.measured
        text = (
            f"{duration(here.seconds)} on {here.device}, measured: {here.tokens_per_second:,.0f} tokens/s with"
            f" {counted(here.micro_batch, 'row')}"
        )
        lines += _named("time here", text, width)
    if plan.price_per_hour is not None:
        cost = "unknown, as the time is" if plan.cost is None else f"{plan.cost:,.2f}"
        each = " for each device" * (plan.devices > 1)
        lines += _named("cost", f"{cost} at {plan.price_per_hour:g} an hour{each}", width)
    return lines


def size(count: float) -> str:
    """Formats bytes in a readable unit."""
    for unit, power in (("GiB", 30), ("MiB", 20)):
        if count >= 2**power:
            return f"{count / 2**power:,.1f} {unit}" if count < 1000 * 2**power else f"{count / 2**power:,.0f} {unit}"
    return f"{count / 2**10:,.0f} KiB"
