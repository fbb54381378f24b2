"""The decoder with a KV cache of docs/course/experiments gives the logits of section 10."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
import torch

from glassgpt.models.ladder.config import LadderConfig
from glassgpt.models.ladder.s10_decoder import DecoderModel

SCRIPT = Path(__file__).parents[2] / "docs" / "course" / "experiments" / "kv_cache.py"


@pytest.mark.parametrize("chunks", [[1] * 12, [12], [7, 1, 4]], ids=["one by one", "at once", "in pieces"])
@torch.no_grad()
def test_cached_and_whole_passes_agree(chunks: list[int]) -> None:
    torch.manual_seed(0)
    config = LadderConfig(vocab_size=13, block_size=12, n_layer=3, n_head=2, n_embd=16, dropout=0.2)
    model = DecoderModel(config).eval()
    tokens = torch.randint(13, (1, 12))
    cached = runpy.run_path(str(SCRIPT))["with_cache"](model)
    logits = torch.cat([cached(part) for part in tokens.split(chunks, dim=1)], dim=1)
    torch.testing.assert_close(logits, model(tokens), rtol=0, atol=1e-5)
