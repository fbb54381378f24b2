"""The `glassgpt` command: registers the verbs, and turns a UserError into one sentence and exit code 2."""

from __future__ import annotations

import codecs
import contextlib
import difflib
import io
import json
import os
import re
import select
import sys
from typing import Annotated, Any, NoReturn, TextIO

import typer
from typer.core import TyperGroup

from glassgpt import __version__
from glassgpt.cli import (
    bench,
    course,
    data,
    doctor,
    evaluate,
    export,
    import_,
    ladder,
    look,
    plan,
    recipes,
    report,
    runs,
    sample,
    tokenizer,
    train,
)
from glassgpt.cli.output import say
from glassgpt.errors import RankLost, ReportedByFirstRank, UserError, is_out_of_memory, on_command_line, printable
from glassgpt.runtime.heap import keep_freed_memory
from glassgpt.runtime.launch import LOST, is_launched

NEAR = 0.75  # similarity from which an unknown option is taken for a slip of the keyboard
USAGE_ERROR: Any = typer.BadParameter.__mro__[1]  # UsageError, which typer does not export


class Verbs(TyperGroup):
    """The verbs, with a KeyboardInterrupt that keeps its message: typer itself would exit in silence."""

    def invoke(self, ctx: Any) -> Any:
        """Runs the chosen verb. Raises typer.Abort after Ctrl-C."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as stopped:
            raise typer.Abort(*stopped.args) from stopped


app = typer.Typer(
    cls=Verbs,
    help="A GPT you can see through: train it, look inside it, use it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("train")(train.train)
app.command("doctor")(doctor.doctor)
app.command("ladder")(ladder.ladder)
app.command("course")(course.course)
app.command("look")(look.look)
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
    prepare_streams()
    # The processes of multiprocessing and torch.compile begin as `python -c`, which would import a types.py or json.py
    # of the current folder.
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        # In its standalone mode typer draws a box around an error.
        with on_command_line():
            code = app(prog_name=name, standalone_mode=False)
        sys.stdout.flush()
        sys.exit(code or 0)
    except ReportedByFirstRank:
        sys.exit(2)
    except RankLost as error:
        if not (is_launched() and first_rank()):  # the launcher knows more: how the lost rank has ended
            tell(str(error))
        os._exit(LOST if is_launched() else 2)  # a normal exit could wait for the lost rank
    except UserError as error:
        fail(str(error))
    except USAGE_ERROR as error:
        if not error.format_message():  # no verb was given, and the help has been shown
            sys.exit(2)
        verb = error.ctx.command_path if error.ctx else name
        message = describe_unknown_option(error) if hasattr(error, "possibilities") else in_our_words(error)
        fail(f"{message} (see {verb} --help)")
    except (KeyboardInterrupt, typer.Abort) as stopped:
        if first_rank():
            tell(str(stopped) or "stopped: what was not finished is not saved")
        sys.exit(130)
    except SystemExit as ended:
        if isinstance(ended.__context__, BrokenPipeError):  # typer has made it an exit with code 1
            fail_to_write(ended.__context__)
        raise
    except (OSError, MemoryError, RuntimeError) as error:
        fail_by_system(error)


def fail_by_system(error: Exception) -> NoReturn:
    """Explains what the operating system refused and nobody closer to the cause has explained.

    Raises `error` again if it is a mistake of this program.
    """
    if is_out_of_memory(error):
        fail("there is not enough memory for this: choose a smaller model, batch or text, or free some memory")
    if not isinstance(error, OSError) or error.strerror is None:
        raise error
    if error.filename is None:  # a stream: a file would have a name
        fail_to_write(error)
    fail(f"cannot use {error.filename}: {error.strerror}")


def fail_to_write(error: OSError) -> NoReturn:
    """Ends after a write that failed: with code 0 if the reader of stdout has left, as `head` does."""
    reader_has_left = isinstance(error, BrokenPipeError) and reader_left()
    discard_output(sys.stdout)
    if reader_has_left:
        sys.exit(0)
    fail(f"cannot write the output: {error.strerror}")


def prepare_streams() -> None:
    """Makes the standard streams usable, whatever the caller has set up.

    A closed stream becomes the null device, so that no file opened later gets its number and so its output. A character
    that the encoding of stdout lacks is written as JSON escapes it, which keeps `--json` valid.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            null = os.open(os.devnull, os.O_RDWR)
            if null != number:
                os.dup2(null, number)
            setattr(sys, name, os.fdopen(number, mode, encoding="utf-8"))
    codecs.register_error("json", escape_as_json)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="json")


def escape_as_json(error: UnicodeError) -> tuple[str, int]:
    r"""An error handler of codecs: writes a character as \uXXXX, and one beyond U+FFFF as two."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end


def in_our_words(error: Any) -> str:
    """The message on a wrong argument or option, without the terms in which typer's own library refuses a value."""
    message = error.format_message().rstrip(".").replace("Value error, ", "")
    return re.sub(r"Input should be (a valid \w+), unable to parse string as an? \w+", r"it should be \1", message)


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
    within = [option for option in options if option.endswith(f"-{given.strip('-')}")]  # --steps of --max-steps
    nearest = within[:1] or difflib.get_close_matches(given, known, n=1, cutoff=NEAR)
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


def fail(message: str) -> NoReturn:
    """Prints one sentence on stderr and exits with code 2."""
    tell(message)
    sys.exit(2)


def tell(message: str) -> None:
    """Prints one sentence on stderr.

    The reason of a library may have several lines, and the name of a file may have control characters, which are
    escaped.
    """
    try:
        say("glassgpt: " + printable(re.sub(r"\s*\n\s*", " ", message.strip())), err=True)
        sys.stderr.flush()
    except OSError:  # a full disk, or a reader that has left: the exit code has to do
        discard_output(sys.stderr)


def discard_output(stream: TextIO) -> None:
    """Lets a stream write to the null device, so that what is still in its buffer does not fail again at the end."""
    with contextlib.suppress(OSError):  # a stream without a file descriptor
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
