"""What each part of the modern model is worth: one change at a time, in equal time, with several seeds.

    python bench/ablation.py --data tinyshakespeare.txt --minutes 0.5 --seeds 3

Every run is `glassgpt.train` of the recipe modern-tiny with the same minutes for everything, so a change that makes a
step slower gets fewer steps. The variants take turns, seed by seed; nothing else should run beside it. The losses are
those on the whole validation split. With --json, one object at the end.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glassgpt.models import modern
from glassgpt.models.modern import NORM_EPS, Modern
from glassgpt.runs.listener import Listener
from glassgpt.runs.train import train

RECIPE = "modern-tiny"
Change = Callable[[Modern], None]


@dataclass(frozen=True)
class Variant:
    """A change of the recipe's settings, of the names of models/modern.py, or of a model that has just been built."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    names: Mapping[str, Any] = field(default_factory=dict)
    change: Change | None = None


def blocks_of(model: Modern) -> list[Any]:
    """The blocks, whose parts may be replaced."""
    return list(model.blocks)


class PlainMLP(nn.Module):
    """Two matrices with as many weights as the three of the gated MLP, and a function between them."""

    def __init__(self, n_embd: int, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.up = nn.Linear(n_embd, 4 * n_embd, bias=False)
        self.down = nn.Linear(4 * n_embd, n_embd, bias=False)
        self.function = function
        nn.init.normal_(self.up.weight, std=0.5 * n_embd**-0.5)
        nn.init.zeros_(self.down.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) to (B, T, C)."""
        product: Tensor = self.down(self.function(self.up(x)))
        return product


def use_mlp(function: Callable[[Tensor], Tensor]) -> Change:
    """A change that puts `PlainMLP` into every block."""

    def change(model: Modern) -> None:
        for block in blocks_of(model):
            block.mlp = PlainMLP(model.config.n_embd, function)

    return change


def relu_squared(x: Tensor) -> Tensor:
    """max(x, 0)² (So et al. 2021)."""
    return F.relu(x).square()


class TiedHead(nn.Module):
    """A head without weights of its own: its matrix is the token embedding."""

    def __init__(self, embedding: nn.Embedding) -> None:
        super().__init__()
        vars(self)["embedding"] = embedding  # not as a submodule, or its weights would be saved twice

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) to (..., V)."""
        return F.linear(x, vars(self)["embedding"].weight)


def tie_head(model: Modern) -> None:
    """One matrix for tokens that go in and for those that come out."""
    model.head = TiedHead(model.token_embedding)


def learn_positions(model: Modern) -> None:
    """A learned vector for each position, as in GPT-2; the rotation is switched off beside it."""
    table = nn.Embedding(model.config.block_size, model.config.n_embd)
    model.position_embedding = table
    nn.init.normal_(table.weight, std=0.02)

    def add(block: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        x, *rest = arguments
        return (x + table.weight[: x.size(1)], *rest)

    model.blocks[0].register_forward_pre_hook(add)


def free_queries_and_keys(model: Modern) -> None:
    """Queries and keys as they are, without a norm."""
    for block in blocks_of(model):
        block.attn.norm_q = block.attn.norm_k = nn.Identity()


def use_layer_norm(model: Modern) -> None:
    """LayerNorm in place of every RMSNorm."""
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.RMSNorm):
                setattr(parent, name, nn.LayerNorm(child.normalized_shape, eps=NORM_EPS))


def start_anywhere(model: Modern) -> None:
    """Projections into the residual stream that do not start at zero."""
    for block in blocks_of(model):
        for matrix in (block.attn.proj.weight, block.mlp.down.weight):
            nn.init.normal_(matrix, std=0.5 * matrix.size(1) ** -0.5)


class SoftCapped(nn.Linear):
    """Logits between -15 and 15 (Gemma 2, section 2)."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) to (..., V)."""
        return 15.0 * torch.tanh(super().forward(x) / 15.0)


def soft_cap(model: Modern) -> None:
    """A head whose logits are bounded."""
    head: Any = model.head
    head.__class__ = SoftCapped


def embed_values(model: Modern) -> None:
    """Every layer adds an embedding of the token to its values (modded-nanogpt)."""
    seen: dict[str, Tensor] = {}
    model.token_embedding.register_forward_pre_hook(lambda _, arguments: seen.update(tokens=arguments[0]))
    for block in blocks_of(model):
        table = block.attn.value_embedding = nn.Embedding(model.config.vocab_size, model.config.n_embd)
        nn.init.zeros_(table.weight)

        def add(_: nn.Module, __: Any, qkv: Tensor, table: nn.Embedding = table) -> Tensor:
            return qkv + F.pad(table(seen["tokens"]), (2 * table.embedding_dim, 0))

        block.attn.qkv.register_forward_hook(add)


def no_rotation(x: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    """x as it is."""
    return x


VARIANTS: dict[str, Variant] = {
    "as it is": Variant(),
    "no n-grams": Variant({"model.ngram": 1}),
    "n-grams of 2 and 3 tokens": Variant({"model.ngram": 3}),
    "no dropout of n-grams": Variant({"model.ngram_dropout": 0.0}),
    "AdamW": Variant({"optimizer.name": "adamw", "optimizer.lr": 0.004}),
    "embeddings at the rate of matrices": Variant({"optimizer.embedding_lr": 0.01}),
    "cosine after a warm-up": Variant({"schedule.name": "cosine", "schedule.warmup_steps": 20}),
    "learned positions": Variant(names={"rotate": no_rotation}, change=learn_positions),
    "tied head": Variant(change=tie_head),
    "LayerNorm": Variant(change=use_layer_norm),
    "no norm of queries and keys": Variant(change=free_queries_and_keys),
    "GELU": Variant(change=use_mlp(F.gelu)),
    "ReLU²": Variant(change=use_mlp(relu_squared)),
    "residual projections not from zero": Variant(change=start_anywhere),
    "soft-capped logits": Variant(change=soft_cap),
    "value embeddings": Variant(change=embed_values),
}


@contextlib.contextmanager
def applied(variant: Variant) -> Iterator[None]:
    """Models that are built inside have the change."""
    plain = Modern.init_weights

    def init_weights(model: Modern) -> None:
        plain(model)
        if variant.change is not None:
            variant.change(model)

    with contextlib.ExitStack() as stack:
        for name, value in variant.names.items():
            stack.enter_context(mock.patch.object(modern, name, value))
        stack.enter_context(mock.patch.object(Modern, "init_weights", init_weights))
        yield


def measure(data: str, minutes: float, seed: int, variant: Variant, folder: Path) -> tuple[float, int]:
    """The loss on the whole validation split, and the steps that the time was enough for."""
    settings = dict(variant.settings) | {"training.seed": seed}
    with applied(variant):
        run = train(
            RECIPE, data=data, minutes=minutes, settings=settings, run=folder, overwrite=True, listener=Listener()
        )
    assert run is not None and run.summary is not None
    return float(run.summary["val_loss"]), int(run.summary["steps"])


def main() -> None:
    """Measures and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", default="shakespeare", help="a text, as for glassgpt train (shakespeare)")
    parser.add_argument("--minutes", type=float, default=0.5, help="of every run (0.5)")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each variant (3)")
    parser.add_argument("--first-seed", type=int, default=41, help="the seed of the first runs (41)")
    parser.add_argument("--json", action="store_true", help="one JSON object at the end")
    options = parser.parse_args()
    losses: dict[str, list[float]] = {name: [] for name in VARIANTS}
    steps: dict[str, list[int]] = {name: [] for name in VARIANTS}
    told = sys.stderr if options.json else sys.stdout
    with tempfile.TemporaryDirectory(prefix="glassgpt-ablation-") as scratch:
        for seed in range(options.first_seed, options.first_seed + options.seeds):
            for name, variant in VARIANTS.items():
                loss, taken = measure(options.data, options.minutes, seed, variant, Path(scratch) / "run")
                losses[name].append(loss)
                steps[name].append(taken)
                print(f"seed {seed}  {name:34}  {taken:5,} steps  {loss:.4f}", file=told, flush=True)
    mean = statistics.mean(losses["as it is"])
    rows = [
        {"variant": name, "losses": losses[name], "steps": steps[name],
         "worse_by": statistics.mean(losses[name]) - mean} for name in VARIANTS
    ]  # fmt: skip
    if options.json:
        print(json.dumps({"data": Path(options.data).stem, "minutes": options.minutes, "rows": rows}))
        return
    print()
    for name in VARIANTS:
        own = losses[name]
        print(
            f"{name:34}  {statistics.mean(own):.4f} ({min(own):.4f} to {max(own):.4f})"
            f"  {statistics.mean(own) - mean:+.4f}  {statistics.mean(steps[name]):6,.0f} steps"
        )


if __name__ == "__main__":
    main()
