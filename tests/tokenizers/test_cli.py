"""`glassgpt tokenizer` train, encode, decode and info."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from glassgpt.cli.tokenizer import app
from glassgpt.errors import UserError
from glassgpt.tokenizers import load_tokenizer

TEXT = "the cat sat on the mat, the rat too\n" * 30


def run(*arguments: str, stdin: bytes | None = None) -> str:
    result = CliRunner().invoke(app, list(arguments), input=stdin, catch_exceptions=False)
    assert result.exit_code == 0, result.stderr
    return result.stdout


@pytest.fixture
def file(tmp_path: Path) -> str:
    (tmp_path / "text.txt").write_text(TEXT)
    out = str(tmp_path / "bpe.json")
    run("train", "--vocab-size", "270", "--data", str(tmp_path / "text.txt"), "--out", out, "--special", "<end>")
    return out


def test_train_writes_a_file_and_describes_it(tmp_path: Path, file: str) -> None:
    tokenizer = load_tokenizer(file)
    assert tokenizer.special_tokens == {"<end>": 269}
    out = str(tmp_path / "char.json")
    printed = run("train", "--type", "char", "--data", str(tmp_path / "text.txt"), "--out", out, "--json")
    assert json.loads(printed) == {"file": out, "name": "char", "vocab_size": len(set(TEXT)), "special_tokens": {}}


def test_train_overwrites_only_when_told(tmp_path: Path, file: str) -> None:
    arguments = ("train", "--vocab-size", "260", "--data", str(tmp_path / "text.txt"), "--out", file)
    with pytest.raises(UserError, match="exists: choose another name"):
        run(*arguments)
    assert load_tokenizer(file).vocab_size == 270
    run(*arguments, "--overwrite")
    assert load_tokenizer(file).vocab_size == 260


def test_encode_and_decode(file: str) -> None:
    tokenizer = load_tokenizer(file)
    expected = tokenizer.encode("the cat é<end>")
    assert run("encode", "--tokenizer", file, "the cat é<end>") == " ".join(map(str, expected)) + "\n"
    assert run("encode", "--tokenizer", file, stdin="the cat é<end>".encode()).split() == list(map(str, expected))
    assert run("encode", "--tokenizer", file, "<end>", "--allow-special") == "269\n"
    assert run("decode", "--tokenizer", file, *map(str, expected)) == "the cat é<end>"
    assert run("decode", "--tokenizer", file, stdin=str(expected).encode()) == "the cat é<end>"


def test_json(file: str) -> None:
    printed = json.loads(run("encode", "--tokenizer", file, "the mat é<end>", "--allow-special", "--json"))
    assert printed["ids"] == load_tokenizer(file).encode("the mat é<end>", allowed_special="all")
    assert printed["tokens"][-1] == "<end>"
    assert printed["tokens"][-3:-1] == ["\ufffd", "\ufffd"]  # the two bytes of é, which are no character alone
    assert "".join(printed["tokens"][:-3]) == "the mat "
    assert json.loads(run("decode", "--tokenizer", file, "269", "--json")) == {"ids": [269], "text": "<end>"}


def test_info(file: str) -> None:
    printed = json.loads(run("info", "--tokenizer", file, "--json"))
    assert (printed["name"], printed["vocab_size"], printed["merges"]) == ("bpe", 270, 13)
    assert "merges 13" in " ".join(run("info", "--tokenizer", file).split())


def test_a_runs_folder_is_a_tokenizer(tmp_path: Path, file: str) -> None:
    Path(file).rename(tmp_path / "tokenizer.json")
    assert "vocab_size 270" in " ".join(run("info", "--tokenizer", str(tmp_path)).split())


@pytest.mark.parametrize(
    ("arguments", "stdin", "message"),
    [
        (("encode", "--tokenizer", "gpt3", "x"), None, "did you mean 'gpt2'"),
        (("encode", "--tokenizer", "bpe", "x"), None, "must be trained on a text"),
        (("encode", "--tokenizer", "none.json", "x"), None, "there is no tokenizer file 'none.json'"),
        (("encode", "--tokenizer", "FILE"), b"ab\xff", "byte 0xff at offset 2"),
        (("decode", "--tokenizer", "FILE", "1", "x2"), None, "'x2' is not a token id"),
        (("decode", "--tokenizer", "FILE", "9" * 5000), None, "is not a token id"),
        (("decode", "--tokenizer", "FILE", "1,999"), None, "token id 999 is outside the vocabulary"),
    ],
)
def test_bad_input_is_said(arguments: tuple[str, ...], stdin: bytes | None, message: str, file: str) -> None:
    with pytest.raises(UserError, match=message):
        run(*(file if part == "FILE" else part for part in arguments), stdin=stdin)


def test_a_terminal_shows_the_pieces_in_colour(file: str) -> None:
    terminal, inside = pty.openpty()
    program = f"from glassgpt.cli.tokenizer import app; app(['encode', '--tokenizer', {file!r}, 'the mat'])"
    environment = {**os.environ, "TERM": "xterm-256color"}
    environment.pop("NO_COLOR", None)
    subprocess.run([sys.executable, "-c", program], stdout=inside, check=True, timeout=60, env=environment)
    os.close(inside)
    shown = os.read(terminal, 10_000).decode()
    os.close(terminal)
    assert "\x1b[48;5;" in shown
    assert " ".join(map(str, load_tokenizer(file).encode("the mat"))) in shown


def test_the_verb_needs_no_torch() -> None:
    program = "import sys, glassgpt.cli.tokenizer, glassgpt.tokenizers; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], timeout=60).returncode == 0


def test_decoding_keeps_what_a_terminal_would_act_on(tmp_path: Path) -> None:
    text = "\x1b[31mred\x1b[0m\x07"
    (tmp_path / "text.txt").write_text(text)
    out = str(tmp_path / "char.json")
    run("train", "--type", "char", "--data", str(tmp_path / "text.txt"), "--out", out)
    ids = json.loads(run("encode", "--tokenizer", out, "--json", text))["ids"]
    assert run("decode", "--tokenizer", out, *map(str, ids)) == text
