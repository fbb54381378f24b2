"""Fine-tuning examples: (ids, mask) pairs of varying length, stored in a folder of token shards.

    examples.json    format, version, counts, and the sha256 of each shard
    ids.shard        the ids of all examples, one after another
    masks.shard      one number per id: 1 if it is trained on, 0 if it is only context
    lengths.shard    the number of ids of each example

The shards have the format of `shards.py`. The folder is written atomically.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from glassgpt.data.parts import PART
from glassgpt.data.shards import TokenArray, dtype_for, read_header, shard_writer, verify_shard
from glassgpt.errors import UserError
from glassgpt.files import read_json, replacing_folder, write_text

INDEX_NAME = "examples.json"
_SHARDS = ("ids", "masks", "lengths")
_FORMAT, _VERSION = "glassgpt-examples", 1


@dataclass(frozen=True)
class ExampleCounts:
    """The sizes of a folder of examples."""

    vocab_size: int  # every id is smaller
    examples: int
    tokens: int
    targets: int  # ids that are trained on


class Examples:
    """The memory-mapped examples of a folder; created by `open_examples`.

    `lengths` (n,) int64 counts the ids of each. `tokens` has all ids one after another, and `masks` a 1 for each that
    is trained on. In memory: 16 bytes per example, independent of its length.
    """

    def __init__(self, folder: Path, counts: ExampleCounts) -> None:
        self.folder = folder
        self.counts = counts
        self.tokens, self.masks, lengths = (TokenArray([_shard(folder, name)]) for name in _SHARDS)
        self.lengths = lengths.slice(0, len(lengths))
        self._ends = self.lengths.cumsum()

    def __len__(self) -> int:
        return len(self.lengths)

    def ids(self, number: int) -> NDArray[np.int64]:
        """The ids of example `number`, (length,) int64."""
        return self.tokens.slice(self._ends[number] - self.lengths[number], self._ends[number])

    def mask(self, number: int) -> NDArray[np.bool_]:
        """Which ids of example `number` are trained on, (length,)."""
        return self.masks.slice(self._ends[number] - self.lengths[number], self._ends[number]).astype(np.bool_)

    def count_targets(self) -> NDArray[np.int64]:
        """How often each id is trained on, (vocab_size,)."""
        counts = np.zeros(self.counts.vocab_size, np.int64)
        for start in range(0, len(self.tokens), PART):
            part = start, min(start + PART, len(self.tokens))
            counts += np.bincount(self.tokens.slice(*part)[self.masks.slice(*part) > 0], minlength=len(counts))
        return counts


def write_examples(folder: Path, examples: Iterable[tuple[ArrayLike, ArrayLike]], vocab_size: int) -> ExampleCounts:
    """Writes (ids, mask) pairs atomically to a new folder, in constant memory.

    Ids are integers below `vocab_size`. The mask is 1 for an id that is trained on and 0 for context. The first id
    has no context, so it is never predicted: its mask is stored but has no effect.
    Raises UserError, naming the example, for invalid ids or mask, fewer than two ids, or no id to train on. Also
    raises it if there are no examples, if the folder exists, or if it cannot be written.
    """
    if folder.exists():
        raise UserError(f"{folder} exists: choose another folder for the examples, or delete it first")
    tokens = targets = number = 0
    try:
        with replacing_folder(folder) as temporary:
            with (
                shard_writer(_shard(temporary, "ids"), dtype_for(vocab_size)) as ids_writer,
                shard_writer(_shard(temporary, "masks"), dtype_for(2)) as mask_writer,
                shard_writer(_shard(temporary, "lengths"), np.dtype("<u4")) as length_writer,
            ):
                for number, (ids, mask) in enumerate(examples, 1):
                    checked_ids, checked_mask = _check(number - 1, np.asarray(ids), np.asarray(mask), vocab_size)
                    ids_writer.append(checked_ids)
                    mask_writer.append(checked_mask)
                    length_writer.append([len(checked_ids)])
                    tokens += len(checked_ids)
                    targets += int(np.count_nonzero(checked_mask[1:]))
            if not number:
                raise UserError(f"there are no examples to write to {folder}")
            counts = ExampleCounts(vocab_size, number, tokens, targets)
            _save_index(temporary, counts)
    except OSError as error:
        raise UserError(f"cannot write the examples to {folder}: {error.strerror or error}") from error
    return counts


def open_examples(folder: Path) -> Examples:
    """The examples in `folder`. Raises UserError, naming file and reason, if they are missing or damaged."""
    path = folder / INDEX_NAME
    fields = read_json(path)
    if fields.get("format") != _FORMAT or fields.get("version") != _VERSION:
        raise UserError(f"{path} is not in the format that this GlassGPT reads, {_FORMAT} version {_VERSION}")
    try:
        counts, checksums = ExampleCounts(**fields["counts"]), {name: fields["sha256"][name] for name in _SHARDS}
    except (KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged: {error}") from error
    expected = {"ids": counts.tokens, "masks": counts.tokens, "lengths": counts.examples}
    for name in _SHARDS:
        header = read_header(_shard(folder, name))
        if (header.count, header.sha256.hex()) != (expected[name], checksums[name]):
            raise UserError(f"{_shard(folder, name)} does not match {path}: restore the whole folder")
    return Examples(folder, counts)


def verify_examples(folder: Path) -> Examples:
    """Reads every byte and compares the checksums. Raises UserError like `open_examples`, and for altered shards."""
    examples = open_examples(folder)
    for name in _SHARDS:
        verify_shard(_shard(folder, name))
    return examples


def _shard(folder: Path, name: str) -> Path:
    return folder / f"{name}.shard"


def _save_index(folder: Path, counts: ExampleCounts) -> None:
    checksums = {name: read_header(_shard(folder, name)).sha256.hex() for name in _SHARDS}
    fields = {"format": _FORMAT, "version": _VERSION, "counts": asdict(counts), "sha256": checksums}
    write_text(folder / INDEX_NAME, json.dumps(fields, indent=1) + "\n")


def _check(number: int, ids: np.ndarray, mask: np.ndarray, vocab_size: int) -> tuple[np.ndarray, np.ndarray]:
    """The ids and the mask of an example. Raises UserError if they are invalid."""
    if ids.ndim != 1 or ids.shape != mask.shape:
        raise UserError(
            f"example {number} has ids of shape {ids.shape} and a mask of shape {mask.shape}: give (n,) each"
        )
    if len(ids) < 2:
        raise UserError(f"example {number} has {len(ids)} ids: it needs two or more, to predict one from another")
    if ids.dtype.kind not in "iu" or ids.min() < 0 or ids.max() >= vocab_size:
        raise UserError(f"example {number} has ids that are not integers from 0 to {vocab_size - 1}")
    if not np.isin(mask, (0, 1)).all():
        raise UserError(f"example {number} has a mask with values other than 0 and 1")
    if not mask[1:].any():
        raise UserError(f"example {number} has nothing to train on: its mask is 0 everywhere after the first id")
    return ids, mask.astype(np.uint8)
