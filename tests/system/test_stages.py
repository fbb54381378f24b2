"""Stages that the package does not know go through the whole of it: the one loop, resume, ranks, report, tracker."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import toy_stages
from command_line import figures, glassgpt, settings, weights

import glassgpt as gg
from glassgpt.runs import publisher
from glassgpt.runs.reporting import report_run
from glassgpt.training import trackers

PROGRAM = Path(toy_stages.__file__)
REWARD = settings(run__stage="toy-reward", training__max_steps=20, model__dropout=0.0, optimizer__lr=0.003)
POLICY = settings(run__stage="toy-policy", training__max_steps=12, checkpoint__every=4, evaluation__every=6)


def train(run: Path, *options: object) -> str:
    result = glassgpt("train", "--run", run, *options)
    assert result.code == 0, result.err
    return result.err


def kill_after(line: str, options: Sequence[object]) -> None:
    """Starts a run in a process of its own and kills it once it has printed a line that begins so."""
    process = subprocess.Popen(
        [sys.executable, PROGRAM, "train", *map(str, options)],
        stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert process.stderr is not None
    seen = []
    for said in process.stderr:
        seen.append(said)
        if said.startswith(line):
            process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "".join(seen)


def test_a_reward_head_is_trained_reported_and_tracked(
    text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: dict[int, dict[str, float]] = {}

    class Tracker:
        id = "t1"

        def __init__(self, start: object) -> None: ...
        def log(self, figures: dict[str, float], step: int) -> None:
            sent.setdefault(step, {}).update(figures)

        def log_text(self, name: str, text: str, step: int) -> None: ...
        def finish(self) -> None: ...

    monkeypatch.setattr(publisher, "open_tracker", lambda name, start: Tracker(start))
    monkeypatch.setattr(trackers, "find_spec", lambda _: True)
    run = tmp_path / "run"
    result = glassgpt("train", "char-tiny", "--data", text_file, "--run", run, *REWARD, "--track", "wandb", "--json")
    assert result.code == 0, result.err
    summary = json.loads(result.out)
    assert summary["best_val_accuracy"] >= summary["val_accuracy"] > 0.9
    assert "accuracy" in result.err
    lines = figures(run)
    assert all(0 <= line["train/accuracy"] <= 1 for line in lines if "lr" in line)
    assert {"train/accuracy", "train/loss"} <= sent[20].keys()
    assert "val/accuracy" in sent[10]
    page = (run / "report.html").read_text(encoding="utf-8")
    for figure in ("Training accuracy", "Validation accuracy", "val/reward loss"):
        assert f"<h3>{figure}</h3>" in page
    assert "<dt>Validation accuracy</dt>" in page and "nats per token" not in page
    (run / "samples.jsonl").write_text('{"step": 20, "prompt": "", "text": "the cat"}\n')
    assert "The model is not shown: " in report_run(run).read_text(encoding="utf-8")
    assert "doctor examines the stages pretrain, mlm, seq2seq, not 'toy-reward'" in glassgpt("doctor", run).error
    for verb in (["sample", run], ["eval", run], ["export", run, "--out", tmp_path / "hf"]):
        assert "holds a RewardModel, trained by the stage 'toy-reward'" in glassgpt(*verb).error
    begin = ["train", "--init-from", run, "--data", text_file, "--run", tmp_path / "tuned"]
    assert "this needs a language model" in glassgpt(*begin).error
    assert not (tmp_path / "hf").exists() and not (tmp_path / "tuned").exists()
    opened = gg.load(run)
    assert isinstance(opened.model, toy_stages.RewardModel)
    best = max(
        (line["val/accuracy"], -line["step"]) for line in lines if "val/accuracy" in line and "final" not in line
    )
    assert opened.checkpoint.score is not None
    assert opened.step == lines[-1]["best/step"]
    assert best[0] > 0.5


def test_a_killed_reward_run_resumes_bit_for_bit(text_file: Path, tmp_path: Path) -> None:
    begin = ["char-tiny", "--data", text_file, *REWARD, "--set", "checkpoint.every=5"]
    train(tmp_path / "whole", *begin)
    kill_after("step     8/", ["--run", tmp_path / "killed", *begin])
    err = train(tmp_path / "killed", "--resume")
    assert "after step 5" in err
    assert weights(tmp_path / "killed") == weights(tmp_path / "whole")
    assert figures(tmp_path / "killed") == figures(tmp_path / "whole")


@pytest.mark.heavy
@pytest.mark.skipif(sys.platform != "linux", reason="gloo")
# With a tied head, and with one that the loss does not use and the stage has frozen.
@pytest.mark.parametrize(("architecture", "parallel"), [("gpt2", "fsdp"), ("decoder", "ddp")])
def test_two_ranks_train_a_reward_head_as_one(
    text_file: Path, tmp_path: Path, architecture: str, parallel: str
) -> None:
    begin = ["char-tiny", "--data", text_file, *REWARD, "--set", f"model.architecture={architecture}"]
    train(tmp_path / "alone", *begin)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", PROGRAM, "--", "train"]
    options = ["--run", tmp_path / "two", *begin, "--parallel", parallel]
    done = subprocess.run(
        [*map(str, command), *map(str, options)],
        capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    ours, theirs = figures(tmp_path / "two"), figures(tmp_path / "alone")
    assert len(ours) == len(theirs)
    for line, expected in zip(ours, theirs, strict=True):
        assert line == pytest.approx(expected, abs=1e-5)


def test_a_policy_killed_in_the_middle_of_a_rollout_resumes_bit_for_bit(text_file: Path, tmp_path: Path) -> None:
    begin = ["char-tiny", "--data", text_file, *POLICY]
    train(tmp_path / "whole", *begin)
    kill_after("step     6/", ["--run", tmp_path / "killed", *begin])
    assert (tmp_path / "killed" / "checkpoints" / "step-00000004" / "stage.safetensors").exists()
    err = train(tmp_path / "killed", "--resume")
    assert "after step 4" in err  # the second of the three updates from the rollout of step 3 comes next
    assert weights(tmp_path / "killed") == weights(tmp_path / "whole")
    assert figures(tmp_path / "killed") == figures(tmp_path / "whole")
    assert "reward/mean" in figures(tmp_path / "whole")[-1]
    assert (
        glassgpt("export", tmp_path / "whole", "--out", tmp_path / "hf").code == 0
    )  # it trains the language model itself
    assert "reward/mean" in (tmp_path / "hf" / "README.md").read_text(encoding="utf-8")
