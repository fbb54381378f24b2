"""From GPT-2 to GPT-oss, one change after another: what each is worth in equal time, with several seeds.

    python bench/family.py --data tinyshakespeare.txt --seconds 50 --seeds 3

All rows are one small decoder, `Bridge`, with switches. Each row is another one with one more change, so its difference
is what that change is worth, at this size, on characters. With the switches of a published model it computes what that
model computes (tests/models/test_family_bridge.py). All rows have the same batches, the same AdamW and the same
learning rate at the same second. A change that makes a step slower gets fewer steps. Time is processor time of one
thread. All rows of a seed train in turn, a second each, so a slow minute of the machine meets all of them. The losses
are those on the whole validation split. With --json, one object at the end; with --json FILE, the file is written anew
after every seed.

Shapes: B batch, T positions, C = n_embd, H = n_head, G = key/value heads, D = C / H, V = vocab_size.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glassgpt.data.dataset import Dataset
from glassgpt.data.dataset_cache import DataConfig, build_dataset
from glassgpt.data.loader import Loader
from glassgpt.evaluation.validation import bytes_per_token, evaluate
from glassgpt.files import write_text
from glassgpt.models import gpt_oss
from glassgpt.models.attention import Attention, window_mask
from glassgpt.models.gelu import gelu_tanh
from glassgpt.models.model import Model, TiedHead
from glassgpt.models.rotary import Turn, frequencies, rotate, rotation
from glassgpt.runtime.device import build_runtime
from glassgpt.runtime.heap import keep_freed_memory
from glassgpt.tokenizers import TokenizerConfig
from glassgpt.training.fit import TrainState, fit
from glassgpt.training.losses import Batch, next_token_loss
from glassgpt.training.optimizers import OptimizerConfig, build_optimizer

BATCH_ROWS = 12  # as char-tiny
SLICE = 1.0  # seconds that a run trains before it is the next one's turn
WARM_UP = 0.05  # of the time, in which the learning rate rises; then it falls along a cosine to a tenth


@dataclass(frozen=True)
class BridgeConfig:
    """The sizes, and a switch for each change. The defaults are GPT-2 at the size of char-tiny."""

    vocab_size: int = 65
    block_size: int = 64
    n_layer: int = 4
    n_head: int = 4
    n_embd: int = 128
    rotary: bool = False  # positions turn queries and keys; off: learned vectors are added to the input
    rms_norm: bool = False
    mlp: Literal["gelu", "gated", "clamped", "experts"] = "gelu"  # "clamped": the gate of GPT-oss, in one dense MLP
    biases: bool = True
    own_head: bool = False
    n_kv_head: int | None = None  # None: as many as query heads
    norm_qk: bool = False
    band_width: int | None = None  # of layers 0, 2, 4, …; None: all layers see all positions
    sinks: bool = False
    n_hidden: int = 344  # of a gated MLP: 8/3 of the channels, as many weights as GPT-2's 4 C; experts share it
    n_expert: int = 8
    n_active: int = 2  # experts that compute for a token; each has n_hidden / n_active hidden units
    norm_eps: float = 1e-5
    rope_base: float = 10_000.0
    dropout: float = 0.0

    @property
    def head_dim(self) -> int:
        """D, the dimensions of a head."""
        return self.n_embd // self.n_head


def norm_of(config: BridgeConfig) -> nn.Module:
    """The norm in front of attention, of the MLP and of the head."""
    kind = nn.RMSNorm if config.rms_norm else nn.LayerNorm
    return kind(config.n_embd, eps=config.norm_eps)


class SelfAttention(nn.Module):
    """Causal self-attention; queries, keys and values have matrices of their own in every row."""

    def __init__(self, config: BridgeConfig, layer: int) -> None:
        super().__init__()
        D, G = config.head_dim, config.n_kv_head or config.n_head
        self.head_dim = D
        self.band = None if layer % 2 else config.band_width
        self.q = nn.Linear(config.n_embd, config.n_head * D, bias=config.biases)
        self.k = nn.Linear(config.n_embd, G * D, bias=config.biases)
        self.v = nn.Linear(config.n_embd, G * D, bias=config.biases)
        if config.norm_qk:
            self.norm_q = nn.RMSNorm(D, eps=config.norm_eps)
            self.norm_k = nn.RMSNorm(D, eps=config.norm_eps)
        self.norm_qk = config.norm_qk
        self.sinks = nn.Parameter(torch.zeros(config.n_head)) if config.sinks else None
        self.inner = Attention()
        self.proj = nn.Linear(config.n_head * D, config.n_embd, bias=config.biases)

    def forward(self, x: Tensor, turn: Turn | None) -> Tensor:
        """(B, T, C) to (B, T, C)."""
        B, T, _ = x.shape
        q, k, v = (layer(x).view(B, T, -1, self.head_dim).transpose(1, 2) for layer in (self.q, self.k, self.v))
        if self.norm_qk:
            q, k = self.norm_q(q), self.norm_k(k)
        if turn is not None:
            q, k = rotate(q, turn), rotate(k, turn)
        out = self.inner(q, k, v, window_mask(T, T, self.band, x.device), sinks=self.sinks)  # (B, H, T, D)
        projected: Tensor = self.proj(out.transpose(1, 2).reshape(B, T, -1))
        return projected


class PlainMLP(nn.Module):
    """GPT-2's: GELU between two matrices."""

    def __init__(self, config: BridgeConfig) -> None:
        super().__init__()
        self.up = nn.Linear(config.n_embd, 4 * config.n_embd, bias=config.biases)
        self.down = nn.Linear(4 * config.n_embd, config.n_embd, bias=config.biases)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) to (B, T, C)."""
        product: Tensor = self.down(gelu_tanh(self.up(x)))
        return product


class GatedMLP(nn.Module):
    """Llama's: SiLU of a gate times each hidden unit. Or, clamped, as in each expert of GPT-oss."""

    def __init__(self, config: BridgeConfig) -> None:
        super().__init__()
        self.clamped = config.mlp == "clamped"
        self.gate = nn.Linear(config.n_embd, config.n_hidden, bias=config.biases)
        self.up = nn.Linear(config.n_embd, config.n_hidden, bias=config.biases)
        self.down = nn.Linear(config.n_hidden, config.n_embd, bias=config.biases)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) to (B, T, C)."""
        gate, up = self.gate(x), self.up(x)
        if self.clamped:
            gate, up = gate.clamp(max=gpt_oss.LIMIT), up.clamp(-gpt_oss.LIMIT, gpt_oss.LIMIT)
            hidden = (up + 1) * gate * torch.sigmoid(gpt_oss.SLOPE * gate)
        else:
            hidden = F.silu(gate) * up
        product: Tensor = self.down(hidden)
        return product


def mlp_of(config: BridgeConfig) -> nn.Module:
    """The MLP of a block."""
    if config.mlp == "gelu":
        return PlainMLP(config)
    if config.mlp != "experts":
        return GatedMLP(config)
    sizes = gpt_oss.GPTOssConfig(
        n_embd=config.n_embd, n_hidden=config.n_hidden // config.n_active, n_expert=config.n_expert,
        n_active=config.n_active,
    )  # fmt: skip
    return gpt_oss.MLP(sizes)


class Block(nn.Module):
    """Attention and MLP, each behind a norm; both add to the residual stream."""

    def __init__(self, config: BridgeConfig, layer: int) -> None:
        super().__init__()
        self.norm1 = norm_of(config)
        self.attn = SelfAttention(config, layer)
        self.norm2 = norm_of(config)
        self.mlp = mlp_of(config)

    def forward(self, x: Tensor, turn: Turn | None) -> Tensor:
        """(B, T, C) to (B, T, C)."""
        x = x + self.attn(self.norm1(x), turn)
        return x + self.mlp(self.norm2(x))


class Bridge(Model):
    """A decoder that is GPT-2 with no switch, and GPT-oss with its switches: `tokens (B, T)` to `logits (B, T, V)`.

    Its tensors have the names of models/llama.py and models/gpt_oss.py.
    """

    config: BridgeConfig

    def __init__(self, config: BridgeConfig) -> None:
        super().__init__()
        self.config = config
        self.token_embedding = nn.Embedding(config.vocab_size, config.n_embd)
        self.position_embedding = None if config.rotary else nn.Embedding(config.block_size, config.n_embd)
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.n_layer))
        self.norm = norm_of(config)
        own = nn.Linear(config.n_embd, config.vocab_size, bias=False) if config.own_head else None
        self.head = TiedHead(self.token_embedding) if own is None else own
        self.init_weights()

    def init_weights(self) -> None:
        """As all models here: normal with std 0.02, less for what is added to the stream; biases and sinks zero."""
        residual_std = 0.02 / math.sqrt(2 * self.config.n_layer)
        for name, parameter in self.named_parameters():
            if name.endswith(("bias", "sinks")):
                nn.init.zeros_(parameter)
            elif parameter.dim() >= 2:
                into_residual = name.endswith(("attn.proj.weight", "mlp.down.weight", "mlp.experts.down"))
                nn.init.normal_(parameter, std=residual_std if into_residual else 0.02)

    def features(self, tokens: Tensor) -> Tensor:
        """tokens (B, T) to the final residual stream, normalised: (B, T, C)."""
        positions = torch.arange(tokens.size(1), device=tokens.device)
        x, turn = self.token_embedding(tokens), None
        if self.position_embedding is None:
            turn = rotation(positions, frequencies(self.config.head_dim, self.config.rope_base, tokens.device))
        else:
            x = x + self.position_embedding(positions)
        for block in self.blocks:
            x = block(x, turn)
        return self.norm(x)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.features(tokens))


@dataclass(frozen=True)
class Change:
    """A row: a change of the settings of the row above, or of the row `before`."""

    name: str
    source: str  # where the change comes from, and the model of this family that made it common
    settings: Mapping[str, Any] = field(default_factory=dict)
    before: str | None = None  # the row that it changes, where that is not the one above
    model: str | None = None  # the published model that the row is


ROWS = (
    Change("GPT-2", "Radford et al. 2019", model="GPT-2"),
    Change("rotary positions", "Su et al. 2021; Llama, 2023", {"rotary": True}),
    Change("RMSNorm", "Zhang & Sennrich 2019; Llama, 2023", {"rms_norm": True}),
    Change("gated MLP (SiLU)", "Shazeer 2020; Llama, 2023", {"mlp": "gated"}),
    Change("no biases", "T5, 2020; PaLM, 2022; Llama, 2023", {"biases": False}),
    Change("a head of its own", "Llama, 2023", {"own_head": True}, model="Llama"),
    Change("grouped queries", "Ainslie et al. 2023; Llama 2, 2023", {"n_kv_head": 2}, model="Llama 3"),
    Change("norm of queries and keys", "Henry et al. 2020; Qwen3, 2025", {"norm_qk": True}, model="Qwen3"),
    Change("biases again", "GPT-oss, 2025", {"biases": True}, before="grouped queries"),
    Change("GPT-oss's gate", "GPT-oss, 2025", {"mlp": "clamped"}),
    Change("a band in every second layer", "Child et al. 2019; GPT-3, 2020; GPT-oss, 2025", {"band_width": 16}),
    Change("sinks", "Xiao et al. 2023; GPT-oss, 2025", {"sinks": True}),
    Change("experts", "Shazeer et al. 2017; GPT-oss, 2025", {"mlp": "experts"}, model="GPT-oss"),
)


def before(row: Change) -> Change | None:
    """The row that a row changes; None for the first."""
    names = [each.name for each in ROWS]
    at = names.index(row.name)
    return None if at == 0 else ROWS[names.index(row.before) if row.before else at - 1]


def settings_of(row: Change) -> dict[str, Any]:
    """All settings of a row that differ from the first one's."""
    earlier = before(row)
    return ({} if earlier is None else settings_of(earlier)) | dict(row.settings)


