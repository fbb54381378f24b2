"""Streams the documents of a file in a fixed order, in constant memory.

file                    one document is           file compression
.parquet                a row                     none
.jsonl .ndjson .json    a line with an object     none, .gz, .bz2, .xz or .zst
.csv .tsv               a record below the header none, .gz, .bz2, .xz or .zst
any other               the file, in pieces       none, .gz, .bz2, .xz or .zst
"""

from __future__ import annotations

import codecs
import csv
import io
import itertools
import json
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from glassgpt.data.compressed import SUFFIX_OF, compression, open_stream, plain_name
from glassgpt.errors import UserError
from glassgpt.tokenizers.patterns import safe_stream

KINDS = {
    ".parquet": "parquet", ".jsonl": "JSON lines", ".ndjson": "JSON lines", ".json": "JSON lines",
    ".csv": "CSV", ".tsv": "CSV",
}  # fmt: skip
TEXT = "text"
PIECE = 1 << 20  # characters of a text file in one piece
_READ = 1 << 20  # bytes per read
_ROWS = 100  # rows of a parquet file decoded at a time
_LARGEST_FIELD = (1 << 31) - 1  # characters of a CSV field; many documents exceed Python's default of 128 KiB


class Piece(NamedTuple):
    """A document, or a part of a long one."""

    text: str
    starts_document: bool
    where: str  # file and place in it, for error messages
    bytes_read: int  # of the (compressed) file so far
    is_null: bool = False  # the record has its field, but null instead of a text


def kind_of(path: Path) -> str:
    """The kind of file, by its name: parquet, JSON lines, CSV or text."""
    return KINDS.get(plain_name(path).suffix.lower(), TEXT)


def read_documents(path: Path, column: str, start: int = 0, *, cut: re.Pattern[str] | None = None) -> Iterator[Piece]:
    """The pieces of a file from number `start` on, empty and null ones included, so that numbers are stable.

    `column` is the field with the text; text files ignore it. A text file is split into pieces where `cut`, the
    `safe_cut` of a tokenizer, matches, so that their joined ids are those of the full text. Without `cut` it is one
    piece. Raises UserError, naming file and place, for invalid text.
    """
    kind = kind_of(path)
    if kind == "parquet":
        return _read_parquet(path, column, start)
    if kind == TEXT:
        return islice(_read_text(path, cut), start, None)
    return islice(_read_records(path, column, _json_lines if kind == "JSON lines" else _csv_records), start, None)


def check_column(path: Path, column: str) -> None:
    """Raises UserError if a parquet file has a damaged footer or no text column of this name."""
    if kind_of(path) != "parquet":
        return
    with _open_parquet(path) as file:
        fields = {field.name: field.type for field in file.schema_arrow}
    if column not in fields:
        raise _no_column(path, column, list(fields))
    if str(fields[column]) not in ("string", "large_string", "string_view", "null"):
        raise UserError(f"column '{column}' of {path} holds {fields[column]}, not text: name another one with --column")


def _read_parquet(path: Path, column: str, start: int) -> Iterator[Piece]:
    check_column(path, column)
    import pyarrow

    size = path.stat().st_size
    with _open_parquet(path) as file:
        skipped, groups = _groups_before(file, start)
        number, n_rows = skipped, max(file.metadata.num_rows, 1)
        remaining = range(groups, file.num_row_groups)
        batches = file.iter_batches(_ROWS, row_groups=list(remaining), columns=[column], use_threads=False)
        while True:
            try:
                texts = [value.as_py() for value in next(batches, {column: ()})[column]]
            except UnicodeDecodeError as error:
                raise UserError(
                    f"{path} has a text that is not UTF-8 in rows {number + 1} to {number + _ROWS}: byte "
                    f"0x{error.object[error.start]:02x}; write the file again with UTF-8 text"
                ) from error
            except (pyarrow.ArrowException, OSError) as error:
                reason = " ".join(str(error).split()).rstrip(".")
                raise UserError(f"{path} is damaged after row {number}: {reason}; download it again") from error
            if not texts:
                return
            for text in texts:
                if number >= start:
                    yield Piece(text or "", True, f"{path}, row {number + 1}", size * number // n_rows, text is None)
                number += 1


def _groups_before(file: Any, start: int) -> tuple[int, int]:
    """(rows, row groups) in the complete row groups before row `start`, which need not be read."""
    rows = group = 0
    while group < file.num_row_groups and rows + file.metadata.row_group(group).num_rows <= start:
        rows += file.metadata.row_group(group).num_rows
        group += 1
    return rows, group


def _open_parquet(path: Path) -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise UserError("reading parquet files needs pyarrow: pip install 'glassgpt[data]'") from error
    try:
        # By default, pyarrow reads ahead a full row group, which may be the whole file.
        return pyarrow.parquet.ParquetFile(path, buffer_size=_READ, pre_buffer=False)
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"{path} is not a parquet file, or is truncated: {str(error).splitlines()[0]}") from error


