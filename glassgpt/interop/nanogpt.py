"""The same weights in nanoGPT (https://github.com/karpathy/nanoGPT), as a peer for measurements.

nanoGPT is a folder of scripts and not a package, so its model is read from a checkout.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from glassgpt.errors import UserError
from glassgpt.interop.huggingface_export import hf_tensors
from glassgpt.models import Model
from glassgpt.models.gpt2 import GPT2, GPT2Config
from glassgpt.models.sizes import embedding_rows


def load_model_file(checkout: Path) -> ModuleType:
    """The model.py of a checkout, as a module. Raises UserError if it is not there."""
    path = checkout / "model.py"
    spec = importlib.util.spec_from_file_location("nanogpt_model", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise UserError(f"{checkout} is no checkout of karpathy/nanoGPT: model.py is missing")
    module = importlib.util.module_from_spec(spec)
    sys.modules["nanogpt_model"] = module
    spec.loader.exec_module(module)
    return module


def build_nanogpt(checkout: Path, sizes: GPT2Config) -> Any:
    """Its model with the sizes of ours, and with random weights. Raises UserError if `checkout` has no model.py."""
    module = load_model_file(checkout)
    names = ("block_size", "n_layer", "n_head", "n_embd", "dropout")
    shape = {name: getattr(sizes, name) for name in names} | {"vocab_size": embedding_rows(sizes), "bias": True}
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its sizes
        return module.GPT(module.GPTConfig(**shape))


class NanoGPTPeer:
    """nanoGPT's model with the weights of ours, on the same device. Raises UserError if ours is no GPT-2."""

    def __init__(self, model: Model, checkout: Path) -> None:
        if not isinstance(model, GPT2):
            raise UserError(f"nanoGPT is measured beside GPT-2 only, not beside {type(model).__name__}")
        self.model = build_nanogpt(checkout, model.config)
        theirs = self.model.state_dict()
        for name, tensor in hf_tensors(model, embedding_rows(model.config)).items():
            # transformers stores the weights of its blocks by inputs, nanoGPT has nn.Linear.
            theirs[name].copy_(tensor.t() if tensor.dim() == 2 and ".h." in name else tensor)
        self.model.to(next(model.parameters()).device).eval()

    @torch.no_grad()
    def write(self, tokens: Tensor, new_tokens: int) -> Tensor:
        """Continues tokens (B, T) greedily, without a KV cache, as nanoGPT has none: (B, T + new_tokens)."""
        written: Tensor = self.model.generate(tokens, new_tokens, top_k=1)
        return written
