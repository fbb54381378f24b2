"""What counting alone reaches stands in the folder of a run and in its report."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from command_line import glassgpt

from glassgpt.report.counting import COUNTING, count_run, read_counting
from glassgpt.report.curves import reference_lines
from glassgpt.report.run_record import read_record


def test_a_run_knows_what_counting_reaches(trained: Path) -> None:
    counts = read_counting(trained)
    assert counts is not None and counts.order == 6 and counts.ngram < counts.unigram
    label = f"counting up to 6 tokens: {counts.ngram:.3f}"
    assert [line["label"] for line in reference_lines([read_record(trained)])][-1] == label
    assert label in (trained / "report.html").read_text(encoding="utf-8")


def test_runs_on_other_texts_have_no_lines_of_counting(trained: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(trained, other)
    stored = json.loads((other / COUNTING).read_text())
    (other / COUNTING).write_text(json.dumps(stored | {"ngram": 1.0}))
    assert len(reference_lines([read_record(trained), read_record(trained)])) == 4
    assert len(reference_lines([read_record(trained), read_record(other)])) == 1


@pytest.mark.parametrize("damaged", ["{", '{"unigram": "high"}', '{"unigram": 1.0}', None])
def test_counts_that_are_damaged_or_missing_are_made_again(trained: Path, tmp_path: Path, damaged: str | None) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    (run / COUNTING).unlink()
    if damaged is not None:
        (run / COUNTING).write_text(damaged)
    assert read_counting(run) is None and read_record(run).counting is None
    assert count_run(run) == read_counting(trained) == read_counting(run)


def test_without_the_text_a_report_has_no_lines_of_counting(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    (run / COUNTING).unlink()
    monkeypatch.setenv("GLASSGPT_CACHE", str(tmp_path / "empty"))
    assert glassgpt("report", run).code == 0
    assert not (run / COUNTING).exists() and "counting pairs" not in (run / "report.html").read_text(encoding="utf-8")
