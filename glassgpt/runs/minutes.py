"""`--minutes`: chooses the size of a model and the length of its run, so that the run ends in time with a low loss.

A step of each size is timed on this device. So it is known how many tokens each could read in the time, and a scaling
law says which of them would end with the lowest loss.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from glassgpt.costs.flops import count_parameters
from glassgpt.costs.hardware import local_hardware
from glassgpt.costs.scaling_law import MODERN
from glassgpt.costs.speed import measure_tokens_per_second
from glassgpt.data.dataset_cache import DataConfig
from glassgpt.data.manifest import Manifest
from glassgpt.errors import UserError, counted, option
from glassgpt.evaluation.counting import CountingLosses
from glassgpt.models import find_architecture
from glassgpt.report.counting import count_text
from glassgpt.runs.config import RunConfig
from glassgpt.runs.micro_batch import estimate_memory
from glassgpt.runs.pace import Pace
from glassgpt.runtime.device import Runtime
from glassgpt.runtime.distributed import ALONE
from glassgpt.tokenizers import Tokenizer

RECIPE = "modern-tiny"  # whose sizes and length `--minutes` replaces
LONGEST = 7 * 24 * 60.0  # minutes
FEWEST_STEPS = 20  # a shorter run learns next to nothing
RATE = 1.28  # the learning rate of Muon, times the channels: 0.02 for 64, 0.01 for 128
MOST_VALIDATED = 150_000  # characters, or as many for each minute if that is more
VALIDATIONS, SAMPLES, CHECKPOINTS, SNAPSHOTS = 10, 5, 5, 10  # of the whole run
END_SHARE = 0.6  # of the time from the start of the process to the plan: a checkpoint, the report, a last sample
FEW_EPOCHS = 4.0  # times that a text may be read without more dropout than the recipe's
MOST_EPOCHS = 8.0  # reading it more often made a model worse on new text, with any dropout
TOKENS_A_ROW, MOST_ROWS = 60, 14  # of a table of n-grams; 2^14 rows are those of the recipe
MOST_PARAMETERS = 4  # of the blocks, for each token of the text: larger models were not measured
LEAST_LIMIT = 200  # steps that even the shortest text is given, however often that reads it
FEW = {"model.ngram_dropout": 0.3, "model.dropout": 0.0}
MANY = {"model.ngram_dropout": 0.5, "model.dropout": 0.1}
MEASURED = 0.3  # seconds for which a size is timed
SPARE = 0.1  # of the time: a run that leaves more of it says so
CLOSE = 0.01  # nats: what two seeds of the same size differ by
WORSE = 0.03  # nats: sizes are timed in rising order, until one would be so much worse than the best


@dataclass(frozen=True)
class Size:
    """The size of a modern GPT."""

    n_layer: int
    n_head: int
    n_embd: int

    @property
    def settings(self) -> dict[str, Any]:
        """What a recipe gets for this size."""
        rate = RATE / self.n_embd
        return {
            "model.n_layer": self.n_layer, "model.n_head": self.n_head, "model.n_embd": self.n_embd,
            "optimizer.lr": rate, "optimizer.embedding_lr": 2 * rate,
        }  # fmt: skip


# The blocks of each have about twice the parameters of the one before.
SIZES = (
    Size(1, 2, 64), Size(1, 3, 96), Size(1, 4, 128), Size(2, 4, 128), Size(2, 6, 192), Size(4, 6, 192), Size(4, 8, 256),
    Size(6, 10, 320), Size(6, 12, 384), Size(8, 16, 512), Size(12, 16, 768),
)  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """A run that ends in time: its config, the number of steps included, and the pace that it has to keep."""

    config: RunConfig
    pace: Pace


@dataclass(frozen=True)
class _Timed:
    """A size, and how long a step of it takes on this device."""

    settings: Mapping[str, Any]
    config: RunConfig
    n_parameters: int
    block_parameters: int  # those that the scaling law counts
    step_seconds: float
    data: Manifest
    most_steps: int | None  # None: as many as fit

    def steps_in(self, seconds: float) -> int:
        """The steps that fit into `seconds`, beside the validations."""
        fitting = max(0, int((seconds - self.validating()) / self.step_seconds))
        return fitting if self.most_steps is None else min(fitting, self.most_steps)

    def loss_after(self, seconds: float) -> float:
        """The loss that the scaling law expects after `seconds`."""
        return MODERN.loss(self.block_parameters, self.tokens(max(1, self.steps_in(seconds))), self.data.train.tokens)

    def tokens(self, steps: int) -> int:
        """The tokens that so many steps read."""
        return steps * self.config.training.batch_tokens

    def validating(self) -> float:
        """Seconds: the whole validation split at the end, and parts of it before. A forward pass is 1/3 of a step."""
        whole = self.data.val.tokens
        tokens = whole + VALIDATIONS * min(whole, self.config.evaluation.tokens)
        return tokens / self.config.training.batch_tokens * self.step_seconds / 3


@dataclass(frozen=True)
class TimeLimit:
    """`--minutes`: the whole process, which began at `began` by time.monotonic(), is to take that long.

    `sizes` are those to choose from; None keeps the size of the recipe. Raises UserError for a time that no run can
    have.
    """

    minutes: float
    began: float
    sizes: Sequence[Size] | None = SIZES

    def __post_init__(self) -> None:
        if not 0.0 < self.minutes <= LONGEST:
            raise UserError(
                f"{option(minutes=self.minutes)} is out of range: it must be above 0, and at most {LONGEST:,.0f}"
            )

    @property
    def seconds(self) -> float:
        """The time of the whole process."""
        return 60 * self.minutes

    def validation_fraction(self, characters: int) -> float:
        """The part of a text to validate on: a tenth, but less of a long text, as validating takes time too."""
        return min(DataConfig().val_fraction, MOST_VALIDATED * max(1.0, self.minutes) / max(1, characters))

    def plan(
        self,
        build: Callable[[Mapping[str, Any]], RunConfig],
        data: Manifest,
        tokenizer: Tokenizer,
        runtime: Runtime,
        note: Callable[[str], None],
    ) -> Plan:
        """Chooses a size and a number of steps. `build` makes the config of some settings.

        Raises UserError if there is no time for a run that is worth it.
        """
        ending = END_SHARE * (time.monotonic() - self.began)
        counting = _count(data, tokenizer) if build({}).run.stage == "pretrain" else None
        deadline = self.began + self.seconds - ending
        rows = {"model.ngram_rows": ngram_rows(data.train.tokens)}
        timed = _time([size.settings | rows for size in self.sizes or ()], build, data, runtime, deadline)
        left = deadline - time.monotonic()
        chosen = _best(timed, left)
        steps = chosen.steps_in(left)
        if steps < FEWEST_STEPS:
            seconds = timed[0].validating() + FEWEST_STEPS * timed[0].step_seconds
            least = (time.monotonic() - self.began + 2 * ending + seconds) / 60
            raise UserError(
                f"{option(minutes=self.minutes)} is too short for {FEWEST_STEPS} steps on {runtime.device}: give at"
                f" least {least + 0.05:.1f}"
            )
        note(self._describe(chosen, steps))
        if counting is not None:
            note(f"counting rows of {counting.order} tokens, without any model, reaches a loss of {counting.ngram:.2f}")
        needed = steps * chosen.step_seconds
        if steps == chosen.most_steps and needed < (1 - SPARE) * left:
            note(
                "the text is short, and reading it more often would not make the model better: the run takes about"
                f" {(self.seconds - left + needed) / 60:.1f} min; more text would help"
            )
        elif self.sizes:
            note(self._describe_longer(chosen, timed, left))
        settings = {**chosen.settings, **_length(chosen.config, steps), "training.minutes": self.minutes}
        if self.sizes:
            settings |= regularisation(chosen.tokens(steps) / data.train.tokens)
        return Plan(build(settings), Pace(self.seconds, deadline, chosen.most_steps))

    def _describe(self, chosen: _Timed, steps: int) -> str:
        model, tokens = chosen.config.model, chosen.tokens(steps)
        return (
            f"plan for {self.minutes:g} min: {counted(model.n_layer, 'block')} of {model.n_embd} channels,"
            f" {chosen.n_parameters:,} parameters; {steps:,} steps of {chosen.config.training.batch_tokens:,} tokens,"
            f" {tokens / chosen.data.train.tokens:.1f} times the text; a step takes {1000 * chosen.step_seconds:.0f} ms"
        )

    def _describe_longer(self, chosen: _Timed, timed: Sequence[_Timed], left: float) -> str:
        later = left + self.seconds
        better = _best(timed, later)
        gain = chosen.loss_after(left) - better.loss_after(later)
        model = better.config.model
        size = "the same size" if better is chosen else f"{counted(model.n_layer, 'block')} of {model.n_embd} channels"
        return f"twice the time, {2 * self.minutes:g} min, would lower the loss by about {gain:.2f}, with {size}"


def ngram_rows(tokens: int) -> int:
    """The rows of each table of n-grams for a text: so many that about 60 tokens share one, as in the recipe.

    With more rows, a table would learn a shorter text by heart.
    """
    return int(2 ** min(MOST_ROWS, max(8, round(math.log2(tokens / TOKENS_A_ROW)))))


def regularisation(epochs: float) -> dict[str, float]:
    """The dropouts for a text that is read so many times, or it would be learned by heart."""
    part = min(1.0, max(0.0, (epochs - FEW_EPOCHS) / (MOST_EPOCHS - FEW_EPOCHS)))
    return {name: round(few + part * (MANY[name] - few), 3) for name, few in FEW.items()}


def _count(data: Manifest, tokenizer: Tokenizer) -> CountingLosses | None:
    """What counting reaches on the text, which the report will need too; None if it cannot be counted."""
    try:
        return count_text(data, tokenizer)
    except UserError:
        return None


def _best(timed: Sequence[_Timed], seconds: float) -> _Timed:
    """The size with the lowest loss after `seconds`; of sizes that are about as good, the largest has more to see."""
    least = min(one.loss_after(seconds) for one in timed)
    return next(one for one in reversed(timed) if one.loss_after(seconds) <= least + CLOSE)


def _time(
    candidates: Sequence[Mapping[str, Any]],
    build: Callable[[Mapping[str, Any]], RunConfig],
    data: Manifest,
    runtime: Runtime,
    deadline: float,
) -> list[_Timed]:
    """Times steps of the candidates in their order, as long as a larger one may end with a lower loss.

    Without candidates, it times the size of the recipe.
    """
    timed: list[_Timed] = []
    alone = replace(runtime, ranks=ALONE, parallel="none")  # the other ranks wait for the plan
    for settings in candidates or [{}]:
        config = build(settings)
        if timed and not _fits(config, runtime):
            break
        model = find_architecture(config.architecture).model(config.model).to(runtime.device)
        blocks = sum(p.numel() for name, p in model.named_parameters() if name.startswith("blocks."))
        if timed and blocks > MOST_PARAMETERS * data.train.tokens:
            break
        rows = config.batch_rows // runtime.ranks.world_size
        micro_batch = min(rows, 8) if config.training.micro_batch == "auto" else config.rows_of_pass(rows)
        rate, _ = measure_tokens_per_second(
            model, config.optimizer, alone, micro_batch=min(rows, micro_batch), seconds=MEASURED
        )
        seconds = config.training.batch_tokens / runtime.ranks.world_size / rate
        epoch = data.train.tokens / config.training.batch_tokens
        most = max(LEAST_LIMIT, int(MOST_EPOCHS * epoch)) if candidates else None
        timed.append(_Timed(settings, config, count_parameters(model), max(1, blocks), seconds, data, most))
        losses = [one.loss_after(deadline - time.monotonic()) for one in timed]
        if losses[-1] > min(losses) + WORSE:
            break
    return timed


def _fits(config: RunConfig, runtime: Runtime) -> bool:
    here = local_hardware(runtime)
    memory = estimate_memory(config, here, precision=runtime.precision)
    return memory.peak(config.batch_rows // runtime.ranks.world_size, accumulates=False) <= here.usable


def _length(config: RunConfig, steps: int) -> dict[str, Any]:
    """The settings of a run of so many steps."""
    return {
        "training.max_steps": steps,
        "schedule.decay_steps": steps,
        "schedule.warmup_steps": min(config.schedule.warmup_steps, steps // 10),
        "evaluation.every": max(1, steps // VALIDATIONS),
        "evaluation.sample_every": -(-steps // SAMPLES),
        "checkpoint.every": max(1, steps // CHECKPOINTS),
        "checkpoint.snapshots": min(config.checkpoint.snapshots, SNAPSHOTS),
    }
