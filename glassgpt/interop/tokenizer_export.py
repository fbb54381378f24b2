"""Our tokenizers as a tokenizer.json, which the `tokenizers` library and with it `transformers` read.

The ids are the same for every text. As here, the text of a special token is ordinary text (`split_special_tokens`), and
a char tokenizer refuses a character that it does not know.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from glassgpt.errors import UserError
from glassgpt.tokenizers import Tokenizer
from glassgpt.tokenizers.base import END_OF_TEXT
from glassgpt.tokenizers.bpe import BPETokenizer, Merge, apply_merges
from glassgpt.tokenizers.char import CharTokenizer
from glassgpt.tokenizers.patterns import PATTERNS
from glassgpt.tokenizers.pretrained import PretrainedTokenizer
from glassgpt.tokenizers.printable import to_printable

Json = dict[str, Any]


def tokenizer_json(tokenizer: Tokenizer) -> Json:
    """The contents of tokenizer.json. Raises UserError for a kind of tokenizer that has no exact equal there."""
    if isinstance(tokenizer, CharTokenizer):
        parts = _char_parts(tokenizer)
    elif isinstance(tokenizer, BPETokenizer):
        specials = set(tokenizer.special_tokens.values())
        vocab = {id: token for id, token in tokenizer.vocab.items() if id not in specials}
        parts = _bpe_parts(vocab, tokenizer.merges, PATTERNS[tokenizer.pattern])
    elif isinstance(tokenizer, PretrainedTokenizer):
        parts = _bpe_parts(
            {id: token for token, id in tokenizer.ranks.items()}, merges_of(tokenizer.ranks), tokenizer.pattern
        )
    else:
        raise UserError(
            f"a {tokenizer.name} tokenizer cannot be exported: char, bpe and OpenAI's vocabularies can;"
            " transformers reads the .model file itself"
        )
    # Special tokens stand in the vocabulary too: it alone says which ids they have.
    for name, id in tokenizer.special_tokens.items():
        if parts["model"]["vocab"].setdefault(name, id) != id:
            raise UserError(f"the special token {name!r} cannot be exported: tokenizer.json has a token of that name")
    added = [_added_token(name, id) for name, id in tokenizer.special_tokens.items()]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": sorted(added, key=lambda token: token["id"]),
        "normalizer": None,
        "post_processor": None,
        **parts,
    }


def tokenizer_config(tokenizer: Tokenizer, block_size: int) -> Json:
    """The contents of tokenizer_config.json: how `AutoTokenizer` uses tokenizer.json."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": block_size,
        "split_special_tokens": True,
        **special_tokens_map(tokenizer),
    }


def special_tokens_map(tokenizer: Tokenizer) -> Json:
    """The contents of special_tokens_map.json: end-of-text in its usual roles, the other special tokens as others."""
    others = [name for name in tokenizer.special_tokens if name != END_OF_TEXT]
    roles = dict.fromkeys(("bos_token", "eos_token", "unk_token"), END_OF_TEXT)
    return (roles if END_OF_TEXT in tokenizer.special_tokens else {}) | (
        {"additional_special_tokens": others} if others else {}
    )


def merges_of(ranks: Mapping[bytes, int]) -> list[Merge]:
    """The merge that makes each token of a vocabulary that is given by ranks alone, in their order.

    It joins the last two parts that are left where the earlier merges are applied to the token's own bytes.
    """
    merges: list[Merge] = []
    order: dict[Merge, int] = {}
    for token in sorted(ranks, key=ranks.__getitem__):
        if len(token) == 1:
            continue
        parts = apply_merges(token, order)
        if len(parts) != 2:
            raise UserError(f"the vocabulary cannot be exported: no merge of two earlier tokens makes {token!r}")
        first, second = parts
        order[first, second] = len(merges)
        merges.append((first, second))
    return merges


def oniguruma(pattern: str) -> str:
    """A split pattern as the regular expressions of `tokenizers` mean it: `$` is the end of a line there, and `{1,3}+`
    repeats the group."""
    return pattern.replace("{1,3}+", "{1,3}").replace("$", r"\z")


def _char_parts(tokenizer: CharTokenizer) -> Json:
    vocab = {character: id for id, character in enumerate(tokenizer.alphabet)}
    return {
        "pre_tokenizer": _split(r"[\s\S]"),
        "decoder": {"type": "Fuse"},
        # An unknown word becomes this one, which is not there: an error, and not another id.
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "<a character outside the alphabet>"},
    }


def _bpe_parts(vocab: Mapping[int, bytes], merges: list[Merge], pattern: str) -> Json:
    whole = pattern == PATTERNS["gpt2"]  # the pattern that ByteLevel has itself
    to_bytes = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": whole}
    split = {"type": "Sequence", "pretokenizers": [_split(oniguruma(pattern)), to_bytes]}
    return {
        "pre_tokenizer": to_bytes if whole else split,
        "decoder": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {to_printable(token): id for id, token in sorted(vocab.items())},
            "merges": [f"{to_printable(first)} {to_printable(second)}" for first, second in merges],
        },
    }


def _split(pattern: str) -> Json:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def _added_token(name: str, id: int) -> Json:
    plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": id, "content": name, **plain, "special": True}
