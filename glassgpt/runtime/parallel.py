"""How a model runs on many devices. Its parameters keep their names and, in files, their shapes.

Everything here relies on one thing: `model.blocks`, a list. Sharded parameters are DTensors: a rank holds a part of
each.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from glassgpt.runtime.distributed import Ranks


class ModelWithLoss(nn.Module):
    """A model and the loss that is computed with it, as one module: `forward(batch)` gives the loss.

    DDP must wrap the call that begins and ends with the loss. A loss may call `features` and `head` of the model, and
    DDP prepares the exchange of gradients only around the forward pass of the module that it wraps.
    """

    def __init__(self, model: nn.Module, loss_function: Callable[[Any, Any], Any]) -> None:
        super().__init__()
        self.model = model
        self._loss_function = loss_function

    def forward(self, batch: Any) -> Any:
        return self._loss_function(self.model, batch)


def checkpoint_activations(model: nn.Module) -> None:
    """Keeps only each block's input for the backward pass, which runs the block again (Chen et al. 2016).

    Dropout draws the same numbers again. It changes how a block is called, not what it is: names stay.
    """
    for block in blocks_of(model):
        block.forward = partial(_recomputed, block.forward)


def _recomputed(forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    return checkpoint(forward, *args, use_reentrant=False, **kwargs)


def compile_blocks(model: nn.Module) -> None:
    """Compiles each block by itself: around them the shards of the next one are fetched."""
    for block in blocks_of(model):
        block.compile()


def replicate(model: nn.Module, device: torch.device) -> nn.Module:
    """A wrapper that averages the gradients over the ranks while they are computed (DDP, Li et al. 2020)."""
    return DistributedDataParallel(
        model,
        device_ids=[device.index] if device.type == "cuda" else None,
        gradient_as_bucket_view=True,
    )


def shard(model: nn.Module, device: torch.device, ranks: Ranks, param_dtype: torch.dtype | None) -> None:
    """Splits every parameter over the ranks, in place; a block is whole only while it runs (FSDP, Zhao et al. 2023).

    The optimizer must be built afterwards: it then holds a part too. With a `param_dtype` the parts are put together,
    and the products computed, in it; gradients are averaged in float32.
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
    # A loss may call `features` and then `head`. What belongs to no block stays whole from `features` on until the
    # backward pass, so `head` finds it: registered too, each call of it would exchange these gradients once more.
    register_fsdp_forward_method(model, "features")


def blocks_of(model: nn.Module) -> Iterable[nn.Module]:
    """The blocks of a model; none where it has no depth, as a table of bigrams."""
    blocks: Iterable[nn.Module] = getattr(model, "blocks", ())
    return blocks


def gradient_exchange(parallel: nn.Module, wanted: bool) -> contextlib.AbstractContextManager[None]:
    """Around a forward and backward pass: whether gradients are exchanged at its end, or only added up here."""
    if isinstance(parallel, DistributedDataParallel):
        return contextlib.nullcontext() if wanted else parallel.no_sync()
    set_exchange = getattr(getattr(parallel, "model", None), "set_requires_gradient_sync", None)  # of FSDP
    if set_exchange is not None:
        set_exchange(wanted)
    return contextlib.nullcontext()


def full_tensor(tensor: Tensor) -> Tensor:
    """The whole of a tensor that may be sharded. Every rank must call it."""
    whole: Tensor = tensor.full_tensor() if is_sharded(tensor) else tensor  # type: ignore[attr-defined]
    return whole


def distribute(tensor: Tensor, like: Tensor, ranks: Ranks) -> Tensor:
    """The first rank's tensor on every rank: sharded as `like` is where it has its shape, else whole.

    The other ranks' tensors only say shape and type.
    """
    tensor = tensor.to(like.device)
    if is_sharded(like) and tensor.shape == like.shape:
        from torch.distributed.tensor import DTensor, distribute_tensor

        assert isinstance(like, DTensor)
        return distribute_tensor(tensor, like.device_mesh, like.placements)
    ranks.broadcast(tensor)
    return tensor


def is_sharded(tensor: Tensor) -> bool:
    """Whether it is a DTensor, told without the import, which takes a second."""
    return hasattr(tensor, "full_tensor")
