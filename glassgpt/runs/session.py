"""One training session of a run: what happens between the steps (figures, validation, samples, checkpoints)."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from glassgpt.costs.flops import count_parameters, estimate_flops_per_token
from glassgpt.data.dataset import Dataset
from glassgpt.data.loader import Loader
from glassgpt.errors import UserError
from glassgpt.evaluation.validation import Evaluation
from glassgpt.models import build_model
from glassgpt.runs.config import RunConfig, document_eot_id
from glassgpt.runs.listener import Listener, RunInfo
from glassgpt.runs.micro_batch import out_of_memory_advice
from glassgpt.runs.observing import Observer
from glassgpt.runtime.device import Runtime
from glassgpt.training.checkpoint import Checkpoint, save_checkpoint
from glassgpt.training.checkpoint_manager import CheckpointManager, snapshot_steps
from glassgpt.training.fit import StepResult, TrainState, fit
from glassgpt.training.interrupt import Interrupt
from glassgpt.training.losses import Batch, LossFunction, next_token_loss, sum_token_losses
from glassgpt.training.metrics import Line, RunLog
from glassgpt.training.optimizers import build_optimizer
from glassgpt.training.schedules import learning_rate

OVERFIT_LOSS = 0.02  # nats: low enough to say that the model has learned its one batch by heart
TRAIN_LOSS_STEPS = 50  # the last steps whose mean is a run's final training loss


class Interrupted(Exception):
    """SIGINT or SIGTERM came; the step was finished and saved."""

    def __init__(self, signal: int, folder: Path, step: int) -> None:
        super().__init__(f"stopped by a signal after step {step}: saved in {folder}, go on with --resume")
        self.signal, self.folder, self.step = signal, folder, step


class Session:
    """A model, its optimizer and its data, ready to train from any step of the run in `folder`."""

    def __init__(
        self,
        folder: Path,
        config: RunConfig,
        prepared: Dataset,
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
        self._build_model(weights)
        self.optimizer = build_optimizer(self.model, config.optimizer)
        self.scaler = runtime.build_scaler()
        self.checkpoints = CheckpointManager(
            folder / "checkpoints", self.model, self.optimizer, runtime.ranks,
            keep_last=config.training.keep_last,
            snapshots=snapshot_steps(config.training.max_steps, config.training.snapshots),
        )  # fmt: skip
        self.observer = Observer(self.model, config, prepared, runtime)
        self.seconds = 0.0  # spent in training so far, interruptions not counted
        self._clock = time.perf_counter()

    def _build_model(self, weights: Mapping[str, Tensor] | None) -> None:
        """`model` is the raw module, `parallel` what is called in training; every rank has the same weights."""
        torch.manual_seed(self.config.training.seed)
        try:
            self.model = build_model(self.config.architecture, self.config.model)
            if weights is not None:
                self.model.load_state_dict(weights)
            if self.config.training.init_from:  # the first rank alone has read them
                for tensor in self.model.state_dict().values():
                    self.runtime.ranks.broadcast(tensor)
            self.n_parameters = count_parameters(self.model)
            self.flops_per_token = estimate_flops_per_token(self.model)
            self.parallel = self.runtime.wrap(self.model, in_stages=self.config.training.loss_chunk > 0)
        except RuntimeError as error:  # torch has no class of its own for a CPU without room
            if "allocate" not in str(error) and not isinstance(error, torch.OutOfMemoryError):
                raise
            raise UserError(
                f"the model does not fit into the memory of {self.runtime.device}: lower model.n_embd, model.n_layer or"
                " model.vocab_size"
            ) from None

    def restore(self, checkpoint: Checkpoint) -> TrainState:
        """Takes weights, optimizer and loss scale from a checkpoint."""
        self.checkpoints.restore(checkpoint)
        state = checkpoint.state
        if self.scaler.is_enabled() and state.get("scaler"):
            self.scaler.load_state_dict(state["scaler"])
        self.seconds = float(state["seconds"])
        return TrainState(checkpoint.step, int(state["tokens_seen"]), int(state["skipped_in_row"]))

    def save_first(self, folder: Path) -> None:
        """Writes the step-0 checkpoint of a run that is being made in `folder`."""
        facts = self._facts(TrainState(), None)
        save_checkpoint(folder / "checkpoints", self.model, self.optimizer, facts, self.runtime.ranks)

    def _facts(self, state: TrainState, val_loss: float | None) -> dict[str, Any]:
        """What a checkpoint's state.json says."""
        return {
            "step": state.step,
            "tokens_seen": state.tokens_seen,
            "skipped_in_row": state.skipped_in_row,
            "seconds": self.seconds,
            "val_loss": val_loss,
            "scaler": self.scaler.state_dict(),
        }

    def run(self, state: TrainState) -> None:
        """Trains from `state` to the end, and writes the last figures. Raises Interrupted after SIGINT or SIGTERM."""
        training, ranks = self.config.training, self.runtime.ranks
        self.log = RunLog(self.folder, writes=ranks.first)
        try:
            self.checkpoints.look()
            self._loss = ranks.on_first(lambda: next(iter(self.log.train_losses(1)), math.inf))
            info = RunInfo(self.folder, self.config, self.n_parameters, self._describe())
            ranks.on_first(lambda: self.listener.started(info, state))  # a tracker may take long to reach its server
            self._clock = time.perf_counter()
            room = out_of_memory_advice(self.config, self.runtime)
            with room, Interrupt(self._announce_stop) as interrupt:
                if state.step == 0:
                    self._look(state)
                state = fit(
                    self.parallel,
                    self.optimizer,
                    batches=self.batches,
                    loss_function=self._loss_function(),
                    lr_at=lambda step: learning_rate(step, self.config.optimizer.lr, self.config.schedule),
                    runtime=self.runtime,
                    scaler=self.scaler,
                    max_steps=training.max_steps,
                    grad_clip=training.grad_clip,
                    seed=training.seed,
                    state=state,
                    on_step=self._after_step,
                    should_stop=self._learned_by_heart,
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
            self.log.close()

    def _describe(self) -> tuple[str, ...]:
        """What is about to be trained, on what, and how."""
        config, prepared = self.config, self.prepared
        optimizer = "fused AdamW" if self.optimizer.defaults.get("fused") else "AdamW"
        schedule = config.schedule
        length = "" if schedule.name == "constant" else f" over {schedule.decay_steps:,} steps"
        n_val = len(prepared.val)
        part = (
            "" if n_val <= config.training.eval_tokens else f", {config.training.eval_tokens:,} of them while training"
        )
        return (
            f"{config.architecture}: {self.n_parameters:,} parameters, {config.training.batch_tokens:,} tokens per"
            f" step, {self.flops_per_token / 1e6:,.1f} MFLOPs per token; {self.runtime.describe()}; {optimizer},"
            f" {schedule.name} schedule{length}",
            f"{prepared.tokenizer.name} tokenizer, {prepared.tokenizer.vocab_size:,} ids: {len(prepared.train):,}"
            f" tokens to train on, {n_val:,} to validate on{part}",
        )

    def _loss_function(self) -> LossFunction:
        return partial(
            next_token_loss,
            eot_id=document_eot_id(self.config, self.tokenizer),
            chunk=self.config.training.loss_chunk,
            sum_losses=self.runtime.compiled(sum_token_losses),
        )

    def batches(self, step: int) -> Sequence[Batch]:
        """This rank's micro-batches of a step, on the device: its rows are next to each other in the global batch."""
        first, last = self.runtime.ranks.rank_slice(self.config.batch_rows)
        micro = self.config.rows_of_pass(last - first)
        step = 0 if self.config.training.overfit_batch else step
        return [self._batch(step, start, min(start + micro, last)) for start in range(first, last, micro)]

    def _batch(self, step: int, start: int, stop: int) -> Batch:
        inputs, targets = self.loader.rows(step, start, stop)
        largest = int(max(inputs.max(), targets.max()))
        if largest >= self.tokenizer.vocab_size:
            raise UserError(
                f"token id {largest} in the training data is outside the tokenizer's vocabulary of"
                f" {self.tokenizer.vocab_size}: the shards in {self.prepared.folder} are damaged or of another"
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
        record: Line = {
            "step": state.step,
            "tokens_seen": state.tokens_seen,
            "train/loss": result.loss,
            "lr": result.lr,
            "grad_norm": result.grad_norm,
            "tokens_per_second": result.tokens / result.seconds,
        }
        if peak := self.runtime.peak_flops:
            record["mfu"] = (
                self.flops_per_token * result.tokens / result.seconds / (peak * self.runtime.ranks.world_size)
            )
        if result.skipped:
            record["skipped"] = result.skipped
        record["seconds"] = self._elapsed()
        self.log.add(record)
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
        improved = val_loss is not None and self.checkpoints.improves(val_loss)
        whole = last or improved or _due(step, training.checkpoint_every)
        if step > 0 and (whole or step in self.checkpoints.snapshots):
            self._save(state, val_loss, whole=whole)
        elif val_loss is not None and (
            saved := self.checkpoints.find(step)
        ):  # step 0 was saved when the folder was made
            self.checkpoints.record_val_loss(saved, val_loss)

    def _save_once(self, state: TrainState) -> None:
        """Saves a step at which nothing was due, so that no work is lost."""
        saved = self.checkpoints.find(state.step)
        if not self.checkpoints.is_resumable(state.step):
            self._save(state, saved.val_loss if saved else None, whole=True)

    def _save(self, state: TrainState, val_loss: float | None, *, whole: bool) -> None:
        self.log.sync()
        self._elapsed()
        self.checkpoints.save(self._facts(state, val_loss), whole=whole)

    def _evaluate(self, step: int, *, record: bool) -> float:
        evaluation, seconds = self.observer.validate(self.config.training.eval_tokens)
        if record:
            self.log.add({"step": step, **_val_figures(evaluation), "val/seconds": seconds})
            self.listener.evaluated(step, evaluation, seconds, False)
        return evaluation.loss

    def _run_suites(self, step: int) -> None:
        for name, figures, seconds in self.observer.run_suites():
            self.log.add({"step": step, **{f"{name}/{figure}": value for figure, value in figures.items()}})
            self.listener.measured(step, name, figures, seconds)

    def _sample(self, step: int) -> None:
        try:
            prompt, text = self.observer.sample(step)
        except UserError as error:  # weights that diverge are the loop's to judge
            self.listener.note(f"step {step}: no sample, {error}")
            return
        self.log.add({"step": step, "prompt": prompt, "text": text}, file="samples.jsonl")
        self.listener.sampled(step, prompt, text)

    def _finish(self, state: TrainState) -> None:
        """The last figures: the whole validation split, for the last weights and for the best."""
        evaluation, seconds = self.observer.validate(None)
        best_step, best_loss = state.step, evaluation.loss
        best = self.checkpoints.best
        if best is not None and best.step != state.step:
            self.checkpoints.load_weights(best)  # the loop is over: nothing needs the last weights any more
            other, _ = self.observer.validate(None)
            if other.loss < best_loss:
                best_step, best_loss = best.step, other.loss
        # One batch again and again has no noise to average away.
        losses = self.log.train_losses(1 if self.config.training.overfit_batch else TRAIN_LOSS_STEPS)
        self.log.add(
            {
                "step": state.step,
                "final": True,
                "tokens_seen": state.tokens_seen,
                "train/loss": sum(losses) / len(losses) if losses else None,
                **_val_figures(evaluation),
                "best/step": best_step,
                "best/val/loss": best_loss,
                "seconds": self._elapsed(),
                "validation_seconds": self.observer.seconds,
            }
        )
        self.listener.evaluated(state.step, evaluation, seconds, True)

    def _elapsed(self) -> float:
        now = time.perf_counter()
        self.seconds += now - self._clock
        self._clock = now
        return self.seconds


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


def _val_figures(evaluation: Evaluation) -> Line:
    return {
        "val/loss": evaluation.loss,
        "val/bits_per_byte": evaluation.bits_per_byte,
        "val/tokens": evaluation.tokens,
    }
