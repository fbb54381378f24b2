"""Peak matrix-product rates of GPUs, by the name that torch reports."""

from __future__ import annotations

import re

# Dense bfloat16 and float16 FLOP/s of the tensor cores with float32 accumulation, from NVIDIA's data sheets and
# architecture white papers, which were not opened again when this table was written. Data sheets often print the rate
# with 2:4 sparsity, which is twice the dense one.
PEAK_FLOPS = {
    "B200": 2250e12,  # HGX B200 data sheet: 4.5 PFLOP/s with sparsity
    "GH200": 989e12,  # GH200 data sheet: its GPU is an H100 SXM's
    "H200": 989e12,  # H200 data sheet, SXM
    "H200 NVL": 835e12,  # H200 data sheet: 1,671 TFLOP/s with sparsity
    "H100": 989e12,  # H100 data sheet, SXM
    "H100 NVL": 835e12,  # H100 data sheet: 1,671 TFLOP/s with sparsity
    "H100 PCIe": 756e12,  # H100 data sheet of 2022
    "H800": 989e12,  # as H100: its FP64 units and its NVLink are slower, not its tensor cores
    "H800 PCIe": 756e12,
    "A100": 312e12,  # A100 data sheet, the same for every form
    "A100 PCIE": 312e12,
    "A100 PCIe": 312e12,
    "A800": 312e12,  # as A100: only its NVLink is slower
    "A800 PCIE": 312e12,
    "A800 PCIe": 312e12,
    "A800 Active": 312e12,
    "L40S": 362e12,  # L40S data sheet
    "L4": 121e12,  # L4 data sheet: 242 TFLOP/s with sparsity
    "A40": 150e12,  # A40 data sheet: 149.7 TFLOP/s
    "A10G": 70e12,  # A10G data sheet by AWS: 70 TFLOP/s, half of an A10's
    "RTX 6000 Ada Generation": 364e12,  # Ada white paper, appendix: 364.2 TFLOP/s
    "RTX A6000": 155e12,  # GA102 white paper, appendix: 154.8 TFLOP/s
    "RTX 5090": 209e12,  # RTX Blackwell white paper, appendix: 209.5 TFLOP/s
    "RTX 4090": 165e12,  # Ada white paper, appendix: 165.2 TFLOP/s
    "RTX 3090": 71e12,  # GA102 white paper, appendix
    "V100": 125e12,  # V100 data sheet, SXM2; torch's wheels for CUDA 12.6 are the last that run on it
    "T4": 65e12,  # T4 data sheet
}

# Words that say nothing about the rate: the maker, the socket, the memory.
_IGNORED = re.compile(r"NVIDIA|Tesla|GeForce|SXM\d?|\d+GB?|HBM\d\w?")


def find_peak_flops(name: str) -> float | None:
    """The peak of the GPU with this name, as `torch.cuda.get_device_name` returns it; None if it is not known.

    Every word that is not ignored must match. "RTX 4090 Laptop GPU", "RTX 4090 D", "RTX 3090 Ti" and a MIG slice of an
    H100 are other, slower or faster, devices.
    """
    words = [word for word in re.split(r"[ -]", name) if not _IGNORED.fullmatch(word)]
    return PEAK_FLOPS.get(" ".join(words))
