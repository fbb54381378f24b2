"""Progress of training on stderr: live with rich on a terminal, one plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, ProgressColumn, TaskID, TextColumn, TimeRemainingColumn

from glassgpt.evaluation.validation import Evaluation
from glassgpt.run import Run
from glassgpt.session import Listener, Session
from glassgpt.training.fit import TrainState
from glassgpt.training.tracking import Record


def build_listener() -> PlainListener:
    """The rich one on a terminal, else the plain one."""
    console = Console(stderr=True, highlight=False)
    return RichListener(console) if console.is_terminal else PlainListener()


class PlainListener(Listener):
    """Plain lines on stderr, for logs and pipes."""

    def say(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    def note(self, line: str) -> None:
        self.say(line)

    def started(self, session: Session, state: TrainState) -> None:
        self._session = session
        self._log_every = session.config.training.log_every
        self._first_step, self._began = state.step, time.perf_counter()
        self._val_loss: float | None = None
        for line in opening_lines(session):
            self.say(line)

    def stepped(self, state: TrainState, record: Record) -> None:
        if "skipped" in record:
            self.say(f"step {state.step}: skipped, {record['skipped']}")
        elif state.step % self._log_every == 0 or state.step == 1:
            self.say(self._figures(state, record))

    def evaluated(self, step: int, evaluation: Evaluation, final: bool) -> None:
        self._val_loss = evaluation.loss
        over = "whole validation split" if final else "validation"
        self.say(
            f"step {step}: {over}, {evaluation.tokens:,} tokens: loss {evaluation.loss:.4f} nats per token,"
            f" {evaluation.bits_per_byte:.4f} bits per byte"
        )

    def sampled(self, step: int, prompt: str, text: str) -> None:
        self.say(f"step {step} writes:\n" + indent(prompt + text))

    def finished(self, run: Run) -> None:
        """The last words, the result on stdout: where everything is, how good it became, and what it writes."""
        summary = run.summary or {}
        print("sample\n" + indent(run.generate(max_new_tokens=300, temperature=0.8, seed=1)))
        print(f"validation loss  {summary['val_loss']:.4f} nats per token; the best checkpoint's: ", end="")
        print(f"{summary['best_val_loss']:.4f}")
        print(f"run folder       {run.folder}")
        print(f"report           {run.folder / 'report.html'}")

    def _figures(self, state: TrainState, record: Record) -> str:
        val = "" if self._val_loss is None else f"  val {self._val_loss:.4f}"
        parts = [
            f"step {state.step:>5}/{self._session.config.training.max_steps}",
            f"loss {record['train/loss']:.4f}{val}",
            f"lr {record['lr']:.2e}",
            f"grad {record['grad_norm']:.2f}",
            f"{record['tokens_per_second']:,.0f} tok/s",
        ]
        if "mfu" in record:
            parts.append(f"mfu {record['mfu']:.1%}")
        parts.append(f"val time {self._validation_share():.0%}")
        parts.append(f"eta {self._eta(state)}")
        return "  ".join(parts)

    def _validation_share(self) -> float:
        spent = time.perf_counter() - self._began
        return self._session.validation_seconds / max(spent, 1e-9)

    def _eta(self, state: TrainState) -> str:
        done = state.step - self._first_step
        left = self._session.config.training.max_steps - state.step
        seconds = round((time.perf_counter() - self._began) / max(done, 1) * left)
        return (
            f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"
            if seconds >= 3600
            else f"{seconds // 60}:{seconds % 60:02}"
        )


class RichListener(PlainListener):
    """A bar with the figures beside it, and the events above it."""

    def __init__(self, console: Console) -> None:
        self._console = console
        columns: list[ProgressColumn] = [
            BarColumn(bar_width=16),
            TextColumn("{task.description}"),
            TimeRemainingColumn(),
        ]
        self._progress = Progress(*columns, console=console, refresh_per_second=4)
        self._task: TaskID | None = None

    def say(self, line: str) -> None:
        self._console.print(line, markup=False, soft_wrap=True)

    def started(self, session: Session, state: TrainState) -> None:
        super().started(session, state)
        self._task = self._progress.add_task("", total=session.config.training.max_steps, completed=state.step)
        self._progress.start()

    def stepped(self, state: TrainState, record: Record) -> None:
        if "skipped" in record:
            self.say(f"step {state.step}: skipped, {record['skipped']}")
        assert self._task is not None
        self._progress.update(self._task, completed=state.step, description=escape(self._figures(state, record)))

    def stopped(self) -> None:
        self._progress.stop()


def opening_lines(session: Session) -> list[str]:
    """What is about to be trained, on what, and how."""
    config, prepared = session.config, session.prepared
    optimizer = "fused AdamW" if session.optimizer.defaults.get("fused") else "AdamW"
    schedule = config.schedule
    length = "" if schedule.name == "constant" else f" over {schedule.decay_steps:,} steps"
    return [
        f"{config.architecture}: {session.n_parameters:,} parameters, {config.training.batch_tokens:,} tokens per step,"
        f" {session.flops_per_token / 1e6:,.1f} MFLOPs per token; {session.runtime.describe()}; {optimizer},"
        f" {schedule.name} schedule{length}",
        f"{prepared.tokenizer.name} tokenizer, {prepared.tokenizer.vocab_size:,} ids: {len(prepared.train):,} tokens to"
        f" train on, {len(prepared.val):,} to validate on ({config.training.eval_tokens:,} of them while training,"
        " all at the end)",
    ]


def indent(text: str, first: str = "    ") -> str:
    """Text set in by four columns, so that a sample cannot be taken for a message."""
    return first + text.strip("\n").replace("\n", "\n    ")
