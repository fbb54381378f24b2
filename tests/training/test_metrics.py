"""JSON lines: what a kill, a full disk or a NaN leaves of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glassgpt.errors import UserError
from glassgpt.training.metrics import JsonLines, cut_back, final_record, read_lines, train_losses

RECORDS = [
    {"step": 1, "train/loss": 0.1 + 0.2},
    {"step": 2, "text": 'naïve "quotes",\nnew lines, 漢字 and \U0001f600\u2028'},
    {"step": 3, "final": True, "lr": 1e-12},
]

needs_dev_full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, which refuses every byte")


def write(path: Path, records: list[dict[str, Any]] = RECORDS) -> Path:
    lines = JsonLines(path)
    for record in records:
        lines.append(record)
    lines.close()
    return path


def test_the_final_record_is_the_last_that_says_so() -> None:
    assert final_record(RECORDS[:2]) is None
    assert final_record([*RECORDS, {"step": 4, "final": True}, {"step": 5}]) == {"step": 4, "final": True}


def test_what_is_appended_is_read_at_once_and_after(tmp_path: Path) -> None:
    lines = JsonLines(tmp_path / "metrics.jsonl")
    for number, record in enumerate(RECORDS, start=1):
        lines.append(record)
        assert read_lines(lines.path) == RECORDS[:number]
    lines.sync()
    lines.close()
    assert read_lines(write(lines.path)) == RECORDS + RECORDS


def test_no_file_has_no_records(tmp_path: Path) -> None:
    assert read_lines(tmp_path / "metrics.jsonl") == []


def test_a_line_cut_short_anywhere_is_left_out(tmp_path: Path) -> None:
    """Inside a character of several bytes too."""
    whole = write(tmp_path / "whole.jsonl").read_bytes()
    ends = [i + 1 for i, byte in enumerate(whole) if byte == ord("\n")]
    cut = tmp_path / "cut.jsonl"
    for size in range(len(whole) + 1):
        cut.write_bytes(whole[:size])
        assert read_lines(cut) == RECORDS[: sum(end <= size for end in ends)]


@pytest.mark.parametrize("line", [b"{", b"[1]", b"7", b'"step"', b'{"loss": 1}', b"\xff", b""])
def test_a_damaged_line_before_the_last_is_named(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n' + line + b'\n{"step": 3}\n')
    with pytest.raises(UserError, match=r"metrics\.jsonl, line 2 is not a record with a step"):
        read_lines(path)


@pytest.mark.parametrize(
    "figure",
    ['"val/tokens": "192"', '"val/tokens": 1.5', '"at_end": 1', '"hellaswag/acc": "x"', '"a/b": [1]', '"a/b": true'],
)
def test_a_figure_that_is_no_number_is_named(tmp_path: Path, figure: str) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(f'{{"step": 1, "hellaswag/acc": 1, "hellaswag/items": null}}\n{{"step": 2, {figure}}}\n')
    with pytest.raises(UserError, match=rf"metrics\.jsonl, line 2 is not a record with a step: {figure[1:4]}"):
        read_lines(path)


@given(st.integers(0, 6), st.integers(0, 20).map(lambda size: '{"step": 6, "text": "é'.encode()[:size]))
@settings(max_examples=30)
def test_cut_back_keeps_the_wanted_lines_as_they_were(tmp_path_factory: Any, last: int, half_written: bytes) -> None:
    path = tmp_path_factory.mktemp("run") / "metrics.jsonl"
    write(path, [{"step": step, "loss": step / 7} for step in range(6)])
    before = path.read_bytes()
    with path.open("ab") as file:
        file.write(half_written)
    cut_back(path, lambda record: record["step"] < last)
    assert path.read_bytes() == b"".join(before.splitlines(keepends=True)[:last])
    assert [file.name for file in path.parent.iterdir()] == ["metrics.jsonl"]


def test_numbers_that_json_does_not_know_become_null(tmp_path: Path) -> None:
    path = write(tmp_path / "metrics.jsonl", [{"step": 7, "train/loss": float("nan"), "grad_norm": float("inf")}])

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    assert json.loads(path.read_text(), parse_constant=refuse) == {"step": 7, "train/loss": None, "grad_norm": None}


@needs_dev_full
def test_a_full_disk_is_said_once_and_not_again_by_closing() -> None:
    lines = JsonLines(Path("/dev/full"))
    with pytest.raises(UserError, match="cannot write /dev/full: No space left on device; fix that"):
        lines.append({"step": 1})
    lines.close()


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot write .*gone/metrics\.jsonl: No such file"):
        JsonLines(tmp_path / "gone" / "metrics.jsonl")
    with pytest.raises(UserError, match=r"cannot read .*: Is a directory"):
        read_lines(tmp_path)


def test_a_full_disk_leaves_the_lines_that_were_to_be_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "metrics.jsonl")
    before = path.read_bytes()

    def refuse(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", refuse)
    with pytest.raises(UserError, match=r"cannot write .*metrics\.jsonl: No space left on device"):
        cut_back(path, lambda record: False)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["metrics.jsonl"]


@pytest.mark.parametrize(("steps", "counted"), [(1, 1), (20, 1), (100, 2), (2000, 40), (9000, 50)])
def test_the_final_training_loss_is_that_of_the_last_part_of_a_run(steps: int, counted: int) -> None:
    """A mean over more would hold losses of long before, when a short run was much worse."""
    lines = [{"step": step, "train/loss": float(step)} for step in range(1, steps + 1)]
    assert train_losses(lines) == [float(step) for step in range(steps - counted + 1, steps + 1)]
