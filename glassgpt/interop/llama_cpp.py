"""The same weights in llama.cpp, as a peer for measurements: the server of `xllamacpp`, in this process.

llama.cpp reads GGUF, a file of named fields and tensors (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md).
The file that is written here has no tokenizer: its tokens are called t0, t1, …, and prompts are given as ids.
"""

from __future__ import annotations

import importlib.util
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from glassgpt.errors import UserError
from glassgpt.models import Model
from glassgpt.models.gpt2 import GPT2

PACKAGES = ("xllamacpp", "gguf")
FLOAT32 = 0  # GGUF's number for a file of float32 weights
PARTS = {"norm1": "attn_norm", "attn.qkv": "attn_qkv", "attn.proj": "attn_output"} | {
    "norm2": "ffn_norm", "mlp.up": "ffn_up", "mlp.down": "ffn_down"
}  # fmt: skip
TABLES = {"token_embedding": "token_embd", "position_embedding": "position_embd", "norm": "output_norm"}
CELLS = 256  # llama.cpp's caches have a multiple of so many positions


def gguf_name(name: str) -> str:
    """The name in a GGUF of a parameter of our GPT-2."""
    module, kind = name.rsplit(".", 1)
    if module in TABLES:
        return f"{TABLES[module]}.{kind}"
    _, block, part = module.split(".", 2)
    return f"blk.{block}.{PARTS[part]}.{kind}"


def write_gguf(model: GPT2, path: Path) -> None:
    """Writes the weights in float32, with names for tokens and without a tokenizer."""
    import gguf

    config = model.config
    writer = gguf.GGUFWriter(path, "gpt2")
    writer.add_block_count(config.n_layer)
    writer.add_context_length(config.block_size)
    writer.add_embedding_length(config.n_embd)
    writer.add_feed_forward_length(4 * config.n_embd)
    writer.add_head_count(config.n_head)
    writer.add_layer_norm_eps(model.norm.eps)
    writer.add_file_type(FLOAT32)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([f"t{id}" for id in range(config.vocab_size)])
    writer.add_token_types([int(gguf.TokenType.NORMAL)] * config.vocab_size)
    writer.add_token_merges(["t 0"])
    for name, weight in model.named_parameters():
        rows = config.vocab_size if name == "token_embedding.weight" else None  # without padding
        writer.add_tensor(gguf_name(name), weight.detach()[:rows].float().cpu().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def check_llama_cpp(model: Model) -> None:
    """Raises UserError if llama.cpp cannot be measured beside this model."""
    if not isinstance(model, GPT2):
        raise UserError(f"llama.cpp is measured beside GPT-2 only, not beside {type(model).__name__}")
    if next(model.parameters()).device.type != "cpu":
        raise UserError("llama.cpp is measured on a CPU only: use --device cpu")
    if any(importlib.util.find_spec(name) is None for name in PACKAGES):
        raise UserError(f"llama.cpp is not installed: pip install {' '.join(PACKAGES)}")


class LlamaCpp:
    """The server of llama.cpp with the same weights and as many threads as torch, for up to `slots` texts at once."""

    def __init__(self, model: Model, *, slots: int, positions: int) -> None:
        check_llama_cpp(model)
        assert isinstance(model, GPT2)
        import xllamacpp

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.gguf"
            write_gguf(model, path)
            params = xllamacpp.CommonParams()
            params.model.path = str(path)
            params.n_parallel = slots
            params.n_ctx = slots * CELLS * -(-(positions + 1) // CELLS)
            params.cpuparams.n_threads = params.cpuparams_batch.n_threads = torch.get_num_threads()
            params.verbosity = -1
            self._server: Any = xllamacpp.Server(params)

    def write(self, tokens: Tensor, new_tokens: int) -> Tensor:
        """Continues tokens (B, T) greedily, all rows together: (B, T + new_tokens)."""
        with ThreadPoolExecutor(len(tokens)) as pool:
            written = list(pool.map(partial(self._continue, new_tokens), tokens.tolist()))
        return torch.cat([tokens, torch.tensor(written)], dim=1)

    def _continue(self, new_tokens: int, ids: list[int]) -> list[int]:
        asked = {"prompt": ids, "max_tokens": new_tokens, "temperature": 0.0, "ignore_eos": True, "cache_prompt": False}
        answer = self._server.handle_completions(asked)
        if "choices" not in answer:
            raise RuntimeError(f"llama.cpp refused a prompt of {len(ids)} tokens: {answer}")
        return [int(name) for name in answer["choices"][0]["text"].split("t")[1:]]
