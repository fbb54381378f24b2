"""A run whose checkpoints are divided into several files serves every verb as one with whole files does."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from command_line import contents, figures, glassgpt, last_checkpoint, settings, weights

from glassgpt.training import tensor_files

QUICK = settings(training__max_steps=6, evaluation__every=2, checkpoint__every=2)


@pytest.fixture(scope="module")
def trained_twice(text_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the runs `whole` and `divided`, trained in the same way."""
    folder = tmp_path_factory.mktemp("twice")
    assert glassgpt("train", "char-tiny", "--data", text_file, "--run", folder / "whole", *QUICK).code == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tensor_files, "MAX_FILE_BYTES", 30_000)
        assert glassgpt("train", "char-tiny", "--data", text_file, "--run", folder / "divided", *QUICK).code == 0
    return folder


@pytest.fixture
def runs(trained_twice: Path, elsewhere: Path) -> None:
    """A copy of both, under `runs/`."""
    shutil.copytree(trained_twice, elsewhere / "runs")


@pytest.mark.usefixtures("runs")
def test_every_verb_reads_it(text_file: Path) -> None:
    whole, divided = Path("runs/whole"), Path("runs/divided")
    assert len(list(last_checkpoint(divided).glob("model-*-of-*.safetensors"))) > 2
    assert figures(divided) == figures(whole)
    for verb in (["sample", "--seed", 1, "--max-new-tokens", 20], ["eval", "--checkpoint", "last"]):
        ours, expected = (glassgpt(verb[0], run, *verb[1:]) for run in (divided, whole))
        assert (ours.code, ours.out.replace("divided", "whole")) == (0, expected.out)
    assert glassgpt("report", "divided").code == 0

    for run in ("divided", "whole"):
        assert glassgpt("export", run, "--out", f"{run}-hf").code == 0
    assert Path("divided-hf/model.safetensors").read_bytes() == Path("whole-hf/model.safetensors").read_bytes()
    assert Path("divided-hf/model.safetensors").stat().st_mode == Path("divided-hf/config.json").stat().st_mode

    begin = ["--data", text_file, *settings(training__max_steps=1, model__dropout=0.0)]
    for run in ("divided", "whole"):
        result = glassgpt("train", "--init-from", run, "--run", f"{run}-tuned", *begin)
        assert result.code == 0, result.err
    assert figures(Path("runs/divided-tuned")) == figures(Path("runs/whole-tuned"))
    origin = json.loads(Path("runs/divided-tuned/origin.json").read_text())
    assert len(origin["files"]) == len(list(last_checkpoint(divided).glob("model*")))


@pytest.mark.usefixtures("runs")
def test_it_goes_on_whole() -> None:
    """A run resumed by a version with another limit: each checkpoint stays as it was written."""
    for run in ("whole", "divided"):
        assert glassgpt("train", "--run", run, "--resume", "--max-steps", 8).code == 0
    assert weights(Path("runs/divided")) == weights(Path("runs/whole"))


@pytest.mark.usefixtures("runs")
def test_a_damaged_part_is_named() -> None:
    part = next(last_checkpoint(Path("runs/divided")).glob("model-00002-of-*.safetensors"))
    part.unlink()
    before = contents(Path("runs"))
    for verb in (
        ["sample", "divided", "--checkpoint", "last"],
        ["train", "--run", "divided", "--resume", "--max-steps", 9],
    ):
        assert f"{part} cannot be read: No such file or directory" in glassgpt(*verb).error
    assert contents(Path("runs")) == before
