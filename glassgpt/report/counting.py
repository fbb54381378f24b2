"""What counting alone reaches on the text of a run. It is kept in the run's folder, for its report and for `look`."""

from __future__ import annotations

import contextlib
from dataclasses import asdict
from pathlib import Path

from glassgpt.config import read_json_as
from glassgpt.data.cache import cache_folder
from glassgpt.data.dataset_cache import dataset_at_hand
from glassgpt.data.manifest import Manifest, load_manifest
from glassgpt.errors import UserError
from glassgpt.evaluation.counting import CountingLosses, counting_losses
from glassgpt.evaluation.ngram import ORDER
from glassgpt.files import dump_json, write_text
from glassgpt.tokenizers import Tokenizer, load_tokenizer

COUNTING = "counting.json"  # in a run folder


def read_counting(run_folder: Path) -> CountingLosses | None:
    """What was counted before; None if nothing was, or if the file is damaged, since it can be counted again."""
    return _read(run_folder / COUNTING)


def _read(path: Path) -> CountingLosses | None:
    try:
        return CountingLosses(**read_json_as(dict[str, float], path))
    except (UserError, OSError, TypeError):
        return None


def count_run(run_folder: Path) -> CountingLosses:
    """Counts the text on which a run was pretrained, unless that was done before. See `count_text`."""
    if (known := read_counting(run_folder)) is not None:
        return known
    found = count_text(load_manifest(run_folder / "data.json"), load_tokenizer(run_folder / "tokenizer.json"))
    write_text(run_folder / COUNTING, dump_json(asdict(found), indent=1) + "\n")
    return found


def count_text(manifest: Manifest, tokenizer: Tokenizer) -> CountingLosses:
    """Counts the text of a dataset. Nothing is tokenised for it.

    It takes a second for a million tokens, which is long for the shortest runs. So the cache has what was counted for
    other runs on the same text. Raises UserError if the tokens of the text are no longer at hand, or cannot be counted.
    """
    cached = None if manifest.text_sha256 is None else cache_folder() / "counted" / f"{manifest.key}-{ORDER}.json"
    found = None if cached is None else _read(cached)
    if found is None:
        found = _count(manifest, tokenizer)
        if cached is not None:
            with contextlib.suppress(UserError, OSError):  # without a cache, the next run counts again
                cached.parent.mkdir(parents=True, exist_ok=True)
                write_text(cached, dump_json(asdict(found), indent=1) + "\n")
    return found


def _count(manifest: Manifest, tokenizer: Tokenizer) -> CountingLosses:
    dataset = dataset_at_hand(manifest, tokenizer)
    if dataset is None:
        raise UserError("the tokens of its text are no longer in the cache, so they cannot be counted")
    return counting_losses(dataset.train, dataset.val, tokenizer.vocab_size)
