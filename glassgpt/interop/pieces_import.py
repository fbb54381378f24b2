"""Imports WordPiece, Unigram and BPE over characters from the files of `transformers`, and SentencePiece models."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from glassgpt.errors import UserError
from glassgpt.files import read_file, read_json
from glassgpt.tokenizers.character_bpe import CharacterBPETokenizer
from glassgpt.tokenizers.decoders import PieceDecoder
from glassgpt.tokenizers.normalizing import Pipeline
from glassgpt.tokenizers.splitters import SPACE
from glassgpt.tokenizers.spm import SentencePieceTokenizer
from glassgpt.tokenizers.unicode_classes import BLANKS
from glassgpt.tokenizers.unigram import UnigramTokenizer
from glassgpt.tokenizers.wordpiece import BERT_SPECIAL_TOKENS, WordPieceTokenizer, bert_pipeline

Json = dict[str, Any]

SENTENCEPIECE_FILES = ("spiece.model", "tokenizer.model", "sentencepiece.bpe.model")
T5_EXTRA_IDS = 100  # what T5's tokenizer adds to its SentencePiece model if its settings do not say
# The classes of tokenizer_config.json whose ids are those of the SentencePiece model, and of BERT's vocab.txt. Others
# number the pieces anew, or change the text first.
SENTENCEPIECE_CLASSES = ("Llama", "T5", "MT5")
BERT_CLASSES = ("Bert", "DistilBert", "Electra", "MobileBert")
BERT_ROLES = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")


def wordpiece_from_json(data: Json, settings: Json) -> WordPieceTokenizer:
    """WordPiece from tokenizer.json. `settings` are those of tokenizer_config.json, which must agree."""
    model, decoder = data["model"], data["decoder"] or {}
    specials, options = added_tokens(data, model["vocab"])
    prefix = model["continuing_subword_prefix"]
    if decoder.get("type") != "WordPiece" or decoder["prefix"] != prefix:
        raise UserError(f"its decoder is not that of WordPiece with {prefix!r}")
    normalizer = data.get("normalizer") or {}
    for setting, field in (("do_lower_case", "lowercase"), ("tokenize_chinese_chars", "handle_chinese_chars")):
        if normalizer.get("type") == "BertNormalizer" and settings.get(setting, normalizer[field]) != normalizer[field]:
            raise UserError(f"its {field} is {normalizer[field]}, but tokenizer_config.json has another {setting}")
    before, after = around(data.get("post_processor"), specials)
    return WordPieceTokenizer(
        by_id(model["vocab"]),
        specials,
        Pipeline(data.get("normalizer"), data.get("pre_tokenizer"), options, before, after),
        unknown=model["unk_token"],
        prefix=prefix,
        longest_word=model["max_input_chars_per_word"],
        cleanup=bool(decoder["cleanup"]),
    )


def wordpiece_from_lines(path: Path) -> WordPieceTokenizer:
    """WordPiece from vocab.txt, a piece in each line, and the settings beside it. Of equal lines, the last counts."""
    settings = read_settings(path.parent)
    check_class(settings, BERT_CLASSES)
    if not settings.get("do_basic_tokenize", True) or settings.get("never_split"):
        raise UserError("tokenizer_config.json changes how words are split (do_basic_tokenize, never_split)")
    lines = read_file(path).decode("utf-8").replace("\r\n", "\n").removesuffix("\n").split("\n")
    vocab = {line.rstrip(BLANKS): id for id, line in enumerate(lines)}
    names = [name_of(settings.get(role, name)) for role, name in zip(BERT_ROLES, BERT_SPECIAL_TOKENS, strict=True)]
    specials = {name: vocab[name] for name in names if name in vocab}
    more, options = added_later(path.parent, settings)
    _, unknown, first, last, _ = names
    specials |= more
    pipeline = bert_pipeline(
        settings.get("do_lower_case", True),
        settings.get("strip_accents"),
        settings.get("tokenize_chinese_chars", True),
        tuple(name for name in (first,) if name in specials),
        tuple(name for name in (last,) if name in specials),
    )
    pipeline = Pipeline(pipeline.normalizer, pipeline.pre_tokenizer, options, pipeline.before, pipeline.after)
    return WordPieceTokenizer(by_id(vocab), specials, pipeline, unknown=str(unknown))


def unigram_from_json(data: Json) -> UnigramTokenizer:
    """A unigram language model from the contents of tokenizer.json."""
    model = data["model"]
    vocab = [(str(piece), float(score)) for piece, score in model["vocab"]]
    specials, options = added_tokens(data, {piece: id for id, (piece, _) in enumerate(vocab)})
    return UnigramTokenizer(
        vocab,
        specials,
        Pipeline(
            data.get("normalizer"), data.get("pre_tokenizer"), options, *around(data.get("post_processor"), specials)
        ),
        unknown=model.get("unk_id"),
        byte_fallback=bool(model.get("byte_fallback")),
        decoder=piece_decoder(data.get("decoder")),
    )


def character_bpe_from_json(data: Json) -> CharacterBPETokenizer:
    """BPE over characters, with or without byte fallback, from the contents of tokenizer.json."""
    model = data["model"]
    for option in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(option):
            raise UserError(f"its model uses {option}, which is not known here")
    specials, options = added_tokens(data, model["vocab"])
    merges = [line.split(" ") if isinstance(line, str) else line for line in model["merges"]]
    return CharacterBPETokenizer(
        by_id(model["vocab"]),
        [(first, second) for first, second in merges],
        specials,
        Pipeline(
            data.get("normalizer"), data.get("pre_tokenizer"), options, *around(data.get("post_processor"), specials)
        ),
        unknown=model.get("unk_token"),
        fuse_unknown=bool(model.get("fuse_unk")),
        byte_fallback=bool(model.get("byte_fallback")),
        ignore_merges=bool(model.get("ignore_merges")),
        decoder=piece_decoder(data.get("decoder")),
    )


def sentencepiece_of_folder(path: Path) -> SentencePieceTokenizer:
    """A SentencePiece model, read by the package of that name, with the special tokens that were added to it."""
    settings = read_settings(path.parent)
    check_class(settings, SENTENCEPIECE_CLASSES)
    name = settings.get("tokenizer_class") or ""
    if path.name == "sentencepiece.bpe.model" and not name:
        raise UserError(
            "models with this file (XLM-RoBERTa, mBART, …) number the pieces anew, and no tokenizer_config.json says "
            "that this one does not"
        )
    model = read_file(path)
    plain = SentencePieceTokenizer(model)
    added, options = added_later(path.parent, settings)
    if any("normalized" in each for each in options.values()):
        raise UserError("its added tokens are found in the normalised text, which SentencePiece keeps to itself")
    n_pieces = plain.vocab_size
    if name.startswith(("T5", "MT5")):
        n_extra = settings.get("extra_ids", T5_EXTRA_IDS)
        added = {f"<extra_id_{number}>": n_pieces + n_extra - 1 - number for number in range(n_extra)} | added
    begins = name.startswith("Llama") and settings.get("add_bos_token", True)
    return SentencePieceTokenizer(
        model,
        {name: id for name, id in added.items() if id >= n_pieces},
        name_of(settings.get("bos_token", "<s>")) if begins else None,
    )


def by_id(vocab: Mapping[str, int]) -> dict[int, str]:
    """The pieces of a vocabulary by id. Raises UserError if two have the same id."""
    pieces = {id: piece for piece, id in vocab.items()}
    if len(pieces) < len(vocab):
        raise UserError("two of its pieces have the same id")
    return pieces


def added_tokens(
    data: Json, vocab: Mapping[str, int], *, not_special: bool = False
) -> tuple[dict[str, int], dict[str, list[str]]]:
    """The special tokens of tokenizer.json with their ids, and the options of those that have any.

    Raises UserError for a token that is not special unless `not_special` allows it, and for an id that the library
    would not give it: that of the vocabulary, or the next one.
    """
    specials: dict[str, int] = {}
    options: dict[str, list[str]] = {}
    free = len(vocab)
    for token in sorted(data.get("added_tokens", []), key=lambda token: token["id"]):
        name, id = token["content"], token["id"]
        specials[name], chosen = check_special(token, id, not_special=not_special)
        options |= {name: chosen} if chosen else {}
        if id != vocab.get(name, free):
            raise UserError(f"its special token {name!r} has id {id}, but the library gives it {vocab.get(name, free)}")
        free = max(free, id + 1)
    return specials, options


def added_later(folder: Path, settings: Json) -> tuple[dict[str, int], dict[str, list[str]]]:
    """The tokens that tokenizer_config.json or added_tokens.json add, like `added_tokens`."""
    file = folder / "added_tokens.json"
    specials: dict[str, int] = dict(read_json(file)) if file.exists() else {}
    options: dict[str, list[str]] = {}
    for id, token in settings.get("added_tokens_decoder", {}).items():
        specials[token["content"]], chosen = check_special(token, int(id))
        options |= {token["content"]: chosen} if chosen else {}
    return specials, options


def check_special(token: Json, id: int, *, not_special: bool = False) -> tuple[int, list[str]]:
    """The id of an added token, and its options.

    Raises UserError for one that would match in ordinary text, unless `not_special` allows it.
    """
    if not token.get("special") and not not_special:
        raise UserError(f"its added token {token['content']!r} is not special: it would match in ordinary text")
    if token.get("single_word"):
        raise UserError(f"its special token {token['content']!r} uses single_word")
    return id, [option for option in ("lstrip", "rstrip", "normalized") if token.get(option)]


def around(post_processor: Json | None, specials: Mapping[str, int]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The special tokens that the post-processor writes before and after a text."""
    steps = [post_processor] if post_processor else []
    if steps and steps[0]["type"] == "Sequence":
        steps = steps[0]["processors"]
    steps = [step for step in steps if step["type"] != "ByteLevel"]  # which only changes offsets
    if not steps:
        return (), ()
    (step,) = steps
    if step["type"] in ("BertProcessing", "RobertaProcessing"):
        (last, last_id), (first, first_id) = step["sep"], step["cls"]
        found = [(first, [first_id]), (last, [last_id])]
        before, after = (first,), (last,)
    elif step["type"] == "TemplateProcessing":
        names = [part.get("SpecialToken", {}).get("id") for part in step["single"]]
        if names.count(None) != 1 or "Sequence" not in step["single"][names.index(None)]:
            raise UserError("its post-processor (TemplateProcessing) does not write tokens around one text")
        found = [(name, step["special_tokens"][name]["ids"]) for name in names if name is not None]
        before, after = tuple(names[: names.index(None)]), tuple(names[names.index(None) + 1 :])
    else:
        raise UserError(f"its post-processor ({step['type']}) is not known here")
    for name, ids in found:
        if ids != [specials.get(name)]:
            raise UserError(f"its post-processor adds {name!r} with ids {ids}, which is none of its special tokens")
    return before, after