Reader = Callable[[BinaryIO, Path], Iterator[tuple[int, dict[str, Any]]]]


def _read_records(path: Path, column: str, reader: Reader) -> Iterator[Piece]:
    with open_stream(path) as (stream, raw):
        for line, record in reader(stream, path):
            if column not in record:
                raise _no_column(f"{path}, line {line}", column, list(record))
            text = record[column]
            if not isinstance(text, str | None):
                raise UserError(f"{path}, line {line}: field '{column}' is not text but {str(text)[:40]!r}")
            yield Piece(text or "", True, f"{path}, line {line}", raw.tell(), text is None)


def _json_lines(stream: BinaryIO, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(stream, 1):
        if line.isspace():
            continue
        try:
            record = json.loads(line.removeprefix(codecs.BOM_UTF8))
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}, line {number} is not JSON: {error}") from error
        if not isinstance(record, dict):
            raise UserError(
                f"{path}, line {number} is not a JSON object: each line must be one, with the text in a field"
            )
        yield number, record


def _csv_records(stream: BinaryIO, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    csv.field_size_limit(_LARGEST_FIELD)
    delimiter = "\t" if plain_name(path).suffix.lower() == ".tsv" else ","
    reader = csv.reader(io.TextIOWrapper(stream, "utf-8-sig", newline=""), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    line = 1
    while True:
        try:
            line = reader.line_num + 1  # where the record begins; it may have several lines
            row = next(reader, None)
        except UnicodeDecodeError as error:
            raise UserError(_not_utf8(path)) from error
        except csv.Error as error:
            raise UserError(f"{path}, line {line} is not CSV: {error}") from error
        if row is None:
            return
        if header is None:
            header = row
        elif row:  # not a blank line
            yield line, dict(itertools.zip_longest(header, row[: len(header)]))


def _not_utf8(path: Path) -> str:
    """Where a file that was read in large blocks is not UTF-8: its first line that does not decode."""
    with open_stream(path) as (stream, _):
        for number, line in enumerate(stream, 1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                return f"{path}, line {number} is not UTF-8: byte 0x{line[error.start]:02x}"
    return f"{path} is not UTF-8"


def _no_column(where: object, column: str, known: Sequence[object]) -> UserError:
    names = ", ".join(map(str, known[:20])) or "none"
    return UserError(f"{where} has no column '{column}': name the column with the text with --column; it has {names}")


def _read_text(path: Path, cut: re.Pattern[str] | None) -> Iterator[Piece]:
    with open_stream(path) as (stream, raw):
        texts = _decode(stream, path)
        for number, text in enumerate(safe_stream(texts, PIECE, cut)):
            yield Piece(text, number == 0, str(path), raw.tell())


def _decode(stream: BinaryIO, path: Path) -> Iterator[str]:
    """The text of a UTF-8 stream in chunks, with the rules of `text_files.decode`."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    first, offset = True, 0  # offset of `data` in the stream
    while True:
        data = stream.read(_READ)
        pending = len(decoder.getstate()[0])
        try:
            text = decoder.decode(data, final=not data)
        except UnicodeDecodeError as error:
            bad = offset - pending + error.start
            if offset == 0 and (kind := compression(error.object)):
                raise UserError(f"{path} is {kind}, not text: add {SUFFIX_OF[kind]} to its name") from error
            raise UserError(
                f"{path} is not UTF-8: byte 0x{error.object[error.start]:02x} at offset {bad}; give a UTF-8 text file"
            ) from error
        if (nul := data.find(b"\0")) >= 0:
            raise UserError(f"{path} is binary: byte 0x00 at offset {offset + nul}; give a UTF-8 text file")
        yield text.removeprefix("\ufeff") if first else text
        if not data:
            return
        first, offset = False, offset + len(data)
