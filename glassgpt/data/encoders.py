"""Batches of documents to ids on all cores, in order.

A worker is a Python process that runs this module's `main`, for the reasons given in `tokenizers.words`. A thread for
each worker hands it a batch and waits for the ids, so that no pipe can fill up at both ends. One message is a header
of two integers, a kind and a length, and so many bytes.
"""

from __future__ import annotations

import contextlib
import os
import queue
import struct
import subprocess
import sys
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from glassgpt.data.documents import Piece
from glassgpt.data.sources import DocumentBatch
from glassgpt.errors import UserError
from glassgpt.tokenizers import Tokenizer, load_tokenizer
from glassgpt.tokenizers.base import END_OF_TEXT
from glassgpt.tokenizers.words import worker_environment

_HEADER = struct.Struct("<IQ")
_IDS, _REFUSED = 0, 1  # kinds of answer
_AHEAD = 2  # batches in flight for each worker: one at work, one waiting

Ids = NDArray[np.uint32]


def end_of_text(tokenizer: Tokenizer) -> int:
    """The id with which every document begins. Raises UserError for a tokenizer without one."""
    try:
        return tokenizer.special_tokens[END_OF_TEXT]
    except KeyError:
        raise UserError(
            f"the tokenizer '{tokenizer.name}' has no {END_OF_TEXT}, which must separate documents: take gpt2, or "
            f"train one with `glassgpt tokenizer train --special '{END_OF_TEXT}'`"
        ) from None


def encode_batches(
    batches: Iterator[DocumentBatch], tokenizer_file: Path, workers: int
) -> Generator[tuple[DocumentBatch, Ids]]:
    """Each batch with its ids, in the order of the batches; as many are held in memory as keep the workers busy."""
    pool: queue.SimpleQueue[subprocess.Popen[bytes]] = queue.SimpleQueue()
    processes = [_start_worker(tokenizer_file) for _ in range(workers)]
    for process in processes:
        pool.put(process)

    def encode(pieces: list[Piece]) -> Ids:
        process = pool.get()
        try:
            return _exchange(process, pieces)
        finally:
            pool.put(process)

    threads = ThreadPoolExecutor(workers)
    try:
        waiting: deque[tuple[DocumentBatch, Future[Ids]]] = deque()
        for batch in batches:
            waiting.append((batch, threads.submit(encode, batch.pieces)))
            if len(waiting) >= _AHEAD * workers:
                first, answer = waiting.popleft()
                yield first, answer.result()
        while waiting:
            first, answer = waiting.popleft()
            yield first, answer.result()
    finally:
        threads.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.kill()
        threads.shutdown()
        for process in processes:
            with contextlib.suppress(BrokenPipeError), process:  # closes its pipes, in which something may be left
                pass


def encode_pieces(pieces: list[tuple[str, bool]], tokenizer: Tokenizer) -> Ids:
    """The ids of pieces, each document begun by end-of-text. Empty documents leave nothing."""
    start = np.array([end_of_text(tokenizer)], np.uint32)
    parts = [np.empty(0, np.uint32)]
    for text, starts_document in pieces:
        if text:
            parts += [start] * starts_document
            parts.append(tokenizer.encode_to_numpy(text))
    return np.concatenate(parts)


def _start_worker(tokenizer_file: Path) -> subprocess.Popen[bytes]:
    # The worker has a session of its own, so that Ctrl-C reaches the parent alone; when the parent is gone, its stdin
    # ends, and it ends with it.
    return subprocess.Popen(
        [sys.executable, "-c", f"import {__name__} as encoders; encoders.main({str(tokenizer_file)!r})"],
        env=worker_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )


def _exchange(process: subprocess.Popen[bytes], pieces: list[Piece]) -> Ids:
    assert process.stdin is not None and process.stdout is not None
    try:
        _send(process.stdin, _IDS, _pack(pieces))
        kind, answer = _receive(process.stdout)
    except (EOFError, OSError):
        raise UserError(
            f"a process that tokenises stopped with exit code {process.wait()} (is memory short?): give the same "
            "command again, with fewer --workers"
        ) from None
    if kind == _REFUSED:
        raise UserError(f"{pieces[0].where} or soon after: {answer.decode()}")
    return np.frombuffer(answer, np.uint32)


def _pack(pieces: list[Piece]) -> bytes:
    texts = [_to_utf8(piece) for piece in pieces]
    lengths = struct.pack(f"<{len(texts)}Q", *map(len, texts))
    starts = bytes(piece.starts_document for piece in pieces)
    return b"".join([struct.pack("<Q", len(texts)), lengths, starts, *texts])


def _unpack(message: bytes) -> Iterator[tuple[str, bool]]:
    (count,) = struct.unpack_from("<Q", message)
    lengths = struct.unpack_from(f"<{count}Q", message, 8)
    starts = message[8 + 8 * count : 8 + 9 * count]
    offset = 8 + 9 * count
    for length, first in zip(lengths, starts, strict=True):
        yield message[offset : offset + length].decode(), bool(first)
        offset += length


def _to_utf8(piece: Piece) -> bytes:
    try:
        return piece.text.encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"{piece.where}: the text has a lone surrogate U+{ord(piece.text[error.start]):04X}: not Unicode text"
        ) from None


def _send(pipe: IO[bytes], kind: int, message: bytes) -> None:
    pipe.write(_HEADER.pack(kind, len(message)))
    pipe.write(message)
    pipe.flush()


def _receive(pipe: IO[bytes]) -> tuple[int, bytes]:
    """A message. Raises EOFError where the other side has gone."""
    header = pipe.read(_HEADER.size)
    if len(header) < _HEADER.size:
        raise EOFError
    kind, length = _HEADER.unpack(header)
    message = pipe.read(length)
    if len(message) < length:
        raise EOFError
    return kind, message


def main(tokenizer_file: str) -> None:
    """A worker: each message on stdin is pieces, answered with their ids, or with the reason why there are none."""
    tokenizer = load_tokenizer(tokenizer_file)
    with contextlib.suppress(EOFError, BrokenPipeError):  # the parent is done, or gone
        while True:
            _, message = _receive(sys.stdin.buffer)
            try:
                ids = encode_pieces(list(_unpack(message)), tokenizer)
            except UserError as error:
                _send(sys.stdout.buffer, _REFUSED, str(error).encode())
            else:
                _send(sys.stdout.buffer, _IDS, ids.astype(np.uint32).tobytes())
    os._exit(0)  # nothing is left to write; a flush of the closed pipe would complain
