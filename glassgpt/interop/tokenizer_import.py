"""Imports tokenizers from the files of `transformers`, without the library and with the same ids.

tokenizer.json contains everything. Older folders have vocab.json and merges.txt (byte-level BPE), vocab.txt (WordPiece)
or a SentencePiece model instead. What our tokenizers cannot reproduce exactly raises an error: another model, an
unknown way to normalise or split a text. Tokens that are added
to every text are kept apart, and `encode` never adds them: one at its start is the tokenizer's `bos_token`.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from glassgpt.errors import UserError
from glassgpt.files import read_file, read_json
from glassgpt.interop.pieces_import import (
    SENTENCEPIECE_FILES,
    added_tokens,
    character_bpe_from_json,
    check_class,
    read_settings,
    sentencepiece_of_folder,
    unigram_from_json,
    wordpiece_from_json,
    wordpiece_from_lines,
)
from glassgpt.interop.remote_code import refuse_code
from glassgpt.interop.tokenizer_export import oniguruma
from glassgpt.tokenizers import Tokenizer, load_tokenizer
from glassgpt.tokenizers.base import END_OF_TEXT
from glassgpt.tokenizers.bpe import BPETokenizer
from glassgpt.tokenizers.patterns import PATTERNS
from glassgpt.tokenizers.pretrained import PretrainedTokenizer
from glassgpt.tokenizers.printable import BYTE_ORDER, from_printable, to_printable

OUR_TOKENIZER = "glassgpt_tokenizer.json"  # in our own exports: a copy of the run's tokenizer.json
ROLES = ("bos_token", "eos_token", "unk_token", "pad_token")
# The classes of tokenizer_config.json that read vocab.json and merges.txt with GPT-2's split, by their own name or by
# none. Qwen2 and others have the same files and another split.
BYTE_LEVEL_CLASSES = ("GPT2", "PreTrained", "TokenizersBackend")
# The hash of OpenAI's published merges (vocab.bpe), which tiktoken checks too.
GPT2_MERGES_SHA256 = "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5"
# The pattern "llama3" as published tokenizer.json files write it, without possessive quantifiers.
LLAMA3_PUBLISHED = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN_PUBLISHED = LLAMA3_PUBLISHED.replace("{1,3}", "")
SPLITS = {oniguruma(pattern): name for name, pattern in PATTERNS.items()}
SPLITS |= {LLAMA3_PUBLISHED: "llama3", QWEN_PUBLISHED: "qwen"}


def load_hf_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a folder: our own file if we exported it, else the published one.

    Raises UserError if there is none, and for anything that would give different ids.
    """
    if (folder / OUR_TOKENIZER).exists():
        return load_tokenizer(folder / OUR_TOKENIZER)
    path = next((folder / name for name in READERS if (folder / name).exists()), None)
    if path is None:
        raise UserError(
            f"{folder} has no tokenizer: neither tokenizer.json nor vocab.json with merges.txt, vocab.txt or "
            "a SentencePiece model"
        )
    settings = folder / "tokenizer_config.json"
    if settings.exists():
        refuse_code(read_json(settings), settings)
    try:
        return READERS[path.name](path)
    except UserError as error:
        raise UserError(f"{path} cannot be used: {error}") from None
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError) as error:
        raise UserError(f"{path} cannot be used: it is damaged or has an unknown layout ({error!r})") from None


def _read_tokenizer_json(path: Path) -> Tokenizer:
    data = read_json(path)
    kind = _kind(data["model"])
    if kind == "WordPiece":
        return wordpiece_from_json(data, read_settings(path.parent))
    if kind == "Unigram":
        return unigram_from_json(data)
    if kind == "BPE" and not _is_byte_level(data):
        return character_bpe_from_json(data)
    return _as_published(_byte_level_from_json(data, kind))


def _read_vocab_json(path: Path) -> Tokenizer:
    return _as_published(_from_vocab_and_merges(read_json(path), path.parent))


