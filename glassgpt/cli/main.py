"""The `glassgpt` command: registers the verbs, and turns a UserError into one sentence and exit code 2."""

from __future__ import annotations

import difflib
import os
import re
import select
import sys
from typing import Annotated, Any, NoReturn

import typer

from glassgpt import __version__
from glassgpt.cli import (
    bench,
    data,
    doctor,
    evaluate,
    export,
    import_,
    ladder,
    plan,
    recipes,
    report,
    runs,
    sample,
    tokenizer,
    train,
)
from glassgpt.cli.output import say
from glassgpt.errors import RankLost, ReportedByFirstRank, UserError
from glassgpt.runtime.heap import keep_freed_memory
from glassgpt.runtime.launch import LOST, is_launched

NEAR = 0.75  # similarity from which an unknown option is taken for a slip of the keyboard
USAGE_ERROR: Any = typer.BadParameter.__mro__[1]  # UsageError, which typer does not export

app = typer.Typer(
    help="A GPT you can see through: train it, look inside it, use it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("train")(train.train)
app.command("doctor")(doctor.doctor)
app.command("ladder")(ladder.ladder)
app.command("sample")(sample.sample)
app.command("eval")(evaluate.evaluate)
app.command("report")(report.report)
app.command("runs")(runs.runs)
app.command("note")(runs.note)
app.command("import")(import_.import_)
app.command("export")(export.export)
app.command("plan")(plan.plan)
app.command("recipes")(recipes.recipes)
app.add_typer(bench.app, name="bench")
app.add_typer(data.app, name="data")
app.add_typer(tokenizer.app, name="tokenizer")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"glassgpt {__version__}")
        raise typer.Exit


# Verbs that allocate the same memory at every step. Not `data`, which limits its own memory.
COMPUTING = frozenset({"train", "doctor", "ladder", "sample", "eval", "plan", "bench"})


@app.callback()
def _global(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    if context.invoked_subcommand in COMPUTING:
        keep_freed_memory()
    if not sys.stderr.isatty():
        # The bars of the hub's libraries redraw one line, which a file cannot. They read this when they are imported.
        for library in ("HF_HUB", "HF_DATASETS"):
            os.environ.setdefault(f"{library}_DISABLE_PROGRESS_BARS", "1")


def main() -> None:
    """Runs the command line."""
    run_app(app, "glassgpt")


def run_app(app: typer.Typer, name: str) -> NoReturn:
    """Runs an app. Exit codes: 0 success, 2 user error, 130 and 143 stopped by a signal."""
    # The processes of multiprocessing and torch.compile begin as `python -c`, which would import a types.py or json.py
    # of the current folder.
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        # In its standalone mode typer draws a box around an error.
        code = app(prog_name=name, standalone_mode=False)
        sys.stdout.flush()
        sys.exit(code or 0)
    except ReportedByFirstRank:
        sys.exit(2)
    except RankLost as error:
        if not (is_launched() and first_rank()):  # the launcher knows more: how the lost rank has ended
            say(f"glassgpt: {error}", err=True)
        os._exit(LOST if is_launched() else 2)  # a normal exit could wait for the lost rank
    except UserError as error:
        fail(str(error))
    except USAGE_ERROR as error:
        if not error.format_message():  # no verb was given, and the help has been shown
            sys.exit(2)
        verb = error.ctx.command_path if error.ctx else name
        message = describe_unknown_option(error) if hasattr(error, "possibilities") else error.format_message()
        fail(f"{message} (see {verb} --help)")
    except (KeyboardInterrupt, typer.Abort):
        if first_rank():
            sys.stderr.write("glassgpt: stopped\n")
        sys.exit(130)
    except BrokenPipeError:
        if reader_left():
            leave_quietly()
        raise
    except SystemExit as ended:
        if isinstance(ended.__context__, BrokenPipeError) and reader_left():  # typer would exit with code 1
            leave_quietly()
        raise


def describe_unknown_option(error: Any) -> str:
    """The message on an unknown option, with the verb's nearest option, or the nearest field that --set changes."""
    options = [option for each in error.ctx.command.params for option in each.opts if option.startswith("--")]
    known: dict[str, list[str]] = {}
    if "--set" in options:
        from glassgpt.runs.config import all_fields

        for path in all_fields():
            for option in (f"--{path}", f"--{path.partition('.')[2]}".replace("_", "-")):
                known.setdefault(option, []).append(f"--set {path}=…")
    known |= {option: [option] for option in options}
    given = error.option_name if error.option_name in known else error.option_name.replace("_", "-")
    nearest = difflib.get_close_matches(given, known, n=1, cutoff=NEAR)
    hint = f"; did you mean {' or '.join(known[nearest[0]])}?" if nearest else ""
    return f"{error.message}{hint}"


def first_rank() -> bool:
    """Whether this process is the first rank of its job, or alone."""
    return os.environ.get("RANK", "0") == "0"


def reader_left() -> bool:
    """Whether the reader of stdout has closed it."""
    if not hasattr(select, "poll"):  # Windows
        return True
    poll = select.poll()
    try:
        poll.register(sys.stdout.fileno(), 0)
    except OSError:  # stdout has no file descriptor
        return False
    return any(event & select.POLLERR for _, event in poll.poll(0))


def leave_quietly() -> NoReturn:
    """Exits with code 0, because the reader of stdout has left, as `head` does."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(0)


def fail(message: str) -> NoReturn:
    """Prints one sentence on stderr and exits with code 2. The reason of a library may have several lines."""
    say("glassgpt: " + re.sub(r"\s*\n\s*", " ", message.strip()), err=True)
    sys.exit(2)
