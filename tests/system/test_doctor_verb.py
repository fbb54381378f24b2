"""glassgpt doctor from outside: the table, the JSON object, the exit codes, and input that it cannot use."""

from __future__ import annotations

import json
from pathlib import Path

from command_line import contents, glassgpt, settings

NAMES = [
    "ids", "targets", "loader repeats", "overlap", "initial loss", "no view of the future", "gradients", "precision",
    "update ratio", "one batch by heart",
]  # fmt: skip


def test_a_healthy_recipe_is_a_table_and_exit_code_0(text_file: Path, elsewhere: Path) -> None:
    result = glassgpt("doctor", "char-tiny", "--data", text_file, *settings())
    assert result.code == 0, result.out
    assert all(name in result.out for name in NAMES)
    assert "char-tiny: 10 passed, 0 failed, 0 skipped" in result.out
    assert list(elsewhere.iterdir()) == []  # a recipe has no folder


def test_a_failed_check_is_exit_code_1(text_file: Path, elsewhere: Path) -> None:
    result = glassgpt("doctor", "char-tiny", "--data", text_file, "--json", *settings(optimizer__lr=0.2))
    assert result.code == 1
    diagnosis = json.loads(result.out)
    assert [finding["name"] for finding in diagnosis["findings"]] == NAMES
    assert (diagnosis["healthy"], diagnosis["target"]) == (False, "char-tiny")
    failed = {finding["name"]: finding for finding in diagnosis["findings"] if finding["status"] == "failed"}
    assert failed["update ratio"]["remedy"] == "lower optimizer.lr, now 0.2"
    assert diagnosis["passed"] + diagnosis["failed"] + diagnosis["skipped"] == 10


def test_bad_input_is_a_sentence(text_file: Path, elsewhere: Path) -> None:
    assert "did you mean 'char-tiny'" in glassgpt("doctor", "char-tinny").error
    wrong = glassgpt("doctor", "char-tiny", "--data", text_file, "--dtype", "float8")
    assert "unknown machine.dtype 'float8'" in wrong.error
    assert "too short" in glassgpt("doctor", "char-tiny", "--data", text_file, "--set", "model.block_size=30720",
                                   "--set", "training.batch_tokens=30720").error  # fmt: skip


def test_a_run_keeps_its_diagnosis_and_its_report_shows_it(run: Path) -> None:
    result = glassgpt("doctor", run, "--json")
    assert result.code in (0, 1), result.err
    diagnosis = json.loads(result.out)
    assert json.loads((run / "doctor.json").read_text(encoding="utf-8")) == diagnosis
    assert diagnosis["step"] == 40
    assert diagnosis["normal"].startswith("Too early")
    names = [finding["name"] for finding in diagnosis["findings"]]
    assert names[:10] == NAMES
    assert names[10:] == ["reference curve", "no divergence", "generalises", "beyond counting", "still learning"]
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "<h2>Is this normal?</h2>" in page
    assert "Too early to say whether this is normal" in page
    (run / "doctor.json").write_text('{"findings": 3}')
    assert "doctor.json is damaged" in glassgpt("report", run).error


def test_a_run_has_its_own_settings_and_text(run: Path) -> None:
    before = contents(run)
    for option in (["--set", "optimizer.lr=1"], ["--data", "shakespeare"]):
        assert "is a run, with its own settings and data" in glassgpt("doctor", run, *option).error
    assert contents(run) == before
