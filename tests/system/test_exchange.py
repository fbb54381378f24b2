"""glassgpt import and export: the verbs, what they print, and what they refuse."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from command_line import contents, glassgpt

pytest.importorskip("transformers")


@pytest.fixture
def exported(trained: Path, elsewhere: Path) -> Path:
    result = glassgpt("export", trained, "--out", "out")
    assert (result.code, result.out) == (0, "out\n"), result.err
    return Path("out")


def test_out_and_in_again(trained: Path, exported: Path, text_file: Path) -> None:
    result = glassgpt("import", exported, "--run", "back", "--json")
    assert result.code == 0, result.err
    said = json.loads(result.out)
    assert (said["run"], said["source"], said["vocab_size"]) == ("runs/back", "out", 31)
    samples = [
        glassgpt("sample", run, "--prompt", "The cat", "--max-new-tokens", 40, "--seed", 3).out
        for run in (trained, "back")
    ]
    assert samples[0] == samples[1]
    evaluations = [glassgpt("eval", run, "--data", text_file, "--json").out for run in (trained, "back")]
    assert evaluations[0] == evaluations[1] != ""


def test_a_chosen_checkpoint_is_exported(trained: Path, elsewhere: Path) -> None:
    result = glassgpt("export", trained, "--out", "out", "--checkpoint", "0", "--format", "hf", "--json")
    assert json.loads(result.out) == {"run": str(trained), "format": "hf", "out": "out"}
    assert "step 0, 0 tokens seen" in Path("out/README.md").read_text()


def test_the_card_tells_of_the_run_and_not_of_the_machine(trained: Path, exported: Path) -> None:
    card = (exported / "README.md").read_text()
    assert "sentences.txt" in card
    assert "validation loss" in card
    assert "n_layer = 2" in card
    assert str(trained.parent) not in card


def test_an_imported_run_has_no_text_and_no_figures(exported: Path) -> None:
    assert glassgpt("import", exported, "--run", "back").code == 0
    for verb in (["eval", "back"], ["report", "back"], ["train", "--run", "back", "--resume"]):
        assert "was imported and not trained here" in glassgpt(*verb).error
    assert glassgpt("runs").code == 0


def test_an_export_is_replaced_on_demand_alone(trained: Path, exported: Path) -> None:
    before = contents(exported)
    assert "out exists: replace it with --overwrite" in glassgpt("export", trained, "--out", "out").error
    assert contents(exported) == before
    assert glassgpt("export", trained, "--out", "out", "--checkpoint", "0", "--overwrite").code == 0
    assert contents(exported) != before


def test_a_folder_of_something_else_is_left_alone(trained: Path, elsewhere: Path) -> None:
    Path("photos").mkdir()
    Path("photos/one.jpg").touch()
    error = glassgpt("export", trained, "--out", "photos", "--overwrite").error
    assert error == "photos exists and is not an export: choose another folder; nothing was changed"
    assert list(contents(Path("photos"))) == ["one.jpg"]


def test_a_misspelt_format(trained: Path, elsewhere: Path) -> None:
    assert (
        "unknown format 'hff': did you mean 'hf'?" in glassgpt("export", trained, "--out", "o", "--format", "hff").error
    )


def train_modern(text_file: Path, run: str, *settings: str) -> None:
    sizes = ["model.architecture=modern", "model.block_size=8", "model.n_layer=1", "model.n_embd=8", "model.n_head=2"]
    options = [part for setting in (*sizes, "training.batch_tokens=16", *settings) for part in ("--set", setting)]
    result = glassgpt("train", "char-tiny", "--data", text_file, "--run", run, "--max-steps", "1", *options)
    assert result.code == 0, result.err


def test_a_modern_run_without_ngrams_goes_out_and_in_again(text_file: Path, elsewhere: Path) -> None:
    train_modern(text_file, "mine", "model.ngram=1")
    assert glassgpt("export", "mine", "--out", "out").code == 0
    assert json.loads(Path("out/config.json").read_text())["architectures"] == ["Qwen3ForCausalLM"]
    assert glassgpt("import", "out", "--run", "back").code == 0
    evaluations = [glassgpt("eval", run, "--data", text_file, "--json").out for run in ("mine", "back")]
    assert evaluations[0] == evaluations[1] != ""


def test_a_modern_run_with_ngrams_is_told_what_can_be_exported(text_file: Path, elsewhere: Path) -> None:
    train_modern(text_file, "mine")
    error = glassgpt("export", "mine", "--out", "out").error
    assert "model.ngram = 4 cannot be exported" in error
    assert "train one with --set model.ngram=1, which is exported as Qwen3" in error
    assert not Path("out").exists()


def test_a_section_of_the_ladder_cannot_be_exported(text_file: Path, elsewhere: Path) -> None:
    sizes = ["--set", "model.block_size=8", "--set", "model.n_embd=8", "--set", "model.n_head=2"]
    few = ["--max-steps", "1", "--set", "training.batch_tokens=16", "--set", "model.architecture=bigram"]
    assert glassgpt("train", "char-tiny", "--data", text_file, "--run", "ladder", *sizes, *few).code == 0
    assert "only the architectures gpt2, modern, qwen3, llama" in glassgpt("export", "ladder", "--out", "out").error
    assert not Path("out").exists()


def test_a_damaged_origin(exported: Path) -> None:
    assert glassgpt("import", exported, "--run", "back").code == 0
    shutil.copytree("runs/back", "runs/other")
    Path("runs/back/origin.json").write_text("{}")
    Path("runs/other/origin.json").write_text("{")
    assert "origin.json has format None" in glassgpt("sample", "back").error
    assert "origin.json is not JSON" in glassgpt("sample", "other").error