def piece_decoder(decoder: Json | None) -> PieceDecoder:
    """How tokenizer.json's "decoder" makes text of pieces. Raises UserError for a way that is not known here."""
    steps = [decoder or {}]
    if steps[0].get("type") == "Sequence":
        steps = steps[0]["decoders"]
    kinds = [step.get("type") for step in steps]
    has_bytes = "ByteFallback" in kinds
    last = steps[-1]
    if kinds in (["Metaspace"], ["ByteFallback", "Metaspace"]) and last["replacement"] == SPACE:
        keeps = last.get("prepend_scheme", "always") == "never" or last.get("add_prefix_space") is False
        return PieceDecoder(has_bytes, "none" if keeps else "all")
    strips = kinds[-1] == "Strip"
    if strips and (last["content"], last["start"], last["stop"]) != (" ", 1, 0):
        kinds[-1] = None
    bytes_step = ["ByteFallback"] * has_bytes
    spaces = {"type": "Replace", "pattern": {"String": SPACE}, "content": " "}
    whole = (["Replace", *bytes_step, "Fuse", "Strip"], ["Replace", *bytes_step, "Fuse"], ["Replace", *bytes_step])
    if kinds in whole and steps[0] == spaces:
        return PieceDecoder(has_bytes, "one" if strips else "none")
    raise UserError(f"its decoder ({', '.join(str(step.get('type')) for step in steps)}) is not known here")


def read_settings(folder: Path) -> Json:
    """The contents of special_tokens_map.json and tokenizer_config.json, of which the latter counts more."""
    settings: Json = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        if (folder / name).exists():
            settings |= read_json(folder / name)
    return settings


def check_class(settings: Json, known: tuple[str, ...]) -> None:
    """Raises UserError if the tokenizer is of a class in `transformers` that does more than read the file."""
    name = settings.get("tokenizer_class")
    if name is not None and name.removesuffix("Fast").removesuffix("Tokenizer") not in known:
        raise UserError(f"{name} does not use this file as it is: only those of {', '.join(known)} can be read")


def name_of(token: Any) -> Any:
    """The name of a token, which may be written as an object."""
    return token["content"] if isinstance(token, dict) else token
