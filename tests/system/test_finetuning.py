"""A run that begins with the weights of another: what it takes over, what it may change, how it resumes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from command_line import contents, figures, glassgpt, weights

import glassgpt as gg

OTHER = "Sometimes a lion eats a cat. The lion eats the dog too. Then it sleeps alone.\n" * 60
SETTINGS = {
    "optimizer.lr": 3e-3, "training.batch_tokens": 512, "training.micro_batch": "none", "checkpoint.every": 2,
    "checkpoint.snapshots": 2,
}  # fmt: skip
QUICK = ["--max-steps", "6", *(part for name, value in SETTINGS.items() for part in ("--set", f"{name}={value}"))]


@pytest.fixture
def other(elsewhere: Path) -> Path:
    """Another text, in characters that the first one has."""
    path = elsewhere / "other.txt"
    path.write_text(OTHER)
    return path


@pytest.fixture
def parent(trained: Path, elsewhere: Path) -> Path:
    """The finished run under a name."""
    return Path(shutil.copytree(trained, elsewhere / "runs" / "parent"))


def finetune(other: Path, *arguments: str, run: str = "child") -> None:
    result = glassgpt("train", "--init-from", "parent", "--data", other, "--run", run, *QUICK, *arguments)
    assert result.code == 0, result.err


def test_it_begins_where_the_other_run_is_best(parent: Path, other: Path) -> None:
    finetune(other)
    first, best = gg.load("child", checkpoint=0), gg.load("parent")
    assert all(torch.equal(value, best.model.state_dict()[name]) for name, value in first.model.state_dict().items())
    assert first.tokenizer.to_dict() == best.tokenizer.to_dict()
    assert first.config.model.n_layer == best.config.model.n_layer
    assert first.config.model.dropout == 0.0  # the recipe's
    assert first.config.run.init_from == "runs/parent"
    origin = json.loads(Path("runs/child/origin.json").read_text())
    assert (origin["source"], origin["revision"]) == ("runs/parent", f"step {best.step}")


def test_it_learns_the_new_text(parent: Path, other: Path) -> None:
    before = gg.load("parent").evaluate(str(other)).loss
    finetune(other, "--max-steps", "60")
    assert gg.load("child").evaluate().loss < before - 0.5


def test_it_resumes_exactly_without_the_other_run(parent: Path, other: Path) -> None:
    finetune(other, run="whole")
    finetune(other, "--max-steps", "2")
    shutil.rmtree(parent)
    assert glassgpt("train", "--run", "child", "--resume", "--max-steps", "4").code == 0
    again = glassgpt("train", "finetune", "--data", other, "--run", "child", "--resume", *QUICK)
    assert again.code == 0, again.err
    assert weights(Path("runs/child")) == weights(Path("runs/whole"))
    kept = [[line for line in figures(Path("runs", run)) if line["step"] > 0] for run in ("child", "whole")]
    assert kept[0] == kept[1]


def test_a_repeated_command_begins_and_goes_on(parent: Path, other: Path) -> None:
    finetune(other, "--resume", "--max-steps", "2")
    finetune(other, "--resume")
    assert gg.load("child", checkpoint="last").step == 6


def test_a_shorter_context_cuts_the_positions(parent: Path, other: Path) -> None:
    finetune(other, "--set", "model.block_size=16")
    first, best = gg.load("child", checkpoint=0), gg.load("parent")
    positions = best.model.state_dict()["position_embedding.weight"]
    assert torch.equal(first.model.state_dict()["position_embedding.weight"], positions[:16])
    tokens = torch.tensor([best.tokenizer.encode("The cat sat")])
    assert torch.equal(first.model(tokens), best.model(tokens))


def test_rotary_positions_allow_a_longer_context(text_file: Path, other: Path) -> None:
    sizes = ["architecture=modern", "block_size=8", "n_layer=1", "n_embd=8", "n_head=2", "ngram_rows=50"]
    options = [part for size in sizes for part in ("--set", f"model.{size}")]
    few = ["--max-steps", "1", "--set", "training.batch_tokens=16"]
    assert glassgpt("train", "char-tiny", "--data", text_file, "--run", "parent", *options, *few).code == 0
    finetune(other, "--set", "model.block_size=16")
    first, best = gg.load("child", checkpoint=0), gg.load("parent")
    assert first.config.model.block_size == 16
    assert all(torch.equal(value, best.model.state_dict()[name]) for name, value in first.model.state_dict().items())
    refused = ["--init-from", "parent", "--data", other, "--run", "wrong", "--set", "model.ngram=3"]
    assert "with --init-from only dropout and block_size may change" in glassgpt("train", *refused).error


def test_another_recipe_gives_all_but_the_model(parent: Path, other: Path) -> None:
    result = glassgpt("train", "char-tiny", "--init-from", "parent", "--data", other, "--run", "child", *QUICK)
    assert result.code == 0, result.err
    child = gg.load("child")
    assert (child.config.model.n_layer, child.config.optimizer.weight_decay) == (2, 0.1)


def test_without_a_name_it_is_called_after_the_recipe(parent: Path, other: Path) -> None:
    assert glassgpt("train", "--init-from", "parent", "--data", other, *QUICK).code == 0
    assert Path("runs/finetune/config.toml").exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--set", "model.n_layer=3"], "model.n_layer = 3 does not fit the weights of runs/parent, which have 2"),
        (["--set", "model.block_size=64"], "model.block_size = 64 does not fit"),
        (["--set", "model.architecture=decoder"], "model.architecture = decoder does not fit"),
        (["--set", "tokenizer.name=bpe"], "the tokenizer cannot be changed"),
    ],
)
def test_what_the_weights_do_not_allow(parent: Path, other: Path, arguments: list[str], told: str) -> None:
    before = contents(Path())
    result = glassgpt("train", "--init-from", "parent", "--data", other, "--run", "child", *QUICK, *arguments)
    assert result.error.startswith(told)
    assert contents(Path()) == before


def test_a_character_that_the_tokenizer_does_not_know(parent: Path, elsewhere: Path) -> None:
    Path("greek.txt").write_text("αβγ" * 100)
    result = glassgpt("train", "--init-from", "parent", "--data", "greek.txt", "--run", "child")
    assert "character 'α' (U+03B1) at position 0 is not in the alphabet" in result.error


def test_the_run_must_be_named_and_be_there(parent: Path, other: Path) -> None:
    nothing = glassgpt("train", "finetune", "--data", other, "--run", "child")
    assert "name it with --init-from RUN" in nothing.error
    missing = glassgpt("train", "--init-from", "parrot", "--data", other, "--run", "child")
    assert "did you mean 'parent'?" in missing.error
    by_setting = glassgpt("train", "char-tiny", "--data", other, "--run", "child", "--set", "run.init_from=parent")
    assert "--init-from RUN" in by_setting.error


def test_another_run_than_it_began_with_is_refused_on_resume(parent: Path, other: Path) -> None:
    finetune(other, "--max-steps", "2")
    shutil.copytree(parent, "runs/stranger")
    result = glassgpt("train", "--init-from", "stranger", "--data", other, "--run", "child", "--resume", *QUICK)
    assert "run.init_from was 'runs/parent' and is now 'runs/stranger'" in result.error
