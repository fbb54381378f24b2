"""Trains the ten sections of the ladder on the same tokens in the same order, so that only the model differs.

A section is trained once per seed, which sets its initial weights and the data order. Its result is the loss on the
whole validation split, averaged over the seeds.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from glassgpt.costs.flops import count_parameters
from glassgpt.data.dataset import Dataset
from glassgpt.data.loader import Loader
from glassgpt.errors import UserError
from glassgpt.evaluation.validation import bytes_per_token, evaluate
from glassgpt.files import dump_json, write_text
from glassgpt.generation.sampling import SamplingConfig
from glassgpt.generation.text import start_of_text, write
from glassgpt.models import Model
from glassgpt.models.ladder import SECTIONS, LadderConfig, Section
from glassgpt.ownership import check_output
from glassgpt.report.ladder_picture import LadderCurve, draw_ladder
from glassgpt.runs.folder import RUNS
from glassgpt.runtime.device import Runtime
from glassgpt.training.fit import StepResult, TrainState, fit
from glassgpt.training.losses import Batch, next_token_loss
from glassgpt.training.optimizers import OptimizerConfig, build_optimizer
from glassgpt.training.schedules import ScheduleConfig, learning_rate

LAYERS = {"blocks": 3, "residual": 3, "layernorm": 3, "decoder": 6}  # earlier sections have at most one block
WIDTHS = {"decoder": 2}  # factor of n_embd: the idea of the last section is size
CURVE_POINTS = 20  # validations during training, for the picture
CURVE_TOKENS = 10_000  # validation tokens at each of them; the whole split at the end
SAMPLE_TOKENS = 80
RESULTS, PICTURE = "ladder.json", "ladder.svg"


@dataclass(frozen=True)
class LadderTraining:
    """Settings that all sections share. Raises UserError for a number of steps or seeds below 1.

    `lr` is the peak at width `n_embd`. It shrinks in proportion for a wider section, because an output is a sum over
    the width, and Adam changes every term by a similar amount (Yang et al. 2022, "Tensor Programs V", table 8).
    """

    steps: int = 1000
    seeds: int = 2
    batch_rows: int = 16
    block_size: int = 64
    n_head: int = 4
    n_embd: int = 64
    dropout: float = 0.0
    lr: float = 1e-2
    warmup_steps: int = 100
    grad_clip: float = 1.0

    def __post_init__(self) -> None:
        for field in ("steps", "seeds"):
            if getattr(self, field) < 1:
                raise UserError(f"--{field} {getattr(self, field)} is out of range: it must be at least 1")

    def sizes(self, section: Section, vocab_size: int) -> LadderConfig:
        """The model config of a section. Only the depth differs, and the width of the last section."""
        return LadderConfig(
            vocab_size=vocab_size,
            block_size=self.block_size,
            n_layer=LAYERS.get(section.name, 1),
            n_head=self.n_head,
            n_embd=self.n_embd * WIDTHS.get(section.name, 1),
            dropout=self.dropout,
        )

    def lr_at(self, section: Section, step: int) -> float:
        """Warm-up, then a cosine to a tenth of the peak at the last step."""
        peak = self.lr / WIDTHS.get(section.name, 1)
        schedule = ScheduleConfig("cosine", min(self.warmup_steps, self.steps), self.steps, min_lr=peak / 10)
        return learning_rate(step, peak, schedule)


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
    def curve(self) -> LadderCurve:
        """The losses during training and at the end, averaged over the seeds."""
        steps = self.climbs[0].steps
        losses = [statistics.fmean(column) for column in zip(*(climb.losses for climb in self.climbs), strict=True)]
        return LadderCurve(self.section.number, self.section.name, steps, losses, self.val_loss)

    def to_dict(self) -> dict[str, Any]:
        """The row as `--json` prints it."""
        return {
            "section": self.section.number,
            "name": self.section.name,
            "idea": self.section.idea,
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
        """`section` has `val_loss` after `step` steps. Called about CURVE_POINTS times per training."""

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
) -> list[SectionRow]:
    """Trains the sections one after the other, each with all its seeds."""
    rows = []
    for section in sections:
        started = time.perf_counter()
        climbed = [climb(section, seed, dataset, training, runtime, listener) for seed in range(training.seeds)]
        first_model = climbed[0][0]
        row = SectionRow(
            section,
            count_parameters(first_model),
            [result for _, result in climbed],
            time.perf_counter() - started,
            write_line(first_model, dataset),
        )
        rows.append(row)
        listener.reached(row)
    return rows


def climb(
    section: Section,
    seed: int,
    dataset: Dataset,
    training: LadderTraining,
    runtime: Runtime,
    listener: LadderListener,
) -> tuple[Model, Climb]:
    """Trains one section with one seed."""
    torch.manual_seed(seed)
    model = section.model(training.sizes(section, dataset.tokenizer.vocab_size)).to(runtime.device)
    loader = Loader(dataset.train, training.block_size, training.batch_rows, seed)
    token_bytes = bytes_per_token(dataset.tokenizer)
    steps: list[int] = []
    losses: list[float] = []

    def validate(max_tokens: int | None) -> float:
        return evaluate(model, dataset.val, token_bytes, runtime, max_tokens=max_tokens).loss

    def record_loss(step: int) -> None:
        steps.append(step)
        losses.append(validate(CURVE_TOKENS))
        listener.stepped(section, seed, step, losses[-1])

    def after_step(state: TrainState, result: StepResult) -> None:
        if state.step % math.ceil(training.steps / CURVE_POINTS) == 0 or state.step == training.steps:
            record_loss(state.step)

    def batches(step: int) -> list[Batch]:
        inputs, targets = loader.rows(step)
        return [Batch(inputs.to(runtime.device), targets.to(runtime.device))]

    record_loss(0)
    fit(
        runtime.wrap(model, next_token_loss),
        build_optimizer(model, OptimizerConfig()),
        batches=batches,
        lr_at=lambda step: training.lr_at(section, step),
        runtime=runtime,
        scaler=runtime.build_scaler(),
        max_steps=training.steps,
        grad_clip=training.grad_clip,
        seed=seed,
        expected_weight=training.batch_rows * training.block_size,
        state=TrainState(),
        on_step=after_step,
    )
    return model, Climb(seed, validate(None), steps, losses)


def write_line(model: Model, dataset: Dataset) -> str:
    """Generates text from an empty prompt, with each run of whitespace replaced by one blank."""
    tokenizer = dataset.tokenizer
    sampling, generator = SamplingConfig(temperature=0.8), torch.Generator().manual_seed(1)
    pieces = write(model, tokenizer, start_of_text(tokenizer), sampling, SAMPLE_TOKENS, generator)
    return " ".join("".join(pieces).split())


def new_results_folder(out: Path | None, overwrite: bool = False) -> Path:
    """The folder for results: `out`, else the next free runs/ladder-N.

    Raises UserError if `out` has files of the same names that may not be replaced.
    """
    if out is None:
        candidates = [RUNS / "ladder", *(RUNS / f"ladder-{number}" for number in range(2, 10_000))]
        return next(path for path in candidates if not path.exists())
    for name in (RESULTS, PICTURE):
        check_output(out / name, overwrite)
    return out


def save_results(folder: Path, rows: Sequence[SectionRow]) -> None:
    """Writes the rows with their curves as JSON, and the picture. Raises UserError if they cannot be written."""
    lines = [row.to_dict() | {"steps": row.curve.steps, "losses": list(row.curve.losses)} for row in rows]
    title = f"The ladder: {len(rows)} section{'s' if len(rows) > 1 else ''}"
    write_text(folder / RESULTS, dump_json(lines, indent=1) + "\n")
    write_text(folder / PICTURE, draw_ladder([row.curve for row in rows], title))
