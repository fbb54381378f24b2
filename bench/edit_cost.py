"""What `glassgpt.edit` costs a training step: nothing while no edit is open, in two sizes of GPT-2.

    python bench/edit_cost.py --rounds 40

Each round takes one forward and backward pass of each side, in turn and in another order each time:

    never edited   a model on which no edit was ever used
    edit left      the same weights, after an edit of every head and every block was used and left
    empty edit     inside `with edit(model):`
    one head off   inside `with edit(model, zero=["blocks.1.head.0"])`

Times are seconds of the processor with one thread, so that other work on the machine counts less. A ratio is the median
over the rounds of a side's time to that of the model that was never edited, with the middle half of all ratios.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch

from glassgpt.inspection.edit import edit
from glassgpt.models.gpt2 import GPT2, GPT2Config
from glassgpt.training.losses import Batch, next_token_loss

SIZES = {
    "char-tiny": (GPT2Config(vocab_size=65, block_size=64, n_layer=4, n_head=4, n_embd=128), 12),
    "char-baby": (GPT2Config(vocab_size=65, block_size=256, n_layer=6, n_head=6, n_embd=384), 2),
}  # with the rows of a batch
WARM_UP = 3  # rounds


def main() -> None:
    """Both sizes, all sides."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name, (config, rows) in SIZES.items():
        measure(name, config, rows, options.rounds)


def measure(name: str, config: GPT2Config, rows: int, rounds: int) -> None:
    """Prints the table of one size."""
    torch.manual_seed(0)
    plain = GPT2(config)
    left = copy.deepcopy(plain)
    tokens = torch.randint(config.vocab_size, (rows, config.block_size + 1))
    blocks = [f"blocks.{n}" for n in range(config.n_layer)]
    with edit(left, zero=[*blocks, *(f"{block}.head.{head}" for block in blocks for head in range(config.n_head))]):
        left(tokens[:, :-1])
    sides: dict[str, tuple[GPT2, Callable[[], AbstractContextManager[None]]]] = {
        "never edited": (plain, nullcontext),
        "edit left": (left, nullcontext),
        "empty edit": (plain, lambda: edit(plain)),
        "one head off": (plain, lambda: edit(plain, zero=["blocks.1.head.0"])),
    }
    order, times = list(sides), {side: list[float]() for side in sides}
    for number in range(-WARM_UP, rounds):
        for side in order[number % len(order) :] + order[: number % len(order)]:
            model, open_edit = sides[side]
            with open_edit():
                seconds = time_step(model, tokens)
            if number >= 0:
                times[side].append(seconds)
    parameters = sum(parameter.numel() for parameter in plain.parameters())
    print(f"{name}: {parameters:,} parameters, {rows} x {config.block_size} tokens, {rounds} rounds")
    for side, seconds_of in times.items():
        ratios = [one / base for one, base in zip(seconds_of, times["never edited"], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        print(f"  {side:<14} {1000 * statistics.median(seconds_of):8.2f} ms   {middle:.3f} ({low:.3f} to {high:.3f})")


def time_step(model: GPT2, tokens: torch.Tensor) -> float:
    """Seconds of the processor for one forward and backward pass."""
    model.zero_grad(set_to_none=True)
    began = time.process_time()
    loss = next_token_loss(model, Batch(tokens[:, :-1], tokens[:, 1:]))
    (loss.sum / loss.weight).backward()
    return time.process_time() - began


if __name__ == "__main__":
    main()
