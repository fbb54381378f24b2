"""glassgpt import: a GPT-2 from elsewhere as a run."""

from __future__ import annotations

import json
from typing import Annotated

import typer


def import_(
    source: Annotated[
        str,
        typer.Argument(help="gpt2, gpt2-medium, distilgpt2, …, another GPT-2 on the Hugging Face hub, or a folder."),
    ],
    run: Annotated[str, typer.Option(help="The run's name under runs/, or its path.")],
    revision: Annotated[str | None, typer.Option(help="A branch, tag or commit of the repository.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing run.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Make a run of a GPT-2 that transformers saved: its weights and its tokenizer, exactly."""
    from glassgpt.costs.flops import count_parameters
    from glassgpt.runs.importing import import_hf

    imported = import_hf(source, run=run, revision=revision, overwrite=overwrite)
    parameters = count_parameters(imported.model)
    if as_json:
        sizes = {"parameters": parameters, "vocab_size": imported.tokenizer.vocab_size}
        typer.echo(json.dumps({"run": str(imported.folder), "source": source, **sizes}))
    else:
        typer.echo(f"{imported.folder}: {parameters:,} parameters, {imported.tokenizer.vocab_size:,} token ids")
