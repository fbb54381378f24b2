"""`glassgpt eval`: the loss of a run on a text, or its accuracy on a test suite."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from glassgpt.cli.output import AsJson, print_json, say
from glassgpt.cli.sample import CHECKPOINT_HELP, DTYPE_HELP, RUN_HELP, open_run
from glassgpt.errors import UserError, counted

if TYPE_CHECKING:
    from glassgpt.runs.run import Run


def evaluate(
    run: Annotated[str, typer.Argument(help=RUN_HELP)],
    data: Annotated[str | None, typer.Option(help="Another text; by default, the run's own.")] = None,
    split: Annotated[
        Literal["train", "val"] | None, typer.Option(help="Split of the text: val (default) or train.")
    ] = None,
    stride: Annotated[
        int | None,
        typer.Option(help="Tokens from one window to the next: windows overlap, so every target has context."),
    ] = None,
    counting: Annotated[
        float | None,
        typer.Option(metavar="WEIGHT", help="Mix in what counting predicts, with this weight from 0 to 1."),
    ] = None,
    suite: Annotated[str | None, typer.Option(help="Test suite instead of a text: hellaswag.")] = None,
    file: Annotated[str | None, typer.Option(help="Items of the suite as JSON lines; by default, its own.")] = None,
    limit: Annotated[int | None, typer.Option(help="Use only the first N items of the suite.")] = None,
    checkpoint: Annotated[str, typer.Option(help=CHECKPOINT_HELP)] = "best",
    device: Annotated[str, typer.Option(help="Device: auto, cpu, cuda or mps.")] = "auto",
    dtype: Annotated[str, typer.Option(help=DTYPE_HELP)] = "float32",
    as_json: AsJson = False,
) -> None:
    """Compute the loss on a whole split (nats per token, perplexity, bits per byte), or the accuracy on a suite.

    For an encoder, count the hidden tokens that it finds; for an encoder-decoder, the targets that it writes exactly.
    """
    from glassgpt.models import find_architecture

    if suite is None and (file is not None or limit is not None):
        raise UserError("--file and --limit choose the items of a suite: name it with --suite hellaswag")
    if suite is not None and any(option is not None for option in (data, split, stride, counting)):
        raise UserError("--suite has its own text: leave out --data, --split, --stride and --counting")
    opened = open_run(run, checkpoint, device, dtype)
    kind = find_architecture(opened.config.architecture).kind
    if suite is None and kind != "decoder":
        if stride is not None or counting is not None:
            raise UserError(f"--stride and --counting need a decoder, and {opened.folder} holds an {kind}")
        report = _report_masked if kind == "encoder" else _report_pairs
        report(opened, data, split or "val", as_json)
    elif suite is None:
        _report_loss(opened, data, split or "val", stride, counting, as_json)
    else:
        _report_suite(opened, suite, file, limit, as_json)


def _report_loss(
    run: Run,
    data: str | None,
    split: Literal["train", "val"],
    stride: int | None,
    counting: float | None,
    as_json: bool,
) -> None:
    result = run.evaluate(data, split=split, stride=stride, counting=counting)
    if as_json:
        figures: dict[str, float] = {
            f"{split}_loss": result.loss,
            "perplexity": result.perplexity,
            "bits_per_byte": result.bits_per_byte,
            "tokens": result.tokens,
        }
        given = {"stride": stride, "counting": counting}
        print_json(figures | {name: value for name, value in given.items() if value is not None})
        return
    windows = "" if stride is None else f", in windows {stride} tokens apart"
    say(f"{run.folder}, step {run.step}, {counted(result.tokens, 'token')} of the {split} split{windows}")
    if counting is not None:
        say(f"a mixture: {1 - counting:g} of the model, {counting:g} of what counting predicts")
    say(f"loss           {result.loss:.4f} nats per token")
    say(f"perplexity     {result.perplexity:.4f}")
    say(f"bits per byte  {result.bits_per_byte:.4f}")


def _report_masked(run: Run, data: str | None, split: Literal["train", "val"], as_json: bool) -> None:
    result, counted_result = run.evaluate_masked(data, split=split)
    if as_json:
        print_json(
            {
                f"{split}_loss": result.loss,
                "accuracy": result.accuracy,
                "tokens": result.tokens,
                "most_frequent": counted_result.most_frequent,
                "ngram": counted_result.ngram,
            }
        )
        return
    say(f"{run.folder}, step {run.step}, {counted(result.tokens, 'hidden token')} of the {split} split")
    say(f"found          {result.accuracy:.1%}")
    say(f"loss           {result.loss:.4f} nats per hidden token")
    if counted_result.ngram is not None:
        say(f"5-gram         {counted_result.ngram:.1%} found by counting, from the true four tokens before")
    say(f"most frequent  {counted_result.most_frequent:.1%} found by always naming the most frequent token")


def _report_pairs(run: Run, data: str | None, split: Literal["train", "val"], as_json: bool) -> None:
    result = run.evaluate_pairs(data, split=split)
    if as_json:
        figures = {"exact": result.exact, "edit_distance": result.edit_distance, "pairs": result.pairs}
        print_json({f"{split}_loss": result.loss, **figures})
        return
    say(f"{run.folder}, step {run.step}, {counted(result.pairs, 'pair')} of the {split} split")
    say(f"exact          {result.exact:.2%} of the targets")
    say(f"edit distance  {result.edit_distance:.4f} edits per character of a target")
    say(f"loss           {result.loss:.4f} nats per token of a target")


def _report_suite(run: Run, name: str, file: str | None, limit: int | None, as_json: bool) -> None:
    from glassgpt.cli.progress import counting
    from glassgpt.evaluation.hellaswag import REFERENCES

    with counting(name) as progress:
        result = run.evaluate_suite(name, file=file, limit=limit, progress=progress)
    if as_json:
        print_json({"suite": name, **result.figures()})
        return
    say(f"{run.folder}, step {run.step}, {counted(result.items, 'item')} of {name}; chance is 0.25")
    for metric, (reference, source) in REFERENCES.items():
        value = f"{getattr(result, metric):.4f}"
        error = f" ± {result.standard_error(metric):.4f}" if result.items > 1 else ""
        say(f"{metric:15}  {value}{error}  GPT-2 124M: {reference:.4f} ({source})")
