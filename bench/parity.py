"""GPT-2 here and in `transformers`, both directions: the same ids, logits and greedy text; a table in Markdown.

    python bench/parity.py            # toy size and 124M, a few minutes

Weights are random, so no hub is needed. "in" imports what `transformers` saved, "out" loads an export there. Ids are
compared on random texts of difficult characters, logits over full contexts, and greedy text token by token. An export
is also imported again, which must give the same weights, bit for bit.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2LMHeadModel
from transformers import GPT2Config as TheirConfig
from transformers.utils import logging

import glassgpt as gg
from glassgpt.generation.engine import generate
from glassgpt.generation.sampling import SamplingConfig
from glassgpt.interop.huggingface_export import hf_tensors, write_hf_folder
from glassgpt.interop.tokenizer_export import special_tokens_map, tokenizer_config, tokenizer_json
from glassgpt.models import Model
from glassgpt.models.gpt2 import GPT2, GPT2Config
from glassgpt.tokenizers import Tokenizer, open_tokenizer
from glassgpt.tokenizers.bpe import BPETokenizer
from glassgpt.tokenizers.char import CharTokenizer

PIECES = [*"abcXYZ  \n\n\t'.,!?<|>_-0123456789éſß日本ا", "'s", "'LL", "  ", "😀", "👩\u200d👧", "<|endoftext|>"]
SIZES = {"toy": (2, 3, 24, 48), "124M": (12, 12, 768, 1024)}  # n_layer, n_head, n_embd, block_size
TEXTS, NEW_TOKENS = 1000, 40


@dataclass(frozen=True)
class Figures:
    """How two models and their tokenizers agree."""

    same_ids: int  # of TEXTS
    logits: float  # the largest difference
    greedy: int  # equal tokens of NEW_TOKENS, from the first on


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    sizes = parser.parse_args().sizes
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    print("| size | tokenizer | direction | equal ids | largest logit difference | equal greedy tokens | bit for bit |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for size in sizes:
        for tokenizer in tokenizers():
            with tempfile.TemporaryDirectory() as folder:
                report(size, tokenizer, "in", *measure_in(size, tokenizer, Path(folder)))
            with tempfile.TemporaryDirectory() as folder:
                report(size, tokenizer, "out", *measure_out(size, tokenizer, Path(folder)))


def report(size: str, tokenizer: Tokenizer, direction: str, figures: Figures, exact: bool) -> None:
    """One line of the table."""
    counts = f"{figures.same_ids}/{TEXTS} | {figures.logits:.1e} | {figures.greedy}/{NEW_TOKENS}"
    print(f"| {size} | {tokenizer.name} | {direction} | {counts} | {'yes' if exact else 'NO'} |", flush=True)


def tokenizers() -> list[Tokenizer]:
    """One of each kind."""
    text = "".join(random.Random(0).choices(PIECES, k=4000))
    return [CharTokenizer.train(text), BPETokenizer.train(text, 400, ["<|endoftext|>"]), open_tokenizer("gpt2")]


def measure_in(size: str, tokenizer: Tokenizer, folder: Path) -> tuple[Figures, bool]:
    """What `transformers` saved, as a run here; exact where every weight is the same."""
    n_layer, n_head, n_embd, block_size = SIZES[size]
    torch.manual_seed(0)
    sizes = {"n_layer": n_layer, "n_head": n_head, "n_embd": n_embd, "n_positions": block_size}
    ends = {"bos_token_id": None, "eos_token_id": None}
    theirs = GPT2LMHeadModel(TheirConfig(vocab_size=tokenizer.vocab_size, **sizes, **ends)).eval()
    shake(theirs)
    theirs.save_pretrained(folder / "theirs")
    files = {
        "tokenizer.json": tokenizer_json(tokenizer),
        "tokenizer_config.json": tokenizer_config(tokenizer, block_size),
        "special_tokens_map.json": special_tokens_map(tokenizer),
    }
    for name, content in files.items():
        (folder / "theirs" / name).write_text(json.dumps(content), encoding="utf-8")
    if tokenizer.name == "char":  # a kind that is read from our own file alone
        tokenizer.save(folder / "theirs" / "glassgpt_tokenizer.json")
    run = gg.import_hf(folder / "theirs", run=folder / "run")
    assert isinstance(run.model, GPT2)
    back = hf_tensors(run.model, tokenizer.vocab_size)  # under their names, in their layout
    exact = all(torch.equal(value, theirs.state_dict()[name]) for name, value in back.items())
    return compare(run.model, run.tokenizer, theirs, AutoTokenizer.from_pretrained(folder / "theirs")), exact


def measure_out(size: str, tokenizer: Tokenizer, folder: Path) -> tuple[Figures, bool]:
    """A model of ours with a padded vocabulary, exported; exact where an import gives it back."""
    n_layer, n_head, n_embd, block_size = SIZES[size]
    torch.manual_seed(0)
    model = GPT2(
        GPT2Config(
            tokenizer.vocab_size, block_size, n_layer, n_head, n_embd, padded_vocab_size=tokenizer.vocab_size + 47
        )
    ).eval()
    shake(model)
    (folder / "ours").mkdir()
    write_hf_folder(folder / "ours", model, tokenizer, "")
    theirs = AutoModelForCausalLM.from_pretrained(folder / "ours").eval()
    figures = compare(model, tokenizer, theirs, AutoTokenizer.from_pretrained(folder / "ours"))
    back = gg.import_hf(folder / "ours", run=folder / "back")
    state = model.state_dict()
    state["token_embedding.weight"] = state["token_embedding.weight"][: tokenizer.vocab_size]
    exact = all(torch.equal(state[name], value) for name, value in back.model.state_dict().items())
    return figures, exact and back.tokenizer.to_dict() == tokenizer.to_dict()


def shake(model: nn.Module) -> None:
    """Biases and gains that are not 0 and 1, so that each of them counts."""
    for parameter in model.parameters():
        if parameter.dim() == 1:
            parameter.data += 0.1 * torch.randn_like(parameter)


@torch.no_grad()
def compare(ours: Model, tokenizer: Tokenizer, theirs: Any, their_tokenizer: Any) -> Figures:
    """Ids, logits and greedy text of the two."""
    draw = random.Random(1)
    texts = ["".join(draw.choices(PIECES, k=draw.randint(0, 60))) for _ in range(TEXTS)]
    same_ids = sum(tokenizer.encode(text) == their_tokenizer.encode(text) for text in texts)
    block_size = theirs.config.n_positions
    tokens = torch.randint(tokenizer.vocab_size, (1, block_size), generator=torch.Generator().manual_seed(2))
    difference = (ours(tokens) - theirs(tokens).logits).abs().max().item()
    prompt = tokens[:, :8]
    options = {"eos_token_id": None, "pad_token_id": 0, "do_sample": False}
    written = theirs.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=NEW_TOKENS, **options)
    expected = written[0, 8:].tolist()
    found = list(generate(ours, prompt[0].tolist(), SamplingConfig(temperature=0.0), max_new_tokens=NEW_TOKENS))
    equal = next((n for n, pair in enumerate(zip(found, expected, strict=True)) if pair[0] != pair[1]), NEW_TOKENS)
    return Figures(same_ids, difference, equal)


if __name__ == "__main__":
    main()