READERS: dict[str, Callable[[Path], Tokenizer]] = {  # the first that is there
    "tokenizer.json": _read_tokenizer_json,
    "vocab.json": _read_vocab_json,
    "vocab.txt": wordpiece_from_lines,
    **dict.fromkeys(SENTENCEPIECE_FILES, sentencepiece_of_folder),
}


def _kind(model: dict[str, Any]) -> str:
    """The model's type, which old files leave out."""
    if "type" in model:
        return str(model["type"])
    if isinstance(model.get("vocab"), list):
        return "Unigram"
    return "WordPiece" if "max_input_chars_per_word" in model and "merges" not in model else "BPE"


def _is_byte_level(data: dict[str, Any]) -> bool:
    """Whether a BPE merges bytes. It merges characters if it writes spaces as SentencePiece, or splits nothing."""
    step = data.get("pre_tokenizer")
    steps = step["pretokenizers"] if step and step["type"] == "Sequence" else [step]
    return not data["model"].get("byte_fallback") and not any(
        step is None or step["type"] == "Metaspace" for step in steps
    )


def _byte_level_from_json(data: dict[str, Any], kind: str) -> BPETokenizer:
    model = data["model"]
    if kind != "BPE":
        raise UserError(f'its model is "{kind}", but only "BPE", "WordPiece" and "Unigram" can be read')
    for option in ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback"):
        if model.get(option):
            raise UserError(f"its model uses {option}, which byte-level BPE does not have")
    normalizer = data.get("normalizer") or {}
    if (normal_form := normalizer.get("type")) not in (None, "NFC"):
        raise UserError(f"it normalises text ({normal_form}) before it is split")
    merges = [line.split(" ") if isinstance(line, str) else line for line in model["merges"]]
    specials, options = added_tokens(data, model["vocab"], not_special=True)
    found = [token["content"] for token in data.get("added_tokens", []) if not token.get("special")]
    for name, chosen in options.items():
        if chosen != ["normalized"] or normal_form is not None:  # without a normaliser, that one changes nothing
            raise UserError(f"its special token {name!r} uses {chosen[0]}")
    return _build(
        model["vocab"],
        merges,
        specials,
        _pattern(data.get("pre_tokenizer")),
        bos_token=_bos_token(data.get("post_processor"), specials),
        ignore_merges=bool(model.get("ignore_merges")),
        found_in_text=found,
        normal_form=normal_form,
    )


def _from_vocab_and_merges(vocab: dict[str, int], folder: Path) -> BPETokenizer:
    check_class(read_settings(folder), BYTE_LEVEL_CLASSES)
    lines = read_file(folder / "merges.txt").decode("utf-8").split("\n")
    merges = [line.split(" ") for line in lines if line and not line.startswith("#version")]
    specials = {name: vocab[name] for name in _names_of_roles(folder) if name in vocab}
    added = folder / "added_tokens.json"
    specials |= read_json(added) if added.exists() else {}
    return _build(vocab, merges, specials, "gpt2", bos_token=_bos_of_folder(folder))


def _build(
    vocab: Mapping[str, int],
    merges: Sequence[Sequence[str]],
    specials: Mapping[str, int],
    pattern: str,
    *,
    bos_token: str | None,
    **options: Any,
) -> BPETokenizer:
    tokens = {id: name.encode() if name in specials else from_printable(name) for name, id in vocab.items()}
    pairs = [(from_printable(first), from_printable(second)) for first, second in merges]
    return BPETokenizer(tokens, pairs, specials, pattern, bos_token=bos_token, **options)


