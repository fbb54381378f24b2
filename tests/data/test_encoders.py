"""Batches to ids in threads: in order, no more than keep them busy, and with a sentence where that fails."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from glassgpt.data.documents import Piece
from glassgpt.data.encoders import encode_batches, encode_pieces
from glassgpt.data.sources import DocumentBatch
from glassgpt.errors import UserError
from glassgpt.tokenizers.base import END_OF_TEXT
from glassgpt.tokenizers.bpe import BPETokenizer
from glassgpt.tokenizers.char import CharTokenizer
from glassgpt.tokenizers.printable import BYTE_ORDER

TEXTS = [f"text number {number} " * (1 + number % 7) for number in range(60)]


@pytest.fixture
def tokenizer() -> CharTokenizer:
    return CharTokenizer.train("".join(TEXTS), [END_OF_TEXT])


def batches(texts: list[str]) -> Iterator[DocumentBatch]:
    for number, text in enumerate(texts):
        yield DocumentBatch(number, [Piece(text, True, f"line {number + 1}", 0), Piece(text, False, "", 0)], None)


@pytest.mark.parametrize("workers", [1, 3])
def test_ids_come_in_the_order_of_the_batches(tokenizer: CharTokenizer, workers: int) -> None:
    encoded = list(encode_batches(batches(TEXTS), tokenizer, workers))
    assert [batch.position for batch, _ in encoded] == list(range(len(TEXTS)))
    for text, (_, ids) in zip(TEXTS, encoded, strict=True):
        assert tokenizer.decode(ids.tolist()) == END_OF_TEXT + text + text


def test_no_more_is_read_than_keeps_the_workers_busy(tokenizer: CharTokenizer) -> None:
    read: list[int] = []

    def reading() -> Iterator[DocumentBatch]:
        for batch in batches(TEXTS):
            read.append(batch.position)
            yield batch

    encoded = encode_batches(reading(), tokenizer, workers=2)
    next(encoded)
    assert len(read) <= 4
    encoded.close()


def test_empty_documents_leave_nothing(tokenizer: CharTokenizer) -> None:
    assert encode_pieces([], tokenizer).tolist() == []
    ids = encode_pieces([Piece(text, True, "", 0) for text in ("", "text", "")], tokenizer)
    assert tokenizer.decode(ids) == END_OF_TEXT + "text"


@pytest.mark.parametrize(
    ("specials", "start"),
    [((END_OF_TEXT, "<s>"), f"{END_OF_TEXT}<s>"), (("<s>",), "<s>"), (("<s>", END_OF_TEXT), f"{END_OF_TEXT}<s>")],
)
def test_documents_begin_with_the_token_that_begins_every_text(specials: tuple[str, ...], start: str) -> None:
    tokenizer = BPETokenizer(dict(enumerate(BYTE_ORDER)), [], specials, bos_token="<s>")
    ids = encode_pieces([Piece("one", True, "", 0), Piece(" more", False, "", 0), Piece("two", True, "", 0)], tokenizer)
    assert tokenizer.decode(ids) == f"{start}one more{start}two"


def test_what_a_tokenizer_refuses_is_said_with_its_place(tokenizer: CharTokenizer) -> None:
    with pytest.raises(UserError, match=r"^line 2: .*'ÿ'"):
        list(encode_batches(batches(["text", "ÿ"]), tokenizer, 1))
