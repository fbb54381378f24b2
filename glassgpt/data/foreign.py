"""Reads token files of other programs, without conversion.

    npy          NumPy's format, one dimension: build-nanogpt's shards, and their copy on Kaggle
    llmc-bin     llm.c's: 256 int32 (magic, version, count), then uint16 for GPT-2 or uint32 for Llama 3
    nanogpt-bin  nanoGPT's train.bin and val.bin: uint16, no header

Only the ids are read. nanoGPT's `meta.pkl` is ignored: it is a pickle, which may execute code.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from glassgpt.errors import UserError

NPY, NANOGPT, LLMC = "npy", "nanogpt-bin", "llmc-bin"
SUFFIXES = (".npy", ".bin")

_LLMC_HEADER = 256 * 4  # bytes
_LLMC: dict[tuple[int, int], np.dtype[np.integer]] = {  # magic and version, as in dev/data/data_common.py of llm.c
    (20240520, 1): np.dtype("<u2"),
    (20240801, 7): np.dtype("<u4"),
}


@dataclass(frozen=True)
class Layout:
    """Format of a token file: type, number and position of its ids."""

    format: str
    dtype: np.dtype[np.integer]
    count: int
    offset: int  # bytes before the first id


def read_layout(path: Path) -> Layout:
    """The layout of a .npy or .bin file, checked against its size.

    Raises UserError, naming file and reason, if it is missing, truncated or of another format.
    """
    try:
        return _npy(path) if path.suffix == ".npy" else _bin(path)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error


def open_foreign(path: Path) -> NDArray[np.integer]:
    """The ids of a foreign file (count,), memory-mapped and read-only. Raises UserError like `read_layout`."""
    layout = read_layout(path)
    if layout.count == 0:
        return np.empty(0, layout.dtype)
    return np.memmap(path, layout.dtype, mode="r", offset=layout.offset, shape=(layout.count,)).view(np.ndarray)


def _npy(path: Path) -> Layout:
    try:
        with path.open("rb") as file:
            first = np.lib.format.read_magic(file) == (1, 0)
            header = np.lib.format.read_array_header_1_0 if first else np.lib.format.read_array_header_2_0
            shape, _, dtype = header(file)
            offset = file.tell()
    except ValueError as error:
        raise UserError(f"{path} is not a .npy file, or is damaged: {error}") from error
    if len(shape) != 1 or dtype.kind not in "iu":
        raise UserError(f"{path} holds an array of {dtype} of shape {shape}, but token ids are integers of shape (n,)")
    _check_size(path, offset + shape[0] * dtype.itemsize)
    return Layout(NPY, dtype, shape[0], offset)


def _bin(path: Path) -> Layout:
    size = path.stat().st_size
    with path.open("rb") as file:
        head = np.frombuffer(file.read(_LLMC_HEADER), np.uint8)
    fields = head[: 12 * (len(head) >= 12)].view("<i4").tolist()
    known = {magic for magic, _ in _LLMC}
    if fields and fields[0] in known:
        magic, version, count = fields
        if (magic, version) not in _LLMC or len(head) < _LLMC_HEADER or count < 0:
            raise UserError(f"{path} has a damaged llm.c header: magic {magic}, version {version}, {count} ids")
        dtype = _LLMC[magic, version]
        _check_size(path, _LLMC_HEADER + count * dtype.itemsize)
        return Layout(LLMC, dtype, count, _LLMC_HEADER)
    if size % 2:
        raise UserError(f"{path} is truncated, or is not a token file: {size} bytes are not a multiple of 2 (uint16)")
    return Layout(NANOGPT, np.dtype("<u2"), size // 2, 0)


def _check_size(path: Path, expected: int) -> None:
    size = path.stat().st_size
    if size != expected:
        problem = "truncated" if size < expected else "too long"
        raise UserError(f"{path} is {problem}: {size} bytes, but its header says {expected}")
