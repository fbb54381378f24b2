"""Batches to ids in other processes: in order, as in this one, and with a sentence where that fails."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glassgpt.data import encoders
from glassgpt.data.documents import Piece
from glassgpt.data.encoders import encode_batches, encode_pieces
from glassgpt.data.sources import DocumentBatch
from glassgpt.errors import UserError
from glassgpt.tokenizers.base import END_OF_TEXT
from glassgpt.tokenizers.char import CharTokenizer

TEXTS = [f"text number {number} " * (1 + number % 7) for number in range(60)]


@pytest.fixture
def tokenizer() -> CharTokenizer:
    return CharTokenizer.train("".join(TEXTS), [END_OF_TEXT])


@pytest.fixture
def file(tokenizer: CharTokenizer, tmp_path: Path) -> Path:
    tokenizer.save(tmp_path / "tokenizer.json")
    return tmp_path / "tokenizer.json"


def batches(texts: list[str]) -> Iterator[DocumentBatch]:
    for number, text in enumerate(texts):
        yield DocumentBatch(number, [Piece(text, True, f"line {number + 1}", 0), Piece(text, False, "", 0)], None)


@pytest.mark.parametrize("workers", [1, 3])
def test_ids_come_in_the_order_of_the_batches(tokenizer: CharTokenizer, file: Path, workers: int) -> None:
    encoded = list(encode_batches(batches(TEXTS), file, workers))
    assert [batch.position for batch, _ in encoded] == list(range(len(TEXTS)))
    for text, (_, ids) in zip(TEXTS, encoded, strict=True):
        assert tokenizer.decode(ids.tolist()) == END_OF_TEXT + text + text


def test_no_more_is_read_than_keeps_the_workers_busy(file: Path) -> None:
    read: list[int] = []

    def reading() -> Iterator[DocumentBatch]:
        for batch in batches(TEXTS):
            read.append(batch.position)
            yield batch

    encoded = encode_batches(reading(), file, workers=2)
    next(encoded)
    assert len(read) <= 4
    encoded.close()


@given(st.lists(st.tuples(st.text(st.characters(exclude_categories=["Cs"])), st.booleans()), max_size=5))
def test_what_is_sent_is_what_comes(pieces: list[tuple[str, bool]]) -> None:
    message = encoders._pack([Piece(text, first, "", 0) for text, first in pieces])
    assert list(encoders._unpack(message)) == pieces


def test_empty_documents_leave_nothing(tokenizer: CharTokenizer) -> None:
    assert encode_pieces([], tokenizer).tolist() == []
    assert tokenizer.decode(encode_pieces([("", True), ("text", True), ("", True)], tokenizer)) == END_OF_TEXT + "text"


def test_what_a_tokenizer_refuses_is_said_with_its_place(file: Path) -> None:
    with pytest.raises(UserError, match=r"^line 2 or soon after: .*'ÿ'"):
        list(encode_batches(batches(["text", "ÿ"]), file, 1))


def test_a_worker_that_ends_is_said(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match="a process that tokenises stopped with exit code 1"):
        list(encode_batches(batches(TEXTS), tmp_path / "gone.json", 2))
