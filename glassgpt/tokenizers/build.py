"""Builds a tokenizer from a config, or loads it from a file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from glassgpt.errors import UserError, unknown
from glassgpt.tokenizers.base import Tokenizer, check_special_names, damaged, from_file, load_json
from glassgpt.tokenizers.bpe import BPETokenizer
from glassgpt.tokenizers.char import CharTokenizer
from glassgpt.tokenizers.character_bpe import CharacterBPETokenizer
from glassgpt.tokenizers.patterns import split_pattern
from glassgpt.tokenizers.pretrained import PRETRAINED, PretrainedTokenizer
from glassgpt.tokenizers.spm import SentencePieceTokenizer
from glassgpt.tokenizers.unigram import UnigramTokenizer
from glassgpt.tokenizers.wordpiece import WordPieceTokenizer

NAMES = ("char", "bpe", *PRETRAINED)
IMPORTED = ("wordpiece", "unigram", "character_bpe", "sentencepiece")  # they come with a model that is imported
LOADERS: dict[str, Callable[[dict[str, Any]], Tokenizer]] = {  # by the "type" in a file
    "char": CharTokenizer.from_dict,
    "bpe": BPETokenizer.from_dict,
    "tiktoken": PretrainedTokenizer.from_dict,
    "sentencepiece": SentencePieceTokenizer.from_dict,
    "wordpiece": WordPieceTokenizer.from_dict,
    "unigram": UnigramTokenizer.from_dict,
    "character_bpe": CharacterBPETokenizer.from_dict,
}


@dataclass(frozen=True)
class TokenizerConfig:
    """Which tokenizer a run uses."""

    name: str = "char"  # char, bpe, gpt2, cl100k_base, o200k_base; or the file of a saved tokenizer (.json, .model)
    vocab_size: int = 512  # bpe: number of ids (bytes, merges and special tokens)
    pattern: Literal["gpt2", "cl100k", "llama3", "qwen", "o200k"] = "gpt2"  # bpe: how text is split before merging
    special_tokens: tuple[str, ...] = ()  # char, bpe: tokens that are never made from ordinary text

    def __post_init__(self) -> None:
        if self.name not in (*NAMES, *IMPORTED) and not is_file_name(self.name):
            raise unknown("tokenizer", self.name, NAMES)
        split_pattern(self.pattern)
        check_special_names(self.special_tokens)
        if self.name == "bpe" and self.vocab_size < 256 + len(self.special_tokens):
            raise UserError(
                f"tokenizer.vocab_size is {self.vocab_size}, but a bpe tokenizer needs at least "
                f"{256 + len(self.special_tokens)}: 256 bytes and {len(self.special_tokens)} special tokens"
            )


def settings_in_use(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a [tokenizer] section without those that its tokenizer ignores, whose values would mislead.

    Only bpe has a size and a pattern of its own. A published tokenizer, or a file, decides everything by its name.
    """
    ignored: dict[str, tuple[str, ...]] = {"bpe": (), "char": ("vocab_size", "pattern")}
    unused = ignored.get(str(settings.get("name")), ("vocab_size", "pattern", "special_tokens"))
    return {name: value for name, value in settings.items() if name not in unused}


def is_file_name(name: str) -> bool:
    """Whether a tokenizer name stands for a file: by its suffix, a path separator, or because the file exists."""
    return name.endswith((".json", ".model")) or "/" in name or "\\" in name or Path(name).is_file()


def build_tokenizer(config: TokenizerConfig, *, whole_text: str, train_text: str) -> Tokenizer:
    """The tokenizer of `config`, trained on the text if it needs training, else loaded.

    The alphabet of `char` is that of `whole_text`, so that validation has no unknown characters. `bpe` learns its
    merges only from `train_text`.
    """
    if config.name == "char":
        return CharTokenizer.train(whole_text, config.special_tokens)
    if config.name == "bpe":
        return BPETokenizer.train(train_text, config.vocab_size, config.special_tokens, config.pattern)
    return open_tokenizer(config.name)


def open_tokenizer(name: str) -> Tokenizer:
    """The tokenizer with a published name, or from a file, or from a run folder (its `tokenizer.json`)."""
    if name in PRETRAINED:
        return PretrainedTokenizer.from_name(name)
    if name in IMPORTED:
        raise UserError(
            f"a '{name}' tokenizer comes with an imported model: give its file, or the folder of the run that has it"
        )
    if name in NAMES:
        raise UserError(
            f"a '{name}' tokenizer must be trained on a text: give the file of one, saved by `glassgpt tokenizer train`"
        )
    if name and Path(name).is_dir():
        return load_tokenizer(Path(name) / "tokenizer.json")
    if not is_file_name(name):
        raise unknown("tokenizer", name, NAMES)
    return load_tokenizer(name)


def build_again(data: dict[str, Any]) -> Tokenizer:
    """The inverse of `to_dict`."""
    return LOADERS[data["type"]](data)


def load_tokenizer(path: Path | str) -> Tokenizer:
    """The tokenizer in a JSON file written by `save`, or in a SentencePiece .model file.

    Raises UserError, with the file and the reason, if it is missing, damaged, foreign or of another version.
    """
    if str(path).endswith(".model"):
        return SentencePieceTokenizer.from_model(path)
    data = load_json(path)
    kind = data.get("type")
    if not isinstance(kind, str) or kind not in LOADERS:
        raise damaged(path, f"its type is {kind!r}; known types: {', '.join(sorted(LOADERS))}")
    return from_file(LOADERS[kind], data, path)
