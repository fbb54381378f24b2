"""Runs a model on several devices: DDP, FSDP, weights that come later, activation checkpointing, compiled blocks.

Parameters keep their names, and in files also their shapes. Everything here relies only on `model.blocks`, a list.
Sharded parameters are DTensors: each rank holds a part of each one.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.nn.parallel import DistributedDataParallel
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import checkpoint

from glassgpt.runtime.distributed import Ranks

LARGE_TABLE = 4096  # rows of an embedding: many more than a micro-batch looks up on a CPU


class ModelWithLoss(nn.Module):
    """A model and its loss function as one module: `forward(batch)` returns the loss.

    DDP prepares the gradient exchange only in the `forward` of the module that it wraps. A loss may call the model's
    `features` and `head` directly, so DDP must wrap the complete loss computation.
    """

    def __init__(self, model: nn.Module, loss_function: Callable[[Any, Any], Any]) -> None:
        super().__init__()
        self.model = model
        self._loss_function = loss_function

    def forward(self, batch: Any) -> Any:
        return self._loss_function(self.model, batch)


@contextlib.contextmanager
def weights_later() -> Iterator[None]:
    """Models built in this context have parameters on the meta device: no memory, and nothing is drawn.

    `move` or `shard` gives them memory, and the weights follow with `copy_weight`. Everything else that a constructor
    computes, such as a buffer, is as usual; with `torch.device("meta")` it would be lost.
    """

    def without_memory(module: nn.Module, name: str, parameter: nn.Parameter | None) -> nn.Parameter | None:
        if parameter is None or parameter.is_meta:  # on meta: the same parameter in a second module
            return parameter
        return nn.Parameter(parameter.detach().to("meta"), parameter.requires_grad)

    # Its annotation forgets that the hook may return a parameter to register instead.
    handle = register_module_parameter_registration_hook(without_memory)  # type: ignore[arg-type]
    try:
        with _NoDraws():
            yield
    finally:
        handle.remove()


class _NoDraws(TorchFunctionMode):
    """Skips random draws into tensors without memory. They have no effect, but torch would load its compiler first."""

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if function.__name__ in ("normal_", "uniform_", "kaiming_uniform_"):
            target = args[0] if args else kwargs["tensor"]  # `nn.init` passes it by name
            if target.is_meta:
                return target
        return function(*args, **kwargs)


def move(model: nn.Module, device: torch.device) -> None:
    """Moves the model to the device, in place. Parameters on the meta device get memory there, with any content."""
    for parameter in model.parameters():
        if parameter.is_meta:
            memory = torch.empty(parameter.shape, dtype=parameter.dtype, device=device)
            torch.utils.swap_tensors(parameter, nn.Parameter(memory, parameter.requires_grad))
    model.to(device)


def add_lookups_in_place(model: nn.Module) -> None:
    """Adds the gradients of the rows that a large tied embedding looked up to the gradient of the head, in place.

    Else autograd fills a table with zeros for the few rows of a batch, and writes a third one with the sum of both.
    With GPT-2's vocabulary this is 4% of a step on a CPU. DDP and compiled code do not allow it.
    """
    embedding, head = getattr(model, "token_embedding", None), getattr(model, "head", None)
    owns_weights = isinstance(head, nn.Module) and next(head.parameters(), None) is not None
    tied = head is not None and not owns_weights
    if tied and isinstance(embedding, nn.Embedding) and embedding.num_embeddings >= LARGE_TABLE:
        embedding.sparse = True  # the first gradient that arrives is the head's, which is dense, and so is the sum


def checkpoint_activations(model: nn.Module) -> None:
    """Saves only each block's input for the backward pass, which recomputes the block (Chen et al. 2016).

    Dropout draws the same numbers again. Only `block.forward` is replaced, so parameter names do not change.
    """
    for block in blocks_of(model):
        block.forward = partial(_checkpointed, block.forward)


def _checkpointed(forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    return checkpoint(forward, *args, use_reentrant=False, **kwargs)


def compile_blocks(model: nn.Module) -> None:
    """Compiles each block separately, because FSDP gathers the next block's parameters between them."""
    for block in blocks_of(model):
        block.compile()


def replicate(model: nn.Module, device: torch.device) -> nn.Module:
    """A wrapper that averages gradients over the ranks during the backward pass (DDP, Li et al. 2020)."""
    return DistributedDataParallel(
        model,
        device_ids=[device.index] if device.type == "cuda" else None,
        gradient_as_bucket_view=True,
    )


