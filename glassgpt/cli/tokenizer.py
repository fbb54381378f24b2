"""`glassgpt tokenizer`: train one, and see what it makes of a text."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from glassgpt.cli.output import AsJson, print_fields, print_json
from glassgpt.cli.sample import print_text
from glassgpt.errors import UserError

if TYPE_CHECKING:
    from glassgpt.tokenizers import Tokenizer

app = typer.Typer(no_args_is_help=True, help="Train a tokenizer, encode and decode with one, describe it.")

Name = Annotated[str, typer.Option("--tokenizer", help="gpt2, cl100k_base, o200k_base, a file, or a run's folder.")]
COLOURS = ("on dark_blue", "on dark_green", "on dark_magenta", "on dark_goldenrod", "on dark_cyan")


@app.command()
def train(
    data: Annotated[str, typer.Option(help="A known name, a file, a folder of text files, or - for stdin.")],
    out: Annotated[Path, typer.Option(help="The file to write.")],
    type_: Annotated[Literal["bpe", "char"], typer.Option("--type", help="bpe or char.")] = "bpe",
    vocab_size: Annotated[int, typer.Option(help="For bpe: bytes, merges and special tokens together.")] = 8192,
    special: Annotated[list[str] | None, typer.Option(help="A special token; may be given several times.")] = None,
    pattern: Annotated[str, typer.Option(help="For bpe, how text is split into words: gpt2 or cl100k.")] = "gpt2",
    processes: Annotated[
        int | None, typer.Option(help="For bpe, how many count words; by default, a core each.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file if it is there.")] = False,
    as_json: AsJson = False,
) -> None:
    """Train a tokenizer on a text, all of it, and save it to one JSON file."""
    from glassgpt.data.corpora import load_text
    from glassgpt.tokenizers.bpe import BPETokenizer
    from glassgpt.tokenizers.char import CharTokenizer

    if out.exists() and not overwrite:
        raise UserError(f"'{out}' is there already: choose another --out, or give --overwrite")
    corpus = load_text(data)
    typer.echo(f"training on {corpus.name}: {len(corpus.text):,} characters", err=True)
    names = special or []
    tokenizer: Tokenizer
    if type_ == "char":
        tokenizer = CharTokenizer.train(corpus.text, names)
    else:
        tokenizer = BPETokenizer.train(corpus.text, vocab_size, names, pattern, processes)
        if tokenizer.vocab_size < vocab_size:
            typer.echo(f"the text has no more pairs after {tokenizer.vocab_size} tokens", err=True)
    tokenizer.save(out)
    print_fields({"file": str(out), **describe(tokenizer)}, as_json)


@app.command()
def encode(
    tokenizer: Name,
    text: Annotated[str | None, typer.Argument(help="The text; by default, stdin to its last byte.")] = None,
    allow_special: Annotated[bool, typer.Option("--allow-special", help="Let text become special tokens.")] = False,
    as_json: AsJson = False,
) -> None:
    """The ids of a text: on a terminal its pieces in colour too, elsewhere a line of ids."""
    from glassgpt.tokenizers import open_tokenizer

    opened = open_tokenizer(tokenizer)
    ids = opened.encode(read_stdin() if text is None else text, allowed_special="all" if allow_special else frozenset())
    if as_json:
        print_json({"ids": ids, "tokens": token_texts(opened, ids)})
        return
    if sys.stdout.isatty():
        print_pieces(token_texts(opened, ids, errors="backslashreplace"))
    typer.echo(" ".join(map(str, ids)))


@app.command()
def decode(
    tokenizer: Name,
    ids: Annotated[list[str] | None, typer.Argument(help="Ids; by default, those on stdin.")] = None,
    as_json: AsJson = False,
) -> None:
    """The text of ids, which spaces or commas separate."""
    from glassgpt.tokenizers import open_tokenizer

    numbers = parse_ids(read_stdin() if ids is None else " ".join(ids))
    text = open_tokenizer(tokenizer).decode(numbers)
    if as_json:
        print_json({"ids": numbers, "text": text})
    else:
        print_text(text + "\n" * sys.stdout.isatty())  # a file gets the text and nothing else


@app.command()
def info(tokenizer: Name, as_json: AsJson = False) -> None:
    """What a tokenizer has: its kind, size, special tokens, longest token."""
    from glassgpt.tokenizers import open_tokenizer

    print_fields(describe(open_tokenizer(tokenizer)), as_json)


def describe(tokenizer: Tokenizer) -> dict[str, Any]:
    """A tokenizer in a few fields."""
    from glassgpt.tokenizers.bpe import BPETokenizer

    fields = {"name": tokenizer.name, "vocab_size": tokenizer.vocab_size, "special_tokens": tokenizer.special_tokens}
    if isinstance(tokenizer, BPETokenizer):
        longest = max(map(tokenizer.token_bytes, tokenizer.vocab), key=len).decode("utf-8", errors="replace")
        fields |= {"pattern": tokenizer.pattern, "merges": len(tokenizer.merges), "longest_token": longest}
    return fields


def token_texts(tokenizer: Tokenizer, ids: list[int], errors: str = "replace") -> list[str]:
    """What each id stands for; a special token is its name, bytes that are no whole character are as `errors` says."""
    names = {id: name for name, id in tokenizer.special_tokens.items()}
    return [names[id] if id in names else tokenizer.token_bytes(id).decode("utf-8", errors=errors) for id in ids]


def parse_ids(text: str) -> list[int]:
    """The numbers in a text such as "[3, 14]" or "3 14"."""
    words = text.translate(str.maketrans("[],", "   ")).split()
    for word in words:
        if not word.removeprefix("-").isdecimal():
            raise UserError(f"'{word}' is no token id: ids are whole numbers, separated by spaces or commas")
    return [int(word) for word in words]


def read_stdin() -> str:
    """All of stdin as UTF-8. Raises UserError with the place of the first byte that is not."""
    try:
        return sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"stdin is not UTF-8: byte {error.object[error.start]:#04x} at offset {error.start}") from None


def print_pieces(pieces: list[str]) -> None:
    """The pieces one after another, each on a colour of its own."""
    from rich.console import Console
    from rich.text import Text

    line = Text()
    for index, piece in enumerate(pieces):
        line.append(piece, style=COLOURS[index % len(COLOURS)])
    Console(highlight=False).print(line, soft_wrap=True)
