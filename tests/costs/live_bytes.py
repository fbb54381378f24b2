"""Follows the bytes of all live tensors, for tests of memory estimates."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    """Follows every storage from its first tensor to its last.

    The sizes are read again after each operation, because FSDP resizes the storage of gathered weights.
    """

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self._storages: weakref.WeakValueDictionary[int, torch.UntypedStorage] = weakref.WeakValueDictionary()

    @property
    def live(self) -> int:
        """The bytes of all storages that exist now."""
        return sum(storage.nbytes() for storage in self._storages.values())

    def __torch_dispatch__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves((args, kwargs, result)):
            tensor = getattr(tensor, "_local_tensor", tensor)  # this rank's part of a DTensor
            if isinstance(tensor, torch.Tensor):
                self._storages[tensor.untyped_storage()._cdata] = tensor.untyped_storage()
        self.peak = max(self.peak, self.live)
        return result