def learning_rate(share: float, peak: float) -> float:
    """The rate when a `share` of the time is over: a warm-up, then half a cosine to a tenth of the peak."""
    if share < WARM_UP:
        return peak * (share + 0.01) / (WARM_UP + 0.01)
    done = min(1.0, (share - WARM_UP) / (1 - WARM_UP))
    return peak * (0.1 + 0.45 * (1 + math.cos(math.pi * done)))


class Run:
    """A model that trains for some seconds, a slice at a time."""

    def __init__(self, config: BridgeConfig, dataset: Dataset, seed: int, seconds: float, lr: float) -> None:
        self.dataset, self.seconds, self.lr = dataset, seconds, lr
        self.runtime = build_runtime("cpu", "float32")
        torch.manual_seed(seed)
        self.model = Bridge(replace(config, vocab_size=dataset.tokenizer.vocab_size))
        self.parallel = self.runtime.wrap(self.model, next_token_loss)
        self.optimizer = build_optimizer(self.model, OptimizerConfig(lr=lr))
        self.loader = Loader(dataset.train, config.block_size, BATCH_ROWS, seed)
        self.state = TrainState()
        self.spent = 0.0  # seconds of processor time

    def advance(self, seconds: float) -> None:
        """Trains for so long, or until its time is over."""
        began, spent = time.process_time(), self.spent
        until = min(spent + seconds, self.seconds)

        def now() -> float:
            self.spent = spent + time.process_time() - began
            return self.spent

        self.state = fit(
            self.parallel,
            self.optimizer,
            batches=lambda step: [Batch(*self.loader.rows(step))],
            lr_at=lambda _: learning_rate(now() / self.seconds, self.lr),
            runtime=self.runtime,
            scaler=self.runtime.build_scaler(),
            max_steps=sys.maxsize,
            grad_clip=1.0,
            seed=None,
            expected_weight=BATCH_ROWS * self.model.config.block_size,
            state=self.state,
            on_step=lambda *_: None,
            should_stop=lambda: now() >= until,
        )

    def result(self) -> dict[str, Any]:
        """The loss on the whole validation split, the steps that the time was enough for, and the parameters."""
        found = evaluate(self.model, self.dataset.val, bytes_per_token(self.dataset.tokenizer), self.runtime)
        parameters = sum(p.numel() for p in self.model.parameters())
        return {"loss": found.loss, "steps": self.state.step, "parameters": parameters}


