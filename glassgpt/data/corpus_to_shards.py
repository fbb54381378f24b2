"""Converts a corpus of any size to a folder of token shards. A killed process resumes with an identical result.

The corpus is one stream of ids. Each document begins with `document_start`. The stream is cut into shards of equal
length, of which the first is the validation split. After each shard, `preparation.json` records the finished shards and
the position in the corpus where the next one begins. There is no other state: an unfinished shard is started again.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from glassgpt.data.dataset import (
    MANIFEST_NAME,
    STATE_NAME,
    TOKENIZER_NAME,
    Dataset,
    open_dataset,
    tokenizer_sha256,
)
from glassgpt.data.encoders import Ids, document_start, encode_batches
from glassgpt.data.manifest import Manifest, Split, TokenizerRecord
from glassgpt.data.sharding_state import Shard, ShardingConfig, ShardingState, begin, put_tokenizer
from glassgpt.data.shards import dtype_for, shard_writer
from glassgpt.data.sources import DocumentBatch, Position, Source
from glassgpt.data.token_files import shards_key
from glassgpt.errors import UserError, counted
from glassgpt.files import LOCK, locked, remove_unfinished
from glassgpt.tokenizers import Tokenizer


@dataclass(frozen=True)
class ShardingProgress:
    """Progress of `shard_corpus`."""

    tokens: int  # in total
    new_tokens: int  # since this process began
    seconds: float  # since this process began
    fraction: float | None  # of the corpus; None if its size is unknown
    eta: float | None  # seconds; None if unknown


def shard_corpus(
    source: Source,
    folder: Path,
    config: ShardingConfig,
    *,
    on_progress: Callable[[ShardingProgress], None] = lambda progress: None,
    note: Callable[[str], None] = lambda line: None,
) -> Dataset:
    """The shards of `source` in `folder`: opened if finished, resumed if unfinished, else created.

    Raises UserError for a folder that holds anything else or shards of other settings, and for bad documents.
    """
    folder = folder.absolute()
    busy = f"another process is preparing {folder}: wait for it, or choose another --out"
    with _writing(folder), locked(folder / LOCK, busy):
        remove_unfinished(folder)
        state, source = begin(folder, source, config)
        if (folder / MANIFEST_NAME).is_file():
            note(f"{folder} is finished already")
            return open_dataset(folder)
        if state.shards:
            note(f"resuming in {folder} after {counted(len(state.shards), 'shard')}")
        tokenizer = put_tokenizer(folder, source, config, note)
        state = _write_shards(folder, state, source, tokenizer, config, on_progress)
        _finish(folder, state, source, tokenizer)
        if state.null_documents:
            note(f"{_left_out(state.null_documents)} null in place of a text")
    return open_dataset(folder)


def _left_out(count: int) -> str:
    return "1 document was left out: it has" if count == 1 else f"{count:,} documents were left out: they have"


def _write_shards(
    folder: Path,
    state: ShardingState,
    source: Source,
    tokenizer: Tokenizer,
    config: ShardingConfig,
    on_progress: Callable[[ShardingProgress], None],
) -> ShardingState:
    """Writes the missing shards, and records each finished one in `preparation.json`."""
    batches = source.batches(state.position, cut=tokenizer.safe_cut)
    dtype = dtype_for(tokenizer.vocab_size)
    counter = _Counter(tokenizer)
    meter = _Meter(state.tokens, on_progress)
    with contextlib.closing(encode_batches(batches, tokenizer, config.workers)) as encoded:
        stream = _Stream(encoded, state)
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
            state = stream.place(replace(state, shards=(*state.shards, shard)))
            state.save(folder)
    if stream.null_documents > state.null_documents:  # there are more after the last id
        state = stream.place(state)
        state.save(folder)
    return state


class _Stream:
    """Encoded batches as one stream of ids, which tracks the position of the next id in the corpus."""

    def __init__(self, encoded: Iterator[tuple[DocumentBatch, Ids]], start: ShardingState) -> None:
        self._encoded = encoded
        self._ids = np.empty(0, np.uint32)
        self._skip = start.offset
        self._counted = start.position is not None  # the null documents of the first batch: before the stop
        self.null_documents = start.null_documents
        self.position: Position = None
        self.offset = 0
        self.fraction: float | None = None

    def place(self, state: ShardingState) -> ShardingState:
        """The state with the place of the next id."""
        return replace(state, position=self.position, offset=self.offset, null_documents=self.null_documents)

    def at_end(self) -> bool:
        """Whether no id is left. Reads batches until it finds an id or the end."""
        while self.offset >= len(self._ids):
            batch, ids = next(self._encoded, (None, None))
            if batch is None or ids is None:
                return True
            self._ids, self.position, self.fraction = ids, batch.position, batch.fraction
            self.offset = min(self._skip, len(ids))
            self._skip -= self.offset
            if not self._counted:
                self.null_documents += sum(piece.is_null for piece in batch.pieces)
            self._counted = False
        return False

    def take(self, count: int) -> Iterator[Ids]:
        """The next `count` ids in parts; fewer at the end of the stream."""
        while count > 0 and not self.at_end():
            part = self._ids[self.offset : self.offset + count]
            self.offset += len(part)
            count -= len(part)
            yield part


class _Counter:
    """Counts tokens, documents and bytes in arrays of ids."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._sizes = np.array([len(tokenizer.token_bytes(id)) for id in range(tokenizer.vocab_size)], np.int64)
        self._start = document_start(tokenizer)[0]

    def count(self, ids: Ids) -> np.ndarray:
        """Number of tokens, of documents that begin, and of bytes of text: (3,) int64."""
        return np.array([len(ids), np.count_nonzero(ids == self._start), self._sizes[ids].sum()])


