"""Safetensors files: one file for a set of tensors, or several with an index where one would be too large.

A set called `model.safetensors` is stored under the names that the Hugging Face libraries use too:

    model.safetensors                   a set of up to MAX_FILE_BYTES
    model-00001-of-00003.safetensors    a part of a larger set
    model.safetensors.index.json        names the file of each tensor in a larger set
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import save_file
from torch import Tensor

from glassgpt.errors import UserError

# The customary size on the Hugging Face hub. It bounds the memory that is needed to save a model of any size.
MAX_FILE_BYTES = 5 * 10**9


def divide(name: str, tensors: Mapping[str, Tensor]) -> dict[str, list[str]]:
    """The files of the set `name`, each with the names of its tensors, in order. A file holds at least one tensor."""
    parts: list[list[str]] = [[]]
    room = MAX_FILE_BYTES
    for tensor_name, tensor in tensors.items():
        size = tensor.numel() * tensor.element_size()
        if size > room and parts[-1]:
            parts.append([])
            room = MAX_FILE_BYTES
        parts[-1].append(tensor_name)
        room -= size
    if len(parts) == 1:
        return {name: parts[0]}
    stem = name.removesuffix(".safetensors")
    return {f"{stem}-{n:05d}-of-{len(parts):05d}.safetensors": part for n, part in enumerate(parts, start=1)}


def index_of(files: Mapping[str, Iterable[str]], tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """The contents of the index of a set in several files."""
    total = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    places = {tensor_name: file for file, names in files.items() for tensor_name in names}
    return {"metadata": {"total_size": total}, "weight_map": places}


def index_name(name: str) -> str:
    """The name of the index of the set `name`."""
    return f"{name}.index.json"


def belongs_to(file: str, name: str) -> bool:
    """Whether a file of this name is the set `name`, a part of it, or its index."""
    stem = re.escape(name.removesuffix(".safetensors"))
    return file in (name, index_name(name)) or re.fullmatch(rf"{stem}-\d+-of-\d+\.safetensors", file) is not None


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Writes a file with the permissions that any other new file has. Raises OSError or SafetensorError."""
    path.touch()
    mode = path.stat().st_mode  # follows the umask; safetensors creates files that only their owner can read
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, metadata)
    path.chmod(mode)


@dataclass(frozen=True)
class StoredTensor:
    """A tensor that is still in a file."""

    like: Tensor  # on the meta device: its shape and dtype
    read: Callable[[], Tensor]  # into memory of its own


class TensorReader:
    """Reads the tensors of a set one at a time, so that the set need not fit into memory.

    Raises OSError or SafetensorError for a file that cannot be read, and UserError for a tensor in two files.
    """

    def __init__(self, files: Iterable[Path]) -> None:
        self.shapes: dict[str, Tensor] = {}  # every tensor on the meta device: its shape and dtype
        self._places: dict[str, Path] = {}
        for path in files:
            with safetensors.safe_open(path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118  # it is no dict
                    if name in self._places:
                        raise UserError(f"tensor {name} is in both {self._places[name]} and {path}")
                    self._places[name] = path
                    tensor = file.get_tensor(name)  # mapped: its data is not read
                    self.shapes[name] = torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")

    def read(self, name: str) -> Tensor:
        """The tensor, in memory of its own. Raises UserError if its file can no longer be read."""
        path = self._places[name]
        try:
            with safetensors.safe_open(path, framework="pt") as file:
                tensor: Tensor = file.get_tensor(name)
                return tensor.clone()
        except (OSError, safetensors.SafetensorError) as error:
            raise UserError(f"{path} cannot be read: {error}") from None

    def stored(self) -> dict[str, StoredTensor]:
        """Every tensor by its name."""
        return {name: StoredTensor(like, partial(self.read, name)) for name, like in self.shapes.items()}