def _as_published(tokenizer: BPETokenizer) -> Tokenizer:
    """The published `gpt2` tokenizer if this is exactly its vocabulary, else `tokenizer` itself."""
    lines = [
        "#version: 0.2",
        *(f"{to_printable(first)} {to_printable(second)}" for first, second in tokenizer.merges),
        "",
    ]
    published = hashlib.sha256("\n".join(lines).encode()).hexdigest() == GPT2_MERGES_SHA256
    in_order = [*BYTE_ORDER, *(first + second for first, second in tokenizer.merges), END_OF_TEXT.encode()]
    if (
        tokenizer.bos_token is not None
        or not published
        or tokenizer.vocab != dict(enumerate(in_order))
        or len(tokenizer.special_tokens) != 1
        or tokenizer.found_in_text
        or tokenizer.normal_form is not None
    ):
        return tokenizer
    ranks = {base64.b64encode(token).decode("ascii"): id for id, token in tokenizer.vocab.items() if id < 50256}
    return PretrainedTokenizer.from_dict(
        {
            "name": "gpt2",
            "pattern": PATTERNS["gpt2"],
            "special_tokens": dict(tokenizer.special_tokens),
            "ranks": ranks,
        }
    )


def _pattern(pre_tokenizer: dict[str, Any] | None) -> str:
    """The name of the pattern that splits text before merging."""
    steps = [pre_tokenizer or {}]
    if steps[0].get("type") == "Sequence":
        steps = steps[0]["pretokenizers"]
    *before, last = steps
    if last.get("type") != "ByteLevel" or last.get("add_prefix_space"):
        raise UserError("its pre-tokenizer is not ByteLevel without a prefix space")
    if not before and last.get("use_regex", True):
        return "gpt2"
    if len(before) == 1 and not last.get("use_regex", True):
        split = before[0]
        isolated = split.get("type") == "Split" and split.get("behavior") == "Isolated" and not split.get("invert")
        name = SPLITS.get(split.get("pattern", {}).get("Regex", "")) if isolated else None
        if name is not None:
            return name
    raise UserError(f"its pre-tokenizer uses an unknown split pattern; known: {', '.join(sorted(PATTERNS))}")


def _bos_token(post_processor: dict[str, Any] | None, specials: Mapping[str, int]) -> str | None:
    """The special token that the post-processor adds at the start of a text. Raises UserError if it adds others.

    ByteLevel only changes offsets. A template lists what a text becomes.
    """
    steps = [post_processor] if post_processor else []
    if steps and steps[0]["type"] == "Sequence":
        steps = steps[0]["processors"]
    added: list[tuple[str, list[int]]] = []
    for step in steps:
        if step["type"] == "ByteLevel":
            continue
        *before, text = step["single"] if step["type"] == "TemplateProcessing" else [{}]
        names = [part.get("SpecialToken", {}).get("id") for part in before]
        if "Sequence" not in text or None in names or len(added) + len(names) > 1:
            raise UserError(f"its post-processor ({step['type']}) adds tokens to every text, not only one at its start")
        added += [(name, step["special_tokens"][name]["ids"]) for name in names]
    for name, ids in added:
        if ids != [specials.get(name)]:
            raise UserError(f"its post-processor adds {name!r} with ids {ids}, which is none of its special tokens")
        return str(name)
    return None


def _bos_of_folder(folder: Path) -> str | None:
    """The special token that begins every text in the older layout: `bos_token`, where `add_bos_token` is true."""
    file = folder / "tokenizer_config.json"
    config = read_json(file) if file.exists() else {}
    if not config.get("add_bos_token"):
        return None
    token = config.get("bos_token", END_OF_TEXT)
    return str(token["content"] if isinstance(token, dict) else token)


def _names_of_roles(folder: Path) -> set[str]:
    """The names of the special tokens in the older layout, including its default, end-of-text."""
    names = {END_OF_TEXT}
    for file in (folder / "special_tokens_map.json", folder / "tokenizer_config.json"):
        named = read_json(file) if file.exists() else {}
        for role in ROLES:
            token = named.get(role)
            name = token.get("content") if isinstance(token, dict) else token
            if isinstance(name, str):
                names.add(name)
    return names
