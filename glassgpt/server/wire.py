"""Packs a JSON header and arrays of numbers into one binary answer, which a browser reads without parsing numbers.

4 bytes          length of the header, little-endian
the header       JSON: {"meta": …, "arrays": {name: {"dtype": "f32", "shape": […], "offset": …}}}
padding          to a multiple of 8 bytes
the arrays       one after another, each at its offset from the first, a multiple of 8 bytes
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

MEDIA_TYPE = "application/octet-stream"
DTYPES = {"float32": "f32", "float64": "f64", "uint8": "u8", "int32": "i32"}  # little-endian
_ALIGNMENT = 8  # the largest item: a typed array begins at a multiple of its item size


def pack(meta: Any, arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """The bytes of an answer. Raises KeyError for an array of another dtype than DTYPES."""
    table, parts, offset = {}, [], 0
    for name, array in arrays.items():
        data = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")).tobytes()
        table[name] = {"dtype": DTYPES[array.dtype.name], "shape": list(array.shape), "offset": offset}
        parts.append(_padded(data))
        offset += len(parts[-1])
    header = json.dumps({"meta": meta, "arrays": table}, allow_nan=False, separators=(",", ":")).encode()
    return _padded(len(header).to_bytes(4, "little") + header) + b"".join(parts)


def unpack(data: bytes) -> tuple[Any, dict[str, NDArray[Any]]]:
    """The inverse of `pack`."""
    length = int.from_bytes(data[:4], "little")
    header = json.loads(data[4 : 4 + length])
    start = -(-(4 + length) // _ALIGNMENT) * _ALIGNMENT
    names = {code: name for name, code in DTYPES.items()}
    arrays = {}
    for name, place in header["arrays"].items():
        dtype = np.dtype(names[place["dtype"]]).newbyteorder("<")
        count = int(np.prod(place["shape"], dtype=np.int64))
        found = np.frombuffer(data, dtype, count, start + place["offset"])
        arrays[name] = found.reshape(place["shape"])
    return header["meta"], arrays


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % _ALIGNMENT)
