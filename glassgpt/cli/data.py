"""`glassgpt data`: lists, prepares, describes and verifies texts and their token shards."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from glassgpt.cli.data_prepare import prepare
from glassgpt.cli.output import AsJson, print_fields, print_json, say

app = typer.Typer(no_args_is_help=True, help="List, prepare, describe and verify texts and their token shards.")

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
    for entry in datasets:
        say(describe_entry(entry))


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


def describe_entry(entry: dict[str, Any]) -> str:
    """Describes a prepared folder in one line."""
    if "problem" in entry:
        return f"{entry['key']}  damaged: {entry['problem']}"
    tokenizer = f"{entry['tokenizer']} ({entry['vocab_size']:,})"
    return f"{entry['key']}  {entry['name']}, {tokenizer}, {entry['train_tokens']:,} + {entry['val_tokens']:,} tokens"
