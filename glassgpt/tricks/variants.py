"""The tricks, each as two setups of a training step that differ only in the trick."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

from glassgpt.errors import unknown
from glassgpt.models import ModelConfig, find_architecture
from glassgpt.runtime.device import Runtime, build_runtime
from glassgpt.training.optimizers import OptimizerConfig

PADDED_TO = 128  # ids: a multiple of the tile size of tensor cores


@dataclass(frozen=True)
class Setup:
    """All settings of a variant. The defaults are the plain variant: float32, eager, the batch in one pass."""

    architecture: str
    model: ModelConfig
    optimizer: OptimizerConfig
    rows: int  # per batch
    device: str = "auto"
    precision: str = "float32"
    compile: bool = False
    fused: bool = True  # one kernel for the whole update
    flash: bool = True  # fused attention
    passes: int = 1  # over which the batch is accumulated
    chunk: int | None = None  # tokens whose logits are computed at once; None: all
    activation_checkpointing: bool = False  # recompute blocks in the backward pass
    seed: int = 1337


@dataclass(frozen=True)
class Trick:
    """A name, a one-line description, and the two setups, which differ only in the trick."""

    name: str
    idea: str
    with_it: Callable[[Setup], Setup]
    without: Callable[[Setup], Setup] = lambda plain: plain
    needs: Callable[[Setup, Runtime], str | None] = lambda setup, runtime: None  # why it is not available here


def _needs_cuda(setup: Setup, runtime: Runtime) -> str | None:
    return None if runtime.device.type == "cuda" else "a mode of NVIDIA's tensor cores, which this device does not have"


def _needs_compiler(setup: Setup, runtime: Runtime) -> str | None:
    tried = build_runtime(str(runtime.device), "float32", compile=True)
    return None if tried.compile else tried.notes[-1]


def _needs_precision(name: str, setup: Setup, runtime: Runtime) -> str | None:
    return f"no {name} on {runtime.device.type}" if runtime.device.type == "mps" and name == "bfloat16" else None


def _needs_padding(setup: Setup, runtime: Runtime) -> str | None:
    if not find_architecture(setup.architecture).pads:
        return f"{setup.architecture} does not support a padded vocabulary"
    size = setup.model.vocab_size
    return f"{size:,} ids are a multiple of {PADDED_TO} already" if size % PADDED_TO == 0 else None


TRICKS = (
    Trick("TF32", "float32 products in TF32", lambda s: replace(s, precision="tf32"), needs=_needs_cuda),
    Trick("bfloat16", "half the bits, float32's range", lambda s: replace(s, precision="bfloat16"),
          needs=partial(_needs_precision, "bfloat16")),
    Trick("float16", "half the bits, and a loss scale", lambda s: replace(s, precision="float16")),
    Trick("compile", "torch.compile fuses the operations between products", lambda s: replace(s, compile=True),
          needs=_needs_compiler),
    Trick("fused AdamW", "one kernel for the whole update", lambda s: s, lambda s: replace(s, fused=False)),
    Trick("flash attention", "never stores the attention pattern", lambda s: s, lambda s: replace(s, flash=False)),
    Trick("padded vocabulary", f"a multiple of {PADDED_TO} ids", lambda s: _with_rows(s, _padded_size(s)),
          lambda s: _with_rows(s, None), needs=_needs_padding),
    Trick("chunked loss", "never stores all logits at once", lambda s: replace(s, chunk=_eighth(s))),
    Trick("recomputed blocks", "activation checkpointing", lambda s: replace(s, activation_checkpointing=True)),
    Trick("accumulation", "the batch in four passes", lambda s: replace(s, passes=min(4, s.rows))),
    Trick("batch × 4", "four times the rows", lambda s: replace(s, rows=4 * s.rows)),
)  # fmt: skip


def choose_tricks(names: Sequence[str]) -> tuple[Trick, ...]:
    """The tricks of these names, in the order of TRICKS; all of them for no name. Raises UserError for another name."""
    known = [trick.name for trick in TRICKS]
    for name in names:
        if name not in known:
            raise unknown("trick", name, known)
    return tuple(trick for trick in TRICKS if not names or trick.name in names)


def _eighth(setup: Setup) -> int:
    return max(1, setup.rows * setup.model.block_size // 8)


def _padded_size(setup: Setup) -> int:
    return -(-setup.model.vocab_size // PADDED_TO) * PADDED_TO


def _with_rows(setup: Setup, padded_vocab_size: int | None) -> Setup:
    return replace(setup, model=replace(cast(Any, setup.model), padded_vocab_size=padded_vocab_size))
