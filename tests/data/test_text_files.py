"""Files, folders and stdin as text, and the place of what is none."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from glassgpt.data.text_files import decode, read_file, read_folder, read_stdin
from glassgpt.errors import UserError


def write(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def test_line_ends_and_odd_characters_are_kept(tmp_path: Path) -> None:
    text = "a\r\nb\rc\n\u2028\u0085 \ufeff😀\x0b"
    assert read_file(write(tmp_path / "f.txt", text.encode())) == text


def test_a_byte_order_mark_at_the_start_is_dropped(tmp_path: Path) -> None:
    assert read_file(write(tmp_path / "f.txt", b"\xef\xbb\xbfhello")) == "hello"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", r"f\.txt is empty"),
        (b"\xef\xbb\xbf", r"f\.txt is empty"),
        (b"caf\xe9 au lait", r"f\.txt is not UTF-8: byte 0xe9 at offset 3"),
        (b"cut off \xe2\x82", r"f\.txt is not UTF-8: byte 0xe2 at offset 8"),
        (b"surrogate \xed\xa0\x80", r"f\.txt is not UTF-8: byte 0xed at offset 10"),
        (b"text\x00more", r"f\.txt is binary: byte 0x00 at offset 4"),
        (b"\x89PNG\r\n\x1a\n\x00\x00", r"f\.txt is not UTF-8: byte 0x89 at offset 0"),
        (b"ok\x00\xff", r"f\.txt is binary: byte 0x00 at offset 2"),
        ("hi".encode("utf-16"), r"f\.txt is UTF-16, not UTF-8"),
    ],
)
def test_what_is_no_text_is_refused_with_its_place(tmp_path: Path, data: bytes, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_file(write(tmp_path / "f.txt", data))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read .*gone\.txt: No such file"):
        read_file(tmp_path / "gone.txt")


def test_a_folder_is_read_in_the_order_of_its_paths(tmp_path: Path) -> None:
    write(tmp_path / "b.txt", b"second\r\n")
    write(tmp_path / "a" / "z.md", b"\xef\xbb\xbffirst")
    write(tmp_path / "c" / "deep" / "x.py", b"third")
    write(tmp_path / ".git" / "config", b"hidden")
    write(tmp_path / ".hidden", b"hidden")
    write(tmp_path / "picture.png", b"\x89PNG\x00\x00")
    write(tmp_path / "__init__.py", b"")
    text, which = read_folder(tmp_path)
    assert text == "first\nsecond\r\n\nthird"
    assert which == "3 text files, 2 empty or binary left out"


def test_a_folder_with_a_file_in_another_encoding_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "good.txt", b"good")
    write(tmp_path / "latin.txt", b"caf\xe9")
    with pytest.raises(UserError, match=r"latin\.txt is not UTF-8: byte 0xe9 at offset 3"):
        read_folder(tmp_path)


def test_a_folder_without_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no text files: there"):
        read_folder(tmp_path)
    write(tmp_path / "data.bin", b"\x00")
    with pytest.raises(UserError, match="holds no text files, 1 empty or binary left out"):
        read_folder(tmp_path)


def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read folder .*gone: No such file"):
        read_folder(tmp_path / "gone")


def test_links_that_lead_nowhere_or_round_in_circles_are_left_out(tmp_path: Path) -> None:
    write(tmp_path / "a.txt", b"text")
    (tmp_path / "nowhere.txt").symlink_to(tmp_path / "gone.txt")
    (tmp_path / "circle").symlink_to(tmp_path)
    os.mkfifo(tmp_path / "pipe.txt")
    assert read_folder(tmp_path)[0] == "text"


class Stdin(io.TextIOWrapper):
    def __init__(self, data: bytes, terminal: bool = False) -> None:
        super().__init__(io.BytesIO(data))
        self.isatty = lambda: terminal  # type: ignore[method-assign]


def test_stdin_is_read_as_utf8_whatever_the_locale(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", Stdin("čaj\r\n".encode()))
    assert read_stdin() == "čaj\r\n"


@pytest.mark.parametrize(
    ("stdin", "message"),
    [
        (Stdin(b""), "stdin is empty"),
        (Stdin(b"a\xff"), "stdin is not UTF-8: byte 0xff at offset 1"),
        (Stdin(b"", terminal=True), "nothing is piped"),
    ],
)
def test_bad_stdin_is_refused(monkeypatch: pytest.MonkeyPatch, stdin: Stdin, message: str) -> None:
    monkeypatch.setattr("sys.stdin", stdin)
    with pytest.raises(UserError, match=message):
        read_stdin()


@pytest.mark.parametrize(
    ("pack", "kind"), [(gzip.compress, "gzip"), (bz2.compress, "bzip2"), (lzma.compress, "xz")], ids=["gz", "bz2", "xz"]
)
def test_a_compressed_file_is_named_as_such(tmp_path: Path, pack: Callable[[bytes], bytes], kind: str) -> None:
    path = write(tmp_path / "f.txt", pack(b"some text, " * 50))
    with pytest.raises(UserError, match=rf"f\.txt is {kind}: use `glassgpt data prepare FILE --out DIR`"):
        read_file(path)


def test_a_text_larger_than_the_memory_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with (tmp_path / "huge.txt").open("wb") as file:
        file.truncate(1 << 42)  # sparse: it takes no room
    with pytest.raises(UserError, match=r"huge\.txt has 4,398\.0 GB, too much for this machine's memory of "):
        read_file(tmp_path / "huge.txt")
    with pytest.raises(UserError, match=r"huge\.txt has 4,398\.0 GB"):
        read_folder(tmp_path)


def test_decode_names_what_it_was_given() -> None:
    with pytest.raises(UserError, match="the upload is not UTF-8: byte 0x80 at offset 1"):
        decode(b"a\x80", "the upload")