def train_in_turn(runs: Sequence[Run]) -> None:
    """Trains all runs to the end of their time, slice by slice, so that a slow minute of the machine meets all."""
    while waiting := [run for run in runs if run.spent < run.seconds]:
        for run in waiting:
            run.advance(SLICE)


def tabulate(runs: Mapping[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """A row for each change that has run, with its differences to the row before, seed by seed."""
    rows = []
    for row in ROWS:
        own = runs.get(row.name, [])
        earlier = before(row)
        theirs = runs.get(earlier.name, []) if earlier else []
        if own:
            rows.append(
                {"change": row.name, "source": row.source, "model": row.model,
                 "before": earlier.name if earlier else None, "parameters": own[0]["parameters"],
                 "losses": [run["loss"] for run in own], "steps": [run["steps"] for run in own],
                 "differences": [run["loss"] - other["loss"] for run, other in zip(own, theirs, strict=False)]}
            )  # fmt: skip
    return rows


def main() -> None:
    """Measures and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="shakespeare", help="a text, as for glassgpt train (shakespeare)")
    parser.add_argument("--seconds", type=float, default=50.0, help="of training in every run (50)")
    parser.add_argument("--lr", type=float, default=3e-3, help="the learning rate at its peak, for all rows (0.003)")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each row (3)")
    parser.add_argument("--first-seed", type=int, default=41, help="the seed of the first runs (41)")
    parser.add_argument("--only", action="append", choices=[row.name for row in ROWS], help="this row; repeatable")
    parser.add_argument("--json", nargs="?", const="-", metavar="FILE", help="one JSON object")
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()  # as `glassgpt train` does
    dataset = build_dataset(DataConfig(source=options.data), TokenizerConfig(name="char"))
    rows = [row for row in ROWS if not options.only or row.name in options.only]
    results: dict[str, list[dict[str, Any]]] = {}
    told = sys.stderr if options.json == "-" else sys.stdout
    found: dict[str, Any] = {}
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        runs = [Run(BridgeConfig(**settings_of(row)), dataset, seed, options.seconds, options.lr) for row in rows]
        train_in_turn(runs)
        for row, run in zip(rows, runs, strict=True):
            result = run.result()
            results.setdefault(row.name, []).append(result)
            print(
                f"seed {seed}  {row.name:30}  {result['steps']:5,} steps  {result['loss']:.4f}", file=told, flush=True
            )
        found = {"data": Path(options.data).stem, "seconds": options.seconds, "lr": options.lr}
        found["rows"] = tabulate(results)
        if options.json and options.json != "-":
            write_text(Path(options.json), json.dumps(found, indent=1) + "\n")
    if options.json == "-":
        print(json.dumps(found))
        return
    print()
    for each in found["rows"]:
        losses, differences = each["losses"], each["differences"]
        change = ""
        if differences:
            change = f"{statistics.mean(differences):+.4f} ({min(differences):+.4f} to {max(differences):+.4f})"
        print(
            f"{each['change']:30}  {each['parameters']:9,}  {statistics.mean(losses):.4f}"
            f" ({min(losses):.4f} to {max(losses):.4f})  {change:30}"
            f"  {statistics.mean(each['steps']):6,.0f} steps"
        )


if __name__ == "__main__":
    main()
