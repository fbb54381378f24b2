"""What counting alone reaches on the text of a run. It is kept in the run's folder, for its report and for `look`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from glassgpt.config import read_json_as
from glassgpt.data.dataset_cache import dataset_at_hand
from glassgpt.data.manifest import load_manifest
from glassgpt.errors import UserError
from glassgpt.evaluation.counting import CountingLosses, counting_losses
from glassgpt.files import dump_json, write_text
from glassgpt.tokenizers import load_tokenizer

COUNTING = "counting.json"  # in a run folder


def read_counting(run_folder: Path) -> CountingLosses | None:
    """What was counted before; None if nothing was, or if the file is damaged, since it can be counted again."""
    try:
        return CountingLosses(**read_json_as(dict[str, float], run_folder / COUNTING))
    except (UserError, OSError, TypeError):
        return None


def count_run(run_folder: Path) -> CountingLosses:
    """Counts the text on which a run was pretrained, unless that was done before. Nothing is tokenised for it.

    Raises UserError if the tokens of the text are no longer at hand, or cannot be counted.
    """
    if (known := read_counting(run_folder)) is not None:
        return known
    tokenizer = load_tokenizer(run_folder / "tokenizer.json")
    dataset = dataset_at_hand(load_manifest(run_folder / "data.json"), tokenizer)
    if dataset is None:
        raise UserError("the tokens of its text are no longer in the cache, so they cannot be counted")
    found = counting_losses(dataset.train, dataset.val, tokenizer.vocab_size)
    write_text(run_folder / COUNTING, dump_json(asdict(found), indent=1) + "\n")
    return found
