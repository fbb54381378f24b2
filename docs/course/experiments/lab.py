"""What the experiments share: a text, a short training, a loss, a line of a table."""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from glassgpt.data.dataset import Dataset
from glassgpt.data.dataset_cache import DataConfig, build_dataset
from glassgpt.data.loader import Loader
from glassgpt.data.shards import TokenArray
from glassgpt.evaluation.validation import bytes_per_token, evaluate
from glassgpt.models import Model
from glassgpt.runtime.device import build_runtime
from glassgpt.tokenizers import TokenizerConfig

CPU = build_runtime("cpu", "float32")


def text_parser(description: str | None) -> argparse.ArgumentParser:
    """A command line with `--data`. A script adds its own options."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="auto", help="as in glassgpt train: a name, a file or a folder")
    return parser


def open_text(data: str) -> Dataset:
    """The characters of the text that `--data` names, split into training and validation; prints which text it is."""
    dataset = build_dataset(DataConfig(data), TokenizerConfig("char"))
    print(dataset.note)
    return dataset


def adamw(model: nn.Module, lr: float) -> torch.optim.Optimizer:
    """The optimizer of an experiment that is not about optimizers."""
    return torch.optim.AdamW(model.parameters(), lr=lr, betas=(0.9, 0.99), weight_decay=0.1)


def train(
    model: nn.Module,
    tokens: TokenArray,
    optimizer: torch.optim.Optimizer,
    *,
    steps: int,
    block_size: int = 32,
    batch_rows: int = 16,
    seed: int = 0,
    after_step: Callable[[int, float], None] = lambda step, loss: None,
) -> None:
    """A plain loop: a straight warm-up over 50 steps, then a constant learning rate; gradients clipped to norm 1."""
    loader = Loader(tokens, block_size, batch_rows, seed)
    peaks = [group["lr"] for group in optimizer.param_groups]
    model.train()
    for step in range(steps):
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            group["lr"] = peak * min(1.0, (step + 1) / 50)
        inputs, targets = loader.rows(step)
        loss = F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        after_step(step + 1, loss.item())


def validation_loss(model: Model, dataset: Dataset, max_tokens: int = 20_000) -> float:
    """Nats per token on that many tokens of the validation split."""
    token_bytes = bytes_per_token(dataset.tokenizer)
    return evaluate(model, dataset.val, token_bytes, CPU, max_tokens=max_tokens).loss


def row(*cells: object, width: int = 14) -> None:
    """Prints one line of a table: numbers to three decimals, the first cell wide."""
    first, *rest = (f"{cell:.3f}" if isinstance(cell, float) else str(cell) for cell in cells)
    print(f"{first:<34}" + "".join(f"{cell:>{width}}" for cell in rest), flush=True)


def n_parameters(model: nn.Module) -> int:
    """All of them."""
    return sum(parameter.numel() for parameter in model.parameters())
