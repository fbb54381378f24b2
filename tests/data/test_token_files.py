"""Folders of token files: their splits, and what must hold among the files."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from glassgpt.data.shards import TokenArray, write_shard
from glassgpt.data.token_files import find_token_files, shards_key, verify_ids
from glassgpt.errors import UserError

VOCAB = 1000


def ids(seed: int, count: int = 500) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, VOCAB, count).astype(np.uint16)


def build_nanogpt(folder: Path, numbers: tuple[int, ...] = (0, 1, 2, 3)) -> Path:
    """Shards as build-nanogpt's fineweb.py names them."""
    folder.mkdir(exist_ok=True)
    for number in numbers:
        np.save(folder / f"edufineweb_{'train' if number else 'val'}_{number:06d}.npy", ids(number))
    return folder


def content(tokens: TokenArray) -> list[int]:
    return tokens.slice(0, len(tokens)).tolist()


def open_both(path: Path, val_fraction: float = 0.1) -> tuple[list[int], list[int]]:
    found = find_token_files(str(path))
    assert found is not None
    train, val = found.open(val_fraction, VOCAB)
    return content(train), content(val)


def test_names_decide_the_split(tmp_path: Path) -> None:
    train, val = open_both(build_nanogpt(tmp_path / "edu_fineweb10B"))
    assert val == ids(0).tolist()
    assert train == [id for number in (1, 2, 3) for id in ids(number).tolist()]


def test_the_folder_of_nanogpt_with_all_that_lies_in_it(tmp_path: Path) -> None:
    ids(1).tofile(tmp_path / "train.bin")
    ids(2).tofile(tmp_path / "val.bin")
    (tmp_path / "meta.pkl").write_bytes(pickle.dumps({"stoi": {}}))
    (tmp_path / "input.txt").write_text("First Citizen:")
    ids(3).tofile(tmp_path / "weights.bin")
    assert open_both(tmp_path) == (ids(1).tolist(), ids(2).tolist())


def test_one_file_is_split_at_its_end(tmp_path: Path) -> None:
    ids(1).tofile(tmp_path / "corpus.bin")
    train, val = open_both(tmp_path / "corpus.bin", 0.2)
    assert (len(train), train + val) == (400, ids(1).tolist())


def test_files_for_training_alone_are_split_at_the_end_of_the_last(tmp_path: Path) -> None:
    train, val = open_both(build_nanogpt(tmp_path / "shards", (1, 2, 3)), 0.5)
    assert len(train) == 750
    assert train + val == [id for number in (1, 2, 3) for id in ids(number).tolist()]


def test_our_own_shard_counts_as_a_file(tmp_path: Path) -> None:
    write_shard(tmp_path / "a.shard", ids(1), np.dtype("<u2"))
    train, val = open_both(tmp_path / "a.shard")
    assert train + val == ids(1).tolist()


def test_texts_are_no_token_files(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("text")
    ids(3).tofile(tmp_path / "weights.bin")
    for source in (tmp_path, tmp_path / "train.txt", tmp_path / "gone", "shakespeare"):
        assert find_token_files(str(source)) is None


@pytest.mark.parametrize("source", ["-", "auto", "a" * 5000])
def test_what_names_no_file_is_no_token_file(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("-", "auto"):
        build_nanogpt(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert find_token_files(source) is None


def test_a_missing_shard_is_named_by_its_neighbours(tmp_path: Path) -> None:
    folder = build_nanogpt(tmp_path / "shards", (0, 1, 3))
    with pytest.raises(UserError, match=r"lacks shard 2: after edufineweb_train_000001.npy comes .*_train_000003.npy"):
        open_both(folder)
    (folder / "edufineweb_train_000003.npy").unlink()
    open_both(folder)
    (folder / "edufineweb_train_000001.npy").rename(folder / "edufineweb_train_000002.npy")
    with pytest.raises(UserError, match="lacks shard 1"):
        open_both(folder)


def test_files_of_two_types_or_formats_are_refused(tmp_path: Path) -> None:
    folder = build_nanogpt(tmp_path / "shards")
    np.save(folder / "edufineweb_train_000003.npy", ids(3).astype(np.uint32))
    with pytest.raises(UserError, match=r"npy of uint16 and edufineweb_train_000003.npy is npy of uint32"):
        open_both(folder)
    (folder / "edufineweb_train_000003.npy").unlink()
    ids(3).tofile(folder / "edufineweb_train_000003.bin")
    with pytest.raises(UserError, match=r"is npy of uint16 and edufineweb_train_000003.bin is nanogpt-bin"):
        open_both(folder)


@pytest.mark.parametrize(("dtype", "bad"), [(np.uint16, VOCAB), (np.int32, -1)])
def test_an_id_outside_the_vocabulary_is_found_with_its_place(tmp_path: Path, dtype: type, bad: int) -> None:
    array = np.zeros(300_000, dtype)
    array[-3] = bad
    np.save(tmp_path / "train.npy", array)
    with pytest.raises(
        UserError, match=rf"train\.npy has id {bad} at position 299997, outside a vocabulary of {VOCAB}"
    ):
        open_both(tmp_path)
    array[-3], array[150_000] = VOCAB - 1, bad  # in the middle, where only a check of every id looks
    np.save(tmp_path / "train.npy", array)
    open_both(tmp_path)
    with pytest.raises(UserError, match="position 150000"):
        verify_ids(tmp_path / "train.npy", VOCAB)


def test_the_largest_id_of_a_file_is_reported(tmp_path: Path) -> None:
    np.save(tmp_path / "train.npy", np.array([3, 999, 5], np.uint16))
    assert verify_ids(tmp_path / "train.npy", VOCAB) == 999


def test_validation_without_training_is_an_error(tmp_path: Path) -> None:
    ids(1).tofile(tmp_path / "val.bin")
    with pytest.raises(UserError, match="no file to train on"):
        find_token_files(str(tmp_path))


def test_the_key_follows_names_sizes_and_ends(tmp_path: Path) -> None:
    def key() -> str:
        return shards_key(sorted(tmp_path.iterdir()))

    for name in ("a.bin", "b.bin"):
        ids(1).tofile(tmp_path / name)
    first = key()
    ids(2).tofile(tmp_path / "b.bin")
    second = key()
    (tmp_path / "b.bin").rename(tmp_path / "c.bin")
    assert len({first, second, key()}) == 3
    (tmp_path / "c.bin").rename(tmp_path / "b.bin")
    assert key() == second
