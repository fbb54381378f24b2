"""Token files of other programs: read as those programs wrote them, and refused where they are not whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from glassgpt.data.foreign import open_foreign, read_layout
from glassgpt.errors import UserError

IDS = np.array([0, 1, 50256, 65535, 7], np.uint16)


def write_llmc(path: Path, ids: np.ndarray, magic: int = 20240520, version: int = 1) -> Path:
    """As `write_datafile` of llm.c does: 256 int32, of which three are used, then the ids."""
    header = np.zeros(256, np.int32)
    header[:3] = magic, version, len(ids)
    path.write_bytes(header.tobytes() + ids.tobytes())
    return path


def write_npy(path: Path, array: np.ndarray) -> Path:
    np.save(path, array)
    return path


def write_raw(path: Path, ids: np.ndarray) -> Path:
    ids.tofile(path)
    return path


def test_numpy_files_are_read_in_their_own_type(tmp_path: Path) -> None:
    for dtype in (np.uint16, np.uint32, np.int32, np.int64, ">u2"):
        path = write_npy(tmp_path / "a.npy", IDS.astype(dtype))
        assert open_foreign(path).tolist() == IDS.tolist()
        layout = read_layout(path)
        assert (layout.format, layout.count, layout.dtype) == ("npy", 5, np.dtype(dtype))


def test_raw_files_of_nanogpt_are_read(tmp_path: Path) -> None:
    path = write_raw(tmp_path / "train.bin", IDS)
    assert open_foreign(path).tolist() == IDS.tolist()
    assert read_layout(path).format == "nanogpt-bin"
    assert read_layout(write_raw(tmp_path / "long.bin", np.arange(2000, dtype=np.uint16))).format == "nanogpt-bin"


def test_files_of_llmc_are_read_in_both_versions(tmp_path: Path) -> None:
    gpt2 = write_llmc(tmp_path / "gpt2.bin", IDS)
    llama = write_llmc(tmp_path / "llama.bin", IDS.astype(np.uint32) + 100_000, 20240801, 7)
    assert open_foreign(gpt2).tolist() == IDS.tolist()
    assert open_foreign(llama).tolist() == [int(id) + 100_000 for id in IDS]
    assert {read_layout(path).format for path in (gpt2, llama)} == {"llmc-bin"}


def test_an_empty_file_has_no_ids(tmp_path: Path) -> None:
    for path in (write_raw(tmp_path / "a.bin", IDS[:0]), write_npy(tmp_path / "a.npy", IDS[:0])):
        assert len(open_foreign(path)) == 0


def test_ids_are_mapped_and_cannot_be_written(tmp_path: Path) -> None:
    ids = open_foreign(write_raw(tmp_path / "a.bin", IDS))
    with pytest.raises(ValueError, match="read-only"):
        ids[0] = 1


def test_truncated_files_are_refused_by_name(tmp_path: Path) -> None:
    for path in (
        write_npy(tmp_path / "a.npy", IDS),
        write_llmc(tmp_path / "a.bin", IDS),
        write_raw(tmp_path / "raw.bin", IDS),
    ):
        path.write_bytes(path.read_bytes()[:-1])
        with pytest.raises(UserError, match=rf"{path.name} is truncated"):
            open_foreign(path)


@pytest.mark.parametrize(
    ("array", "message"),
    [(np.zeros((2, 2), np.uint16), r"float64|shape \(2, 2\)"), (np.zeros(3), "an array of float64")],
)
def test_arrays_of_anything_but_ids_are_refused(tmp_path: Path, array: np.ndarray, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_layout(write_npy(tmp_path / "a.npy", array))


def test_pickled_arrays_stay_shut(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([print], dtype=object), allow_pickle=True)
    with pytest.raises(UserError, match="an array of object"):
        open_foreign(tmp_path / "a.npy")


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.npy").write_bytes(b"text of a poem")
    with pytest.raises(UserError, match=r"a\.npy is not a \.npy file"):
        read_layout(tmp_path / "a.npy")
    with pytest.raises(UserError, match=r"damaged llm\.c header: magic 20240520, version 9"):
        read_layout(write_llmc(tmp_path / "a.bin", IDS, version=9))
    with pytest.raises(UserError, match=r"cannot read .*gone\.bin"):
        read_layout(tmp_path / "gone.bin")
