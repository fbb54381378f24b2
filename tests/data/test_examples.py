"""Folders of examples: what goes in comes out, whole or not at all, and damage is found."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from glassgpt.data.examples import ExampleCounts, open_examples, verify_examples, write_examples
from glassgpt.data.shards import dtype_for, write_shard
from glassgpt.errors import UserError

EXAMPLES = [([5, 6, 7], [0, 0, 1]), ([1, 2], [1, 1]), ([9, 8, 7, 6, 5], [0, 1, 0, 0, 1])]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_examples(tmp_path / "examples", EXAMPLES, vocab_size=10)
    return tmp_path / "examples"


@pytest.mark.parametrize("vocab_size", [10, 100_000])
def test_what_was_written_is_read(tmp_path: Path, vocab_size: int) -> None:
    counts = write_examples(tmp_path / "new" / "examples", iter(EXAMPLES), vocab_size)
    assert counts == ExampleCounts(vocab_size, examples=3, tokens=10, targets=4)  # the mask of a first id has no effect
    examples = verify_examples(tmp_path / "new" / "examples")
    assert examples.counts == counts
    assert examples.lengths.tolist() == [3, 2, 5]
    read = [(examples.ids(n).tolist(), examples.mask(n).tolist()) for n in range(len(examples))]
    assert read == EXAMPLES


@pytest.mark.parametrize(
    ("example", "message"),
    [
        (([1, 2, 3], [1, 1]), r"ids of shape \(3,\) and a mask of shape \(2,\)"),
        (([[1, 2]], [[1, 1]]), r"ids of shape \(1, 2\)"),
        (([1], [1]), "has 1 ids: it needs two"),
        (([1, 10], [1, 1]), "not integers from 0 to 9"),
        (([-1, 2], [1, 1]), "not integers from 0 to 9"),
        (([1.0, 2.0], [1, 1]), "not integers from 0 to 9"),
        (([1, 2], [0, 2]), "values other than 0 and 1"),
        (([1, 2], [0, 0.5]), "values other than 0 and 1"),
        (([1, 2], [1, 0]), "nothing to train on"),
    ],
)
def test_a_bad_example_is_refused_by_its_number_and_leaves_nothing(tmp_path: Path, example: Any, message: str) -> None:
    with pytest.raises(UserError, match=f"example 3 has .*{message}" if "has" not in message else message):
        write_examples(tmp_path / "examples", [*EXAMPLES, example], vocab_size=10)
    assert list(tmp_path.iterdir()) == [tmp_path / "cache"] * (tmp_path / "cache").exists()


def test_no_examples_and_a_folder_that_exists_are_refused(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(UserError, match="no examples"):
        write_examples(tmp_path / "none", [], vocab_size=10)
    with pytest.raises(UserError, match=r"examples exists: choose another"):
        write_examples(folder, EXAMPLES, vocab_size=10)


def test_a_writer_that_stops_leaves_nothing(tmp_path: Path) -> None:
    def interrupted() -> Iterator[tuple[list[int], list[int]]]:
        yield EXAMPLES[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_examples(tmp_path / "examples", interrupted(), vocab_size=10)
    assert not (tmp_path / "examples").exists()


def test_a_folder_that_is_damaged_is_refused(tmp_path: Path, folder: Path) -> None:
    def damaged() -> Path:
        return Path(shutil.copytree(folder, tmp_path / "damaged", dirs_exist_ok=True))

    with pytest.raises(UserError, match=r"cannot read .*examples\.json"):
        open_examples(tmp_path / "missing")
    for fields in ({"format": "other"}, {"version": 2}, {"sha256": {}}, {"counts": {"tokens": 1}}):
        index = json.loads((folder / "examples.json").read_text())
        (damaged() / "examples.json").write_text(json.dumps(index | fields))
        with pytest.raises(UserError, match=r"examples\.json (is not in the format|is damaged)"):
            open_examples(tmp_path / "damaged")
    for name in ("ids", "masks", "lengths"):
        write_shard(damaged() / f"{name}.shard", [1, 1, 1], np.dtype("<u4"))  # a whole shard of another folder
        with pytest.raises(UserError, match=rf"{name}\.shard does not match"):
            open_examples(tmp_path / "damaged")
    (damaged() / "ids.shard").unlink()
    with pytest.raises(UserError, match=r"cannot read shard .*ids\.shard"):
        open_examples(tmp_path / "damaged")


def test_a_single_altered_byte_is_found(folder: Path) -> None:
    data = bytearray((folder / "masks.shard").read_bytes())
    data[-2] ^= 1
    (folder / "masks.shard").write_bytes(data)
    open_examples(folder)
    with pytest.raises(UserError, match=r"masks\.shard was altered"):
        verify_examples(folder)


def test_the_smallest_type_holds_the_ids(folder: Path) -> None:
    assert (folder / "ids.shard").stat().st_size == 64 + 10 * dtype_for(10).itemsize
