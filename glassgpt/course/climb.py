"""Trains the ten sections of the ladder on the same tokens in the same order, so that only the model differs.

A section is trained once per seed, which sets its initial weights and the data order. Its result is the loss on the
validation split, averaged over the seeds. A training of fewer tokens than the split has is validated on as many tokens.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from glassgpt.config import check_field_types, strict_arguments
from glassgpt.costs.flops import count_parameters
from glassgpt.course.ladder_run import save_ladder_run
from glassgpt.data.dataset import Dataset
from glassgpt.data.dataset_cache import DataConfig, build_dataset
from glassgpt.data.loader import Loader
from glassgpt.errors import UserError, check_least
from glassgpt.evaluation.validation import bytes_per_token, evaluate
from glassgpt.generation import TEMPERATURE
from glassgpt.generation.sampling import SamplingConfig
from glassgpt.generation.text import start_of_text, write
from glassgpt.models import Model
from glassgpt.models.ladder import SECTIONS, LadderConfig, Section
from glassgpt.runs.config import EvaluationConfig, RunConfig, RunKindConfig, TrainingConfig
from glassgpt.runs.folder import check_free, named_folder
from glassgpt.runtime.device import MachineConfig, Runtime, build_runtime
from glassgpt.tokenizers import TokenizerConfig
from glassgpt.training.checkpoint_manager import CheckpointConfig
from glassgpt.training.fit import StepResult, TrainState, fit
from glassgpt.training.losses import Batch, next_token_loss
from glassgpt.training.metrics import Line, final_line, step_line, train_losses
from glassgpt.training.optimizers import OptimizerConfig, build_optimizer
from glassgpt.training.schedules import ScheduleConfig

LAYERS = {"blocks": 3, "residual": 3, "layernorm": 3, "decoder": 6}  # earlier sections have at most one block
# The idea of the last section is size. Factors of block_size and n_embd, and of batch_rows, so that a step stays short.
WINDOWS, WIDTHS, ROWS = {"decoder": 8}, {"decoder": 4}, {"decoder": 0.5}
RATES = {"bigram": 10.0}  # factor of lr: a row of the table changes only in steps whose text has its character
CURVE_POINTS = 20  # validations during training, for the picture, of a long training
CURVE_STEPS = 50  # the fewest steps between two of them: a validation costs as much as a few steps
CURVE_TOKENS = 10_000  # validation tokens at each of them
SAMPLE_TOKENS = 80
FULL = {"steps": 5000, "seeds": 3}  # of `glassgpt ladder --full`


@dataclass(frozen=True)
class LadderTraining:
    """Settings that all sections share, but for the size of the last one and the learning rate of the first one.

    By default those of the lecture that the ladder follows (Karpathy 2023, "Let's build GPT"): a short window and few
    channels, so that a section takes seconds. Raises UserError for a setting of the wrong type or out of range.
    """

    steps: int = 1500
    seeds: int = 2
    batch_rows: int = 32
    block_size: int = 8
    n_head: int = 4
    n_embd: int = 32
    dropout: float = 0.0
    lr: float = 1e-3
    grad_clip: float = 1.0

    def __post_init__(self) -> None:
        check_field_types(self)
        for field in ("steps", "seeds"):
            if getattr(self, field) < 1:
                raise UserError(f"--{field} {getattr(self, field)} is out of range: it must be at least 1")
        check_least("LadderTraining", self, {"batch_rows": 1, "lr": 0.0, "grad_clip": 0.0})

    def sizes(self, section: Section, vocab_size: int) -> LadderConfig:
        """The model config of a section. Only the depth differs, and window and width of the last section."""
        return LadderConfig(
            vocab_size=vocab_size,
            block_size=self.block_size * WINDOWS.get(section.name, 1),
            n_layer=LAYERS.get(section.name, 1),
            n_head=self.n_head,
            n_embd=self.n_embd * WIDTHS.get(section.name, 1),
            dropout=self.dropout,
        )

    @property
    def curve_every(self) -> int:
        """Steps between two validations during training."""
        return max(CURVE_STEPS, math.ceil(self.steps / CURVE_POINTS))

    def rows(self, section: Section) -> int:
        """The rows of a batch."""
        return max(1, int(self.batch_rows * ROWS.get(section.name, 1)))

    def batch_tokens(self, section: Section) -> int:
        """The tokens of a batch."""
        return self.rows(section) * self.block_size * WINDOWS.get(section.name, 1)

    def final_tokens(self, section: Section) -> int:
        """Validation tokens at the end, at most: as many as are trained on, so that a short training stays short."""
        return max(CURVE_TOKENS, self.steps * self.batch_tokens(section))

    def rate(self, section: Section) -> float:
        """The learning rate of a section, the same at every step."""
        return self.lr * RATES.get(section.name, 1.0)

    def run_config(self, section: Section, dataset: Dataset, seed: int) -> RunConfig:
        """The configuration of a run that trains the section in the same way."""
        return RunConfig(
            run=RunKindConfig("pretrain"),
            architecture=section.name,
            model=self.sizes(section, dataset.tokenizer.vocab_size),
            data=DataConfig(dataset.manifest.source, dataset.manifest.val_fraction),
            tokenizer=TokenizerConfig(dataset.tokenizer.name),
            optimizer=OptimizerConfig(lr=self.rate(section)),
            schedule=ScheduleConfig("constant", warmup_steps=0, decay_steps=self.steps),
            training=TrainingConfig(
                max_steps=self.steps,
                batch_tokens=self.batch_tokens(section),
                grad_clip=self.grad_clip,
                seed=seed,
            ),
            machine=MachineConfig(dtype="float32"),
            evaluation=EvaluationConfig(every=self.curve_every, tokens=CURVE_TOKENS, sample_every=0),
            checkpoint=CheckpointConfig(every=0, snapshots=0),
        )


@dataclass(frozen=True)
class Climb:
    """One section trained with one seed: the final loss on the validation split, and losses on a part of it before."""

    seed: int
    val_loss: float
    steps: list[int]
    losses: list[float]


@dataclass(frozen=True)
class SectionRow:
    """A section's row of the table. `seconds` is the total of all its seeds, including validation."""

    section: Section
    sizes: LadderConfig
    n_params: int
    climbs: list[Climb]
    seconds: float
    sample: str  # text generated with the first seed

    @property
    def val_loss(self) -> float:
        """The mean over the seeds, in nats per token."""
        return statistics.fmean(climb.val_loss for climb in self.climbs)

    @property
    def spread(self) -> float:
        """Half of the range of the losses over the seeds; 0 for a single seed."""
        losses = [climb.val_loss for climb in self.climbs]
        return (max(losses) - min(losses)) / 2

    @property
    def losses(self) -> list[float]:
        """The losses during training and at the end, averaged over the seeds."""
        return [statistics.fmean(column) for column in zip(*(climb.losses for climb in self.climbs), strict=True)]

    def to_dict(self) -> dict[str, Any]:
        """The row as `--json` prints it."""
        return {
            "section": self.section.number,
            "name": self.section.name,
            "idea": self.section.idea,
            "sizes": asdict(self.sizes),
            "n_params": self.n_params,
            "val_loss": self.val_loss,
            "spread": self.spread,
            "val_losses": [climb.val_loss for climb in self.climbs],
            "seconds": self.seconds,
            "sample": self.sample,
        }


