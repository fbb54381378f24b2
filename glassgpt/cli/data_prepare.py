"""`glassgpt data prepare`: a text into the cache, or a corpus of any size into a folder of shards."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from glassgpt.cli.output import AsJson, print_fields
from glassgpt.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from glassgpt.data.corpus_to_shards import ShardingProgress
    from glassgpt.data.dataset import Dataset
    from glassgpt.data.sources import Source
    from glassgpt.tokenizers import TokenizerConfig

HELP_OF_SOURCE = (
    "A known name, files, folders or patterns of them, - for stdin; with --out also fineweb-edu, a data set of the "
    "hub, parquet, JSON lines and CSV, plain or compressed."
)
EVERY = 10.0  # seconds between lines of progress where stderr is no terminal
_ONLY_WITH_OUT = ("sample", "column", "split", "config", "shard_tokens", "train_tokenizer_on", "workers")


def prepare(
    context: typer.Context,
    sources: Annotated[list[str] | None, typer.Argument(metavar="[SOURCE]...", help=HELP_OF_SOURCE)] = None,
    data: Annotated[str | None, typer.Option(help="The same as SOURCE.")] = None,
    out: Annotated[Path | None, typer.Option(help="A folder for shards of a corpus of any size.")] = None,
    tokenizer: Annotated[
        str | None, typer.Option(help="A name, or the file of a saved one. By default char; with --out, gpt2.")
    ] = None,
    vocab_size: Annotated[int | None, typer.Option(help="For bpe: bytes, merges and special tokens.")] = None,
    val_fraction: Annotated[
        float | None,
        typer.Option(help="The part of the text kept for validation [0.1]; with --out, the first shard is."),
    ] = None,
    sample: Annotated[str | None, typer.Option(help="Of fineweb-edu: 10BT, 100BT or 350BT [10BT].")] = None,
    column: Annotated[str | None, typer.Option(help="The column or field that holds the text [text].")] = None,
    split: Annotated[str | None, typer.Option(help="Of a data set of the hub [train].")] = None,
    config: Annotated[str | None, typer.Option(help="Of a data set of the hub.")] = None,
    shard_tokens: Annotated[int | None, typer.Option(help="Tokens in a shard [100000000].")] = None,
    train_tokenizer_on: Annotated[
        int | None, typer.Option(metavar="MB", help="For bpe with --out: on how much of its beginning [100].")
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Threads that tokenise; by default, one for each core.")] = None,
    as_json: AsJson = False,
) -> None:
    """Split and tokenise a text into shards: in the cache, or in a folder of its own with --out.

    Either is done once: a second call finds the shards, or goes on where the first was stopped.
    """
    from glassgpt.data.inventory import describe_dataset
    from glassgpt.tokenizers import TokenizerConfig

    names = [*(sources or []), *([data] if data is not None else [])] or ["auto"]
    chosen = TokenizerConfig(tokenizer or ("gpt2" if out else "char"))
    if vocab_size is not None:
        chosen = replace(chosen, vocab_size=vocab_size)
    if out is None:
        for name in _ONLY_WITH_OUT:
            if context.params[name] is not None:
                raise UserError(f"--{name.replace('_', '-')} is of use with --out only: name a folder for the shards")
        dataset = _into_cache(names, chosen, 0.1 if val_fraction is None else val_fraction)
    else:
        if val_fraction is not None:
            raise UserError(
                "with --out the first shard is for validation: give --shard-tokens instead of --val-fraction"
            )
        source = _find_source(names, sample, column, split, config)
        dataset = _into_folder(source, out, chosen, shard_tokens, train_tokenizer_on, workers)
    print_fields(describe_dataset(dataset.folder, dataset.manifest), as_json)


def _into_cache(names: list[str], tokenizer: TokenizerConfig, val_fraction: float) -> Dataset:
    from glassgpt.data.dataset_cache import DataConfig, build_dataset

    if len(names) > 1:
        raise UserError(
            f"{len(names)} sources are given: several, and patterns, are taken with --out, a folder for shards"
        )
    dataset = build_dataset(DataConfig(names[0], val_fraction), tokenizer)
    typer.echo(dataset.note, err=True)
    return dataset


def _into_folder(
    source: Source,
    out: Path,
    tokenizer: TokenizerConfig,
    shard_tokens: int | None,
    train_tokenizer_on: int | None,
    workers: int | None,
) -> Dataset:
    from glassgpt.data.corpus_to_shards import shard_corpus
    from glassgpt.data.sharding_state import ShardingConfig

    given = {
        "shard_tokens": shard_tokens,
        "workers": workers,
        "train_tokenizer_on": None if train_tokenizer_on is None else train_tokenizer_on * 1_000_000,
    }
    config = ShardingConfig(tokenizer, **{name: value for name, value in given.items() if value is not None})
    with ProgressLine() as line:
        dataset = shard_corpus(source, out, config, on_progress=line.update, note=line.say)
    typer.echo(dataset.note, err=True)
    return dataset


def _find_source(
    names: list[str], sample: str | None, column: str | None, split: str | None, config: str | None
) -> Source:
    from glassgpt.data.corpora import NAMES, STDIN, load_text
    from glassgpt.data.hub import HubDataset, fineweb_edu
    from glassgpt.data.sources import OneText, find_files, is_local

    if STDIN in names:
        raise UserError("stdin cannot be read a second time, which going on after a stop needs: save it to a file")
    name = names[0]
    if sample is not None and name != "fineweb-edu":
        raise UserError(f"--sample is of fineweb-edu, not of {name}: choose with --config and --split")
    from_hub = len(names) == 1 and (name == "fineweb-edu" or not (name in NAMES or is_local(name)))
    if not from_hub and (split is not None or config is not None):
        raise UserError(
            f"--split and --config are of data sets of the hub, not of {name}: name the files that you mean"
        )
    if not from_hub:
        return OneText(load_text(name)) if names == [name] and name in NAMES else find_files(names, column or "text")
    found = fineweb_edu(sample or "10BT") if name == "fineweb-edu" else HubDataset(name)
    given = {"column": column, "split": split, "config": config}
    return replace(found, **{name: value for name, value in given.items() if value is not None})


class ProgressLine:
    """How far a preparation has come, on stderr: a line kept up to date on a terminal, elsewhere one now and then."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console: Console = Console(stderr=True, highlight=False)
        self._status = self._console.status("reading") if self._console.is_terminal else None
        self._last = time.monotonic()

    def __enter__(self) -> ProgressLine:
        if self._status:
            self._status.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._status:
            self._status.stop()

    def say(self, line: str) -> None:
        """A line that stays."""
        self._console.print(line, markup=False, soft_wrap=True)

    def update(self, progress: ShardingProgress) -> None:
        """Shows the newest figures."""
        if self._status:
            self._status.update(describe_progress(progress))
        elif time.monotonic() - self._last >= EVERY:
            self._last = time.monotonic()
            self.say(describe_progress(progress))


def describe_progress(progress: ShardingProgress) -> str:
    """Tokens so far, how fast they come, and how long it will take."""
    from glassgpt.report.figures import duration

    rate = progress.new_tokens / max(progress.seconds, 1e-9)
    parts = [f"{progress.tokens:,} tokens", f"{rate:,.0f} tokens/s"]
    if progress.fraction is not None:
        parts.append(f"{progress.fraction:.1%}")
    if progress.eta is not None:
        parts.append(f"{duration(round(progress.eta))} left")
    return ", ".join(parts)
