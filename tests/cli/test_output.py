"""Lines and tables that fit a terminal."""

from __future__ import annotations

import io
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from glassgpt.cli.output import Column, beside, fold, format_table, print_fields, table_width, terminal_width
from glassgpt.errors import printable

words = st.text("ab/-…红", min_size=1, max_size=30)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@given(st.lists(st.lists(words, max_size=12), max_size=4), st.integers(0, 6), st.integers(20, 80))
def test_lines_break_between_words_only(rows: list[list[str]], indent: int, width: int) -> None:
    text = "\n".join(" " * indent + " ".join(row) for row in rows)
    folded = fold(text, width)
    assert folded.split() == text.split()
    for line in folded.split("\n"):
        assert cell_len(line) <= width or len(line.split()) == 1
        assert not line.strip() or line.startswith(" " * indent)
    assert fold(text, None) == text


def test_blanks_inside_a_line_stay() -> None:
    assert fold("run folder       runs/a\n\n", 80) == "run folder       runs/a\n\n"
    assert fold("one two  three", 8) == "one two\nthree"
    assert fold("one\ttwo three\N{NO-BREAK SPACE}four", 8) == "one\ttwo\nthree\N{NO-BREAK SPACE}four"


def test_a_text_continues_below_itself_not_below_its_title() -> None:
    assert beside("title  ", "one two three", 14) == ["title  one two", "       three"]
    assert beside("title  ", "one two three", None) == ["title  one two three"]
    assert beside("title  ", "one two", 4) == ["title  one", "       two"]


cells = st.text("ab …红\n\x1b", max_size=7)


@given(
    st.lists(st.tuples(cells, cells, cells, st.text("xy ", max_size=60)), min_size=1, max_size=5), st.integers(30, 90)
)
def test_a_table_fits_and_keeps_what_is_needed(rows: list[tuple[str, ...]], width: int) -> None:
    titles = ("run", "steps", "data", "note")
    columns = [Column(title, column) for title, column in zip(titles, zip(*rows, strict=True), strict=True)]
    columns[3] = Column("note", columns[3].cells, shrinks=True)
    lines = format_table(columns, width, needed=1)
    assert len(lines) == len(rows) + 1
    assert all(cell_len(line) <= width for line in lines)
    for line, (name, *_) in zip(lines[1:], rows, strict=True):
        assert line.startswith(printable(name).rstrip())
    whole = format_table(columns, None, needed=1)
    assert [line.rstrip().endswith(row[3].rstrip()) for line, row in zip(whole[1:], rows, strict=True)] == [True] * len(
        rows
    )


def test_columns_are_aligned_by_what_a_terminal_shows() -> None:
    columns = [Column("run", ["红楼", "a"]), Column("steps", ["9", "1,000"], right=True), Column("empty", ["", ""])]
    assert format_table(columns, 80, needed=2) == ["run   steps", "红楼      9", "a     1,000"]


def test_a_text_that_does_not_fit_is_cut_or_left_out() -> None:
    columns = [Column("run", ["a" * 20]), Column("note", ["a long note on this run"], shrinks=True)]
    assert format_table(columns, 36, needed=1)[1] == "a" * 20 + "  a long note o…"
    assert format_table(columns, 33, needed=1)[0] == "run"
    assert format_table(columns, 10, needed=1)[1] == "a" * 20


def test_the_width_is_that_of_columns_then_of_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert terminal_width(io.StringIO()) is None and terminal_width(Terminal()) == 80
    assert table_width() is None
    for value, width in (("100", 100), ("0", None), ("wide", None), ("9" * 30, None)):
        monkeypatch.setenv("COLUMNS", value)
        assert table_width() == width
        assert terminal_width(io.StringIO()) is None  # a sentence in a file is one line
        assert terminal_width(Terminal()) == (width or 80)


def test_a_long_value_stays_whole(capsys: pytest.CaptureFixture[str]) -> None:
    with mock.patch("sys.stdout", Terminal()) as terminal:
        print_fields({"name": "a.txt", "sha256": "7" * 64}, as_json=False)
        assert terminal.getvalue() == f"name                   a.txt\nsha256\n    {'7' * 64}\n"
    print_fields({"sha256": "7" * 64}, as_json=False)
    assert capsys.readouterr().out == f"sha256                 {'7' * 64}\n"
