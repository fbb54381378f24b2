"""`glassgpt import`: makes a run of a model that transformers saved."""

from __future__ import annotations

from typing import Annotated

import typer

from glassgpt.cli.output import print_json, say


def import_(
    source: Annotated[
        str,
        typer.Argument(
            help="gpt2, distilgpt2, …, owner/name on the hub (GPT-2, Llama, Qwen3, GPT-oss, BERT), or a folder."
        ),
    ],
    run: Annotated[str, typer.Option(help="Run name under runs/, or path.")],
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of the repository.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing run.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Import a model saved by transformers: a GPT-2, Llama, Qwen3, GPT-oss, BERT, Marian or T5.

    The run has exactly its weights and tokenizer.
    """
    from glassgpt.runs.importing import import_hf

    imported = import_hf(source, run=run, revision=revision, overwrite=overwrite)
    parameters = imported.n_parameters
    if as_json:
        sizes = {"parameters": parameters, "vocab_size": imported.tokenizer.vocab_size}
        print_json({"run": str(imported.folder), "source": source, **sizes})
    else:
        say(f"{imported.folder}: {parameters:,} parameters, {imported.tokenizer.vocab_size:,} token ids")
