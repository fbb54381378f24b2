"""Exports WordPiece, Unigram and BPE over characters as tokenizer.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from glassgpt.errors import UserError
from glassgpt.tokenizers.character_bpe import CharacterBPETokenizer
from glassgpt.tokenizers.decoders import PieceDecoder
from glassgpt.tokenizers.normalizing import NormalizingTokenizer
from glassgpt.tokenizers.splitters import SPACE
from glassgpt.tokenizers.unigram import UnigramTokenizer
from glassgpt.tokenizers.wordpiece import WordPieceTokenizer

Json = dict[str, Any]


def pieces_json(tokenizer: NormalizingTokenizer) -> Json:
    """The contents of tokenizer.json. Raises UserError for a special token that the library would number otherwise."""
    if isinstance(tokenizer, WordPieceTokenizer):
        model, decoder, vocab = _wordpiece_parts(tokenizer)
    elif isinstance(tokenizer, UnigramTokenizer):
        model, decoder, vocab = _unigram_parts(tokenizer)
    elif isinstance(tokenizer, CharacterBPETokenizer):
        model, decoder, vocab = _bpe_parts(tokenizer)
    else:
        raise UserError(f"a {tokenizer.name} tokenizer cannot be exported")
    pipeline = tokenizer.pipeline
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": _added_tokens(tokenizer, vocab),
        "normalizer": pipeline.normalizer,
        "pre_tokenizer": pipeline.pre_tokenizer,
        "post_processor": writes_around(pipeline.before, pipeline.after, tokenizer.special_tokens),
        "decoder": decoder,
        "model": model,
    }


def pieces_roles(tokenizer: NormalizingTokenizer) -> dict[str, str]:
    """The roles of special tokens in `transformers`, by their usual names and places."""
    before, after = tokenizer.pipeline.before[:1], tokenizer.pipeline.after[-1:]
    if isinstance(tokenizer, WordPieceTokenizer):
        named = {"unk_token": tokenizer.unknown, "pad_token": "[PAD]", "mask_token": "[MASK]"}
        named |= dict(zip(("cls_token",), before, strict=False)) | dict(zip(("sep_token",), after, strict=False))
    else:
        unknown = getattr(tokenizer, "unknown", None)
        piece = tokenizer.pieces.get(unknown) if isinstance(unknown, int) else unknown
        named = {"unk_token": piece or "<unk>", "pad_token": "<pad>", "eos_token": "</s>"}
        named |= dict(zip(("bos_token",), before, strict=False)) | dict(zip(("eos_token",), after, strict=False))
    return {role: name for role, name in named.items() if name in tokenizer.special_tokens}


def _wordpiece_parts(tokenizer: WordPieceTokenizer) -> tuple[Json, Json, dict[str, int]]:
    vocab: dict[str, int] = tokenizer.to_dict()["vocab"]
    model = {
        "type": "WordPiece",
        "unk_token": tokenizer.unknown,
        "continuing_subword_prefix": tokenizer.prefix,
        "max_input_chars_per_word": tokenizer.longest_word,
        "vocab": vocab,
    }
    return model, {"type": "WordPiece", "prefix": tokenizer.prefix, "cleanup": tokenizer.cleanup}, vocab


def _unigram_parts(tokenizer: UnigramTokenizer) -> tuple[Json, Json, dict[str, int]]:
    model = {
        "type": "Unigram",
        "unk_id": tokenizer.unknown,
        "byte_fallback": tokenizer.byte_fallback,
        "vocab": [[piece, score] for piece, score in tokenizer.vocab],
    }
    return model, _decoder(tokenizer.decoder), {piece: id for id, (piece, _) in enumerate(tokenizer.vocab)}


def _bpe_parts(tokenizer: CharacterBPETokenizer) -> tuple[Json, Json, dict[str, int]]:
    data = tokenizer.to_dict()
    model = {
        "type": "BPE",
        "dropout": None,
        "unk_token": tokenizer.unknown,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": tokenizer.fuse_unknown,
        "byte_fallback": tokenizer.byte_fallback,
        "ignore_merges": tokenizer.ignore_merges,
        "vocab": data["vocab"],
        "merges": data["merges"],
    }
    return model, _decoder(tokenizer.decoder), data["vocab"]


def _decoder(decoder: PieceDecoder) -> Json:
    to_bytes = [{"type": "ByteFallback"}] * decoder.byte_pieces
    if decoder.added_space == "all":
        metaspace = {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": "always", "split": True}
        return {"type": "Sequence", "decoders": [*to_bytes, metaspace]} if to_bytes else metaspace
    steps: list[Json] = [{"type": "Replace", "pattern": {"String": SPACE}, "content": " "}, *to_bytes, {"type": "Fuse"}]
    if decoder.added_space == "one":
        steps.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    return {"type": "Sequence", "decoders": steps}


def _added_tokens(tokenizer: NormalizingTokenizer, vocab: Mapping[str, int]) -> list[Json]:
    """The special tokens in the order of their ids. The library numbers those outside the vocabulary from its size."""
    added: list[Json] = []
    free = len(vocab)
    for name, id in sorted(tokenizer.special_tokens.items(), key=lambda item: item[1]):
        if id != vocab.get(name, free):
            raise UserError(
                f"the special token {name!r} cannot be exported with id {id}: the library would give it "
                f"{vocab.get(name, free)}"
            )
        free = max(free, id + 1)
        chosen = (tokenizer.pipeline.options or {}).get(name, ())
        options = {option: option in chosen for option in ("single_word", "lstrip", "rstrip", "normalized")}
        added.append({"id": id, "content": name, **options, "special": True})
    return added


def writes_around(before: tuple[str, ...], after: tuple[str, ...], specials: Mapping[str, int]) -> Json | None:
    """The post-processor that writes special tokens around a text, and around each text of a pair."""
    first = [{"SpecialToken": {"id": name, "type_id": 0}} for name in before]
    last = [{"SpecialToken": {"id": name, "type_id": 0}} for name in after]
    if not first and not last:
        return None
    single = [*first, {"Sequence": {"id": "A", "type_id": 0}}, *last]
    # BERT writes its first token once and the last after each text; the others write each around each.
    again = [] if last and first else [{"SpecialToken": {**part["SpecialToken"], "type_id": 1}} for part in first]
    ends = [{"SpecialToken": {**part["SpecialToken"], "type_id": 1}} for part in last]
    return {
        "type": "TemplateProcessing",
        "single": single,
        "pair": [*single, *again, {"Sequence": {"id": "B", "type_id": 1}}, *ends],
        "special_tokens": {
            name: {"id": name, "ids": [specials[name]], "tokens": [name]} for name in dict.fromkeys((*before, *after))
        },
    }
