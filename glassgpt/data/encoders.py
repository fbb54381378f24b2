"""Encodes batches of documents to ids on all cores, in order.

Threads are enough: tiktoken, SentencePiece and NumPy release the GIL while they work.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from glassgpt.data.documents import Piece
from glassgpt.data.sources import DocumentBatch
from glassgpt.errors import UserError
from glassgpt.tokenizers import Tokenizer
from glassgpt.tokenizers.base import END_OF_TEXT
from glassgpt.tokenizers.threads import map_in_threads

Ids = NDArray[np.uint32]


def document_start(tokenizer: Tokenizer) -> list[int]:
    """The ids with which every document begins: end-of-text and the `bos_token`, as far as the tokenizer has them.

    Raises UserError for a tokenizer without either.
    """
    names = dict.fromkeys(name for name in (END_OF_TEXT, tokenizer.bos_token) if name in tokenizer.special_tokens)
    if not names:
        raise UserError(
            f"the tokenizer '{tokenizer.name}' has neither {END_OF_TEXT} nor a bos_token, one of which must separate "
            f"documents: use gpt2, or train one with `glassgpt tokenizer train --special '{END_OF_TEXT}'`"
        )
    return [tokenizer.special_tokens[name] for name in names]


def encode_batches(
    batches: Iterator[DocumentBatch], tokenizer: Tokenizer, workers: int
) -> Generator[tuple[DocumentBatch, Ids]]:
    """Each batch with its ids, in the order of the batches."""
    return map_in_threads(lambda batch: encode_pieces(batch.pieces, tokenizer), batches, workers)


def encode_pieces(pieces: Iterable[Piece], tokenizer: Tokenizer) -> Ids:
    """The ids of pieces, with `document_start` before each document. Empty documents give no ids.

    Raises UserError, with the place of the piece, for text that the tokenizer rejects.
    """
    start = np.array(document_start(tokenizer), np.uint32)
    parts = [np.empty(0, np.uint32)]
    for piece in pieces:
        if piece.text:
            parts += [start] * piece.starts_document
            try:
                parts.append(tokenizer.encode_to_numpy(piece.text))
            except UserError as error:
                raise UserError(f"{piece.where}: {error}") from error
    return np.concatenate(parts)
