"""The same weights in `transformers`, as a peer for measurements."""

from __future__ import annotations

import importlib.util
from typing import Any

import torch
from torch import Tensor

from glassgpt.errors import UserError
from glassgpt.interop.huggingface_export import hf_tensors
from glassgpt.interop.layouts import layout_of
from glassgpt.models import Model


def lacks_peer(model: Model) -> str | None:
    """Why `transformers` cannot be measured beside this model, in one sentence; None if it can."""
    try:
        layout_of(model)
    except UserError:
        return f"transformers is not measured: it has no model for {type(model).__name__}"
    if importlib.util.find_spec("transformers") is None:
        return "transformers is not measured: it is not installed (pip install 'glassgpt[hf]')"
    return None


class Peer:
    """The model of `transformers` with the same weights, on the same device."""

    def __init__(self, model: Model) -> None:
        import transformers

        layout = layout_of(model)
        sizes = {theirs: getattr(model.config, ours) for ours, theirs in layout.sizes.items()}
        options = {name: option.value for name, option in layout.options(model.config).items()}
        options |= dict.fromkeys(layout.dropouts, model.config.dropout)
        config: Any = transformers.AutoConfig.for_model(
            layout.model_type, **sizes, **options, bos_token_id=None, eos_token_id=None
        )
        self.model: Any = getattr(transformers, layout.model_class)(config)
        self.model.load_state_dict(hf_tensors(model, model.config.vocab_size), strict=False)  # a tied head is not twice
        self.model.to(next(model.parameters()).device).eval()

    def write(self, tokens: Tensor, new_tokens: int) -> Tensor:
        """Continues tokens (B, T) greedily, with its KV cache: (B, T + new_tokens)."""
        with torch.no_grad():
            return self.model.generate(
                tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=new_tokens, do_sample=False,
                use_cache=True, pad_token_id=0,
            )  # fmt: skip
