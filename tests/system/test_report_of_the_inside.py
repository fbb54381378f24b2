"""The report of a run shows what is inside its last checkpoint, and is written without it too."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from command_line import glassgpt

from glassgpt.runs import reporting
from glassgpt.runs.reporting import report_run
from glassgpt.runs.run import load
from glassgpt.runs.session import Session

TITLES = ("Whom does each token hear?", "Which tokens are alike to it?")


def report(folder: Path) -> str:
    return report_run(folder).read_text(encoding="utf-8")


def missing(html: str) -> str:
    """The one sentence that stands where the inside would be. All other sections are there."""
    assert not any(title in html for title in TITLES)
    assert "What it wrote as it learned" in html
    assert "<h2>Settings</h2>" in html
    (sentence,) = re.findall(r'<h2>What is inside</h2>\n<p class="missing">(.*?)</p>', html)
    return sentence


def test_the_report_that_training_writes_shows_the_last_sample_in_the_last_checkpoint(trained: Path) -> None:
    html = (trained / "report.html").read_text(encoding="utf-8")
    last = load(trained, checkpoint="last", device="cpu")
    assert f"The last sample in {trained.name}, step {last.step}: its first" in html
    view = last.look().attention()
    assert view.picture_html() in html
    assert all(f"<h2>{title}</h2>" in html for title in TITLES)


def test_the_verb_writes_the_same(run: Path) -> None:
    before = (run / "report.html").read_text(encoding="utf-8").split(TITLES[0])[1].split("<h2>Settings")[0]
    (run / "report.html").unlink()
    assert glassgpt("report", run).code == 0
    after = (run / "report.html").read_text(encoding="utf-8").split(TITLES[0])[1].split("<h2>Settings")[0]
    assert after == before.replace("trained, step", "run, step")


def test_a_run_without_checkpoints(run: Path) -> None:
    shutil.rmtree(run / "checkpoints")
    assert "has no checkpoint" in missing(report(run))


@pytest.mark.parametrize("damage", [b"", b"\x00" * 64])
def test_a_damaged_checkpoint(run: Path, damage: bytes) -> None:
    last = sorted((run / "checkpoints").iterdir())[-1]
    (last / "model.safetensors").write_bytes(damage)
    assert "model.safetensors" in missing(report(run))


def test_a_checkpoint_that_goes_while_it_is_read(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = load(run, checkpoint="last", device="cpu")

    def gone(*_: object, **__: object) -> None:
        raise FileNotFoundError(2, "No such file or directory", "model.safetensors")

    monkeypatch.setattr(type(opened), "model", property(gone))
    assert "No such file or directory" in missing(report(run))


def test_no_memory_for_the_model(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> str:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(reporting, "inside_html", full)
    assert "can&#x27;t allocate memory" in missing(report(run))


def test_a_model_too_large_for_a_report_is_not_opened(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reporting, "MOST_PARAMETERS", 10)
    monkeypatch.setattr(reporting, "open_run", None)
    assert "use glassgpt look" in missing(report(run))


def test_a_run_without_samples_has_no_such_section(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (run / "samples.jsonl").unlink()
    monkeypatch.setattr(reporting, "open_run", None)
    html = report(run)
    assert "<h2>What is inside" not in html
    assert not any(title in html for title in TITLES)


def test_a_run_that_trains(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    after = Session._after_step

    def step(session: Session, *arguments: object) -> None:
        after(session, *arguments)  # type: ignore[arg-type]
        if not written:
            written.append(report(run))

    monkeypatch.setattr(Session, "_after_step", step)
    assert glassgpt("train", "--run", run, "--resume", "--max-steps", 42).code == 0
    assert f"The last sample in {run.name}, step 40" in written[0]
    assert f"The last sample in {run.name}, step 42" in (run / "report.html").read_text(encoding="utf-8")
