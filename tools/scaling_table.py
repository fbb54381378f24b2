"""Computes the table of docs/scaling.md: how long a step takes on many GPUs, from one GPU's rate and the network's.

Nothing is measured here. `--rate` is one GPU's FLOP/s in training; put the figure of bench/gpu_step.py there. The other
assumptions are the constants below, from data sheets.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import torch

from glassgpt.costs.flops import count_parameters, estimate_flops_per_token
from glassgpt.models.gpt2 import GPT2, GPT2_SIZES

GPUS_PER_NODE = 8
NVLINK = 450e9  # bytes/s that an H100 sends, and receives at the same time (NVIDIA H100 data sheet: 900e9 in all)
ADAPTER = 50e9  # bytes/s of a 400 Gb/s InfiniBand adapter
REACHED = 0.8  # of these rates by large messages


@dataclass(frozen=True)
class Case:
    """A model, its batch, and the rows that a GPU takes in a pass."""

    size: str
    batch_tokens: int
    rows_of_pass: int


CASES = (Case("gpt2", 2**19, 64), Case("gpt2-xl", 2**20, 16))


def all_reduce_bytes(n: int, size: float) -> float:
    """What each of n ranks sends in a ring all-reduce of `size` bytes (Patarasuk & Yuan 2009): 2 (n - 1) / n · size."""
    return 2 * (n - 1) / n * size


def gather_bytes(n: int, size: float) -> float:
    """What each rank sends in a ring all-gather, or reduce-scatter, of `size` bytes in all: (n - 1) / n · size."""
    return (n - 1) / n * size


def network_rate(n: int, adapters: int) -> float:
    """Bytes/s of a ring through all GPUs: NVLink's within a node, else what the adapters let out of it at most."""
    return REACHED * (NVLINK if n <= GPUS_PER_NODE else min(NVLINK, adapters * ADAPTER))


def print_table(rate: float) -> None:
    """Markdown. A sum of bytes is followed by the time it takes with eight adapters a node, and with one."""
    heads = ["model, tokens a step", "GPUs", "passes", "computing"]
    heads += [f"{way} {part}" for way in ("DDP", "FSDP") for part in ("sends", "by 8", "by 1")]
    print(f"| {' | '.join(heads)} |")
    print(f"| --- |{' --: |' * (len(heads) - 1)}")
    for case in CASES:
        config = GPT2_SIZES[case.size]
        with torch.device("meta"):
            model = GPT2(config)
        parameters = count_parameters(model)
        flops = estimate_flops_per_token(model) * case.batch_tokens
        for n in (1, 8, 64, 512):
            passes = max(1, case.batch_tokens // config.block_size // n // case.rows_of_pass)
            computing = flops / rate / n
            ddp = all_reduce_bytes(n, 4 * parameters)
            fsdp = gather_bytes(n, (2 * 2 + 4) * passes * parameters)
            cells = [f"{case.size}, {case.batch_tokens:,}", str(n), str(passes), milliseconds(computing)]
            for sent in (ddp, fsdp):
                cells.append(f"{sent / 1e9:.2f} GB")
                cells += [milliseconds(sent / network_rate(n, adapters)) for adapters in (8, 1)]
            print(f"| {' | '.join(cells)} |")


def milliseconds(seconds: float) -> str:
    """Three figures, as many as the assumptions bear at most."""
    return f"{seconds * 1e3:,.3g} ms" if seconds < 1 else f"{seconds * 1e3:,.0f} ms"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=0.4 * 989e12, help="FLOP/s of one GPU in training")
    print_table(parser.parse_args().rate)
