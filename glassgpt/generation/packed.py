"""Weights laid out for generation on a CPU: a transformation of a loaded model, which itself stays as it is.

A pass over a few rows is as fast as its weights are read. `nn.Linear` stores a weight as (N, K) and hands it to a
library for large products, which reads it at half the speed of memory and computes slowly for 16 rows. Two libraries
that are a part of torch do better. oneDNN stores the weight in blocks that fit the vector registers of the processor.
FBGEMM does so with float16 weights, and computes in float32; for one row nothing is faster. So for one row a float32
weight becomes the sum of two float16 numbers, which are as many bytes.

The weights may also be smaller. float16 and bfloat16 have half the bytes, int8 a quarter. docs/generation.md has the
figures.

Shapes: N outputs, K inputs of a product.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glassgpt.errors import UserError, unknown
from glassgpt.models import Model, is_tied
from glassgpt.runtime.device import cpu_has_bfloat16

WEIGHTS = ("float32", "float16", "bfloat16", "int8")
ROWS = 16  # rows of a pass for which oneDNN chooses its blocks; with those, 1 to 4 rows are fast too
HALVES_ROWS = 2  # texts at a time up to which two float16 products are faster than one float32 product
LARGEST_FLOAT16 = 65504.0
REST = 2.0**-11  # the rounding error of a float16 number, relative to it, is at most half of this
ZERO = 128  # the unsigned byte that stands for 0


class PackedLinear(nn.Module):
    """`nn.Linear` with a weight in oneDNN's blocks. Products of a bfloat16 weight are computed in bfloat16."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.dtype = weight.dtype
        # A parameter, so that it is counted as one.
        packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), ROWS)
        self.weight = nn.Parameter(packed, requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias.detach().to(weight.dtype), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """(..., K) to (..., N), in the dtype of x."""
        product = torch.ops.mkldnn._linear_pointwise(x.to(self.dtype), self.weight, self.bias, "none", [], "")
        return product.to(x.dtype)


class Float16Linear(nn.Module):
    """`nn.Linear` with a float16 weight, by FBGEMM: inputs, sums and outputs are float32.

    With `halves` the weight is the sum of two float16 numbers, its rounded value and 2⁻¹¹ times the rest. They have 22
    bits of the 24 of a float32 number.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, *, halves: bool = False) -> None:
        super().__init__()
        self.out_features, self.halves = len(weight), halves
        weight, bias = weight.detach().float(), None if bias is None else bias.detach().float()
        if halves:
            rounded = weight.half().float()
            weight = torch.cat([rounded, (weight - rounded) / REST])
            bias = None if bias is None else torch.cat([bias, torch.zeros_like(bias)])
        self.packed: Any = torch.ops.quantized.linear_prepack_fp16(weight, bias)  # with a copy of the bias
        self.packed_bytes = 2 * weight.numel() + (0 if bias is None else 4 * self.out_features)

    def forward(self, x: Tensor) -> Tensor:
        """(..., K) to (..., N), in the dtype of x."""
        product = torch.ops.quantized.linear_dynamic_fp16(x.float(), self.packed)
        if self.halves:
            rounded, rest = product.split(self.out_features, dim=-1)
            product = torch.add(rounded, rest, alpha=REST)
        return product.to(x.dtype)


class Int8Linear(nn.Module):
    """`nn.Linear` in 8 bits: a weight with a scale for each output, an input with a scale for each row.

    The largest value of a row has the byte 127 (dynamic quantisation; Dettmers et al. 2022, "LLM.int8()", equation 4,
    without their exceptions for large values). The products are exact sums of bytes, by oneDNN's kernel for VNNI.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        scales = _scale_rows(weight.detach().float())
        rounded = (weight.detach().float() / scales).round().to(torch.int8)  # (N, K)
        packed = torch.ops.onednn.qlinear_prepack(rounded, [ROWS, weight.size(1)])
        self.weight = nn.Parameter(packed, requires_grad=False)
        self.scales = nn.Parameter(scales.squeeze(1), requires_grad=False)
        self.register_buffer("zeros", torch.zeros(len(weight), dtype=torch.int32))
        self.bias = None if bias is None else nn.Parameter(bias.detach().float(), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """(..., K) to (..., N), in the dtype of x."""
        rows = x.reshape(-1, x.size(-1)).float()
        scales = _scale_rows(rows)
        quantised = (rows / scales).round().add_(ZERO).to(torch.uint8)
        product = torch.ops.onednn.qlinear_pointwise(
            quantised, 1.0, ZERO, self.weight, self.scales, self.zeros, None, 1.0, 0, torch.float32, "none", [], ""
        )
        product = product.mul_(scales)
        if self.bias is not None:
            product += self.bias
        return product.to(x.dtype).view(*x.shape[:-1], -1)


def _scale_rows(values: Tensor) -> Tensor:
    """What the byte 1 stands for in each row of (R, K): (R, 1), so that the largest value gets 127."""
    return values.abs().amax(dim=1, keepdim=True).clamp_(min=1e-30) / 127


def pack(model: Model, weights: str = "float32", *, rows: int = ROWS) -> Model:
    """A copy of the model for generation whose matrix products have packed weights: one of `WEIGHTS`.

    `rows` is the number of texts that are continued at a time, for which float32 weights get their layout.

    Each `nn.Linear` is replaced, and a head that is tied to the token embedding. All other parameters are shared with
    the model, which is not changed. Whoever does not need the model any more can drop it, and with it its own weights.

    The results of float32 are the same up to rounding. Raises UserError if the model is not on a CPU, if this processor
    or this build of torch has no kernel, and for float16 if a weight is too large for it.
    """
    if weights not in WEIGHTS:
        raise unknown("weights", weights, WEIGHTS)
    if lacking := lacks_kernel(weights, next(model.parameters()).device):
        raise UserError(lacking)

    embedding = _tied_head(model)
    matrices = [module.weight for module in model.modules() if type(module) is nn.Linear]
    matrices += [] if embedding is None else [embedding]
    fits = all(float(matrix.detach().abs().max()) <= LARGEST_FLOAT16 for matrix in matrices)
    if weights == "float16" and not fits:
        raise UserError(f"a weight is above {LARGEST_FLOAT16:,.0f}, the largest float16 number: use float32 weights")
    halves = rows <= HALVES_ROWS and fits and lacks_kernel("float16", torch.device("cpu")) is None

    def packed(weight: Tensor, bias: Tensor | None) -> nn.Module:
        if weights == "int8":
            return Int8Linear(weight, bias)
        if weights == "float16":
            return Float16Linear(weight, bias)
        if weights == "float32" and halves:
            return Float16Linear(weight, bias, halves=True)
        return PackedLinear(weight.to(getattr(torch, weights)), bias)

    # What is in the memo is not copied: parameters are shared, and linear layers replaced.
    memo: dict[int, Any] = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    for module in model.modules():
        if type(module) is nn.Linear:
            memo[id(module)] = packed(module.weight, module.bias)
    copied = copy.deepcopy(model, memo).eval()
    if embedding is not None:
        copied.packed_head = packed(embedding, None)  # a submodule, so that its weights are counted
        copied._modules.pop("head", None)
        vars(copied)["head"] = copied.packed_head  # found before the method of the class
    return copied


def lacks_kernel(weights: str, device: torch.device) -> str | None:
    """Why `pack` cannot give these weights on this device, in one sentence; None if it can."""
    if device.type != "cpu":
        return f"{weights} weights for generation are packed for a CPU, and the model is on {device}"
    if weights != "float16" and not torch.backends.mkldnn.is_available():
        return f"this build of torch has no oneDNN, whose kernels {weights} weights for generation need"
    if weights == "float16" and not _has_fbgemm():
        return "this build of torch has no FBGEMM, or this processor no AVX2: use float32 weights"
    if weights == "bfloat16" and not cpu_has_bfloat16():
        return "this processor has no products of bfloat16 (AVX512-BF16 or AMX): use float32 weights"
    if weights == "int8" and not _cpu_has_int8():
        return "this processor has no products of int8 (VNNI or AMX): use float32 weights"
    return None


def _has_fbgemm() -> bool:
    return "fbgemm" in torch.backends.quantized.supported_engines


def _cpu_has_int8() -> bool:
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
    return any(flag in flags for flag in ("avx512_vnni", "avx_vnni", "amx_int8"))


@torch.no_grad()
def _tied_head(model: Model) -> Tensor | None:
    """The rows of the token embedding, (V, C), of which `model.head` gives the products; None if it does more."""
    embedding = getattr(model, "token_embedding", None)
    if not is_tied(model) or not isinstance(embedding, nn.Embedding):
        return None
    rows = embedding.weight[: model.config.vocab_size]
    features = torch.randn(1, rows.size(1), generator=torch.Generator().manual_seed(0)).to(rows)
    same = torch.allclose(model.head(features), F.linear(features, rows), rtol=1e-3, atol=1e-3)
    return rows if same else None
