"""A corpus of any size to a folder of shards, which a killed process goes on with as if it had not been killed.

The corpus is one stream of ids, each document begun by end-of-text, cut into shards of the same length; the first is
for validation. What is done is noted after each shard in `preparation.json`, with the place in the corpus at which the
next one begins. Nothing else outlives the process, so a shard that was not finished is begun again.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import filelock
import numpy as np

from glassgpt.data.encoders import END_OF_TEXT, Ids, encode_batches, end_of_text
from glassgpt.data.manifest import Manifest, Split, TokenizerRecord
from glassgpt.data.prepare import SLICEABLE
from glassgpt.data.prepared import MANIFEST_NAME, TOKENIZER_NAME, Prepared, open_folder, tokenizer_sha256
from glassgpt.data.shards import dtype_for, shard_writer
from glassgpt.data.sources import Batch, Position, Source
from glassgpt.data.token_files import shards_key
from glassgpt.errors import UserError
from glassgpt.files import write_text
from glassgpt.tokenizers import Tokenizer, TokenizerConfig, load_tokenizer, open_tokenizer
from glassgpt.tokenizers.bpe import BPETokenizer
from glassgpt.tokenizers.words import available_cores

PREPARATION_NAME = "preparation.json"
SHARD_TOKENS = 100_000_000
TRAIN_TOKENIZER_ON = 100_000_000  # characters of the corpus
_FORMAT, _VERSION = "glassgpt-preparation", 1
_NAMES = {
    "source": "the documents (files, sizes, times)", "tokenizer": "the tokenizer", "shard_tokens": "--shard-tokens",
}  # fmt: skip


@dataclass(frozen=True)
class ShardingConfig:
    """How a corpus becomes shards. The number of workers decides how soon, and nothing else."""

    tokenizer: TokenizerConfig = field(default_factory=lambda: TokenizerConfig("gpt2"))
    train_tokenizer_on: int = TRAIN_TOKENIZER_ON  # characters at the start of the corpus from which `bpe` learns
    shard_tokens: int = SHARD_TOKENS
    workers: int = field(default_factory=available_cores)

    def __post_init__(self) -> None:
        for name in ("train_tokenizer_on", "shard_tokens", "workers"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}, and must be 1 or more")
        if self.tokenizer.name == "char":
            raise UserError(
                "a char tokenizer needs the alphabet of the whole corpus: train one on it with `glassgpt tokenizer "
                "train "
                f"--type char --special '{END_OF_TEXT}'` and give its file, or take gpt2 or bpe"
            )


@dataclass(frozen=True)
class Shard:
    """A finished shard, with what is counted in it."""

    name: str
    tokens: int
    documents: int  # that begin in it
    bytes: int  # of text


@dataclass(frozen=True)
class Preparation:
    """What `preparation.json` holds: the settings, and how far they were carried out."""

    settings: dict[str, Any]
    shards: tuple[Shard, ...] = ()
    position: Position = None  # of the batch with the next shard's first id
    offset: int = 0  # of that id among those of the batch

    def save(self, folder: Path) -> None:
        """Writes the file, whole or not at all."""
        fields = {"format": _FORMAT, "version": _VERSION, **asdict(self)}
        write_text(folder / PREPARATION_NAME, json.dumps(fields, indent=1, ensure_ascii=False) + "\n")


@dataclass(frozen=True)
class Progress:
    """How far a preparation has come."""

    tokens: int  # in all
    new_tokens: int  # since this process began
    seconds: float  # since this process began
    fraction: float | None  # of the corpus; None where its size is not known
    eta: float | None  # seconds


def prepare_shards(
    source: Source,
    folder: Path,
    config: ShardingConfig,
    *,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    note: Callable[[str], None] = lambda line: None,
) -> Prepared:
    """The shards of `source` in `folder`: found there, finished there, or made now.

    Raises UserError for a folder that holds anything else, or the shards of other settings, and for bad documents.
    """
    folder = folder.absolute()
    with _alone(folder), _writing(folder):
        state, source = _begin(folder, source, config)
        if (folder / MANIFEST_NAME).is_file():
            note(f"{folder} is finished already")
            return open_folder(folder)
        if state.shards:
            note(f"going on in {folder} after {len(state.shards)} shards")
        tokenizer = _tokenizer(folder, source, config, note)
        state = _write_shards(folder, state, source, tokenizer, config, on_progress)
        _finish(folder, state, source, tokenizer)
    return open_folder(folder)


def load_preparation(folder: Path) -> Preparation:
    """What `folder` says of its preparation. Raises UserError where that is missing or damaged."""
    path = folder / PREPARATION_NAME
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        if fields.pop("format") != _FORMAT or fields.pop("version") != _VERSION:
            raise ValueError("it is of another format or version")
        return Preparation(**{**fields, "shards": tuple(Shard(**shard) for shard in fields["shards"])})
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is damaged ({error}): remove {folder} and begin again") from error


def _begin(folder: Path, source: Source, config: ShardingConfig) -> tuple[Preparation, Source]:
    """What is done already, and the source as it was read then."""
    state = None
    if (folder / PREPARATION_NAME).is_file():
        state = load_preparation(folder)
    elif folder.exists() and any(path.name != ".lock" for path in folder.iterdir()):
        raise UserError(f"{folder} exists and holds something else: choose another --out; nothing was changed")
    source = source.pinned(state.settings["source"] if state else None)
    settings = {
        "source": source.settings(),
        "tokenizer": _tokenizer_settings(config),
        "shard_tokens": config.shard_tokens,
    }
    if state is None or not state.shards:  # nothing of worth is there yet, whatever the settings were
        (folder / TOKENIZER_NAME).unlink(missing_ok=True)
        state = Preparation(settings)
        state.save(folder)
    _check_same(folder, state.settings, settings)
    return state, source


def _check_same(folder: Path, earlier: dict[str, Any], settings: dict[str, Any]) -> None:
    different = [text for name, text in _NAMES.items() if earlier.get(name) != settings[name]]
    if different:
        raise UserError(
            f"{folder} was begun with other settings: {' and '.join(different)} differ; choose another --out, or "
            "remove "
            "the folder to begin again; nothing was changed"
        )


def _tokenizer_settings(config: ShardingConfig) -> dict[str, Any]:
    if config.tokenizer.name == "bpe":
        return {
            **asdict(config.tokenizer),
            "special_tokens": list(_special_tokens(config)),
            "train_on": config.train_tokenizer_on,
        }
    tokenizer = open_tokenizer(config.tokenizer.name)
    end_of_text(tokenizer)
    return {"name": tokenizer.name, "sha256": tokenizer_sha256(tokenizer)}


def _special_tokens(config: ShardingConfig) -> tuple[str, ...]:
    names = config.tokenizer.special_tokens
    return names if END_OF_TEXT in names else (*names, END_OF_TEXT)


def _tokenizer(folder: Path, source: Source, config: ShardingConfig, note: Callable[[str], None]) -> Tokenizer:
    """The tokenizer in the folder, put there first where it is missing."""
    path = folder / TOKENIZER_NAME
    if not path.is_file():
        if config.tokenizer.name == "bpe":
            note(f"training a tokenizer on the first {config.train_tokenizer_on:,} characters")
            texts = _first_texts(source, config.train_tokenizer_on)
            tokenizer: Tokenizer = BPETokenizer.train(
                texts, config.tokenizer.vocab_size, _special_tokens(config), config.tokenizer.pattern, config.workers
            )
        else:
            tokenizer = open_tokenizer(config.tokenizer.name)
        tokenizer.save(path)
    return load_tokenizer(path)


def _first_texts(source: Source, characters: int) -> Iterator[str]:
    for batch in source.batches():
        for piece in batch.pieces:
            yield piece.text[:characters]
            characters -= len(piece.text)
            if characters <= 0:
                return


def _write_shards(
    folder: Path,
    state: Preparation,
    source: Source,
    tokenizer: Tokenizer,
    config: ShardingConfig,
    on_progress: Callable[[Progress], None],
) -> Preparation:
    """Writes what is missing; after each shard, `preparation.json` knows it."""
    batches = source.batches(state.position, in_pieces=tokenizer.name in SLICEABLE)
    dtype = dtype_for(tokenizer.vocab_size)
    counter = _Counter(tokenizer)
    meter = _Meter(sum(shard.tokens for shard in state.shards), on_progress)
    with contextlib.closing(encode_batches(batches, folder / TOKENIZER_NAME, config.workers)) as encoded:
        stream = _Stream(encoded, state.offset)
        while not stream.at_end():
            number = len(state.shards)
            name = f"{'train' if number else 'val'}_{number:06d}.shard"
            counts = np.zeros(3, np.int64)
            with shard_writer(folder / name, dtype) as writer:
                for ids in stream.take(config.shard_tokens):
                    writer.append(ids)
                    counts += counter.count(ids)
                    meter.add(len(ids), stream.fraction)
            shard = Shard(name, *counts.tolist())
            state = replace(state, shards=(*state.shards, shard), position=stream.position, offset=stream.offset)
            state.save(folder)
    return state


class _Stream:
    """Encoded batches as one row of ids, of which is known where in the corpus the next one lies."""

    def __init__(self, encoded: Iterator[tuple[Batch, Ids]], offset: int) -> None:
        self._encoded = encoded
        self._ids = np.empty(0, np.uint32)
        self._skip = offset
        self.position: Position = None
        self.offset = 0
        self.fraction: float | None = None

    def at_end(self) -> bool:
        """Whether no id is left; reads on until that is known."""
        while self.offset >= len(self._ids):
            batch, ids = next(self._encoded, (None, None))
            if batch is None or ids is None:
                return True
            self._ids, self.position, self.fraction = ids, batch.position, batch.fraction
            self.offset = min(self._skip, len(ids))
            self._skip -= self.offset
        return False

    def take(self, count: int) -> Iterator[Ids]:
        """The next `count` ids in parts, or those that are left."""
        while count > 0 and not self.at_end():
            part = self._ids[self.offset : self.offset + count]
            self.offset += len(part)
            count -= len(part)
            yield part


class _Counter:
    """What ids stand for."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._sizes = np.array([len(tokenizer.token_bytes(id)) for id in range(tokenizer.vocab_size)], np.int64)
        self._end_of_text = end_of_text(tokenizer)

    def count(self, ids: Ids) -> np.ndarray:
        """Tokens, documents begun, and bytes of text: (3,) int64."""
        return np.array([len(ids), np.count_nonzero(ids == self._end_of_text), self._sizes[ids].sum()])


