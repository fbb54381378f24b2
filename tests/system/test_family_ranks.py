"""Two ranks train encoders, encoder-decoders and mixtures of experts as one process: copied (ddp), sharded (fsdp)."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from command_line import figures, glassgpt, last_checkpoint, settings
from safetensors.torch import load_file
from test_ranks import Job

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="gloo between processes")

# Without dropout, which each rank draws for its own rows. Micro-batches of 3 rows: the last of 4 is smaller.
COMMON = {
    "model__dropout": 0.0, "training__max_steps": 8, "evaluation__every": 4, "evaluation__tokens": 200,
    "data__val_fraction": 0.02,
}  # fmt: skip
FAMILY = {
    "bert": ("bert-tiny", {"tokenizer__special_tokens": '["[MASK]", "[CLS]", "[SEP]"]'}),
    "transformer": ("seq2seq-tiny", {"model__block_size": 64}),
    "t5": ("seq2seq-tiny", {"model__block_size": 64, "model__architecture": "t5", "model__head_size": 8}),
    "gpt_oss": (
        "moe-tiny",
        {"model__n_kv_head": 1, "model__head_size": 16, "model__n_hidden": 32, "training__expert_balance": 0.1},
    ),
}
FIGURES = (
    "train/loss", "train/balance", "val/loss", "val/accuracy", "val/exact", "val/edit_distance", "best/val/loss",
    "tokens_seen",
)  # fmt: skip


@pytest.fixture
def start(end_commands: None) -> type[Job]:
    return Job


@pytest.fixture(scope="module")
def alone(text_file: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The runs of one process, made when they are first needed."""
    folder = tmp_path_factory.mktemp("alone")

    class Runs(dict[str, Path]):
        def __missing__(self, name: str) -> Path:
            recipe, changes = FAMILY[name]
            options = ["--data", text_file, "--run", folder / name, *settings(**COMMON, **changes)]
            result = glassgpt("train", recipe, *options)
            assert result.code == 0, result.err
            self[name] = folder / name
            return self[name]

    return Runs()


def assert_same(run: Path, other: Path) -> None:
    ours, theirs = figures(run), figures(other)
    assert len(ours) == len(theirs)
    for line, expected in zip(ours, theirs, strict=True):
        assert line.keys() == expected.keys()
        for name in FIGURES:
            assert line.get(name) == pytest.approx(expected.get(name), abs=1e-5), (line["step"], name)
        if "grad_norm" in expected:
            assert line["grad_norm"] == pytest.approx(expected["grad_norm"], rel=1e-4)
    assert (run / "samples.jsonl").read_text() == (other / "samples.jsonl").read_text()


def shapes_of(run: Path) -> dict[str, object]:
    """Of every tensor in the last checkpoint."""
    files = last_checkpoint(run).glob("*.safetensors")
    return {name: tensor.shape for file in files for name, tensor in load_file(file).items()}


@pytest.mark.parametrize(
    ("name", "parallel"),
    [
        ("bert", "ddp"),
        ("transformer", "fsdp"),
        *(
            pytest.param(name, parallel, marks=pytest.mark.heavy)
            for name, parallel in [
                ("bert", "fsdp"), ("transformer", "ddp"), ("t5", "ddp"), ("t5", "fsdp"), ("gpt_oss", "ddp"),
                ("gpt_oss", "fsdp"),
            ]
        ),
    ],
)  # fmt: skip
def test_two_ranks_train_as_one(
    start: type[Job], text_file: Path, tmp_path: Path, alone: dict[str, Path], name: str, parallel: str
) -> None:
    recipe, changes = FAMILY[name]
    way = ["--parallel", parallel, "--set", "training.micro_batch=3"]
    options = ["--data", text_file, "--run", tmp_path / "run", *settings(**COMMON, **changes), *way]
    code, _, err = start("train", recipe, *options).end()
    assert code == 0, err
    assert_same(tmp_path / "run", alone[name])
    shapes = [shapes_of(run) for run in (tmp_path / "run", alone[name])]
    assert shapes[0] == shapes[1]


@pytest.mark.heavy
@pytest.mark.parametrize("name", ["bert", "transformer", "gpt_oss"])
def test_sharded_ranks_recompute_and_go_on_as_one(
    start: type[Job], text_file: Path, tmp_path: Path, alone: dict[str, Path], name: str
) -> None:
    """They stop half-way; one process with the whole model goes on, and its blocks are not run again."""
    recipe, changes = FAMILY[name]
    way = ["--parallel", "fsdp", "--set", "machine.activation_checkpointing=true", "--max-steps", 4]
    options = ["--data", text_file, "--run", tmp_path / "run", *settings(**COMMON, **changes), *way]
    code, _, err = start("train", recipe, *options).end()
    assert code == 0, err
    more = ["--max-steps", 8, "--set", "machine.activation_checkpointing=false"]
    result = glassgpt("train", "--run", tmp_path / "run", "--resume", *more)
    assert result.code == 0, result.err
    assert_same(tmp_path / "run", alone[name])
