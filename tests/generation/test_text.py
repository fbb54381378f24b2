"""Prompts: with which ids they begin, and what the model sees."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from glassgpt.generation.sampling import SamplingConfig
from glassgpt.generation.text import start_of_text, text_by_token, write
from glassgpt.models.gpt2 import GPT2, GPT2Config
from glassgpt.tokenizers import Tokenizer
from glassgpt.tokenizers.bpe import BPETokenizer
from glassgpt.tokenizers.char import CharTokenizer
from glassgpt.tokenizers.printable import BYTE_ORDER

END = "<|endoftext|>"


def bytes_tokenizer(*specials: str, bos_token: str | None = None) -> BPETokenizer:
    return BPETokenizer(dict(enumerate(BYTE_ORDER)), [], specials, bos_token=bos_token)


@pytest.mark.parametrize(
    ("tokenizer", "ids"),
    [
        (bytes_tokenizer(END, "<s>", bos_token="<s>"), [257]),
        (bytes_tokenizer(END, "<s>"), [256]),
        (bytes_tokenizer(), bytes_tokenizer().encode("\n")),
        (CharTokenizer("ab"), [0]),
    ],
)
def test_an_empty_prompt_begins_with_what_the_tokenizer_has(tokenizer: Tokenizer, ids: list[int]) -> None:
    assert start_of_text(tokenizer) == ids


@pytest.mark.parametrize(
    ("bos_token", "prompt", "seen"),
    [("<s>", [5, 6], [257, 5, 6]), ("<s>", [257, 5], [257, 5]), ("<s>", [], [257]), (None, [5, 6], [5, 6])],
)
def test_the_model_sees_the_token_that_begins_every_text(
    bos_token: str | None, prompt: list[int], seen: list[int]
) -> None:
    tokenizer = bytes_tokenizer(END, "<s>", bos_token=bos_token)
    model = GPT2(GPT2Config(tokenizer.vocab_size, block_size=8, n_layer=1, n_head=1, n_embd=4))
    passes: list[Tensor] = []
    model.token_embedding.register_forward_pre_hook(lambda _, arguments: passes.append(arguments[0].clone()))
    "".join(write(model, tokenizer, prompt, SamplingConfig(), 1, torch.Generator().manual_seed(0)))
    assert passes[0].tolist() == [seen]


def test_the_pieces_of_a_text_are_whole_characters_with_the_sum_of_their_losses() -> None:
    tokenizer = bytes_tokenizer()
    euro = tokenizer.encode("€")
    assert len(euro) == 3
    ids = [*tokenizer.encode("a"), *euro, *tokenizer.encode(" b"), *euro[:2]]
    found = text_by_token(tokenizer, ids, [0.5, 1.0, 2.0, 4.0, 0.25, 0.125, 3.0, 5.0])
    assert found == [("a", 0.5), ("€", 7.0), (" ", 0.25), ("b", 0.12), ("�", 8.0)]
    assert "".join(text for text, _ in found) == tokenizer.decode(ids)
