"""Shows training progress on stderr, live on a terminal, and prints the result on stdout."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

from glassgpt.cli.output import fold, redraws, say
from glassgpt.report.figures import four_decimals
from glassgpt.runs.console import PlainListener, discard_stderr, indent
from glassgpt.runs.folder import RUNS
from glassgpt.runs.listener import RunInfo
from glassgpt.runs.run import Run
from glassgpt.training.fit import TrainState
from glassgpt.training.metrics import Line

NOT_FINITE = "not finite"
STAGE_FIGURES = {  # of stages such as mlm and seq2seq: a name, and the unit
    "val_accuracy": ("accuracy", " of the hidden tokens"),
    "val_exact": ("exact", " of the targets"),
    "val_edit_distance": ("edit distance", " edits per character of a target"),
}
LOSS_UNITS = {"mlm": " nats per hidden token", "seq2seq": " nats per token of a target"}
STAGES_TO_LOOK_INTO = ("pretrain", *LOSS_UNITS)  # `glassgpt look` shows their models; not those of a stage of your own


def build_listener() -> PlainListener:
    """A RichListener on a terminal, else a PlainListener."""
    console = Console(stderr=True, highlight=False)
    return RichListener(console) if redraws(console) else PlainListener()


class RichListener(PlainListener):
    """A live progress bar with the newest figures below it and the events above it."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = Progress(BarColumn(bar_width=None), MofNCompleteColumn(), TimeRemainingColumn(), console=console)
        self._live = Live(self._bar, console=console, refresh_per_second=4, transient=True)
        self._task: TaskID | None = None

    def say(self, line: str) -> None:
        with self._unfailing():
            self._console.print(fold(line, self._console.width), markup=False, soft_wrap=True)

    @contextlib.contextmanager
    def _unfailing(self) -> Iterator[None]:
        """Context for output: if the terminal has closed, training goes on in silence, so that the run is saved."""
        try:
            yield
        except OSError:
            discard_stderr()
        except RuntimeError as error:  # a signal handler interrupted a line; Python forbids the second, nested write
            if "reentrant" not in str(error):
                raise

    def started(self, info: RunInfo, state: TrainState) -> None:
        super().started(info, state)
        self._task = self._bar.add_task("", total=info.config.training.max_steps, completed=state.step)
        with self._unfailing():
            self._live.start()

    def stepped(self, state: TrainState, record: Line) -> None:
        if "skipped" in record:
            self.say(f"step {state.step}: skipped, {record['skipped']}")
        assert self._task is not None  # started() came first
        with self._unfailing():
            self._bar.update(self._task, completed=state.step)
            self._live.update(Group(self._bar, Text(self.figures(record))))

    def replanned(self, step: int, steps: int) -> None:
        super().replanned(step, steps)
        assert self._task is not None
        with self._unfailing():
            self._bar.update(self._task, total=steps)

    def stopped(self) -> None:
        with self._unfailing():
            self._live.stop()


@contextlib.contextmanager
def counting(what: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on a terminal, else a line every 10%. Yields a function to call with (done, total)."""
    console = Console(stderr=True, highlight=False)
    if not redraws(console):
        yield _tenths(what, console)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _tenths(what: str, console: Console) -> Callable[[int, int], None]:
    reported = 0

    def say(done: int, total: int) -> None:
        nonlocal reported
        if done * 10 // total > reported:
            reported = done * 10 // total
            console.print(f"{what}: {done:,} of {total:,} rows", markup=False, soft_wrap=True)

    return say


def print_result(run: Run) -> None:
    """Prints the result on stdout: a sample, the losses and the paths. No sample if one device may be too small."""
    summary = run.summary or {}
    if run.config.run.stage == "pretrain":
        if run.config.machine.parallel != "fsdp":
            say("sample\n" + indent(run.generate(max_new_tokens=300, seed=1)))
        last, best = (four_decimals(summary.get(name), NOT_FINITE) for name in ("val_loss", "best_val_loss"))
        say(f"validation loss  {last} nats per token at the end, {best} at the best checkpoint")
    else:
        name = run.checkpoint.best.figure
        fields = (f"{prefix}{name}".replace("/", "_") for prefix in ("", "best/"))
        last, best = (four_decimals(summary.get(field), NOT_FINITE) for field in fields)
        unit = LOSS_UNITS.get(run.config.run.stage, "") if name == "val/loss" else ""
        title = "validation loss" if name == "val/loss" else name
        say(f"{title:15}  {last}{unit} at the end, {best} at the best checkpoint")
        for figure, (name, unit) in STAGE_FIGURES.items():
            if figure in summary:
                say(f"{name:15}  {four_decimals(summary[figure], NOT_FINITE)}{unit} at the end")
    say(f"run folder       {run.folder}")
    say(f"report           {run.folder / 'report.html'}")
    if run.config.run.stage in STAGES_TO_LOOK_INTO:
        say(f"look inside      glassgpt look {run.folder.name if run.folder.parent == RUNS else run.folder}")
