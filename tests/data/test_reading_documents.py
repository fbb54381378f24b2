"""Files as documents: the same from every format, from any number on, and errors that name file and place."""

from __future__ import annotations

import csv
import gzip
import json
import lzma
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from glassgpt.data.documents import PIECE, check_column, kind_of, read_documents
from glassgpt.errors import UserError
from glassgpt.tokenizers.char import CharTokenizer

TEXTS = ["first", "", 'a "quoted", one', "two\nlines\r\n", "naïve 😀", "last"]


def write_json_lines(path: Path) -> Path:
    path.write_text("".join(json.dumps({"id": n, "text": text}) + "\n" for n, text in enumerate(TEXTS)) + "\n")
    return path


def write_csv(path: Path, delimiter: str = ",") -> Path:
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        rows = [["id", "text"], *([n, text] for n, text in enumerate(TEXTS))]
        csv.writer(file, delimiter=delimiter).writerows(rows)
    return path


def write_parquet(path: Path, texts: list[str | None] | None = None) -> Path:
    texts = list(TEXTS) if texts is None else texts
    pq.write_table(pa.table({"id": list(range(len(texts))), "text": texts}), path, row_group_size=2)
    return path


def texts_of(path: Path, start: int = 0) -> list[str]:
    return [piece.text for piece in read_documents(path, "text", start)]


@pytest.fixture(params=["a.jsonl", "a.ndjson", "a.jsonl.gz", "a.csv", "a.tsv", "a.parquet"])
def records(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / request.param
    if path.suffix == ".gz":
        plain = write_json_lines(tmp_path / "plain.jsonl")
        path.write_bytes(gzip.compress(plain.read_bytes()))
        return path
    if path.suffix in (".csv", ".tsv"):
        return write_csv(path, "\t" if path.suffix == ".tsv" else ",")
    return write_parquet(path) if path.suffix == ".parquet" else write_json_lines(path)


def test_every_format_gives_the_same_documents(records: Path) -> None:
    assert texts_of(records) == TEXTS
    assert all(piece.starts_document for piece in read_documents(records, "text"))


def test_documents_come_from_any_number_on(records: Path) -> None:
    for start in range(len(TEXTS) + 2):
        assert texts_of(records, start) == TEXTS[start:]


def test_a_missing_column_names_those_there_are(records: Path) -> None:
    with pytest.raises(UserError, match=rf"{records.name}.* has no column 'body'.*--column; it has id, text"):
        list(read_documents(records, "body"))


def test_null_is_an_empty_document(tmp_path: Path) -> None:
    assert texts_of(write_parquet(tmp_path / "a.parquet", ["x", None])) == ["x", ""]
    (tmp_path / "a.jsonl").write_text('{"text": null}\n{"text": "x"}')
    assert texts_of(tmp_path / "a.jsonl") == ["", "x"]
    for name, nulls in (("a.parquet", [False, True]), ("a.jsonl", [True, False])):
        assert [piece.is_null for piece in read_documents(tmp_path / name, "text")] == nulls


def test_a_record_without_the_field_is_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "x"}\n{"id": 7}\n')
    with pytest.raises(UserError, match=r"a\.jsonl, line 2 has no column 'text'.*; it has id"):
        texts_of(tmp_path / "a.jsonl")


def test_parquet_text_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    binary = pa.array([b"fine", b"caf\xe9"])
    texts = pa.StringArray.from_buffers(2, binary.buffers()[1], binary.buffers()[2])
    pq.write_table(pa.table({"text": texts}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"a\.parquet has a text that is not UTF-8 in rows 1 to 100: byte 0xe9"):
        texts_of(tmp_path / "a.parquet")


def test_a_damaged_page_of_a_parquet_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": [f"words and words {number} " * 20 for number in range(5000)]}), path)
    data = bytearray(path.read_bytes())
    data[100:2000] = bytes(byte ^ 0x5A for byte in data[100:2000])
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"a\.parquet is damaged after row 0: .*; download it again"):
        texts_of(path)


