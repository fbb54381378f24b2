"""`glassgpt tokenizer`: trains, applies and describes tokenizers."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from glassgpt.cli.output import AsJson, path_option, print_fields, print_json, say
from glassgpt.cli.sample import print_text
from glassgpt.errors import UserError

if TYPE_CHECKING:
    from glassgpt.tokenizers import Tokenizer

app = typer.Typer(no_args_is_help=True, help="Train a tokenizer, encode and decode with it, describe it.")

Name = Annotated[
    str, typer.Option("--tokenizer", help="Tokenizer: gpt2, cl100k_base, o200k_base, a file, or a run folder.")
]
COLOURS = ("on dark_blue", "on dark_green", "on dark_magenta", "on dark_goldenrod", "on dark_cyan")


@app.command()
def train(
    data: Annotated[str, typer.Option(help="Known name, file, folder of text files, or - for stdin.")],
    out: Annotated[Path, path_option("File to write.")],
    type_: Annotated[Literal["bpe", "char"], typer.Option("--type", help="Type of tokenizer: bpe or char.")] = "bpe",
    vocab_size: Annotated[
        int, typer.Option(help="For bpe: number of bytes, merges and special tokens together.")
    ] = 8192,
    special: Annotated[list[str] | None, typer.Option(help="Special token; repeatable.")] = None,
    pattern: Annotated[
        str, typer.Option(help="For bpe: pattern that splits text into words, gpt2, cl100k, llama3, qwen or o200k.")
    ] = "gpt2",
    processes: Annotated[
        int | None, typer.Option(help="For bpe: processes that count words; by default, one per core.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False,
    as_json: AsJson = False,
) -> None:
    """Train a tokenizer on all of a text, and save it as one JSON file."""
    from glassgpt.data.corpora import load_text
    from glassgpt.ownership import check_output
    from glassgpt.tokenizers.bpe import BPETokenizer
    from glassgpt.tokenizers.char import CharTokenizer

    check_output(out, overwrite)
    corpus = load_text(data)
    say(f"training on {corpus.name}: {len(corpus.text):,} characters", err=True)
    names = special or []
    tokenizer: Tokenizer
    if type_ == "char":
        tokenizer = CharTokenizer.train(corpus.text, names)
    else:
        tokenizer = BPETokenizer.train(corpus.text, vocab_size, names, pattern, processes)
        if tokenizer.vocab_size < vocab_size:
            say(f"the text has no more pairs after {tokenizer.vocab_size} tokens", err=True)
    tokenizer.save(out)
    print_fields({"file": str(out), **describe(tokenizer)}, as_json)


@app.command()
def encode(
    tokenizer: Name,
    text: Annotated[str | None, typer.Argument(help="Text to encode; by default, all of stdin.")] = None,
    allow_special: Annotated[
        bool, typer.Option("--allow-special", help="Encode names of special tokens as special tokens.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Encode a text as a line of ids. On a terminal, also show its tokens in colour."""
    from glassgpt.tokenizers import open_tokenizer

    opened = open_tokenizer(tokenizer)
    ids = opened.encode(read_stdin() if text is None else text, allowed_special="all" if allow_special else frozenset())
    if as_json:
        print_json({"ids": ids, "tokens": token_texts(opened, ids)})
        return
    if sys.stdout.isatty():
        print_pieces(token_texts(opened, ids, errors="backslashreplace"))
    say(" ".join(map(str, ids)))


@app.command()
def decode(
    tokenizer: Name,
    ids: Annotated[list[str] | None, typer.Argument(help="Ids to decode; by default, those on stdin.")] = None,
    as_json: AsJson = False,
) -> None:
    """Decode ids, separated by spaces or commas, to text."""
    from glassgpt.tokenizers import open_tokenizer

    numbers = parse_ids(read_stdin() if ids is None else " ".join(ids))
    text = open_tokenizer(tokenizer).decode(numbers)
    if as_json:
        print_json({"ids": numbers, "text": text})
    else:
        print_text(text + "\n" * sys.stdout.isatty())  # a file gets the text and nothing else


@app.command()
def info(tokenizer: Name, as_json: AsJson = False) -> None:
    """Show the kind, size, special tokens and longest token of a tokenizer."""
    from glassgpt.tokenizers import open_tokenizer

    print_fields(describe(open_tokenizer(tokenizer)), as_json)


def describe(tokenizer: Tokenizer) -> dict[str, Any]:
    """Describes a tokenizer in a few fields."""
    from glassgpt.tokenizers.bpe import BPETokenizer

    fields = {"name": tokenizer.name, "vocab_size": tokenizer.vocab_size, "special_tokens": tokenizer.special_tokens}
    if isinstance(tokenizer, BPETokenizer):
        longest = max(map(tokenizer.token_bytes, tokenizer.vocab), key=len).decode("utf-8", errors="replace")
        fields |= {"pattern": tokenizer.pattern, "merges": len(tokenizer.merges), "longest_token": longest}
    return fields


def token_texts(tokenizer: Tokenizer, ids: list[int], errors: str = "replace") -> list[str]:
    """The text of each id, or its name if it is special. `errors` is for incomplete characters, as in bytes.decode."""
    names = {id: name for name, id in tokenizer.special_tokens.items()}
    return [names[id] if id in names else tokenizer.token_bytes(id).decode("utf-8", errors=errors) for id in ids]


def parse_ids(text: str) -> list[int]:
    """The numbers in a text such as "[3, 14]" or "3 14"."""
    words = text.translate(str.maketrans("[],", "   ")).split()
    for word in words:
        if not re.fullmatch("-?[0-9]{1,18}", word):
            raise UserError(f"'{word}' is not a token id: ids are integers, separated by spaces or commas")
    return [int(word) for word in words]


def read_stdin() -> str:
    """Reads all of stdin as UTF-8. Raises UserError with the offset of the first invalid byte."""
    try:
        return sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"stdin is not UTF-8: byte {error.object[error.start]:#04x} at offset {error.start}") from None


def print_pieces(pieces: list[str]) -> None:
    """Prints the pieces one after another, on alternating background colours."""
    from rich.console import Console
    from rich.text import Text

    line = Text()
    for index, piece in enumerate(pieces):
        line.append(piece, style=COLOURS[index % len(COLOURS)])
    Console(highlight=False).print(line, soft_wrap=True)
