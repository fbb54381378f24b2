"""Measures how fast a model generates text, beside its peers and the rate at which this machine reads memory.

Every new token needs all weights once, so the rate at which memory is read is a roof for the tokens per second. The
contenders take turns, round after round, so that a machine that slows down affects all of them. Memory is read in each
round, too: on a shared machine its rate may double within a second.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from glassgpt.errors import UserError, shown, unknown
from glassgpt.generation.engine import Request, generate_batch
from glassgpt.generation.packed import WEIGHTS, Float16Linear, lacks_kernel, pack
from glassgpt.generation.sampling import SamplingConfig
from glassgpt.interop.llama_cpp import LlamaCpp, check_llama_cpp
from glassgpt.interop.nanogpt import NanoGPTPeer
from glassgpt.interop.peer import Peer, lacks_peer
from glassgpt.models import Model, is_tied

LOADED = "loaded"  # the weights as the model has them, not packed
MOST = 1024  # texts at once, new tokens, and rounds: what can be measured in a reasonable time
READ = "read"  # the rate of memory, among those of the contenders
PEERS = ("transformers", "nanogpt", "llama_cpp")
ROOF_BYTES = 1 << 30  # read at once to measure the rate: no cache holds them


@dataclass(frozen=True)
class SpeedRow:
    """How fast one kind of weights is at `batch` texts at once. Rates are tokens per second of all texts together."""

    batch: int
    weights: str
    tokens_per_second: float  # the median of the rounds
    rounds: tuple[float, ...]
    weight_bytes: int  # of the weights that a pass reads
    share_of_roof: float  # of batch x (bytes per second of memory) / weight_bytes: the median of the rounds
    transformers: float | None = None  # its tokens per second
    ratio_to_transformers: float | None = None  # the median of the ratios of each round
    nanogpt: float | None = None
    ratio_to_nanogpt: float | None = None
    llama_cpp: float | None = None
    ratio_to_llama_cpp: float | None = None


@dataclass(frozen=True)
class GenerationSpeed:
    """The result of `measure_generation`: a row for each batch and kind of weights, and bytes per second of memory."""

    rows: tuple[SpeedRow, ...]
    read_rate: float  # the median
    read_rates: tuple[float, ...]  # of all rounds
    notes: tuple[str, ...]  # what was not measured, and why

    def to_dict(self) -> dict[str, Any]:
        """For JSON output."""
        return asdict(self)


def measure_generation(
    model: Model,
    *,
    batches: Sequence[int] = (1, 16),
    weights: Sequence[str] = (),
    new_tokens: int = 32,
    prompt_tokens: int = 1,
    rounds: int = 3,
    peer: bool = True,
    nanogpt: Path | None = None,
    llama_cpp: bool = False,
) -> GenerationSpeed:
    """Continues random prompts greedily, with each kind of `weights`, by default all that this processor has.

    `transformers` takes part if it is installed and a `peer` is wanted, nanoGPT if there is a checkout of it, llama.cpp
    if `llama_cpp` asks for it. Raises UserError for a number out of range, for texts longer than the window, for
    weights without a kernel here, and if nanoGPT or llama.cpp cannot be measured.
    """
    for name, values in {"batch": batches, "new-tokens": [new_tokens], "rounds": [rounds]}.items():
        for value in values:
            if not 1 <= value <= MOST:
                raise UserError(f"--{name} {shown(value)} is out of range: it must be at least 1 and at most {MOST}")
    if prompt_tokens < 1 or prompt_tokens + new_tokens > model.config.block_size:
        raise UserError(
            f"--prompt-tokens {shown(prompt_tokens)} is out of range: a prompt has at least 1 token, and with"
            f" {shown(new_tokens)} new ones it must fit into the window of {model.config.block_size}"
        )
    if llama_cpp:
        check_llama_cpp(model)
    kinds, notes = _choose_weights(weights, next(model.parameters()).device)
    lacking = lacks_peer(model) if peer else "transformers was left out"
    if lacking is not None:
        notes.append(lacking)
    writers: dict[str, Callable[[Tensor, int], object]] = {}
    if lacking is None:
        writers["transformers"] = Peer(model).write
    if nanogpt is not None:
        writers["nanogpt"] = NanoGPTPeer(model, nanogpt).write
    if llama_cpp:
        writers["llama_cpp"] = LlamaCpp(model, slots=max(batches), positions=prompt_tokens + new_tokens).write
    rows: list[SpeedRow] = []
    read: list[float] = []
    for batch in batches:
        models = {kind: model if kind == LOADED else pack(model, kind, rows=batch) for kind in kinds}
        ours = {kind: partial(_write, each) for kind, each in models.items()}
        tokens = torch.randint(model.config.vocab_size, (batch, prompt_tokens), device=next(model.parameters()).device)
        rates = _measure_in_turn(ours | writers, tokens, new_tokens, rounds)
        rows += [_row(batch, kind, rates, count_weight_bytes(each)) for kind, each in models.items()]
        read += rates[READ]
    return GenerationSpeed(tuple(rows), statistics.median(read), tuple(read), tuple(notes))


def measure_read_rate(device: torch.device) -> float:
    """Bytes per second at which this device reads memory: the best of three ways to read 1 GiB of float32 once.

    They are the sum, and the product with a vector of a matrix that is stored by rows or by columns.
    """
    side = int((ROOF_BYTES // 4) ** 0.5)
    matrix, vector = torch.ones(side, side, device=device), torch.ones(side, device=device)
    ways: list[Callable[[], Tensor]] = [
        matrix.sum,
        partial(torch.mv, matrix, vector),
        partial(torch.mv, matrix.t(), vector),
    ]

    def read(way: Callable[[], Tensor]) -> float:
        began = time.perf_counter()
        float(way().sum())  # waits for a GPU
        return time.perf_counter() - began

    return matrix.nbytes / min(read(way) for _ in range(2) for way in ways)


def count_weight_bytes(model: Model) -> int:
    """Bytes of the weights that a pass reads whole: all but the embeddings, of which it looks up single rows."""
    head = "token_embedding" if is_tied(model) else None
    tables = [part for name, part in model.named_modules() if isinstance(part, nn.Embedding) and name != head]
    looked_up = {id(table.weight) for table in tables}
    packed = sum(part.packed_bytes for part in model.modules() if isinstance(part, Float16Linear))
    return packed + sum(weight.nbytes for weight in model.parameters() if id(weight) not in looked_up)


def _choose_weights(weights: Sequence[str], device: torch.device) -> tuple[list[str], list[str]]:
    """The kinds of weights to measure, and why a kind is left out that was not asked for."""
    if not weights:
        lacking = {kind: reason for kind in WEIGHTS if (reason := lacks_kernel(kind, device))}
        notes = [f"{kind} is not measured: {reason}" for kind, reason in lacking.items()]
        return [*(kind for kind in WEIGHTS if kind not in lacking), LOADED], notes
    for kind in weights:
        if kind not in (*WEIGHTS, LOADED):
            raise unknown("weights", kind, (*WEIGHTS, LOADED))
        if kind != LOADED and (reason := lacks_kernel(kind, device)):
            raise UserError(reason)
    return list(dict.fromkeys(weights)), []


def _write(model: Model, tokens: Tensor, new_tokens: int) -> None:
    greedy = SamplingConfig(temperature=0.0)
    generate_batch(model, [Request(row, greedy, new_tokens) for row in tokens.tolist()], slots=len(tokens))


def _measure_in_turn(
    contenders: Mapping[str, Callable[[Tensor, int], object]], tokens: Tensor, new_tokens: int, rounds: int
) -> dict[str, list[float]]:
    """Tokens per second of each contender in each round, after a call that warms up; `READ` is the rate of memory."""
    rates: dict[str, list[float]] = {name: [] for name in (READ, *contenders)}
    for number in range(rounds + 1):
        found = {READ: measure_read_rate(tokens.device)}
        for name, write in contenders.items():
            began = time.perf_counter()
            write(tokens, new_tokens)
            found[name] = len(tokens) * new_tokens / (time.perf_counter() - began)
        for name, rate in found.items() if number else ():
            rates[name].append(rate)
    return rates


def _row(batch: int, name: str, rates: Mapping[str, list[float]], weight_bytes: int) -> SpeedRow:
    own = rates[name]
    shares = [rate * weight_bytes / (batch * read) for rate, read in zip(own, rates[READ], strict=True)]
    row = SpeedRow(batch, name, statistics.median(own), tuple(own), weight_bytes, statistics.median(shares))
    for peer in PEERS:
        if (theirs := rates.get(peer)) is not None:
            ratios = [ours / their for ours, their in zip(own, theirs, strict=True)]
            compared: dict[str, Any] = {peer: statistics.median(theirs), f"ratio_to_{peer}": statistics.median(ratios)}
            row = replace(row, **compared)
    return row