def test_the_line_of_a_csv_record_is_where_it_begins(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('id,text\n1,"two\nlines"\n\n\n2,x\n3\n')
    pieces = list(read_documents(tmp_path / "a.csv", "text"))
    assert [piece.where.rpartition(" ")[2] for piece in pieces] == ["2", "6", "7"]
    assert [(piece.text, piece.is_null) for piece in pieces] == [("two\nlines", False), ("x", False), ("", True)]


def test_parquet_is_checked_by_its_footer(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet")
    check_column(path, "text")
    with pytest.raises(UserError, match=r"column 'id' of .*a\.parquet holds int64, not text"):
        check_column(path, "id")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match=r"a\.parquet is not a parquet file, or is truncated"):
        check_column(path, "text")


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.jsonl", b'{"text": "x"}\n{"text": "cut', r"a\.jsonl, line 2 is not JSON"),
        ("a.jsonl", b'{"text": "caf\xe9"}', r"a\.jsonl, line 1 is not JSON: .*utf-8"),
        ("a.json", b'["a", "b"]', r"a\.json, line 1 is not a JSON object"),
        ("a.jsonl", b'{"text": 7}', r"line 1: field 'text' is not text but '7'"),
        ("a.csv", b'text\n"an open quote', r"a\.csv, line 2 is not CSV"),
        ("a.csv", b"text\ncaf\xe9\n", r"a\.csv, line 2 is not UTF-8: byte 0xe9"),
        ("a.csv", b'text\n"two\nlines"\n\ncaf\xe9\n', r"a\.csv, line 5 is not UTF-8: byte 0xe9"),
        ("a.csv", b'text\n"two\nlines"\n\n\n"x"y\n', r"a\.csv, line 6 is not CSV"),
        (
            "a.csv.gz",
            gzip.compress(b"text\n" + b"x\n" * 9000 + b"\xe9\n", mtime=0),
            r"line 9002 is not UTF-8: byte 0xe9",
        ),
        ("a.txt", gzip.compress(b"text", mtime=0), r"a\.txt is gzip, not text: add \.gz to its name"),
        ("a.txt", lzma.compress(b"text"), r"a\.txt is xz, not text: add \.xz to its name"),
        ("a.txt", b"caf\xe9 au lait", r"a\.txt is not UTF-8: byte 0xe9 at offset 3"),
        ("a.txt", b"cut off \xe2\x82", r"a\.txt is not UTF-8: byte 0xe2 at offset 8"),
        ("a.txt", b"text\x00more", r"a\.txt is binary: byte 0x00 at offset 4"),
    ],
)
def test_what_is_no_text_is_named_with_its_place(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=message):
        list(read_documents(tmp_path / name, "text"))


def test_a_bad_byte_far_into_a_text_has_the_right_offset(tmp_path: Path) -> None:
    good = "é".encode() * 1_000_000 + b"x"  # a character lies across the limit of what is read at a time
    (tmp_path / "a.txt").write_bytes(good + b"\xff")
    with pytest.raises(UserError, match=f"byte 0xff at offset {len(good)};"):
        list(read_documents(tmp_path / "a.txt", "text"))


def test_a_long_text_is_one_document_in_pieces(tmp_path: Path) -> None:
    text = "\ufeff" + "some words, and more\n" * 150_000
    (tmp_path / "a.txt").write_text(text)
    tokenizer = CharTokenizer.train(text)
    pieces = list(read_documents(tmp_path / "a.txt", "text", cut=tokenizer.safe_cut))
    assert "".join(piece.text for piece in pieces) == text.removeprefix("\ufeff")
    assert [piece.starts_document for piece in pieces] == [True] + [False] * (len(pieces) - 1)
    assert len(pieces) > 2
    assert max(len(piece.text) for piece in pieces) < 2 * PIECE
    assert list(read_documents(tmp_path / "a.txt", "text", 2, cut=tokenizer.safe_cut)) == pieces[2:]
    [whole] = read_documents(tmp_path / "a.txt", "text")
    ids = [id for piece in pieces for id in tokenizer.encode(piece.text)]
    assert ids == tokenizer.encode(whole.text)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.parquet", "parquet"), ("a.JSONL.zst", "JSON lines"), ("a.csv.bz2", "CSV"), ("a.txt.gz", "text"),
        ("README", "text"), ("a.gz", "text"),
    ],
)  # fmt: skip
def test_the_kind_is_in_the_name(name: str, kind: str) -> None:
    assert kind_of(Path(name)) == kind
