"""The results table of the ladder: live on a terminal, elsewhere a line per section."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from glassgpt.cli.output import redraws, say, table_width
from glassgpt.course.climb import LadderListener, LadderTraining, SectionRow
from glassgpt.models.ladder import Section

WIDTH_OF_A_FILE = 150  # columns of the table in a file or pipe, where COLUMNS does not say
WIDTH_OF_IDEAS = 100  # columns from which the table has room for the idea of each section


class LadderTable(LadderListener):
    """Shows the progress of each section on stderr, and calls `save` with all rows whenever one is added."""

    def __init__(
        self, sections: Sequence[Section], training: LadderTraining, *, save: Callable[[Sequence[SectionRow]], None]
    ) -> None:
        self._sections, self._training, self._save = sections, training, save
        self._rows: list[SectionRow] = []
        self._now: tuple[Section, int, int, float] | None = None  # section, seed, step, validation loss
        self._console = Console(stderr=True, highlight=False)
        # The live table disappears at the end: the result is printed on stdout.
        self._live = Live(console=self._console, transient=True, auto_refresh=False)

    def __enter__(self) -> LadderTable:
        if redraws(self._console):
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def note(self, line: str) -> None:
        """Prints a line above the table."""
        say(line, err=True)

    def stepped(self, section: Section, seed: int, step: int, val_loss: float) -> None:
        self._now = (section, seed, step, val_loss)
        self._refresh()

    def reached(self, row: SectionRow) -> None:
        self._rows.append(row)
        self._now = None
        self._save(self._rows)
        if not redraws(self._console):
            line = f"{row.section.number:>2} {row.section.name:<12} {describe_loss(row):<15} {row.seconds:6.1f} s"
            print(f"{line}  {row.sample[:60]}", file=sys.stderr, flush=True)
        self._refresh()

    def print_result(self) -> None:
        """Prints the finished table on stdout."""
        width = table_width() or WIDTH_OF_A_FILE
        Console(highlight=False, width=width).print(self._table(width))

    def _refresh(self) -> None:
        if redraws(self._console):
            self._live.update(self._table(self._console.width), refresh=True)

    def _table(self, width: int) -> Table:
        table = Table(box=None, pad_edge=False, expand=True)
        table.add_column("", justify="right", min_width=2)
        table.add_column("section", min_width=11)
        # Minimum widths keep the figures complete on a narrow terminal. The two text columns take the rest.
        with_ideas = width >= WIDTH_OF_IDEAS
        if with_ideas:
            table.add_column("idea", no_wrap=True, overflow="ellipsis", ratio=1)
        for name, least in (("parameters", 10), ("validation loss", 15), ("time", 5)):
            table.add_column(name, justify="right", min_width=least)
        table.add_column("it writes", no_wrap=True, overflow="ellipsis", ratio=1)
        reached = {row.section.number: row for row in self._rows}
        best = min((row.val_loss for row in self._rows), default=None)
        for section in self._sections:
            head = (str(section.number), section.name, *([section.idea] if with_ideas else []))
            if row := reached.get(section.number):
                loss = Text(describe_loss(row), style="bold" if row.val_loss == best else "")
                table.add_row(*head, f"{row.n_params:,}", loss, f"{row.seconds:.0f} s", Text(row.sample))
            elif self._now is not None and self._now[0] is section:
                table.add_row(*head, "", *self._progress())
            else:
                table.add_row(*head, style="dim")
        return table

    def _progress(self) -> tuple[str, str, str]:
        assert self._now is not None
        _, seed, step, val_loss = self._now
        return f"{val_loss:.3f}", "", f"seed {seed + 1}/{self._training.seeds}, step {step}/{self._training.steps}"


def describe_loss(row: SectionRow) -> str:
    """The mean loss over the seeds and, if there are several, half of their range."""
    return f"{row.val_loss:.4f}" + (f" ± {row.spread:.4f}" if len(row.climbs) > 1 else "")