class _Meter:
    """Reports progress, elapsed time and the estimated time left."""

    def __init__(self, tokens: int, on_progress: Callable[[ShardingProgress], None]) -> None:
        self._before = self._tokens = tokens
        self._on_progress = on_progress
        self._began = time.monotonic()
        self._first: float | None = None

    def add(self, tokens: int, fraction: float | None) -> None:
        self._tokens += tokens
        seconds = time.monotonic() - self._began
        self._first = fraction if self._first is None else self._first
        eta = None
        if fraction is not None and self._first is not None and fraction > self._first:
            eta = seconds * (1 - fraction) / (fraction - self._first)
        self._on_progress(ShardingProgress(self._tokens, self._tokens - self._before, seconds, fraction, eta))


def _finish(folder: Path, state: ShardingState, source: Source, tokenizer: Tokenizer) -> None:
    """Writes the manifest, which marks the folder as finished."""
    if len(state.shards) < 2:
        for name in (STATE_NAME, TOKENIZER_NAME, *(shard.name for shard in state.shards)):
            (folder / name).unlink()
        if not state.tokens:
            raise UserError(f"{source.name} has no documents, or only empty ones: there is nothing to prepare")
        raise UserError(
            f"{source.name} has only {counted(state.tokens, 'token')}: they fill no more than the first shard, which is"
            f" the validation split; give a smaller --shard-tokens, such as {max(state.tokens // 10, 1)}, or omit --out"
        )
    val, *train = state.shards
    documents = sum(shard.documents for shard in state.shards)
    Manifest(
        key=shards_key(folder / shard.name for shard in state.shards),
        name=source.name,
        source=source.name,
        note=f"{source.name}: {counted(documents, 'document')} in {len(state.shards)} shards",
        text_sha256=None,
        val_fraction=val.tokens / state.tokens,
        tokenizer=TokenizerRecord(tokenizer.name, tokenizer.vocab_size, tokenizer_sha256(tokenizer)),
        train=_split(train),
        val=_split([val]),
        null_documents=state.null_documents,
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
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        where, reason = error.filename or folder, error.strerror or error
        raise UserError(
            f"cannot write {where}: {reason}; fix this and run the same command again: it resumes where it stopped"
        ) from error
