"""Estimates the memory of a training step, part by part, without allocating it.

Memory use peaks at one of two moments. When the backward pass begins, memory holds the saved activations, the logits
and their gradients. When it ends, memory holds all gradients and no activations. The optimizer works in place. The
saved activations are not derived by hand. Autograd reports them, tensor by tensor
(`torch.autograd.graph.saved_tensors_hooks`), for a pass of the real model over fake tensors, which have no storage. For
GPT-2 in float32 that is 80·B·T·C bytes per layer, see docs/planning.md; Korthikanti et al. 2022 (section 4.1) count
34·B·T·C in 16 bits, dropout masks included.

Of several ranks, this is the memory of the one that holds most. With DDP each rank holds everything. With FSDP each
holds a part of the weights, gradients and optimizer state, as in ZeRO stage 3 (Rajbhandari et al. 2020, section 5), and
also the parameters that are gathered at that moment and the buffers of their exchange.

Shapes: B rows of a micro-batch, T positions, C = n_embd, V = vocab_size.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from glassgpt.costs.flops import count_parameters
from glassgpt.costs.typical import loss_function, random_batch, targets_per_row
from glassgpt.models import AnyModel, ModelConfig, find_architecture, is_tied
from glassgpt.models.attention import Attention
from glassgpt.models.gpt_oss import Experts
from glassgpt.models.sizes import embedding_rows
from glassgpt.runtime.heap import LARGEST_BLOCK
from glassgpt.runtime.parallel import blocks_of, gathered_in
from glassgpt.training.optimizers import OptimizerConfig, build_optimizer

LOSS = "logits and loss"
# Autograd saves the log-probabilities. Also needed: their gradient and that of the logits, each in float32.
LOSS_BYTES = 8

# Fragmentation of the C library's heap: freed memory in blocks too small to reuse. HEAP_WASTE is a fraction of the
# activations and of the logits. Of the logits, at most three tensors of LARGEST_BLOCK count, because larger blocks
# return to the system. It was fitted to the 16 cases of bench/plan_memory.py, while LARGEST_BLOCK was 32 MiB. With
# 1 GiB it predicts all but one of them within HEAP_MARGIN: several micro-batches with large logits take more.
HEAP_WASTE = 0.4
HEAP_MARGIN = 0.15


@dataclass(frozen=True)
class GatheredBytes:
    """Bytes that FSDP holds for a while in addition to a rank's own parts: gathered parameters and their gradients.

    Gradients have the dtype of the gathered parameters until the reduce-scatter, which copies them to float32.
    """

    root: int  # parameters outside the blocks
    block: int  # the largest block
    table: int  # gradient of a tied token embedding from one of its two uses
    exchanged_block: int  # input of a block's reduce-scatter
    exchanged_root: int  # the same for the parameters outside the blocks


@dataclass(frozen=True)
class StepMemory:
    """Bytes by part. `activations` and `loss` are per row of a micro-batch, the others for the whole model.

    With FSDP, `weights`, `gradients` and `optimizer` are a rank's part of them.
    """

    weights: int
    gradients: int
    optimizer: int
    low_precision_weights: int  # autocast's copies, saved for the backward pass
    activations: dict[str, int]  # by part of the model
    loss: int
    table_gradient: int  # a tied token embedding gets a gradient from each of its two uses
    keeps_gradients: bool = False  # DDP: its buckets hold the gradients at all times
    gathered: GatheredBytes | None = None  # with FSDP only
    one_block: int = 0  # activations per row of a recomputed block, after the logits are freed
    loss_limit: int | None = None  # for all rows together
    floor: int = 0  # the framework itself
    on_heap: bool = False  # CPU tensors come from the C library's heap

    def at_peak(self, micro_batch: int, *, accumulates: bool) -> dict[str, int]:
        """Bytes by part at the peak of a step over micro-batches of `micro_batch` rows.

        A step that `accumulates` holds the gradients of earlier micro-batches while it runs the next one.
        """
        held = {"weights": self.weights, "optimizer": self.optimizer, "floor": self.floor}
        earlier = {"gradients": self.gradients * (accumulates or self.keeps_gradients)}
        activations, loss = micro_batch * sum(self.activations.values()), micro_batch * self.loss
        loss = loss if self.loss_limit is None else min(loss, self.loss_limit)
        begin = held | earlier | self._activation_parts(activations, loss)
        again = micro_batch * self.one_block + self.table_gradient  # the head's gradient exists
        if self.one_block and again > loss:
            begin = held | earlier | self._activation_parts(activations + again, 0)
        moments = [begin, held | {"gradients": self.gradients + self.table_gradient}]
        if self.keeps_gradients and accumulates:  # in the second step DDP replaces its buckets by others
            moments.append(held | {"gradients": 2 * self.gradients})
        if self.gathered:
            moments = self._moments_sharded(self.gathered, begin, held, earlier, activations, micro_batch)
        return max(moments, key=lambda parts: sum(parts.values()))

    def _moments_sharded(
        self,
        full: GatheredBytes,
        begin: dict[str, int],
        held: dict[str, int],
        earlier: dict[str, int],
        activations: int,
        micro_batch: int,
    ) -> list[dict[str, int]]:
        """The highest moments with FSDP: the loss, the backward pass of the last and the first block, and the end."""
        begin = begin | {"gathered weights": full.root}  # they stay gathered until the backward pass ends
        last = held | earlier | self._activation_parts(activations + micro_batch * self.one_block, 0)
        last["gathered weights"] = full.root + 2 * full.block  # the block before it is gathered at the same time
        last["exchange"] = full.table + full.block + full.exchanged_block
        first = held | {"gradients": self.gradients, "gathered weights": full.root + full.block}
        first["exchange"] = full.table + full.block + full.exchanged_block
        end = held | {"gradients": self.gradients, "exchange": full.root + full.table + full.exchanged_root}
        return [begin, last, first, end]

    def _activation_parts(self, activations: int, loss: int) -> dict[str, int]:
        in_small_blocks = activations + min(loss, 3 * LARGEST_BLOCK)
        return {
            "low-precision weights": self.low_precision_weights,
            "activations": activations,
            LOSS: loss,
            "unusable pieces": int(HEAP_WASTE * in_small_blocks) if self.on_heap else 0,
        }

    def peak(self, micro_batch: int, *, accumulates: bool) -> int:
        """Total bytes at the peak."""
        return sum(self.at_peak(micro_batch, accumulates=accumulates).values())

    def with_floor(self, floor: int, *, on_heap: bool) -> StepMemory:
        """The same step on a device whose framework uses `floor` bytes."""
        return replace(self, floor=floor, on_heap=on_heap)


def estimate_step_memory(
    architecture: str,
    config: ModelConfig,
    optimizer: OptimizerConfig,
    *,
    precision: str,
    device_type: str = "cpu",
    activation_checkpointing: bool = False,
    loss_chunk: int | None = None,
    parallel: str = "none",
    ranks: int = 1,
) -> StepMemory:
    """The memory of a training step of this model, without the floor. `precision` and `parallel` as in a `Runtime`.

    Of several `ranks`, it is that of each one, see the head of this module.
    With `activation_checkpointing`, memory holds each block's input and one block's activations at a time.
    With a `loss_chunk` (see `training.loss_chunk`), memory holds the logits of only that many tokens at a time.
    """
    with FakeTensorMode():
        model = find_architecture(architecture).model(config)
        _share_evenly(model)
        if device_type != "cpu":
            _fuse_dropout(model)
        one, two = (_saved_for_backward(model, rows, precision) for rows in (1, 2))
        per_row = {part: two[part] - one[part] for part in two}
        shards = ranks if parallel == "fsdp" else 1
        weights = sum(_part_of_rank(parameter, shards) for parameter in model.parameters())
        one_block = 0
        activations = {part: count for part, count in per_row.items() if part != LOSS and count}
        if activation_checkpointing:
            n_blocks = max(1, len(list(blocks_of(model))))
            one_block = sum(activations.values()) // n_blocks
            activations = {"block inputs": 4 * config.block_size * config.n_embd * n_blocks}
        if loss_chunk:
            activations["head input"] = 8 * config.block_size * config.n_embd  # its gradient too
        logits = targets_per_row(model) * config.vocab_size
        gathered_dtype = gathered_in(precision, device_type) if parallel == "fsdp" else None
        return StepMemory(
            weights=weights,
            gradients=weights,
            optimizer=_optimizer_bytes(model, optimizer, shards),
            # Weights that are gathered in 16 bits need no copies.
            low_precision_weights=0 if gathered_dtype else sum(one.values()) - sum(per_row.values()),
            activations=activations,
            loss=per_row[LOSS] + LOSS_BYTES * logits,
            table_gradient=_tied_bytes(model),
            keeps_gradients=parallel == "ddp",
            gathered=_gathered_bytes(model, gathered_dtype or torch.float32) if parallel == "fsdp" else None,
            one_block=one_block,
            loss_limit=12 * loss_chunk * embedding_rows(config) if loss_chunk else None,
        )


def largest_micro_batch(memory: StepMemory, rows: int, usable: int, *, most: int | None = None) -> int | None:
    """The largest micro-batch that fits into `usable` bytes, at most `most` rows; None if not even one row fits.

    It divides `rows`, the rows of a step. All passes then have one shape, so no remainder needs its own compilation.
    """
    for micro_batch in reversed(_divisors(rows)):
        allowed = most is None or micro_batch <= most
        if allowed and memory.peak(micro_batch, accumulates=micro_batch < rows) <= usable:
            return micro_batch
    return None


def _divisors(number: int) -> list[int]:
    small = [n for n in range(1, math.isqrt(number) + 1) if number % n == 0]
    return sorted({*small, *(number // n for n in small)})


def count_parameters_by_part(model: AnyModel) -> dict[str, int]:
    """The number of parameters by part, in model order."""
    counts: Counter[str] = Counter()
    for name, parameter in model.named_parameters():
        counts[part_of(name)] += parameter.numel()
    return dict(counts)


def part_of(name: str) -> str:
    """The part of a model that a module or parameter name belongs to. The rules are the same for every architecture."""
    names = name.split(".")
    if names[0] in ("token_embedding", "table"):
        return "token table"
    if names[0] == "ngram_embeddings":
        return "n-gram tables"
    if names[0] == "position_embedding" or "distances" in names:
        return "positions"
    if names[0] == "segment_embedding":
        return "segments"
    if any(word.startswith("norm") for word in names):
        return "norms"
    for word, part in (("attn", "attention"), ("cross", "attention"), ("mlp", "MLP")):
        if word in names:
            return part
    return "head" if names[0] in ("head", "head_bias") else "rest"


def _tied_bytes(model: AnyModel) -> int:
    table = getattr(model, "token_embedding", None)
    return int(table.weight.nbytes) if isinstance(table, nn.Embedding) and is_tied(model) else 0


def _gathered_bytes(model: AnyModel, dtype: torch.dtype) -> GatheredBytes:
    """What FSDP holds when it gathers parameters in `dtype` and reduces gradients in float32, see `parallel.shard`."""
    by_block = [sum(p.numel() for p in block.parameters()) for block in blocks_of(model)]
    block, root = max(by_block, default=0), count_parameters(model) - sum(by_block)
    table = _tied_bytes(model) // torch.float32.itemsize * dtype.itemsize
    return GatheredBytes(root * dtype.itemsize, block * dtype.itemsize, table, block * 4, root * 4)


def _part_of_rank(tensor: Tensor, shards: int) -> int:
    """Bytes of the largest part of a tensor that FSDP has split by its first dimension. A number is not split."""
    if tensor.dim() == 0:
        return int(tensor.nbytes)
    return -(-tensor.size(0) // shards) * (int(tensor.nbytes) // tensor.size(0))


def _fuse_dropout(model: nn.Module) -> None:
    """Turns off attention dropout: a GPU's fused kernel drops out without a (T, T) pattern, a CPU's cannot."""
    for module in model.modules():
        if isinstance(module, Attention):
            module.dropout = 0.0


def _share_evenly(model: nn.Module) -> None:
    """Gives each expert as many tokens as any other, as fake tensors have no values to choose by."""

    def even(experts: Tensor, n_expert: int) -> list[int]:
        return [part.numel() for part in torch.empty(experts.numel()).tensor_split(n_expert)]

    for module in model.modules():
        if isinstance(module, Experts):
            vars(module)["loads"] = partial(even, n_expert=len(module.gate_up))


def _optimizer_bytes(model: nn.Module, config: OptimizerConfig, shards: int) -> int:
    """Bytes of optimizer state after a step, read from a real optimizer; of several shards, those of the largest."""
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer = build_optimizer(model, config)
    optimizer.step()
    states = [value for state in optimizer.state.values() for value in state.values()]
    return sum(_part_of_rank(value, shards) for value in states if isinstance(value, Tensor))


def _saved_for_backward(model: AnyModel, rows: int, precision: str) -> Counter[str]:
    """Bytes that autograd saves in a forward pass over `rows` rows, by the part of the model that saves them."""
    own = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    saved: dict[int, tuple[str, Tensor]] = {}  # by storage: two parts may save the same one
    running = [""]  # stack of module names

    def save(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()._cdata
        if storage not in own:
            saved.setdefault(storage, (part_of(running[-1]) if running[-1] else LOSS, tensor))
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor)
    with _track_module(model, running), hooks, _autocast(precision):
        loss_function(model)(model, random_batch(model, rows, torch.device("cpu")))
    counts = Counter({LOSS: 0})
    for part, tensor in saved.values():
        counts[LOSS if part == "head" else part] += tensor.untyped_storage().nbytes()
    return counts


@contextmanager
def _track_module(model: nn.Module, running: list[str]) -> Iterator[None]:
    """Keeps the name of the submodule that is running at the end of `running`."""

    def leave(*_: object) -> None:
        running.pop()

    handles = []
    for name, module in model.named_modules():
        handles += [
            module.register_forward_pre_hook(lambda *_, name=name: running.append(name)),
            module.register_forward_hook(leave),
        ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _autocast(precision: str) -> AbstractContextManager[object]:
    """Autocast on the CPU: it saves as much memory as on a GPU, and every machine has it."""
    if precision in ("float32", "tf32"):
        return nullcontext()
    return torch.autocast("cpu", getattr(torch, precision))
