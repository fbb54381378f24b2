"""Builds the plain setup of a recipe, the baseline for its tricks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from glassgpt.data.dataset import Dataset
from glassgpt.data.dataset_cache import build_dataset
from glassgpt.errors import UserError, shown
from glassgpt.runs.config import load_recipe, quiet
from glassgpt.runs.decision import Changes
from glassgpt.tricks.variants import Setup

MOST_ROWS = 16  # default limit of a batch, so that a step does not take minutes
MOST_TOKENS = 1 << 40  # of a batch; more cannot be counted by numpy


def plain_setup(
    recipe: str,
    data: str | None,
    overrides: Sequence[str],
    rows: int | None,
    device: str,
    note: Callable[[str], None] = quiet,
) -> tuple[Setup, Dataset]:
    """The recipe's model and optimizer without any trick, and its dataset. Raises UserError as training does."""
    sections = load_recipe(recipe, note)
    model = sections.setdefault("model", {})
    model.pop("vocab_size", None)
    model.pop("padded_vocab_size", None)  # padding is one of the tricks
    values = {} if data is None else {"data.source": data}
    changes = Changes(overrides, values)
    config = changes.apply(sections, note=note)
    most = MOST_TOKENS // config.model.block_size
    if rows is not None and not 1 <= rows <= most:
        raise UserError(f"--rows {shown(rows)} is out of range: it must be from 1 to {most:,}")
    dataset = build_dataset(config.data, config.tokenizer)
    setup = Setup(
        architecture=config.architecture,
        model=changes.apply(sections, dataset.tokenizer.vocab_size).model,
        optimizer=config.optimizer,
        rows=rows or min(config.batch_rows, MOST_ROWS),
        device=device,
        seed=config.training.seed,
    )
    return setup, dataset
