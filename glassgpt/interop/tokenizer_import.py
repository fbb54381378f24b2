"""A byte-level BPE tokenizer from the files of `transformers`, read without it and with the same ids.

tokenizer.json says everything; older folders have vocab.json and merges.txt instead. What ours cannot do exactly is
refused: a normaliser, another model, tokens that are found in ordinary text, tokens that are added to every text.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from glassgpt.errors import UserError
from glassgpt.files import read_json
from glassgpt.interop.tokenizer_export import oniguruma
from glassgpt.tokenizers import Tokenizer, load_tokenizer
from glassgpt.tokenizers.base import END_OF_TEXT
from glassgpt.tokenizers.bpe import BPETokenizer
from glassgpt.tokenizers.patterns import PATTERNS
from glassgpt.tokenizers.pretrained import PretrainedTokenizer
from glassgpt.tokenizers.printable import BYTE_ORDER, from_printable, to_printable

OUR_TOKENIZER = "glassgpt_tokenizer.json"  # in an export of ours: the run's own tokenizer.json
ROLES = ("bos_token", "eos_token", "unk_token", "pad_token")
# Of the merges that OpenAI published as vocab.bpe, the hash that tiktoken checks too.
GPT2_MERGES_SHA256 = "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5"
# The split of cl100k as `tokenizers` files of others write it: the same words.
CL100K_PUBLISHED = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPLITS = {oniguruma(pattern): name for name, pattern in PATTERNS.items()} | {CL100K_PUBLISHED: "cl100k"}


def load_hf_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a folder: our own where we exported it, else its byte-level BPE.

    Raises UserError where there is none, and for anything that would give other ids.
    """
    if (folder / OUR_TOKENIZER).exists():
        return load_tokenizer(folder / OUR_TOKENIZER)
    path = next((folder / name for name in ("tokenizer.json", "vocab.json") if (folder / name).exists()), None)
    if path is None:
        raise UserError(f"{folder} has no tokenizer: neither tokenizer.json nor vocab.json with merges.txt")
    data = read_json(path)
    try:
        whole = path.name == "tokenizer.json"
        return _as_published(_from_tokenizer_json(data) if whole else _from_vocab_and_merges(data, folder))
    except UserError as error:
        raise UserError(f"{path} cannot be used: {error}") from None
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise UserError(f"{path} cannot be used: it is damaged, or of an unknown layout ({error!r})") from None


def _from_tokenizer_json(data: dict[str, Any]) -> BPETokenizer:
    model = data["model"]
    kind = model.get("type", "BPE")
    if kind != "BPE":
        raise UserError(f'its model is "{kind}", only byte-level "BPE" can be read')
    for option in ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback"):
        if model.get(option):
            raise UserError(f"its model has {option}, which byte-level BPE has not")
    if data.get("normalizer"):
        raise UserError(f"it normalises text ({data['normalizer'].get('type')}) before it is split")
    _check_adds_nothing(data.get("post_processor"))
    merges = [line.split(" ") if isinstance(line, str) else line for line in model["merges"]]
    specials = {token["content"]: token["id"] for token in map(_checked_added_token, data.get("added_tokens", []))}
    return _build(model["vocab"], merges, specials, _pattern(data.get("pre_tokenizer")))


def _from_vocab_and_merges(vocab: dict[str, int], folder: Path) -> BPETokenizer:
    try:
        lines = (folder / "merges.txt").read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"merges.txt beside it cannot be read: {error}") from None
    merges = [line.split(" ") for line in lines if line and not line.startswith("#version")]
    specials = {name: vocab[name] for name in _names_of_roles(folder) if name in vocab}
    added = folder / "added_tokens.json"
    return _build(vocab, merges, specials | (read_json(added) if added.exists() else {}), "gpt2")


def _build(
    vocab: Mapping[str, int], merges: Sequence[Sequence[str]], specials: Mapping[str, int], pattern: str
) -> BPETokenizer:
    tokens = {id: name.encode() if name in specials else from_printable(name) for name, id in vocab.items()}
    pairs = [(from_printable(first), from_printable(second)) for first, second in merges]
    return BPETokenizer(tokens, pairs, specials, pattern)


def _as_published(tokenizer: BPETokenizer) -> Tokenizer:
    """GPT-2's own vocabulary under its name, any other as it is."""
    lines = [
        "#version: 0.2",
        *(f"{to_printable(first)} {to_printable(second)}" for first, second in tokenizer.merges),
        "",
    ]
    published = hashlib.sha256("\n".join(lines).encode()).hexdigest() == GPT2_MERGES_SHA256
    in_order = [*BYTE_ORDER, *(first + second for first, second in tokenizer.merges), END_OF_TEXT.encode()]
    if not published or tokenizer.vocab != dict(enumerate(in_order)) or len(tokenizer.special_tokens) != 1:
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
    """The name of the pattern by which text is split before merging."""
    steps = [pre_tokenizer or {}]
    if steps[0].get("type") == "Sequence":
        steps = steps[0]["pretokenizers"]
    *before, last = steps
    if last.get("type") != "ByteLevel" or last.get("add_prefix_space"):
        raise UserError("its pre-tokenizer is not ByteLevel without prefix space")
    if not before and last.get("use_regex", True):
        return "gpt2"
    if len(before) == 1 and not last.get("use_regex", True):
        split = before[0]
        isolated = split.get("type") == "Split" and split.get("behavior") == "Isolated" and not split.get("invert")
        name = SPLITS.get(split.get("pattern", {}).get("Regex", "")) if isolated else None
        if name is not None:
            return name
    raise UserError(f"its pre-tokenizer splits text as none of ours does; ours are {', '.join(sorted(PATTERNS))}")


def _check_adds_nothing(post_processor: dict[str, Any] | None) -> None:
    """ByteLevel only moves offsets; a template may put tokens around every text."""
    steps = [post_processor] if post_processor else []
    if steps and steps[0]["type"] == "Sequence":
        steps = steps[0]["processors"]
    for step in steps:
        if step["type"] == "ByteLevel":
            continue
        if step["type"] == "TemplateProcessing" and all("Sequence" in part for part in step["single"]):
            continue
        raise UserError(f"its post-processor ({step['type']}) adds tokens to every text")


def _checked_added_token(token: dict[str, Any]) -> dict[str, Any]:
    if not token.get("special"):
        raise UserError(f"its added token {token['content']!r} is not special: it would be found in ordinary text")
    if token.get("lstrip") or token.get("rstrip") or token.get("single_word"):
        raise UserError(f"its special token {token['content']!r} takes spaces beside it, or must be a word")
    return token


def _names_of_roles(folder: Path) -> set[str]:
    """The special tokens that the older layout names, end-of-text among them as its default."""
    names = {END_OF_TEXT}
    for file in (folder / "special_tokens_map.json", folder / "tokenizer_config.json"):
        named = read_json(file) if file.exists() else {}
        for role in ROLES:
            token = named.get(role)
            name = token.get("content") if isinstance(token, dict) else token
            if isinstance(name, str):
                names.add(name)
    return names