class _Meter:
    """Tells how far the work has come, how fast it is, and when it will end."""

    def __init__(self, tokens: int, tell: Callable[[Progress], None]) -> None:
        self._before = self._tokens = tokens
        self._tell = tell
        self._began = time.monotonic()
        self._first: float | None = None

    def add(self, tokens: int, fraction: float | None) -> None:
        self._tokens += tokens
        seconds = time.monotonic() - self._began
        self._first = fraction if self._first is None else self._first
        eta = None
        if fraction is not None and self._first is not None and fraction > self._first:
            eta = seconds * (1 - fraction) / (fraction - self._first)
        self._tell(Progress(self._tokens, self._tokens - self._before, seconds, fraction, eta))


def _finish(folder: Path, state: Preparation, source: Source, tokenizer: Tokenizer) -> None:
    """Writes the manifest, with which the folder is finished."""
    val, *train = state.shards or (None,)
    if val is None or not train:
        tokens = val.tokens if val else 0
        (folder / PREPARATION_NAME).unlink()
        for path in (folder / TOKENIZER_NAME, *([folder / val.name] if val else [])):
            path.unlink(missing_ok=True)
        raise UserError(
            f"{source.name} has {tokens:,} tokens, no more than the first shard, which is for validation: give a "
            "smaller "
            f"--shard-tokens, such as {max(tokens // 10, 1)}, or leave --out out"
        )
    total = sum(shard.tokens for shard in state.shards)
    documents = sum(shard.documents for shard in state.shards)
    Manifest(
        key=shards_key(folder / shard.name for shard in state.shards),
        name=source.name,
        source=source.name,
        note=f"{source.name}: {documents:,} documents in {len(state.shards)} shards",
        text_sha256=None,
        val_fraction=val.tokens / total,
        tokenizer=TokenizerRecord(tokenizer.name, tokenizer.vocab_size, tokenizer_sha256(tokenizer)),
        train=_split(train),
        val=_split([val]),
    ).save(folder / MANIFEST_NAME)


def _split(shards: list[Shard]) -> Split:
    return Split(
        characters=None,
        bytes=sum(shard.bytes for shard in shards),
        tokens=sum(shard.tokens for shard in shards),
        shards=tuple(shard.name for shard in shards),
        documents=sum(shard.documents for shard in shards),
    )


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Holds a lock on the folder, which ends with the process, however that ends."""
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(folder / ".lock")
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            raise UserError(f"another process is preparing {folder}: wait for it, or choose another --out") from None
    try:
        yield
    finally:
        (folder / ".lock").unlink(missing_ok=True)
        lock.release()
        with contextlib.suppress(OSError):
            folder.rmdir()  # an empty one is left after an error at the very beginning


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise UserError(
            f"cannot write {error.filename or folder}: {reason}; make room there, then give the same command again, "
            "which "
            "goes on where it stopped"
        ) from error
