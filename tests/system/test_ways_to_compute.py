"""Ways to compute the same training: each ends at the figures of the plain one, within rounding."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
import torch._dynamo
from command_line import figures, glassgpt, settings

SHORT = {"training__max_steps": 6, "model__dropout": 0.0, "evaluation__sample_every": 0, "evaluation__every": 3}
WAYS = {
    "accumulated": {"training__micro_batch": 3},
    "without all logits": {"training__loss_chunk": 100},
    "blocks recomputed": {"machine__activation_checkpointing": "true"},
    "compiled": {"machine__compile": "true"},
    "compiled in stages": {"machine__compile": "true", "training__loss_chunk": 100},
}


@pytest.fixture(scope="module")
def losses(text_file: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    return train(text_file, tmp_path_factory.mktemp("plain") / "run")


def train(text_file: Path, folder: Path, **changes: object) -> dict[str, float]:
    """Every loss of the run, by its kind and step."""
    done = glassgpt("train", "char-tiny", "--data", text_file, "--run", folder, *settings(**SHORT, **changes))
    assert done.code == 0, done.err
    lines = [line for line in figures(folder) if "final" not in line]
    return {
        f"{kind} {line['step']}": line[kind] for line in lines for kind in ("train/loss", "val/loss") if kind in line
    }


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.slow
def test_it_learns_the_same(way: str, text_file: Path, tmp_path: Path, losses: dict[str, float]) -> None:
    if "compiled" in way and not (shutil.which("g++") or shutil.which("clang++")):
        pytest.skip("needs a C++ compiler on the PATH")
    found = train(text_file, tmp_path / "run", **WAYS[way])
    assert found == pytest.approx(losses, rel=2e-5)
    assert len(found) == 6 + 3


@pytest.mark.slow
def test_validation_and_samples_use_up_no_compilation(text_file: Path, tmp_path: Path) -> None:
    """Each shape of theirs would be compiled, and after eight shapes torch compiles nothing more."""
    if not (shutil.which("g++") or shutil.which("clang++")):
        pytest.skip("needs a C++ compiler on the PATH")
    torch.compiler.reset()
    compiled = {"machine__compile": "true", "training__loss_chunk": 100, "evaluation__sample_every": 2}
    with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True):
        done = glassgpt(
            "train", "char-tiny", "--data", text_file, "--run", tmp_path / "run", *settings(**(SHORT | compiled))
        )
    assert done.code == 0, done.err
    assert (tmp_path / "run" / "samples.jsonl").read_text().count("\n") == 4
