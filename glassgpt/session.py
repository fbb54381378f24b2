"""One training session of a run: what happens between the steps (figures, validation, samples, checkpoints)."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from glassgpt.data.loader import Loader
from glassgpt.data.prepared import Prepared
from glassgpt.errors import UserError
from glassgpt.evaluation.suites import open_suite
from glassgpt.evaluation.validation import Evaluation, bytes_per_token, evaluate
from glassgpt.generation.sampling import SamplingConfig
from glassgpt.models import build_model
from glassgpt.run import document_separator, start_of_text, write
from glassgpt.runconfig import RunConfig
from glassgpt.runtime import Runtime
from glassgpt.training.checkpoint import (
    Checkpoint,
    best_checkpoint,
    list_checkpoints,
    load_model_weights,
    load_optimizer_state,
    prune,
    record_val_loss,
    save_checkpoint,
)
from glassgpt.training.fit import StepResult, TrainState, fit
from glassgpt.training.flops import count_parameters, estimate_flops_per_token
from glassgpt.training.interrupt import Interrupt
from glassgpt.training.losses import Batch, next_token_loss
from glassgpt.training.optimizers import build_optimizer
from glassgpt.training.schedules import learning_rate
from glassgpt.training.tracking import JsonLines, Record, read_lines

OVERFIT_LOSS = 0.02  # nats: low enough to say that the model has learned its one batch by heart
TRAIN_LOSS_STEPS = 50  # the last steps whose mean is a run's final training loss


class Interrupted(Exception):
    """SIGINT or SIGTERM came; the step was finished and saved."""

    def __init__(self, signal: int, folder: Path, step: int) -> None:
        super().__init__(f"stopped by a signal after step {step}: saved in {folder}, go on with --resume")
        self.signal, self.folder, self.step = signal, folder, step


class Listener:
    """What wants to hear how training goes. Every method may be left as it is: silence."""

    def note(self, line: str) -> None:
        """One line that the user should know: a choice made, a fallback."""

    def started(self, session: Session, state: TrainState) -> None:
        """The loop is about to begin, or to go on, at `state`."""

    def stepped(self, state: TrainState, record: Record) -> None:
        """A step is done; `record` is its line of metrics.jsonl."""

    def evaluated(self, step: int, evaluation: Evaluation, final: bool) -> None:
        """The loss on held-out tokens after `step` steps; `final` is over the whole split."""

    def measured(self, step: int, suite: str, figures: Mapping[str, float]) -> None:
        """What a suite of `training.eval_suites` found after `step` steps."""

    def sampled(self, step: int, prompt: str, text: str) -> None:
        """What the model writes after `step` steps."""

    def stopped(self) -> None:
        """The loop is over, finished or not."""


class Session:
    """A model, its optimizer and its data, ready to train from any step of the run in `folder`."""

    def __init__(
        self,
        folder: Path,
        config: RunConfig,
        prepared: Prepared,
        runtime: Runtime,
        listener: Listener,
        weights: Mapping[str, Tensor] | None = None,
    ) -> None:
        """`weights`, a state dict, are the first ones; without them they are drawn by the seed."""
        self.folder, self.config, self.prepared = folder, config, prepared
        self.runtime, self.listener = runtime, listener
        self.tokenizer = prepared.tokenizer
        if len(prepared.val) < 2:
            raise UserError(
                f"the validation split has {len(prepared.val)} token(s): give a longer text,"
                " or a larger data.val_fraction"
            )
        self.loader = Loader(prepared.train, config.model.block_size, config.batch_rows, config.training.seed)
        torch.manual_seed(config.training.seed)
        self.model = self._build_model(weights)
        self.optimizer = build_optimizer(self.model, config.optimizer)
        self.scaler = runtime.build_scaler()
        self.n_parameters = count_parameters(self.model)
        self.flops_per_token = estimate_flops_per_token(
            self.model, n_embd=config.model.n_embd, block_size=config.model.block_size
        )
        self.snapshots = snapshot_steps(config.training.max_steps, config.training.snapshots)
        self.token_bytes = bytes_per_token(self.tokenizer)
        self.separator = document_separator(config, self.tokenizer)
        self.suites = {
            name: open_suite(
                name, self.tokenizer, file=config.training.eval_suite_file or None,
                limit=config.training.eval_suite_limit or None,
            )
            for name in config.training.eval_suites
        }  # fmt: skip
        self.seconds = 0.0  # spent in training so far, interruptions not counted
        self.validation_seconds = 0.0
        self._clock = time.perf_counter()

    def _build_model(self, weights: Mapping[str, Tensor] | None) -> nn.Module:
        try:
            model = build_model(self.config.architecture, self.config.model)
            if weights is not None:
                model.load_state_dict(weights)
            return model.to(self.runtime.device)
        except RuntimeError as error:  # torch has no class of its own for a CPU without room
            if "allocate" not in str(error) and not isinstance(error, torch.OutOfMemoryError):
                raise
            raise UserError(
                f"the model does not fit into the memory of {self.runtime.device}: lower model.n_embd, model.n_layer or"
                " model.vocab_size"
            ) from None

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    def restore(self, checkpoint: Checkpoint) -> TrainState:
        """Takes weights, optimizer and loss scale from a checkpoint."""
        load_model_weights(checkpoint, self.model)
        load_optimizer_state(checkpoint, self.model, self.optimizer)
        state = checkpoint.state
        if self.scaler.is_enabled() and state.get("scaler"):
            self.scaler.load_state_dict(state["scaler"])
        self.seconds = float(state["seconds"])
        return TrainState(checkpoint.step, int(state["tokens_seen"]), int(state["skipped_in_row"]))

    def save(
        self, state: TrainState, *, folder: Path | None = None, val_loss: float | None = None, whole: bool = True
    ) -> None:
        """Writes the checkpoint of this step, with the optimizer where it is `whole`."""
        facts: dict[str, Any] = {
            "step": state.step,
            "tokens_seen": state.tokens_seen,
            "skipped_in_row": state.skipped_in_row,
            "seconds": self.seconds,
            "val_loss": val_loss,
            "scaler": self.scaler.state_dict(),
        }
        save_checkpoint(folder or self.checkpoints, self.model, self.optimizer if whole else None, facts)

    def run(self, state: TrainState) -> None:
        """Trains from `state` to the end, and writes the last figures. Raises Interrupted after SIGINT or SIGTERM."""
        training = self.config.training
        self._metrics = JsonLines(self.folder / "metrics.jsonl")
        self._samples = JsonLines(self.folder / "samples.jsonl")
        self._clock = time.perf_counter()
        self._loss = float("inf")
        self.listener.started(self, state)
        try:
            with Interrupt(self._announce_stop) as interrupt:
                if state.step == 0:
                    self._look(state)
                state = fit(
                    self.model,
                    self.optimizer,
                    batches=self.batches,
                    loss_function=partial(next_token_loss, n_ids=len(self.token_bytes), separator=self.separator),
                    lr_at=lambda step: learning_rate(step, self.config.optimizer.lr, self.config.schedule),
                    runtime=self.runtime,
                    scaler=self.scaler,
                    max_steps=training.max_steps,
                    grad_clip=training.grad_clip,
                    seed=training.seed,
                    state=state,
                    on_step=self._after_step,
                    should_stop=lambda: interrupt.signal is not None or self._learned_by_heart(),
                )
                if interrupt.signal is not None:
                    self._save_once(state)
                    raise Interrupted(interrupt.signal, self.folder, state.step)
                self._save_once(state)
                self._finish(state)
                if self.config.training.overfit_batch:
                    self.listener.note(overfit_verdict(self._loss, state.step))
        finally:
            self.listener.stopped()
            self._metrics.close()
            self._samples.close()

    def batches(self, step: int) -> Sequence[Batch]:
        """The micro-batches of a step, on the device."""
        rows = self.config.batch_rows
        micro = self.config.training.micro_batch or rows
        step = 0 if self.config.training.overfit_batch else step
        return [self._batch(step, start, min(start + micro, rows)) for start in range(0, rows, micro)]

    def _batch(self, step: int, start: int, stop: int) -> Batch:
        inputs, targets = self.loader.rows(step, start, stop)
        largest = int(max(inputs.max(), targets.max()))
        if largest >= len(self.token_bytes):
            raise UserError(
                f"token id {largest} in the training data is outside the tokenizer's vocabulary of"
                f" {len(self.token_bytes)}: the shards in {self.prepared.folder} are damaged or of another"
                " tokenizer; see glassgpt data verify"
            )
        device = self.runtime.device
        return Batch(inputs.to(device, non_blocking=True), targets.to(device, non_blocking=True))

    def _announce_stop(self) -> None:
        self.listener.note("finishing this step, then saving; Ctrl-C again stops at once")

    def _learned_by_heart(self) -> bool:
        return self.config.training.overfit_batch and self._loss < OVERFIT_LOSS

    def _after_step(self, state: TrainState, result: StepResult) -> None:
        self._loss = result.loss
        record: Record = {
            "step": state.step,
            "tokens_seen": state.tokens_seen,
            "train/loss": result.loss,
            "lr": result.lr,
            "grad_norm": result.grad_norm,
            "tokens_per_second": result.tokens / result.seconds,
        }
        if peak := self.runtime.peak_flops:
            record["mfu"] = self.flops_per_token * result.tokens / result.seconds / (peak * self.runtime.world_size)
        if result.skipped:
            record["skipped"] = result.skipped
        record["seconds"] = self._elapsed()
        self._metrics.append(record)
        self.listener.stepped(state, record)
        self._look(state)

    def _look(self, state: TrainState) -> None:
        """What is due after this step: validation, a sample, a checkpoint, in that order."""
        training, step = self.config.training, state.step
        last = step == training.max_steps
        val_loss = None
        if _due(step, training.eval_every) or (last and not training.overfit_batch):
            val_loss = self._evaluate(step, record=_due(step, training.eval_every))
            val_loss = val_loss if math.isfinite(val_loss) else None  # never the best
        if last or _due(step, training.eval_suite_every or training.eval_every):
            self._run_suites(step)
        if _due(step, training.sample_every):
            self._sample(step)
        improved = val_loss is not None and val_loss < self._best_val_loss()
        whole = last or improved or _due(step, training.checkpoint_every)
        if step == 0 and val_loss is not None:  # step 0 was saved when the folder was made
            record_val_loss(list_checkpoints(self.checkpoints)[0], val_loss)
        elif step > 0 and (whole or step in self.snapshots):
            self._save(state, val_loss, whole=whole)

    def _best_val_loss(self) -> float:
        best = best_checkpoint(list_checkpoints(self.checkpoints))
        return math.inf if best is None or best.val_loss is None else best.val_loss

    def _save_once(self, state: TrainState) -> None:
        """Saves a step at which nothing was due, so that no work is lost."""
        saved = next((c for c in list_checkpoints(self.checkpoints) if c.step == state.step), None)
        if saved is None or not saved.resumable:
            self._save(state, saved.val_loss if saved else None, whole=True)

    def _save(self, state: TrainState, val_loss: float | None, *, whole: bool) -> None:
        for file in (self._metrics, self._samples):
            file.sync()  # a checkpoint never knows more than the figures beside it
        self._elapsed()
        self.save(state, val_loss=val_loss, whole=whole)
        prune(self.checkpoints, keep_last=self.config.training.keep_last, snapshots=self.snapshots)

    def _evaluate(self, step: int, *, record: bool) -> float:
        evaluation, seconds = self._measure(self.config.training.eval_tokens)
        if record:
            self._metrics.append({"step": step, **_val_figures(evaluation), "val/seconds": seconds})
            self.listener.evaluated(step, evaluation, False)
        return evaluation.loss

    def _measure(self, max_tokens: int | None) -> tuple[Evaluation, float]:
        started = time.perf_counter()
        evaluation = evaluate(
            self.model,
            self.prepared.val,
            self.token_bytes,
            self.runtime,
            block_size=self.config.model.block_size,
            max_tokens=max_tokens,
            separator=self.separator,
        )
        seconds = time.perf_counter() - started
        self.validation_seconds += seconds
        return evaluation, seconds

    def _run_suites(self, step: int) -> None:
        started = time.perf_counter()
        for name, suite in self.suites.items():
            result = suite.evaluate(self.model, self.runtime, block_size=self.config.model.block_size)
            figures = result.figures()
            self._metrics.append({"step": step, **{f"{name}/{figure}": value for figure, value in figures.items()}})
            self.listener.measured(step, name, figures)
        self.validation_seconds += time.perf_counter() - started

    def _sample(self, step: int) -> None:
        """Writes a little, drawn by a generator of its own, so that looking never changes training."""
        generator = torch.Generator().manual_seed(self.config.training.seed + step)
        ids = start_of_text(self.tokenizer)
        pieces = write(
            self.model, self.tokenizer, ids, SamplingConfig(temperature=0.8, top_k=200),
            self.config.model.block_size, self.config.training.sample_tokens, generator,
        )  # fmt: skip
        try:
            prompt, text = self.tokenizer.decode(ids), "".join(pieces)
        except UserError as error:  # weights that diverge are the loop's to judge
            self.listener.note(f"step {step}: no sample, {error}")
            return
        self._samples.append({"step": step, "prompt": prompt, "text": text})
        self.listener.sampled(step, prompt, text)

    def _finish(self, state: TrainState) -> None:
        """The last figures: the whole validation split, for the last weights and for the best."""
        evaluation, _ = self._measure(None)
        best_step, best_loss = state.step, evaluation.loss
        best = best_checkpoint(list_checkpoints(self.checkpoints))
        if best is not None and best.step != state.step:
            load_model_weights(best, self.model)  # the loop is over: nothing needs the last weights any more
            other, _ = self._measure(None)
            if other.loss < best_loss:
                best_step, best_loss = best.step, other.loss
        steps = [line for line in read_lines(self._metrics.path) if "train/loss" in line and "skipped" not in line]
        # One batch again and again has no noise to average away.
        count = 1 if self.config.training.overfit_batch else TRAIN_LOSS_STEPS
        losses = [line["train/loss"] for line in steps[-count:]]
        self._metrics.append(
            {
                "step": state.step,
                "final": True,
                "tokens_seen": state.tokens_seen,
                "train/loss": sum(losses) / len(losses) if losses else None,
                **_val_figures(evaluation),
                "best/step": best_step,
                "best/val/loss": best_loss,
                "seconds": self._elapsed(),
                "validation_seconds": self.validation_seconds,
            }
        )
        self.listener.evaluated(state.step, evaluation, True)

    def _elapsed(self) -> float:
        now = time.perf_counter()
        self.seconds += now - self._clock
        self._clock = now
        return self.seconds


def snapshot_steps(max_steps: int, count: int) -> set[int]:
    """About `count` steps from 0 to `max_steps`, spaced evenly in the logarithm: most is learned early."""
    if count < 2:
        return {0} if count else set()
    return {0} | {round(max_steps ** (i / (count - 2))) if count > 2 else max_steps for i in range(count - 1)}


def overfit_verdict(loss: float, steps: int) -> str:
    """What `--overfit-batch` has found."""
    if loss < OVERFIT_LOSS:
        return f"one batch learned by heart: loss {loss:.4f} after {steps} steps; the model and the loop can learn"
    return (
        f"one batch not learned by heart: loss {loss:.4f} after {steps} steps, hoped for below {OVERFIT_LOSS};"
        " try another optimizer.lr or more steps, else look for a bug"
    )


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _val_figures(evaluation: Evaluation) -> Record:
    return {
        "val/loss": evaluation.loss,
        "val/bits_per_byte": evaluation.bits_per_byte,
        "val/tokens": evaluation.tokens,
    }