def shard(model: nn.Module, device: torch.device, ranks: Ranks, param_dtype: torch.dtype | None) -> None:
    """Shards every parameter over the ranks, in place; a block is gathered only while it runs (FSDP, Zhao et al. 2023).

    The optimizer must be built afterwards, so that its state is sharded too. With a `param_dtype`, parameters are
    gathered and matrix products computed in that dtype; gradients are averaged in float32. Parameters on the meta
    device get memory for this rank's part only.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method

    # Logits without their padding are a view. The warning is about in-place operations on it: no loss has one.
    warnings.filterwarnings("ignore", message=r"FSDP2-wrapped module \(.*\) returned a view tensor")
    mesh = init_device_mesh(device.type, (ranks.world_size,))
    policy = MixedPrecisionPolicy(param_dtype=param_dtype, reduce_dtype=torch.float32)
    for block in blocks_of(model):
        fully_shard(block, mesh=mesh, mp_policy=policy)
    fully_shard(model, mesh=mesh, mp_policy=policy)
    # As `to_empty` does, which would clear the buffers too.
    model._apply(lambda tensor: torch.empty_like(tensor, device=device) if tensor.is_meta else tensor)
    # A loss may call `features` and then `head`. Parameters outside the blocks stay gathered from `features` until the
    # backward pass, so `head` can use them. If `head` were registered too, each call would repeat their exchange.
    parts = {name: getattr(model, name) for name in ("features", "encode") if hasattr(model, name)}
    forward = model.forward
    for name in parts:
        register_fsdp_forward_method(model, name)
    model.forward = partial(_forward_with, model, forward, parts)


def _forward_with(
    model: nn.Module, forward: Callable[..., Any], parts: dict[str, Any], *args: Any, **kwargs: Any
) -> Any:
    """The `forward` of a sharded model, in which `features`, and `encode` if it has that, are not registered.

    FSDP gathers at the start of `forward`. A registered `features` inside it ends as a pass of its own. FSDP then frees
    the parameters outside the blocks at the end of `forward`, and gathers them again for the backward pass.
    """
    registered = {name: getattr(model, name) for name in parts}
    vars(model).update(parts)
    try:
        return forward(*args, **kwargs)
    finally:
        vars(model).update(registered)


def gathered_in(precision: str, device_type: str) -> torch.dtype | None:
    """The dtype in which FSDP gathers parameters; None: in their own, float32."""
    return torch.bfloat16 if device_type == "cuda" and precision == "bfloat16" else None


def blocks_of(model: nn.Module) -> Iterable[nn.Module]:
    """The blocks of a model; empty for a model without blocks, such as the bigram table."""
    blocks: Iterable[nn.Module] = getattr(model, "blocks", ())
    return blocks


def gradient_exchange(parallel: nn.Module, wanted: bool) -> contextlib.AbstractContextManager[None]:
    """Context for a forward and backward pass: under DDP, exchange gradients at its end only if `wanted`.

    FSDP exchanges them in every pass, whatever is `wanted`: else each rank would hold the gradient of the whole model
    until the last pass, which is what sharding avoids.
    """
    if isinstance(parallel, DistributedDataParallel) and not wanted:
        return parallel.no_sync()
    return contextlib.nullcontext()


def keeps_gradients(parallel: nn.Module) -> bool:
    """Whether the wrapper owns the memory of the gradients, as DDP does with its buckets.

    If a step of several passes freed those gradients, passes without an exchange would allocate them a second time.
    """
    return isinstance(parallel, DistributedDataParallel)


def full_tensor(tensor: Tensor) -> Tensor:
    """The full tensor, gathered from all ranks if it is sharded. Every rank must call it."""
    full: Tensor = tensor.full_tensor() if is_sharded(tensor) else tensor  # type: ignore[attr-defined]
    return full


def distribute(tensor: Tensor, like: Tensor, ranks: Ranks) -> Tensor:
    """The first rank's tensor on every rank: sharded like `like` if the shapes match, else replicated.

    On the other ranks, `tensor` only gives the shape and dtype.
    """
    tensor = tensor.to(like.device)
    if is_sharded(like) and tensor.shape == like.shape:
        from torch.distributed.tensor import DTensor, distribute_tensor

        assert isinstance(like, DTensor)
        return distribute_tensor(tensor, like.device_mesh, like.placements)
    ranks.broadcast(tensor)
    return tensor


def copy_weight(tensor: Tensor, target: Tensor, ranks: Ranks) -> None:
    """Copies the first rank's tensor into a weight on every rank, of which each may hold a part.

    On the other ranks, `tensor` only gives the shape.
    """
    target.copy_(distribute(tensor.to(target.dtype), target, ranks))


def is_sharded(tensor: Tensor) -> bool:
    """Whether it is a DTensor. It avoids importing DTensor, which takes a second."""
    return hasattr(tensor, "full_tensor")
