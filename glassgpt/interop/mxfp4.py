"""MXFP4, the format of 4.25 bits per number in which GPT-oss publishes the matrices of its experts.

OCP Microscaling Formats (MX) Specification 1.0 (2023), sections 5.3.3 and 6.3: 32 numbers in a row share a scale, a
power of two. Each number has 4 bits, one for the sign, two for the exponent and one for the mantissa (E2M1).

A matrix is stored as two tensors: `…_blocks` with the numbers, two to a byte, the first in the low four bits; and
`…_scales`. Its rows are the outputs, while ours, and those of `transformers`, are the inputs.

Shapes: E experts, R rows in the file (outputs), G blocks per row, 32·G columns in the file (inputs).
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from glassgpt.errors import UserError
from glassgpt.training.tensor_files import StoredTensor

BLOCKS, SCALES = "_blocks", "_scales"
BLOCK_BYTES = 16  # two numbers to a byte
SIZES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
VALUES = (*SIZES, *(-size for size in SIZES))  # the highest of the four bits is the sign
PAIRS = torch.tensor([(VALUES[byte % 16], VALUES[byte // 16]) for byte in range(256)])  # the two numbers of each byte
POWERS = torch.tensor([2.0 ** (scale - 127) for scale in range(255)] + [torch.nan])  # 255 means no number (5.4.1)


def dequantise(blocks: Tensor, scales: Tensor) -> Tensor:
    """blocks (E, R, G, 16) and scales (E, R, G), bytes, to the matrices (E, 32·G, R) in bfloat16, exactly.

    A number has two digits in base 2, and bfloat16 has eight, with the exponents of float32.
    """
    E, R, G, _ = blocks.shape
    matrices = torch.empty(E, 2 * BLOCK_BYTES * G, R, dtype=torch.bfloat16)
    for matrix, packed, scale in zip(matrices, blocks, scales, strict=True):  # one by one: the bytes become indices
        numbers = PAIRS[packed.int()].flatten(-2) * POWERS[scale.int()].unsqueeze(-1)  # (R, G, 32)
        matrix.copy_(numbers.flatten(-2).t())
    return matrices


def dequantised(tensors: dict[str, StoredTensor], folder: Path) -> dict[str, StoredTensor]:
    """The tensors of a file, with one matrix in bfloat16 in place of each pair of `…_blocks` and `…_scales`.

    Raises UserError for a pair that does not fit together.
    """
    found = dict(tensors)
    for name in [name.removesuffix(BLOCKS) for name in tensors if name.endswith(BLOCKS)]:
        if name + SCALES not in tensors:
            raise UserError(f"{folder}: {name}{BLOCKS} is in MXFP4, but there is no {name}{SCALES}")
        pair = found.pop(name + BLOCKS), found.pop(name + SCALES)
        blocks, scales = (stored.like for stored in pair)
        fits = blocks.dim() == 4 and blocks.size(-1) == BLOCK_BYTES and blocks.shape[:-1] == scales.shape
        if not (fits and blocks.dtype == scales.dtype == torch.uint8):
            raise UserError(
                f"{folder}: {name} is no MXFP4: its blocks are {_kind(blocks)} and its scales {_kind(scales)}, but"
                f" they must be uint8 (E, R, G, {BLOCK_BYTES}) and uint8 (E, R, G)"
            )
        E, R, G, _ = blocks.shape
        like = torch.empty(E, 2 * BLOCK_BYTES * G, R, dtype=torch.bfloat16, device="meta")
        found[name] = StoredTensor(like, partial(_dequantise, *pair))
    return found


def _dequantise(blocks: StoredTensor, scales: StoredTensor) -> Tensor:
    return dequantise(blocks.read(), scales.read())


def _kind(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"