class LadderListener:
    """Receives the events of the ladder training. By default, every method does nothing."""

    def stepped(self, section: Section, seed: int, step: int, val_loss: float) -> None:
        """`section` has `val_loss` after `step` steps. Called every `curve_every` steps, and at the end."""

    def reached(self, row: SectionRow) -> None:
        """A section has been trained with all its seeds."""


def find_sections(number: int | None) -> Sequence[Section]:
    """All sections, or the one of this number. Raises UserError where there is none."""
    if number is None:
        return SECTIONS
    if not 1 <= number <= len(SECTIONS):
        raise UserError(f"there is no section {number}: the ladder has sections 1 to {len(SECTIONS)}")
    return SECTIONS[number - 1 : number]


def climb_ladder(
    dataset: Dataset,
    sections: Sequence[Section],
    training: LadderTraining,
    runtime: Runtime,
    listener: LadderListener,
    *,
    runs: Path | None = None,
    overwrite: bool = False,
) -> list[SectionRow]:
    """Trains the sections one after the other, each with all its seeds. Each training becomes a run in folder `runs`.

    Raises UserError, before anything is trained, if one of these runs exists and `overwrite` is false.
    """
    folders = {
        (section.name, seed): None if runs is None else runs / run_name(section, seed)
        for section in sections
        for seed in range(training.seeds)
    }
    for folder in filter(None, folders.values()):
        check_free(folder, overwrite)
    rows = []
    for section in sections:
        started = time.perf_counter()
        climbed = [
            _climb(section, seed, dataset, training, runtime, listener, folders[section.name, seed])
            for seed in range(training.seeds)
        ]
        first_model = climbed[0][0]
        row = SectionRow(
            section,
            training.sizes(section, dataset.tokenizer.vocab_size),
            count_parameters(first_model),
            [result for _, result in climbed],
            time.perf_counter() - started,
            " ".join(write_sample(first_model, dataset).split()),
        )
        rows.append(row)
        listener.reached(row)
    return rows


