"""`preparation.json`: the settings and the progress of sharding a corpus, from which a stopped process resumes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from typing_extensions import TypedDict  # pydantic needs this one below Python 3.12

from glassgpt.config import Count, from_dict, parse_json_as
from glassgpt.data.dataset import MANIFEST_NAME, STATE_NAME, TOKENIZER_NAME, tokenizer_sha256
from glassgpt.data.documents import TEXT, kind_of
from glassgpt.data.encoders import document_start
from glassgpt.data.sources import Position, Source
from glassgpt.errors import UserError
from glassgpt.files import read_file, write_text
from glassgpt.tokenizers import Tokenizer, TokenizerConfig, load_tokenizer, open_tokenizer
from glassgpt.tokenizers.base import END_OF_TEXT
from glassgpt.tokenizers.bpe import BPETokenizer
from glassgpt.tokenizers.patterns import safe_cut, split_pattern
from glassgpt.tokenizers.threads import available_cores

SHARD_TOKENS = 100_000_000  # tokens per shard
TRAIN_TOKENIZER_ON = 100_000_000  # characters of the corpus
_FORMAT = "glassgpt-preparation"
_VERSION = 2  # version 1 cut long texts at other places, so its positions in a text mean other pieces
_NAMES = {  # names of the settings in error messages
    "source": "the documents (files, sizes, times)",
    "tokenizer": "the tokenizer",
    "shard_tokens": "--shard-tokens",
}


@dataclass(frozen=True)
class ShardingConfig:
    """Settings of sharding a corpus. The number of workers changes only the speed, not the result."""

    tokenizer: TokenizerConfig = field(default_factory=lambda: TokenizerConfig("gpt2"))
    train_tokenizer_on: int = TRAIN_TOKENIZER_ON  # characters at the start of the corpus that `bpe` is trained on
    shard_tokens: int = SHARD_TOKENS
    workers: int = field(default_factory=available_cores)

    def __post_init__(self) -> None:
        for name in ("train_tokenizer_on", "shard_tokens", "workers"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}, but must be 1 or more")
        if self.tokenizer.name == "char":
            raise UserError(
                "a char tokenizer needs the alphabet of the whole corpus: train one with `glassgpt tokenizer train "
                f"--type char --special '{END_OF_TEXT}'` and give its file, or use gpt2 or bpe"
            )


@dataclass(frozen=True)
class Shard:
    """A finished shard and its sizes."""

    name: str
    tokens: Count
    documents: Count  # documents that begin in it
    bytes: Count  # of text


class _Settings(TypedDict):
    """The setting that is used; the others are only compared."""

    source: dict[str, Any]


class _Preparation(TypedDict):
    """The field of `preparation.json` with fields of its own."""

    settings: _Settings


@dataclass(frozen=True)
class ShardingState:
    """The settings and the progress of sharding a corpus."""

    settings: dict[str, Any]
    shards: tuple[Shard, ...] = ()
    position: Position = None  # of the batch that contains the first id of the next shard
    offset: Count = 0  # index of that id in the batch
    null_documents: Count = 0  # documents without a text, up to the end of that batch
    version: int = _VERSION  # of the format

    @property
    def tokens(self) -> int:
        """Number of tokens in all finished shards."""
        return sum(shard.tokens for shard in self.shards)

    def save(self, folder: Path) -> None:
        """Writes `preparation.json` to `folder`, atomically."""
        fields = {"format": _FORMAT, **asdict(self)}
        write_text(folder / STATE_NAME, json.dumps(fields, indent=1, ensure_ascii=False) + "\n")


def load_sharding_state(folder: Path) -> ShardingState:
    """The state in `folder`. Raises UserError if its file is missing or damaged."""
    path = folder / STATE_NAME
    try:
        fields = parse_json_as(_Preparation, read_file(path))
        if fields.pop("format", None) != _FORMAT or fields.get("version") not in (1, _VERSION):
            raise ValueError("it has another format or version")
        return from_dict(ShardingState, fields, where="preparation")
    except (UserError, ValueError, TypeError) as error:
        raise _damaged(folder, error) from None


def _damaged(folder: Path, reason: Exception) -> UserError:
    return UserError(f"{folder / STATE_NAME} is damaged ({reason}): delete {folder} and start again")


def _check_position(folder: Path, state: ShardingState, source: Source) -> None:
    """Raises UserError if the state does not say where in the source the next shard begins."""
    if state.position is None and not state.shards:
        return
    try:
        source.check_position(state.position)
    except UserError as error:
        raise _damaged(folder, error) from None


def begin(folder: Path, source: Source, config: ShardingConfig) -> tuple[ShardingState, Source]:
    """The state in `folder`, or a new one, and the source pinned to the revision that was read before.

    Raises UserError, without changing anything, if the folder holds anything else or shards of other settings.
    """
    state = None
    if (folder / STATE_NAME).is_file():
        state = load_sharding_state(folder)
    elif any(not path.name.startswith(".") for path in folder.iterdir()):
        raise UserError(f"{folder} exists and holds something else: choose another --out; nothing was changed")
    source = source.pinned(state.settings["source"] if state else None)
    settings = {
        "source": source.settings(),
        "tokenizer": _tokenizer_settings(config),
        "shard_tokens": config.shard_tokens,
    }
    if state is not None and state.settings == settings:
        if state.version == 1 and not (folder / MANIFEST_NAME).is_file() and _has_text(state.settings["source"]):
            raise UserError(
                f"{folder} was begun by an earlier version of glassgpt, which cut long texts at other places: "
                "choose another --out, or delete the folder to start again; nothing was changed"
            )
        _check_position(folder, state, source)
        return state, source
    if state is not None and state.shards:
        different = " and ".join(text for name, text in _NAMES.items() if state.settings.get(name) != settings[name])
        raise UserError(
            f"{folder} was started with other settings: {different} differ; choose another --out, or delete the folder "
            "to start again; nothing was changed"
        )
    (folder / TOKENIZER_NAME).unlink(missing_ok=True)
    state = ShardingState(settings)
    state.save(folder)
    return state, source


def _has_text(source: dict[str, Any]) -> bool:
    """Whether the settings of a source name a text that is read in pieces."""
    return "text_sha256" in source or any(kind_of(Path(name)) == TEXT for name, *_ in source.get("files", ()))


def put_tokenizer(folder: Path, source: Source, config: ShardingConfig, note: Callable[[str], None]) -> Tokenizer:
    """The tokenizer in the folder. If it is missing, it is trained or copied there first."""
    path = folder / TOKENIZER_NAME
    if path.is_file():
        return load_tokenizer(path)
    if config.tokenizer.name == "bpe":
        note(f"training a tokenizer on the first {config.train_tokenizer_on:,} characters")
        tokenizer = _train(source, config)
    else:
        tokenizer = open_tokenizer(config.tokenizer.name)
    tokenizer.save(path)
    return tokenizer


def _tokenizer_settings(config: ShardingConfig) -> dict[str, Any]:
    if config.tokenizer.name == "bpe":
        special_tokens = list(_special_tokens(config))
        return {**asdict(config.tokenizer), "special_tokens": special_tokens, "train_on": config.train_tokenizer_on}
    tokenizer = open_tokenizer(config.tokenizer.name)
    document_start(tokenizer)  # raises if it has none
    return {"name": tokenizer.name, "sha256": tokenizer_sha256(tokenizer)}


def _special_tokens(config: ShardingConfig) -> tuple[str, ...]:
    names = config.tokenizer.special_tokens
    return names if END_OF_TEXT in names else (*names, END_OF_TEXT)


def _train(source: Source, config: ShardingConfig) -> Tokenizer:
    chosen = config.tokenizer
    cut = safe_cut(split_pattern(chosen.pattern))
    texts = _first_texts(source, cut, config.train_tokenizer_on)
    return BPETokenizer.train(texts, chosen.vocab_size, _special_tokens(config), chosen.pattern, config.workers)


def _first_texts(source: Source, cut: re.Pattern[str] | None, characters: int) -> Iterator[str]:
    for batch in source.batches(cut=cut):
        for piece in batch.pieces:
            yield piece.text[:characters]
            characters -= len(piece.text)
            if characters <= 0:
                return
