"""TransformerLens loads an export with its own loader. Skipped without the package: see docs/interop.md."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from toys import toy_model

from glassgpt.interop.huggingface_export import write_hf_folder
from glassgpt.models.gpt2 import GPT2
from glassgpt.tokenizers.bpe import BPETokenizer

transformers = pytest.importorskip("transformers")
lens = pytest.importorskip("transformer_lens")

TEXT = "The quick brown fox jumps over the lazy dog.\n" * 3


@pytest.fixture
def exported(tmp_path: Path) -> tuple[GPT2, BPETokenizer, Path]:
    tokenizer = BPETokenizer.train(TEXT, 280, ["<|endoftext|>"])
    model = toy_model(tokenizer.vocab_size)
    write_hf_folder(tmp_path / "mine", model, tokenizer, "card")
    return model, tokenizer, tmp_path / "mine"


def test_the_bridge_boots_from_the_folder(exported: tuple[GPT2, BPETokenizer, Path]) -> None:
    from transformer_lens.model_bridge import TransformerBridge

    model, tokenizer, folder = exported
    bridge = TransformerBridge.boot_transformers(str(folder), device="cpu")
    tokens = torch.tensor([tokenizer.encode(TEXT)[:48]])
    with torch.no_grad():
        logits, cache = bridge.run_with_cache(tokens)
        torch.testing.assert_close(logits, model(tokens), atol=1e-4, rtol=0)
    assert cache["blocks.1.attn.hook_pattern"].shape == (1, 3, 48, 48)