def run_name(section: Section, seed: int) -> str:
    """The name of a training's run: s04-head for the first seed, then s04-head-seed1."""
    return f"s{section.number:02}-{section.name}" + (f"-seed{seed}" if seed else "")


@strict_arguments
def climb(
    section: int | Section,
    seed: int = 0,
    dataset: Dataset | None = None,
    training: LadderTraining | None = None,
    runtime: Runtime | None = None,
    listener: LadderListener | None = None,
    *,
    run: str | Path | None = None,
    overwrite: bool = False,
) -> tuple[Model, Climb]:
    """Trains one section of the ladder with one seed, as `glassgpt ladder` does. Returns the model and its losses.

        model, result = gg.climb(4)  # a single attention head; result.val_loss in nats per token

    `section` is a number from 1 to 10. By default, the text is Tiny Shakespeare (or the Python manual, without a
    network) by characters, and the training that of `LadderTraining()`: 1,500 steps. With `run`, a name under runs/ or
    a path, the training becomes a run that `glassgpt.load` opens; `overwrite` replaces an existing one.
    Raises UserError for an argument of the wrong type, for a section that does not exist, and for a run that does.
    """
    if not 0 <= seed < 2**32:
        raise UserError(f"seed {seed} is out of range: it must be at least 0 and below 2^32")
    if isinstance(section, int):
        (section,) = find_sections(section)
    training, listener = training or LadderTraining(), listener or LadderListener()
    folder = None if run is None else named_folder(run)
    if folder is not None:
        check_free(folder, overwrite)
    dataset = dataset or build_dataset(DataConfig(), TokenizerConfig("char"))
    runtime = runtime or build_runtime("auto", "float32")
    return _climb(section, seed, dataset, training, runtime, listener, folder)


def _climb(
    section: Section,
    seed: int,
    dataset: Dataset,
    training: LadderTraining,
    runtime: Runtime,
    listener: LadderListener,
    folder: Path | None,
) -> tuple[Model, Climb]:
    started = time.perf_counter()
    torch.manual_seed(seed)
    model = section.model(training.sizes(section, dataset.tokenizer.vocab_size)).to(runtime.device)
    optimizer = build_optimizer(model, OptimizerConfig())
    lines: list[Line] = []  # as in a run's metrics.jsonl
    loader = Loader(dataset.train, model.config.block_size, training.rows(section), seed)
    token_bytes = bytes_per_token(dataset.tokenizer)
    steps: list[int] = []
    losses: list[float] = []

    def record_loss(step: int) -> None:
        evaluation = evaluate(model, dataset.val, token_bytes, runtime, max_tokens=CURVE_TOKENS)
        steps.append(step)
        losses.append(evaluation.loss)
        lines.append({"step": step, **evaluation.figures()})
        listener.stepped(section, seed, step, evaluation.loss)

    def after_step(state: TrainState, result: StepResult) -> None:
        lines.append(step_line(state, result, time.perf_counter() - started))
        if state.step % training.curve_every == 0 or state.step == training.steps:
            record_loss(state.step)

    def batches(step: int) -> list[Batch]:
        inputs, targets = loader.rows(step)
        return [Batch(inputs.to(runtime.device), targets.to(runtime.device))]

    record_loss(0)
    state = fit(
        runtime.wrap(model, next_token_loss),
        optimizer,
        batches=batches,
        lr_at=lambda _: training.rate(section),
        runtime=runtime,
        scaler=runtime.build_scaler(),
        max_steps=training.steps,
        grad_clip=training.grad_clip,
        seed=seed,
        expected_weight=training.batch_tokens(section),
        state=TrainState(),
        on_step=after_step,
    )
    evaluation = evaluate(model, dataset.val, token_bytes, runtime, max_tokens=training.final_tokens(section))
    if folder is not None:
        figures, best = evaluation.figures(), {"step": state.step, "val/loss": evaluation.loss}
        lines.append(final_line(state, train_losses(lines), figures, best, time.perf_counter() - started))
        config, sample = training.run_config(section, dataset, seed), write_sample(model, dataset)
        save_ladder_run(folder, config, model, optimizer, state, dataset, runtime, lines, sample)
    return model, Climb(seed, evaluation.loss, steps, losses)


def write_sample(model: Model, dataset: Dataset) -> str:
    """Generates text from an empty prompt."""
    tokenizer = dataset.tokenizer
    sampling, generator = SamplingConfig(TEMPERATURE), torch.Generator().manual_seed(1)
    return "".join(write(model, tokenizer, start_of_text(tokenizer), sampling, SAMPLE_TOKENS, generator))
