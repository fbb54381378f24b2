"""`python -m glassgpt.evaluation.lm_eval`: evaluates a run on tasks of EleutherAI's lm-eval."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from glassgpt.cli.main import run_app
from glassgpt.cli.output import AsJson, path_option, print_json
from glassgpt.cli.sample import CHECKPOINT_HELP, DTYPE_HELP, RUN_HELP, open_run

app = typer.Typer(
    add_completion=False, pretty_exceptions_enable=False, context_settings={"help_option_names": ["-h", "--help"]}
)


@app.command()
def evaluate_run(
    run: Annotated[str, typer.Option(help=RUN_HELP)],
    tasks: Annotated[str, typer.Option(help="Names of lm-eval tasks, separated by commas.")],
    limit: Annotated[int | None, typer.Option(help="Use only the first N items of each task.", min=1)] = None,
    num_fewshot: Annotated[int | None, typer.Option(help="Number of examples before each item.", min=0)] = None,
    include_path: Annotated[Path | None, path_option("Folder with more tasks as YAML files.")] = None,
    output: Annotated[Path | None, path_option("JSON file to write the figures to as well.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False,
    checkpoint: Annotated[str, typer.Option(help=CHECKPOINT_HELP)] = "best",
    device: Annotated[str, typer.Option(help="Device: auto, cpu, cuda or mps.")] = "auto",
    dtype: Annotated[str, typer.Option(help=DTYPE_HELP)] = "float32",
    as_json: AsJson = False,
) -> None:
    """Evaluate a run on lm-eval tasks. Their data sets come from the Hugging Face hub or from local files."""
    from glassgpt.files import dump_json, write_text
    from glassgpt.ownership import check_output
    from glassgpt.runtime.heap import keep_freed_memory

    if output is not None:
        check_output(output, overwrite)  # before the evaluation, which may take hours
    keep_freed_memory()
    opened = open_run(run, checkpoint, device, dtype)
    results = opened.evaluate_tasks(
        [task.strip() for task in tasks.split(",")], include_path=include_path, limit=limit, num_fewshot=num_fewshot
    )
    if output is not None:
        write_text(output, dump_json(results, indent=1) + "\n")
    if as_json:
        print_json(results)
        return
    for task, figures in results.items():
        typer.echo(task)
        for name, value in figures.items():
            if isinstance(value, float):
                typer.echo(f"    {name.removesuffix(',none'):20}  {value:.4f}")


def main() -> None:
    """Runs the command line."""
    run_app(app, "python -m glassgpt.evaluation.lm_eval")
