"""One training session of a run: what happens between the steps (figures, validation, samples, checkpoints)."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from glassgpt.costs.flops import count_parameters, estimate_flops_per_token
from glassgpt.errors import UserError, option
from glassgpt.evaluation.hellaswag import HellaSwag
from glassgpt.files import write_text
from glassgpt.models import Model
from glassgpt.models.sizes import draws_dropout
from glassgpt.runs.config import RunConfig, dump_config
from glassgpt.runs.listener import Listener, RunInfo
from glassgpt.runs.micro_batch import out_of_memory_advice
from glassgpt.runs.pace import Pace
from glassgpt.runtime.device import Runtime
from glassgpt.training.checkpoint import Checkpoint, load_stage_state, write_checkpoint
from glassgpt.training.checkpoint_manager import CheckpointManager, snapshot_steps
from glassgpt.training.fit import StepResult, TrainState, fit
from glassgpt.training.interrupt import Interrupt
from glassgpt.training.losses import MicroBatch
from glassgpt.training.metrics import RunLog, final_line, step_line
from glassgpt.training.optimizers import build_optimizer
from glassgpt.training.prefetch import Batches, Prefetched
from glassgpt.training.schedules import learning_rate
from glassgpt.training.stage import Stage

OVERFIT_LOSS = 0.02  # nats per token: below it, the model has overfitted its one batch


class Interrupted(Exception):
    """SIGINT, SIGTERM or SIGHUP came; the step was finished and saved."""

    def __init__(self, signal: int, folder: Path, step: int) -> None:
        super().__init__(f"stopped by a signal after step {step}: saved in {folder}, go on with {option(resume=True)}")
        self.signal, self.folder, self.step = signal, folder, step


class Session:
    """A stage and its optimizer, ready to train from any step of the run in `folder`. Every rank has its own."""

    def __init__(
        self,
        folder: Path,
        config: RunConfig,
        stage: Stage,
        suites: Mapping[str, HellaSwag],
        runtime: Runtime,
        listener: Listener,
        pace: Pace | None = None,
    ) -> None:
        """`suites` are the test suites that the model takes while it trains, by name.

        With a `pace` the number of steps follows the clock. A resumed run has none: it replays what was recorded.
        """
        self._pace = pace
        self.folder, self.config, self.stage = folder, config, stage
        self.runtime, self.listener = runtime, listener
        model = stage.model
        self.n_parameters = count_parameters(model)
        self.flops_per_token = estimate_flops_per_token(model)
        self._parallel = runtime.wrap(model, stage.loss, in_parts=stage.in_parts)
        self._optimizer = build_optimizer(model, config.optimizer)
        self._scaler = runtime.build_scaler()
        self._checkpoints = CheckpointManager(
            folder / "checkpoints", model, self._optimizer, runtime.ranks,
            keep_last=config.checkpoint.keep_last,
            snapshots=snapshot_steps(config.training.max_steps, config.checkpoint.snapshots),
        )  # fmt: skip
        self._suites = suites
        self._loss = math.inf  # of the last step
        self._validating = 0.0  # seconds spent on validation and suites
        self._seconds = 0.0  # spent in training so far, interruptions not counted
        self._clock = time.perf_counter()

    def save_first(self, folder: Path) -> None:
        """Writes the checkpoint of step 0 into `folder`, which the first rank has. Every rank must call it."""
        model, stage_state = self.stage.model, self.stage.state()
        state = self._state_of(TrainState(), None)
        write_checkpoint(folder, model, self._optimizer, state, self.runtime.ranks, stage_state=stage_state)

    def restore(self, checkpoint: Checkpoint) -> TrainState:
        """Loads weights, optimizer, loss scale and the state of the stage from a checkpoint."""
        self._checkpoints.restore(checkpoint)
        self.stage.load_state(load_stage_state(checkpoint, self.runtime.ranks))
        if self._scaler.is_enabled() and (scaler := checkpoint.state.get("scaler")):
            self._scaler.load_state_dict(scaler)
        self._seconds = checkpoint.number("seconds")
        return TrainState(
            checkpoint.step, *(int(checkpoint.number(name)) for name in ("tokens_seen", "skipped_in_row"))
        )

    def _state_of(self, state: TrainState, score: float | None) -> dict[str, Any]:
        """The contents of a checkpoint's state.json."""
        return {
            "step": state.step,
            "tokens_seen": state.tokens_seen,
            "skipped_in_row": state.skipped_in_row,
            "seconds": self._seconds,
            "best": asdict(self.stage.best),
            "score": score,
            "scaler": self._scaler.state_dict(),
        }

    def run(self, state: TrainState) -> None:
        """Trains from `state` to the end, and writes the final figures. Raises Interrupted after a signal to stop."""
        training, ranks, stage = self.config.training, self.runtime.ranks, self.stage
        self._log = RunLog(self.folder, writes=ranks.first)
        try:
            self._checkpoints.look()
            self._loss = ranks.on_first(lambda: next(iter(self._log.train_losses(1)), math.inf))
            info = RunInfo(self.folder, self.config, self.n_parameters, (self._describe(), stage.describe()))
            ranks.on_first(lambda: self.listener.started(info, state))  # a tracker may take long to reach its server
            self._clock = time.perf_counter()
            if self._pace is not None:
                self._pace.start()
            memory = out_of_memory_advice(self.config, self.runtime, self.folder)
            interruption = Interrupt(self._announce_stop)
            with memory, self.runtime.compiling(), self._open_batches() as batches, interruption as interrupt:
                if state.step == 0:
                    self._run_due(state)
                state = fit(
                    self._parallel,
                    self._optimizer,
                    batches=batches,
                    lr_at=lambda step: learning_rate(step, self.config.optimizer.lr, self.config.schedule),
                    runtime=self.runtime,
                    scaler=self._scaler,
                    max_steps=lambda: self.config.training.max_steps,
                    grad_clip=training.grad_clip,
                    seed=training.seed if draws_dropout(self.config.model) else None,
                    expected_weight=training.batch_tokens / ranks.world_size,
                    state=state,
                    on_step=self._after_step,
                    should_stop=self._has_overfitted,
                    interrupted=lambda: interrupt.signal is not None,
                )
                self._save_once(state)
                if signal := ranks.largest(interrupt.signal or 0):
                    raise Interrupted(signal, self.folder, state.step)
                self._finish(state)
                if training.overfit_batch:
                    self.listener.note(overfit_verdict(self._loss, state.step))
        finally:
            self.listener.stopped()
            self._log.close()

    def _open_batches(self) -> contextlib.AbstractContextManager[Batches]:
        """The batches of each step. For a GPU they are prepared one step ahead where the stage allows it.

        On a CPU a thread would take from the step what it gives to the batches.
        """
        if self.runtime.device.type == "cuda" and self.stage.batches_ahead and not self.config.training.overfit_batch:
            return Prefetched(self.stage.batches)
        return contextlib.nullcontext(self._batches)

    def _batches(self, step: int) -> Sequence[MicroBatch]:
        with self.runtime.eagerly():
            return self.stage.batches(0 if self.config.training.overfit_batch else step)

    def _describe(self) -> str:
        """Model, device, optimizer and schedule in one line."""
        config, schedule = self.config, self.config.schedule
        optimizer = "fused AdamW" if self._optimizer.defaults.get("fused") else "AdamW"
        if self.config.optimizer.name == "muon":
            optimizer = f"Muon and {optimizer}"
        length = "" if schedule.name == "constant" else f" over {schedule.end:,} steps"
        return (
            f"{config.architecture}: {self.n_parameters:,} parameters, {config.describe_batch()} per step,"
            f" {self.flops_per_token / 1e6:,.1f} MFLOPs per token; {self.runtime.describe()}; {optimizer},"
            f" {schedule.name} schedule{length}"
        )

    def _announce_stop(self) -> None:
        self.listener.note("finishing this step, then saving; Ctrl-C again stops at once")

    def _has_overfitted(self) -> bool:
        return self.config.training.overfit_batch and self._loss < OVERFIT_LOSS

    def _after_step(self, state: TrainState, result: StepResult) -> None:
        self._loss = result.loss
        mfu = None
        if peak := self.runtime.peak_flops:
            mfu = self.flops_per_token * result.tokens / result.seconds / (peak * self.runtime.ranks.world_size)
        line = step_line(state, result, self._elapsed(), mfu)
        self._log.add(line)
        self.listener.stepped(state, line)
        if self._pace is not None and self._pace.is_due(state.step, self.config.training.max_steps):
            self._keep_pace(self._pace, state.step)
        self._run_due(state)

    def _keep_pace(self, pace: Pace, step: int) -> None:
        """Makes the rest of the run shorter or longer if it would not end in time, and records that in config.toml."""
        planned = self.config.training.max_steps
        steps = self.runtime.ranks.on_first(lambda: pace.look(step, planned))
        pace.looked(step)
        if steps == planned:
            return
        schedule = replace(self.config.schedule, replanned=(*self.config.schedule.replanned, (step, steps)))
        training = replace(self.config.training, max_steps=steps)
        self.config = replace(self.config, schedule=schedule, training=training)
        if self.runtime.ranks.first:
            write_text(self.folder / "config.toml", dump_config(self.config))
        self.listener.replanned(step, steps)

    def _run_due(self, state: TrainState) -> None:
        """Runs what is due after this step: validation, suites, a sample, a checkpoint, in that order."""
        training, evaluation, step = self.config.training, self.config.evaluation, state.step
        last = step == training.max_steps
        score = None
        validation_due = _due(step, self.config.validation_interval)
        if validation_due or (last and not training.overfit_batch):
            score = self._validate(step, record=validation_due)[self.stage.best.figure]
            score = score if math.isfinite(score) else None  # a diverged model is never the best
        if _due(step, self.config.suite_interval):
            self._run_suites(step)
        if _due(step, evaluation.sample_every):
            self._sample(step)
        best = self._checkpoints.best
        improved = score is not None and self.stage.best.improves(score, on=best.score if best else None)
        resumable = last or _due(step, self.config.checkpoint.every)
        # The best keeps its weights only: with the optimizer's state a checkpoint is three times as large.
        if step > 0 and (resumable or improved or step in self._checkpoints.snapshots):
            self._save(state, score, resumable=resumable)
        elif score is not None and (saved := self._checkpoints.find(step)):  # step 0 was saved with the folder
            self._checkpoints.record_score(saved, score)

    def _save_once(self, state: TrainState) -> None:
        """Saves the last step if no checkpoint was due, so that no work is lost."""
        saved = self._checkpoints.find(state.step)
        if not self._checkpoints.is_resumable(state.step):
            self._save(state, saved.score if saved else None, resumable=True)

    def _save(self, state: TrainState, score: float | None, *, resumable: bool) -> None:
        self._log.sync()
        self._elapsed()
        self._checkpoints.save(self._state_of(state, score), resumable=resumable, stage_state=self.stage.state())

    def _measure(self, whole: bool) -> tuple[Mapping[str, float], float]:
        """The figures of a validation and the seconds it took."""
        started = time.perf_counter()
        with self.runtime.eagerly():
            figures = self.stage.validate(whole)
        seconds = time.perf_counter() - started
        self._validating += seconds
        return figures, seconds

    def _validate(self, step: int, *, record: bool) -> Mapping[str, float]:
        figures, seconds = self._measure(whole=False)
        if record:
            self._log.add({"step": step, **figures, "val/seconds": seconds})
            self.listener.evaluated(step, figures, seconds, False)
        return figures

    def _run_at_end(self, step: int) -> None:
        """Runs the suites and writes a sample if they were not due after the last step.

        Their lines are marked, because a run that is continued removes them: it equals one that never ended here.
        """
        evaluation = self.config.evaluation
        if not _due(step, self.config.suite_interval):
            self._run_suites(step, at_end=True)
        if evaluation.sample_every > 0 and not _due(step, evaluation.sample_every):
            self._sample(step, at_end=True)

    def _run_suites(self, step: int, **mark: bool) -> None:
        for name, suite in self._suites.items():
            assert isinstance(self.stage.model, Model)  # the stages of other kinds of models refuse suites
            started = time.perf_counter()
            with self.runtime.eagerly():
                accuracies = suite.evaluate(self.stage.model, self.runtime)
            seconds = time.perf_counter() - started
            self._validating += seconds
            figures = accuracies.figures()
            self._log.add({"step": step, **{f"{name}/{figure}": value for figure, value in figures.items()}, **mark})
            self.listener.measured(step, name, figures, seconds)

    def _sample(self, step: int, **mark: bool) -> None:
        try:
            with self.runtime.eagerly():
                sample = self.stage.sample(step)
        except UserError as error:  # weights that have diverged: the loop decides whether to stop
            self.listener.note(f"step {step}: no sample, {error}")
            return
        if sample is not None:
            line = {"step": step, "prompt": sample.prompt, "text": sample.text, **mark}
            if sample.pieces:  # recorded now, because a report has no model to measure them with
                line |= {"pieces": [{"text": text, "loss": loss} for text, loss in sample.pieces]}
            self._log.add(line, file="samples.jsonl")
            self.listener.sampled(step, sample.prompt, sample.text)

    def _finish(self, state: TrainState) -> None:
        """Writes the final figures: on all held-out data, for the last weights and for the best."""
        best, name = self.stage.best, self.stage.best.figure
        self._run_at_end(state.step)  # before the best weights replace the last
        figures, seconds = self._measure(whole=True)
        best_step, best_score = state.step, figures[name]
        candidate = self._checkpoints.best
        if candidate is not None and candidate.step != state.step:
            self._checkpoints.load_weights(candidate)  # the loop is over: the last weights are no longer needed
            other, _ = self._measure(whole=True)
            if best.improves(other[name], on=best_score):
                best_step, best_score = candidate.step, other[name]
        # The loss of one repeated batch has no noise to average out.
        losses = self._log.train_losses(1 if self.config.training.overfit_batch else None)
        last = final_line(state, losses, figures, {"step": best_step, name: best_score}, self._elapsed())
        self._log.add(last | {"validation_seconds": self._validating})
        self.listener.evaluated(state.step, figures, seconds, True)

    def _elapsed(self) -> float:
        now = time.perf_counter()
        self._seconds += now - self._clock
        self._clock = now
        return self._seconds


def overfit_verdict(loss: float, steps: int) -> str:
    """The result of `--overfit-batch` as one line."""
    if loss < OVERFIT_LOSS:
        return f"one batch overfitted: loss {loss:.4f} after {steps} steps; the model and the loop can learn"
    return (
        f"one batch not overfitted: loss {loss:.4f} after {steps} steps, expected below {OVERFIT_LOSS};"
        " try another optimizer.lr or more steps, else look for a bug"
    )


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0
