"""The same weights in `transformers`, as a peer for measurements."""

from __future__ import annotations

import importlib.util
from typing import Any

import torch
from torch import Tensor

from glassgpt.interop.huggingface import SIZES
from glassgpt.interop.huggingface_export import hf_tensors
from glassgpt.models import Model
from glassgpt.models.gpt2 import GPT2


def lacks_peer(model: Model) -> str | None:
    """Why `transformers` cannot be measured beside this model, in one sentence; None if it can."""
    if type(model) is not GPT2:
        return f"transformers is not measured: it has no model for {type(model).__name__}"
    if importlib.util.find_spec("transformers") is None:
        return "transformers is not measured: it is not installed (pip install 'glassgpt[hf]')"
    return None


class Peer:
    """`GPT2LMHeadModel` with the weights of a GPT-2, on the same device."""

    def __init__(self, model: Model) -> None:
        from transformers import GPT2Config, GPT2LMHeadModel

        assert isinstance(model, GPT2)

        sizes = {theirs: getattr(model.config, ours) for ours, theirs in SIZES.items()}
        config: Any = GPT2Config(**sizes, bos_token_id=None, eos_token_id=None)
        self.model: Any = GPT2LMHeadModel(config)
        self.model.load_state_dict(hf_tensors(model, model.config.vocab_size), strict=False)  # the head is tied
        self.model.to(next(model.parameters()).device).eval()

    def write(self, tokens: Tensor, new_tokens: int) -> Tensor:
        """Continues tokens (B, T) greedily, with its KV cache: (B, T + new_tokens)."""
        with torch.no_grad():
            return self.model.generate(
                tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=new_tokens, do_sample=False,
                use_cache=True, pad_token_id=0,
            )  # fmt: skip
