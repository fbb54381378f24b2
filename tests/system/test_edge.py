"""What the system refuses, and what the standard streams can be: a sentence and exit code 2, never a traceback."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import glassgpt

from glassgpt.cli.main import prepare_streams

needs_posix = pytest.mark.skipif(os.name == "nt", reason="devices and redirections of POSIX")


def shell(redirection: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`glassgpt ARGUMENTS` with a redirection, as a shell runs it."""
    command = f'exec "$0" -m glassgpt "$@" {redirection}'
    return subprocess.run(["sh", "-c", command, sys.executable, *arguments], capture_output=True, text=True, timeout=60)


@needs_posix
@pytest.mark.parametrize(
    ("redirection", "arguments", "code", "told"),
    [
        (">/dev/full", ["--version"], 2, "glassgpt: cannot write the output: No space left on device\n"),
        (">&-", ["--version"], 0, ""),
        ("2>&-", ["sample"], 2, ""),
        ("2>/dev/full", ["sample"], 2, ""),
        ("<&- >&- 2>&-", ["--version"], 0, ""),
    ],
)
def test_closed_and_full_streams(redirection: str, arguments: list[str], code: int, told: str) -> None:
    done = shell(redirection, *arguments)
    assert (done.returncode, done.stderr) == (code, told)


def test_an_output_that_is_not_utf_8_gets_escapes_that_keep_json_valid() -> None:
    prepare_streams()  # registers the error handler
    assert json.loads('"± 😀 \udcff"'.encode("ascii", "json")) == "± 😀 \udcff"


@pytest.mark.parametrize("name", ["two\nlines", "\x1b[31mred", "half \udcff"])
def test_a_name_is_shown_on_one_line(name: str, elsewhere: Path) -> None:
    assert glassgpt("sample", name).error.isprintable()


@pytest.mark.parametrize("name", ["a" * 5000, "a/" * 3000])
def test_a_name_that_the_system_refuses(name: str, elsewhere: Path) -> None:
    assert "too long" in glassgpt("import", name, "--run", "new").error


def test_a_user_who_does_not_exist(elsewhere: Path) -> None:
    assert "no home folder for ~nosuchuser" in glassgpt("import", "~nosuchuser/gpt2", "--run", "new").error


@needs_posix
@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_neither_a_pipe_nor_a_device_is_waited_for(kind: str, elsewhere: Path, trained: Path) -> None:
    path = elsewhere / "odd.json"
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    suite = ["eval", trained, "--suite", "hellaswag", "--file", path]
    for command in (["tokenizer", "info", "--tokenizer", path], suite):
        assert "a pipe or a device" in glassgpt(*command).error


@pytest.mark.parametrize(
    "command",
    [
        "ladder --data text.txt --section 1 --steps 1 --seeds 1 --out loop",
        "report one two --out loop/page.html",
        "tokenizer train --data text.txt --type char --out loop",
        "train --data text.txt --run loop/run --max-steps 1",
        "data prepare text.txt --tokenizer bpe --shard-tokens 400 --out loop/shards",
    ],
)
def test_links_that_lead_to_each_other(trained: Path, text_file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
                                       command: str) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    for name in ("one", "two"):
        shutil.copytree(trained, tmp_path / "runs" / name)
    shutil.copy(text_file, "text.txt")
    Path("loop").symlink_to("loop")
    assert "Too many levels of symbolic links" in glassgpt(*command.split()).error


@pytest.mark.parametrize(
    "command", ["ladder --section 1 --steps 1 --seeds 1 --out new --data", "data prepare", "train --max-steps 1 --data"]
)
def test_a_name_that_is_not_utf8(elsewhere: Path, text_file: Path, command: str) -> None:
    odd = os.fsdecode(b"odd\xff")
    shutil.copy(text_file, odd)
    assert "data.source = 'odd\\udcff': " in glassgpt(*command.split(), odd).error


def test_a_foreign_folder_among_the_runs_hides_no_other(run: Path) -> None:
    for name, content in (("foreign", "[tool]\nname = 1\n"), ("wrong", "model = 5\n"), ("deep", "a = " + "[" * 5000)):
        (run.parent / name).mkdir()
        (run.parent / name / "config.toml").write_text(content)
    (run.parent / "loop").mkdir()
    (run.parent / "loop" / "config.toml").symlink_to("config.toml")
    result = glassgpt("runs", run.parent, "--json")
    assert result.code == 0
    assert [entry["run"] for entry in json.loads(result.out)["runs"]] == [run.name]
    for name in ("foreign", "wrong", "deep"):
        assert f"{run.parent / name} has a config.toml and is not a run: skipped" in result.err


@pytest.mark.parametrize("value", [2_000_000, 10**12, 10**20, 10**400])
@pytest.mark.parametrize("field", ["n_layer", "n_embd", "vocab_size", "block_size", "n_head"])
def test_an_absurd_size_is_refused_before_anything_is_allocated(field: str, value: int) -> None:
    if field in ("vocab_size", "block_size") and value == 2_000_000:
        return
    error = glassgpt("plan", "char-tiny", "--no-measure", "--set", f"model.{field}={value}").error
    assert f"model.{field}" in error
    assert len(error) < 300


@pytest.mark.parametrize(
    "setting", ["checkpoint.snapshots=1000000000000", f"training.max_steps={'9' * 400}", f"optimizer.lr={'9' * 400}",
                f"tokenizer.vocab_size={'9' * 5000}", f"model.n_layer={'[' * 2000}"]
)  # fmt: skip
def test_an_absurd_number_is_refused(setting: str) -> None:
    error = glassgpt("plan", "char-tiny", "--no-measure", "--set", setting).error
    assert setting.partition("=")[0] in error
    assert len(error) < 300


@pytest.mark.parametrize("verb", [("train", "--run", "big"), ("doctor", "char-tiny")])
def test_a_model_beyond_the_memory_is_refused_before_it_is_allocated(
    verb: tuple[str, ...], text_file: Path, elsewhere: Path
) -> None:
    """Each of its tensors fits, so no allocation would fail before the memory is full."""
    sizes = ("--set", "model.n_embd=8192", "--set", "model.n_layer=200", "--set", "model.n_head=4")
    result = glassgpt(*verb, "--data", text_file, *sizes)
    assert result.code == 2
    assert "parameters need at least 2,4" in result.error
    assert not (elsewhere / "runs" / "big").exists()
