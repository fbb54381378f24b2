"""`glassgpt data prepare`: tokenises a text into the cache, or a corpus of any size into a folder of shards."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from glassgpt.cli.output import AsJson, fold, path_option, print_fields, redraws, say, terminal_width
from glassgpt.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from glassgpt.data.corpus_to_shards import ShardingProgress
    from glassgpt.data.dataset import Dataset
    from glassgpt.data.sources import Source
    from glassgpt.tokenizers import TokenizerConfig

HELP_OF_SOURCE = (
    "Known name, files, folders, file name patterns, or - for stdin. With --out also fineweb-edu, a data set of the "
    "Hugging Face hub, and parquet, JSON lines and CSV files, plain or compressed."
)
EVERY = 10.0  # seconds between progress lines if stderr is not a terminal
_ONLY_WITH_OUT = ("sample", "column", "split", "config", "shard_tokens", "train_tokenizer_on", "workers")


def prepare(
    context: typer.Context,
    sources: Annotated[list[str] | None, typer.Argument(metavar="SOURCE", help=HELP_OF_SOURCE)] = None,
    data: Annotated[str | None, typer.Option(help="Same as SOURCE.")] = None,
    out: Annotated[Path | None, path_option("Folder for the shards of a corpus of any size.")] = None,
    tokenizer: Annotated[
        str | None, typer.Option(help="Tokenizer name or file (default: char; with --out: gpt2).")
    ] = None,
    vocab_size: Annotated[int | None, typer.Option(help="For bpe: number of bytes, merges and special tokens.")] = None,
    val_fraction: Annotated[
        float | None,
        typer.Option(help="Fraction of the text for validation (default: 0.1). With --out, the first shard is used."),
    ] = None,
    sample: Annotated[
        str | None, typer.Option(help="Sample of fineweb-edu: 10BT, 100BT or 350BT (default: 10BT).")
    ] = None,
    column: Annotated[str | None, typer.Option(help="Column or field with the text (default: text).")] = None,
    split: Annotated[str | None, typer.Option(help="Split of a hub data set (default: train).")] = None,
    config: Annotated[str | None, typer.Option(help="Configuration of a hub data set.")] = None,
    shard_tokens: Annotated[int | None, typer.Option(help="Tokens per shard (default: 100000000).")] = None,
    train_tokenizer_on: Annotated[
        int | None,
        typer.Option(
            metavar="MB", help="For bpe with --out: megabytes of the beginning to train it on (default: 100)."
        ),
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Tokenising threads; by default, one per core.")] = None,
    as_json: AsJson = False,
) -> None:
    """Split a text and tokenise it into shards, in the cache or in a folder of its own (--out).

    This is done once: a second call finds the shards, or continues where the first was stopped.
    """
    from glassgpt.data.inventory import describe_dataset
    from glassgpt.tokenizers import TokenizerConfig

    for name, value in context.params.items():
        if value == "":
            raise UserError(f"--{name.replace('_', '-')} is empty: give a value, or leave the option out")
    names = [*(sources or []), *([data] if data is not None else [])] or ["auto"]
    chosen = TokenizerConfig(tokenizer or ("gpt2" if out else "char"))
    if vocab_size is not None:
        chosen = replace(chosen, vocab_size=vocab_size)
    if out is None:
        for name in _ONLY_WITH_OUT:
            if context.params[name] is not None:
                raise UserError(f"--{name.replace('_', '-')} works only with --out: name a folder for the shards")
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
        raise UserError(f"{len(names)} sources are given: several need --out, a folder for the shards")
    dataset = build_dataset(DataConfig(names[0], val_fraction), tokenizer)
    say(dataset.note, err=True)
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
    say(dataset.note, err=True)
    return dataset


def _find_source(
    names: list[str], sample: str | None, column: str | None, split: str | None, config: str | None
) -> Source:
    from glassgpt.data.corpora import NAMES, STDIN, load_text
    from glassgpt.data.hub import HubDataset, fineweb_edu
    from glassgpt.data.sources import OneText, find_files, is_local

    if STDIN in names:
        raise UserError("stdin cannot be read a second time after an interruption: save it to a file")
    name = names[0]
    if sample is not None and name != "fineweb-edu":
        raise UserError(f"--sample is for fineweb-edu, not for {name}: choose with --config and --split")
    from_hub = len(names) == 1 and (name == "fineweb-edu" or not (name in NAMES or is_local(name)))
    if not from_hub and (split is not None or config is not None):
        raise UserError(
            f"--split and --config are for data sets of the hub, not for {name}: name the files that you mean"
        )
    if not from_hub:
        return OneText(load_text(name)) if names == [name] and name in NAMES else find_files(names, column or "text")
    found = fineweb_edu(sample or "10BT") if name == "fineweb-edu" else HubDataset(name)
    given = {"column": column, "split": split, "config": config}
    return replace(found, **{name: value for name, value in given.items() if value is not None})


class ProgressLine:
    """Progress of a preparation on stderr: a live line on a terminal, elsewhere a line every `EVERY` seconds."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console: Console = Console(stderr=True, highlight=False)
        self._status = self._console.status("reading") if redraws(self._console) else None
        self._last = time.monotonic()

    def __enter__(self) -> ProgressLine:
        if self._status:
            self._status.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._status:
            self._status.stop()

    def say(self, line: str) -> None:
        """Prints a permanent line."""
        self._console.print(fold(line, terminal_width(sys.stderr)), markup=False, soft_wrap=True)

    def update(self, progress: ShardingProgress) -> None:
        """Shows the newest figures."""
        if self._status:
            self._status.update(describe_progress(progress))
        elif time.monotonic() - self._last >= EVERY:
            self._last = time.monotonic()
            self.say(describe_progress(progress))


def describe_progress(progress: ShardingProgress) -> str:
    """Tokens so far, tokens per second, percentage done and remaining time."""
    from glassgpt.report.figures import duration

    rate = progress.new_tokens / max(progress.seconds, 1e-9)
    parts = [f"{progress.tokens:,} tokens", f"{rate:,.0f} tokens/s"]
    if progress.fraction is not None:
        parts.append(f"{progress.fraction:.1%}")
    if progress.eta is not None:
        parts.append(f"{duration(round(progress.eta))} left")
    return ", ".join(parts)
