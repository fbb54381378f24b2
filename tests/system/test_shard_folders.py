"""Corpora in shards through whole commands: prepared, trained on, gone on with, evaluated, refused in one sentence."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from command_line import contents, figures, glassgpt, settings, weights

BPE = ("--tokenizer", "bpe", "--vocab-size", 300, "--shard-tokens", 3000, "--workers", 1)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def shards(here: Path) -> Path:
    """A prepared corpus of a few hundred documents."""
    with gzip.open(here / "corpus.jsonl.gz", "wt") as file:
        for number in range(300):
            file.write(
                json.dumps({"text": f"Document {number} says {number * number}, and then some more words. " * 3}) + "\n"
            )
    result = glassgpt("data", "prepare", "corpus.jsonl.gz", "--out", "shards", *BPE)
    assert result.code == 0, result.err
    return here / "shards"


@pytest.fixture
def foreign(here: Path) -> Path:
    """The layout of build-nanogpt, with ids below 250."""
    folder = here / "edu_fineweb10B"
    folder.mkdir()
    generator = np.random.default_rng(1)
    for number in range(4):
        name = f"edufineweb_{'train' if number else 'val'}_{number:06d}.npy"
        np.save(folder / name, generator.integers(0, 250, 5000).astype(np.uint16))
    return folder


def train(run: str, *arguments: object) -> None:
    result = glassgpt("train", "--run", run, *arguments)
    assert result.code == 0, result.err


def test_a_run_on_shards_resumes_exactly_and_is_evaluated(shards: Path) -> None:
    train("whole", "--data", "shards", *settings(training__max_steps=20))
    train("cut", "--data", "shards", *settings(training__max_steps=20), "--max-steps", 10)
    train("cut", "--resume", "--max-steps", 20)
    assert weights(Path("runs/cut")) == weights(Path("runs/whole"))
    assert figures(Path("runs/cut")) == figures(Path("runs/whole"))
    own = json.loads(glassgpt("eval", "whole", "--json").out)
    assert own == json.loads(glassgpt("eval", "whole", "--data", "shards", "--json").out)
    assert own["tokens"] == 2999
    assert json.loads(glassgpt("data", "info", "runs/whole", "--json").out)["key"]


def test_the_tokenizer_of_the_folder_is_taken_and_no_other(shards: Path) -> None:
    train("a", "--data", "shards", *settings(training__max_steps=2))
    assert (shards / "tokenizer.json").read_bytes() == Path("runs/a/tokenizer.json").read_bytes()
    error = glassgpt(
        "train", "char-tiny", "--data", "shards", "--run", "b", *settings(), "--set", "tokenizer.name=char"
    ).error
    assert "holds ids of its own tokenizer, bpe of 300, but 'char' is a different one" in error
    assert not Path("runs/b").exists()


def test_a_run_whose_shards_are_gone_or_others_is_refused(shards: Path) -> None:
    train("a", "--data", "shards", *settings(training__max_steps=2))
    moved = shards.rename("elsewhere")
    assert "are no longer in" in glassgpt("train", "--run", "a", "--resume", "--max-steps", 4).error
    shutil.copytree(moved, shards)
    (shards / "train_000001.shard").write_bytes((shards / "val_000000.shard").read_bytes())
    assert "restore them" in glassgpt("train", "--run", "a", "--resume", "--max-steps", 4).error
    shutil.rmtree(shards)
    moved.rename(shards)
    train("a", "--resume", "--max-steps", 4)


def test_a_run_on_foreign_shards(foreign: Path, shards: Path) -> None:
    whose = ("--set", f"tokenizer.name={shards / 'tokenizer.json'}")
    train("a", "--data", foreign, *settings(training__max_steps=4), *whose)
    train("a", "--resume", "--max-steps", 6)
    assert json.loads(glassgpt("eval", "a", "--json").out)["tokens"] == 4999
    assert json.loads(glassgpt("data", "verify", "runs/a", "--json").out) == {"checked": 4, "problems": []}
    np.save(foreign / "edufineweb_train_000002.npy", np.ones(5000, np.uint16))
    assert "are not those that this run was trained on" in glassgpt("eval", "a").error


def test_foreign_shards_need_to_be_told_whose_ids_they_are(foreign: Path) -> None:
    error = glassgpt("train", "char-tiny", "--data", foreign, "--run", "a").error
    assert "holds token ids without their tokenizer" in error
    assert "--set tokenizer.name=gpt2" in error


def test_bad_shards_are_refused_before_anything_is_written(foreign: Path, shards: Path) -> None:
    first, second = foreign / "edufineweb_train_000001.npy", foreign / "edufineweb_train_000002.npy"

    def error() -> str:
        whose = ("--set", f"tokenizer.name={shards / 'tokenizer.json'}")
        return glassgpt("train", "char-tiny", "--data", foreign, "--run", "a", *settings(), *whose).error

    whole = second.read_bytes()
    second.unlink()
    assert "lacks shard 2" in error()
    np.save(second, np.full(5000, 300, np.uint16))
    assert "has id 300 at position 0, outside a vocabulary of 300" in error()
    np.save(second, np.ones(5000, np.uint32))
    assert f"{first.name} is npy of uint16 and {second.name} is npy of uint32" in error()
    second.write_bytes(whole[:-1])
    assert f"{second.name} is truncated" in error()
    assert not Path("runs").exists()


def test_bad_corpora_are_refused_in_one_sentence(here: Path) -> None:
    (here / "a.txt").write_text("words")
    glassgpt("tokenizer", "train", "--data", "a.txt", "--out", "t.json", "--vocab-size", 257,
             "--special", "<|endoftext|>")  # fmt: skip
    prepare = ("data", "prepare", "--tokenizer", "t.json", "--workers", 1)
    (here / "cut.jsonl.gz").write_bytes(gzip.compress(b'{"text": "words"}\n' * 1000)[:-9])
    assert "cut.jsonl.gz is truncated" in glassgpt(*prepare, "cut.jsonl.gz", "--out", "a").error
    assert "cannot read dataset 'owner/name'" in glassgpt(*prepare, "owner/name", "--out", "b").error
    (here / "c").mkdir()
    (here / "c/note.txt").write_text("mine")
    before = contents(here / "c")
    assert "holds something else" in glassgpt(*prepare, "a.txt", "--out", "c").error
    assert contents(here / "c") == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_preparation_that_is_stopped_goes_on(here: Path, number: signal.Signals) -> None:
    text = "".join(f"word{number} and " for number in range(60_000))
    (here / "corpus.jsonl").write_text("".join(json.dumps({"text": f"{n} {text[n:]}"}) + "\n" for n in range(20)))
    glassgpt("tokenizer", "train", "--data", "python-manual", "--out", "t.json", "--special", "<|endoftext|>",
             "--vocab-size", 300)  # fmt: skip
    command = ("data", "prepare", "corpus.jsonl", "--tokenizer", "t.json", "--shard-tokens", 200_000, "--workers", 1)
    process = subprocess.Popen(
        [sys.executable, "-m", "glassgpt", *map(str, command), "--out", "killed"],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=os.environ, start_new_session=True,
    )  # fmt: skip
    while not (here / "killed/train_000002.shard").exists():
        assert process.poll() is None
    os.killpg(process.pid, number)
    _, errors = process.communicate()
    assert process.returncode == (130 if number == signal.SIGINT else -number)
    assert "Traceback" not in errors
    assert not (here / "killed/manifest.json").exists()
    again = glassgpt(*command, "--out", "killed")
    assert "resuming in" in again.err
    glassgpt(*command, "--out", "whole")
    assert contents(here / "killed") == contents(here / "whole")
