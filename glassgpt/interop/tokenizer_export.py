"""Exports our tokenizers as tokenizer.json, which the `tokenizers` and `transformers` libraries read.

The ids are the same for every text. The text of a special token stays ordinary text (`split_special_tokens`). Beside an
encoder it does not, because its users write the mask token into a text. A char tokenizer still rejects unknown
characters.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from glassgpt.data.masking import EDGES, MASK_TOKENS
from glassgpt.data.pairs import Ends
from glassgpt.errors import UserError
from glassgpt.interop.pieces_export import pieces_json, pieces_roles, writes_around
from glassgpt.models import Kind
from glassgpt.tokenizers import Tokenizer
from glassgpt.tokenizers.base import END_OF_TEXT
from glassgpt.tokenizers.bpe import BPETokenizer, Merge, apply_merges
from glassgpt.tokenizers.char import CharTokenizer
from glassgpt.tokenizers.normalizing import NormalizingTokenizer
from glassgpt.tokenizers.patterns import PATTERNS
from glassgpt.tokenizers.pretrained import PretrainedTokenizer
from glassgpt.tokenizers.printable import to_printable

Json = dict[str, Any]


def tokenizer_json(tokenizer: Tokenizer, kind: Kind = "decoder") -> Json:
    """The contents of tokenizer.json, beside a model of this kind, which decides what is written around a text.

    Raises UserError for a kind of tokenizer without an exact equivalent there.
    """
    if isinstance(tokenizer, NormalizingTokenizer):
        return pieces_json(tokenizer)
    if isinstance(tokenizer, CharTokenizer):
        parts = _char_parts(tokenizer)
    elif isinstance(tokenizer, BPETokenizer):
        specials = set(tokenizer.special_tokens.values())
        vocab = {id: token for id, token in tokenizer.vocab.items() if id not in specials}
        parts = _bpe_parts(vocab, tokenizer.merges, PATTERNS[tokenizer.pattern], tokenizer.ignore_merges)
    elif isinstance(tokenizer, PretrainedTokenizer):
        parts = _bpe_parts(
            {id: token for token, id in tokenizer.ranks.items()}, merges_of(tokenizer.ranks), tokenizer.pattern
        )
    else:
        raise UserError(
            f"a {tokenizer.name} tokenizer cannot be exported: transformers reads the .model file itself, and other"
            " kinds can be exported"
        )
    # The vocabulary contains the special tokens too: only it defines their ids.
    for name, id in tokenizer.special_tokens.items():
        if parts["model"]["vocab"].setdefault(name, id) != id:
            raise UserError(f"the special token {name!r} cannot be exported: an ordinary token has the same name")
    found = _found_in_text(tokenizer)
    added = [_added_token(name, id, special=name not in found) for name, id in tokenizer.special_tokens.items()]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": sorted(added, key=lambda token: token["id"]),
        "normalizer": _normalizer(tokenizer),
        "post_processor": writes_around(*_frame(tokenizer, kind), tokenizer.special_tokens),
        **parts,
    }


def tokenizer_config(tokenizer: Tokenizer, block_size: int, kind: Kind = "decoder") -> Json:
    """The contents of tokenizer_config.json: how `AutoTokenizer` uses tokenizer.json."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        # transformers would change the pieces' way to add a space.
        **({} if isinstance(tokenizer, NormalizingTokenizer) else {"add_prefix_space": False}),
        "clean_up_tokenization_spaces": False,
        "model_max_length": block_size,
        "split_special_tokens": kind != "encoder",
        **special_tokens_map(tokenizer, kind),
    }


def special_tokens_map(tokenizer: Tokenizer, kind: Kind = "decoder") -> Json:
    """The contents of special_tokens_map.json: the tokens that have a role, and the others as additional."""
    has_end = END_OF_TEXT in tokenizer.special_tokens
    roles: Json = dict.fromkeys(("bos_token", "eos_token", "unk_token"), END_OF_TEXT) if has_end else {}
    if isinstance(tokenizer, NormalizingTokenizer):
        roles |= pieces_roles(tokenizer)
    if tokenizer.bos_token is not None:
        roles["bos_token"] = tokenizer.bos_token
    roles |= _roles_of_kind(tokenizer, kind)
    found = _found_in_text(tokenizer)
    others = [name for name in tokenizer.special_tokens if name not in roles.values() and name not in found]
    return roles | ({"additional_special_tokens": others} if others else {})


def _roles_of_kind(tokenizer: Tokenizer, kind: Kind) -> dict[str, str]:
    """The tokens without which a model of this kind cannot be used over there."""
    specials = tokenizer.special_tokens
    if kind == "encoder":
        mask = next((name for name in MASK_TOKENS if name in specials), "")
        named = {"cls_token": EDGES[0], "sep_token": EDGES[1], "pad_token": "[PAD]", "mask_token": mask}
        return {role: name for role, name in named.items() if name in specials}
    if kind == "encoder-decoder":
        ends, names = Ends.of(tokenizer), {id: name for name, id in specials.items()}
        return {"eos_token": names[ends.stop_id], "pad_token": names[ends.start_id]}
    return {}


def _frame(tokenizer: Tokenizer, kind: Kind) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The special tokens that a model of this kind has seen before and after each text in training."""
    if kind == "encoder" and tokenizer.special_tokens.keys() >= set(EDGES):
        return EDGES[:1], EDGES[1:]
    before = () if tokenizer.bos_token is None else (tokenizer.bos_token,)
    return before, (_roles_of_kind(tokenizer, kind)["eos_token"],) if kind == "encoder-decoder" else ()


def merges_of(ranks: Mapping[bytes, int]) -> list[Merge]:
    """The merges of a vocabulary of which only the ranks are known, in their order.

    Applying the earlier merges to the bytes of a token leaves two parts: they are the pair of its merge.
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
    """A split pattern in the regex syntax of `tokenizers` (Oniguruma), where `$` matches at the end of each line, and
    `{1,3}+` is not possessive but repeats the group."""
    return pattern.replace("{1,3}+", "{1,3}").replace("$", r"\z")


def _char_parts(tokenizer: CharTokenizer) -> Json:
    vocab = {character: id for id, character in enumerate(tokenizer.alphabet)}
    return {
        "pre_tokenizer": _split(r"[\s\S]"),
        "decoder": {"type": "Fuse"},
        # An unknown word maps to this token, which is not in the vocabulary: an error instead of a wrong id.
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "<a character outside the alphabet>"},
    }


def _bpe_parts(vocab: Mapping[int, bytes], merges: list[Merge], pattern: str, ignore_merges: bool = False) -> Json:
    built_in = pattern == PATTERNS["gpt2"]  # ByteLevel's own pattern
    to_bytes = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": built_in}
    split = {"type": "Sequence", "pretokenizers": [_split(oniguruma(pattern)), to_bytes]}
    return {
        "pre_tokenizer": to_bytes if built_in else split,
        "decoder": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": ignore_merges,
            "vocab": {to_printable(token): id for id, token in sorted(vocab.items())},
            "merges": [f"{to_printable(first)} {to_printable(second)}" for first, second in merges],
        },
    }


def _split(pattern: str) -> Json:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def _found_in_text(tokenizer: Tokenizer) -> frozenset[str]:
    return tokenizer.found_in_text if isinstance(tokenizer, BPETokenizer) else frozenset()


def _normalizer(tokenizer: Tokenizer) -> Json | None:
    form = tokenizer.normal_form if isinstance(tokenizer, BPETokenizer) else None
    return None if form is None else {"type": form}


def _added_token(name: str, id: int, *, special: bool = True) -> Json:
    plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": id, "content": name, **plain, "special": special}
