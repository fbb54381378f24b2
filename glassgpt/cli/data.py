"""`glassgpt data`: lists, prepares, describes and verifies texts and their token shards."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from glassgpt.cli.data_prepare import prepare
from glassgpt.cli.output import AsJson, Column, format_table, print_fields, print_json, say, table_width

app = typer.Typer(no_args_is_help=True, help="List, prepare, describe and verify texts and their token shards.")

SHORT_KEY = 8  # digits of a key that are shown; `glassgpt data info` takes any beginning of four or more
HELP_OF_DATA = "Known name, file, folder of text files, or - for stdin."


@app.command("list")
def list_texts(as_json: AsJson = False) -> None:
    """List the texts known by name, and the prepared data in the cache."""
    from glassgpt.data.cache import cache_folder
    from glassgpt.data.corpora import NAMES, shakespeare_path
    from glassgpt.data.inventory import list_datasets

    cached = {"shakespeare"} if shakespeare_path().exists() else set()
    names = [{"name": name, "description": text, "cached": name in cached} for name, text in NAMES.items()]
    datasets = list_datasets()
    if as_json:
        print_json({"cache": str(cache_folder()), "names": names, "prepared": datasets})
        return
    for entry in names:
        say(f"{entry['name']:<14} {entry['description']}{' (cached)' if entry['cached'] else ''}")
    say(f"\nprepared in {cache_folder()}: {len(datasets) or 'nothing yet'}")
    print_prepared(datasets)


app.command()(prepare)


@app.command()
def info(
    target: Annotated[
        str, typer.Argument(help=f"{HELP_OF_DATA} Also token files, a prepared or run folder, a cache key.")
    ],
    as_json: AsJson = False,
) -> None:
    """Describe a text or prepared data: size, tokenizer, splits."""
    from glassgpt.data.inventory import describe

    print_fields(describe(target), as_json)


@app.command()
def verify(
    target: Annotated[
        str | None,
        typer.Argument(help="Token files, a prepared or run folder, or a cache key; by default, the whole cache."),
    ] = None,
    vocab_size: Annotated[
        int | None, typer.Option(help="For token files of other programs: largest id plus one (default: 50257).")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check every byte of the prepared data against its sha256."""
    from glassgpt.data.inventory import verify as verify_data
    from glassgpt.errors import UserError

    findings = []
    for finding in verify_data(target, vocab_size):
        findings.append(finding)
        if not as_json:
            say(f"{'damaged' if finding.problem else 'whole':<8} {finding.path}")
    problems = [{"path": str(finding.path), "problem": finding.problem} for finding in findings if finding.problem]
    if as_json:
        print_json({"checked": len(findings), "problems": problems})
    elif not findings:
        say("the cache holds nothing to verify")
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise UserError(f"{problems[0]['problem']}{more}")


def print_prepared(entries: Sequence[dict[str, Any]]) -> None:
    """Prints a row per prepared folder, with as much of its key as `info` and `verify` need, then the damaged ones."""
    whole = [entry for entry in entries if "problem" not in entry]
    columns = [
        Column("key", [entry["key"][:SHORT_KEY] for entry in whole]),
        Column("train tokens", [f"{entry['train_tokens']:,}" for entry in whole], right=True),
        Column("val tokens", [f"{entry['val_tokens']:,}" for entry in whole], right=True),
        Column("tokenizer", [entry["tokenizer"] for entry in whole]),
        Column("ids", [f"{entry['vocab_size']:,}" for entry in whole], right=True),
        Column("text", [entry["name"] for entry in whole], shrinks=True),
    ]
    for line in format_table(columns, table_width(), needed=3) if whole else ():
        typer.echo(line)
    for entry in entries:
        if "problem" in entry:
            say(f"{entry['key'][:SHORT_KEY]} is damaged: {entry['problem']}")
