"""Prints results and messages: as text that fits the terminal, or as JSON (--json).

On a terminal, lines break at blanks only, so that a path, a number or a word stays whole. In a file or pipe a sentence
is one line, however long. The environment variable COLUMNS sets the width of a terminal, and of tables everywhere.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from glassgpt.errors import printable
from glassgpt.files import dump_json, user_path

if TYPE_CHECKING:
    from rich.console import Console

STARTED = time.monotonic()  # the start of the process, but for Python's own
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
USUAL_WIDTH = 80  # of a terminal that does not say
LEAST_TEXT = 12  # columns to which a column of text may shrink
GAP = "  "  # between the columns of a table


def path_option(help: str) -> Any:
    """An option for a path, with ~ expanded: a shell does not expand it in `--out=~/name`."""
    return typer.Option(parser=user_path, metavar="PATH", help=help)


def terminal_width(stream: TextIO) -> int | None:
    """The width of the terminal that `stream` is, in columns; None for a file or pipe."""
    if not stream.isatty():
        return None
    try:
        return _columns_variable() or os.get_terminal_size(stream.fileno()).columns or USUAL_WIDTH
    except OSError:  # a terminal without a size, or one that is no file
        return USUAL_WIDTH


def redraws(console: Console) -> bool:
    """Whether a line that was printed can be drawn again: on a terminal, not in a file, a pipe or a notebook.

    rich takes any stream for a terminal where FORCE_COLOR is set, as it is in Jupyter's kernels and on build servers.
    """
    return console.file.isatty()


def table_width() -> int | None:
    """The width of tables on stdout: COLUMNS, else that of the terminal; None (no limit) in a file or pipe."""
    return _columns_variable() or terminal_width(sys.stdout)


def _columns_variable() -> int | None:
    value = os.environ.get("COLUMNS", "")
    return int(value) or None if re.fullmatch("[0-9]{1,5}", value) else None


def fold(text: str, width: int | None) -> str:
    """Breaks the lines of `text` at blanks so that they fit into `width` columns; continued lines keep the indentation.

    A word that is longer than a line stays whole. None is no limit.
    """
    from rich.cells import cell_len

    if width is None:
        return text
    lines = []
    for line in text.split("\n"):
        indent = line[: len(line) - len(line.lstrip(" "))]
        current = indent
        for word in re.findall("[^ ]+ *", line[len(indent) :]):
            if current != indent and cell_len(current + word.rstrip(" ")) > width:
                lines.append(current.rstrip(" "))
                current = indent
            current += word
        lines.append(current)
    return "\n".join(lines)


def beside(title: str, text: str, width: int | None) -> list[str]:
    """The lines of a text beside its title: continued lines begin below the text, not below the title."""
    room = len(title)
    return (title + fold(" " * room + text, width)[room:]).split("\n")


def say(text: object, *, err: bool = False) -> None:
    """Prints lines on stdout, or stderr; on a terminal they break at blanks."""
    stream = sys.stderr if err else sys.stdout
    typer.echo(fold(str(text), terminal_width(stream)), err=err)


def note(line: str) -> None:
    """Prints a note on stderr."""
    say(line, err=True)


@dataclass(frozen=True)
class Column:
    """A column of a table: its title and a cell for each row."""

    title: str
    cells: Sequence[str]
    right: bool = False  # aligned to the right, as numbers are
    shrinks: bool = False  # long texts may be cut to what remains, but not below LEAST_TEXT

    def texts(self) -> list[str]:
        """The title and the cells, each on one line."""
        return [printable(text) for text in (self.title, *self.cells)]

    @property
    def width(self) -> int:
        """Width of the longest text, in columns of the terminal: a Chinese character takes two."""
        from rich.cells import cell_len

        return max(map(cell_len, self.texts()))


def format_table(columns: Sequence[Column], width: int | None, *, needed: int) -> list[str]:
    """The lines of a table that fits into `width` columns; None is no limit.

    The first `needed` columns are always there, complete. Each of the others is left out if it is empty, or if it does
    not fit beside those before it.
    """
    chosen, taken = [], 0
    for number, column in enumerate(columns):
        room = None if width is None else width - taken
        if number >= needed and not any(column.cells):
            continue
        if number >= needed and room is not None and column.width > room:
            if not column.shrinks or room < LEAST_TEXT:
                continue
            column = replace(column, cells=[shorten(text, room) for text in column.cells])
        chosen.append(column)
        taken += column.width + len(GAP)
    rows = zip(*(_aligned(column) for column in chosen), strict=True)
    return [GAP.join(row).rstrip() for row in rows]


def _aligned(column: Column) -> list[str]:
    from rich.cells import cell_len

    padded = [(text, " " * (column.width - cell_len(text))) for text in column.texts()]
    return [blanks + text if column.right else text + blanks for text, blanks in padded]


def shorten(text: str, width: int | None) -> str:
    """Cuts a line that is wider than `width` columns; it then ends with an ellipsis. None is no limit."""
    from rich.cells import cell_len, set_cell_size

    if width is None or cell_len(text) <= width:
        return text
    return set_cell_size(text, max(width - 1, 0)).rstrip() + "…"


def print_json(value: dict[str, Any] | list[dict[str, Any]]) -> None:
    """Prints one JSON object, or a list of them, on stdout. NaN and infinity become null."""
    typer.echo(dump_json(value))


def print_fields(fields: dict[str, Any], as_json: bool) -> None:
    """Prints fields as JSON, or as lines of name and value without those that are None.

    A nested field is named like `train.tokens`.
    """
    if as_json:
        print_json(fields)
        return
    for name, value in fields.items():
        for inner, part in value.items() if isinstance(value, dict) else [("", value)]:
            if part is None:  # not known, or it does not apply
                continue
            head, text = f"{f'{name}.{inner}'.rstrip('.'):<22} ", _format(part)
            width = terminal_width(sys.stdout)
            too_long = width is not None and len(head) + len(text) > width  # a path or checksum: on a line of its own
            typer.echo(f"{head.rstrip()}\n    {text}" if too_long else head + text)


def _format(value: Any) -> str:
    """Formats a value on one line: quotes a text with outer blanks, shortens a long list to its ends."""
    if isinstance(value, list | tuple):
        row = [str(part) for part in value]
        return " ".join(row) if len(row) <= 4 else f"{row[0]} … {row[-1]} ({len(row)})"
    return repr(value) if isinstance(value, str) and value != value.strip() else str(value)
