"""`glassgpt look --show`: the inside of a real run in a terminal, in a pipe and as JSON."""

from __future__ import annotations

import json
import math
import re
import sys
from pathlib import Path

import pytest
import torch
from command_line import Result, glassgpt, settings
from rich.cells import cell_len
from test_80_columns import on_terminal, raw_terminal

import glassgpt as gg
from glassgpt.report.look import Look

TEXT = "The cat sat."
VIEWS = ["attention", "lens", "tokens", "loss"]


def show(run: Path, view: str, *options: object) -> Result:
    return glassgpt("look", run, "--text", TEXT, "--show", view, *options)


@pytest.mark.parametrize("view", VIEWS)
def test_a_pipe_gets_the_drawing_of_python_without_colours(
    trained: Path, view: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    look = gg.load(trained).look(TEXT)
    expected = {"attention": look.attention, "lens": look.lens, "tokens": look.tokens, "loss": look.losses}[view]()
    result = show(trained, view)
    assert result.code == 0, result.err
    assert result.out == f"{expected!r}\n"


@pytest.mark.parametrize("view", VIEWS)
def test_json_is_one_object_with_the_run_and_the_tokens(trained: Path, view: str) -> None:
    found = json.loads(show(trained, view, "--json").out)
    assert (found["run"], found["step"], found["show"], found["text"]) == (
        str(trained), gg.load(trained).step, view, TEXT,
    )  # fmt: skip
    assert "".join(token["text"] for token in found["tokens"]) == TEXT


def test_the_json_of_the_views_holds_the_numbers(trained: Path) -> None:
    run = gg.load(trained)
    ids = run.tokenizer.encode(TEXT)
    trace = gg.trace(run.model, ids)

    attention = json.loads(show(trained, "attention", "--head", "1.0", "--json").out)
    torch.testing.assert_close(
        torch.tensor(attention["pattern"]), trace["blocks.1.attn.pattern"][0, 0], atol=1e-5, rtol=0
    )
    assert [(head["layer"], head["head"]) for head in attention["heads"]] == [(0, 0), (0, 1), (1, 0), (1, 1)]

    losses = torch.nn.functional.cross_entropy(trace.logits[0, :-1], trace.tokens[0, 1:], reduction="none")
    loss = json.loads(show(trained, "loss", "--json").out)
    assert [token["loss"] for token in loss["tokens"][1:]] == pytest.approx(losses.tolist(), abs=1e-5)
    assert loss["tokens"][0]["loss"] is None and loss["mean_loss"] == pytest.approx(float(losses.mean()))

    lens = json.loads(show(trained, "lens", "--position", "3", "--json").out)
    probabilities = trace.logits[0, 3].softmax(dim=-1)
    assert lens["next"]["id"] == ids[4]
    assert lens["layers"][-1]["next_probability"] == pytest.approx(float(probabilities[ids[4]]), abs=1e-5)
    assert lens["layers"][-1]["predictions"][0]["id"] == int(probabilities.argmax())


def test_the_checkpoint_is_chosen(trained: Path) -> None:
    losses = {step: json.loads(show(trained, "loss", "--checkpoint", step, "--json").out) for step in ("0", "last")}
    assert losses["0"]["step"] == 0 and losses["last"]["step"] == 40
    assert losses["0"]["mean_loss"] > losses["last"]["mean_loss"] + 0.3


def test_without_a_text_the_last_sample_is_shown(trained: Path) -> None:
    sample = json.loads((trained / "samples.jsonl").read_text().splitlines()[-1])
    written = sample["prompt"] + sample["text"]
    found = json.loads(glassgpt("look", trained, "--show", "tokens", "--json").out)
    assert found["text"] and written.startswith(found["text"])


def test_the_sample_begins_with_the_special_token_and_not_with_its_letters(text_file: Path, tmp_path: Path) -> None:
    bpe = {"tokenizer.name": "bpe", "tokenizer.vocab_size": 300, "tokenizer.special_tokens": "['<|endoftext|>']"}
    options = [part for name, value in bpe.items() for part in ("--set", f"{name}={value}")]
    small = settings(training__max_steps=2, evaluation__sample_every=1)
    trained = glassgpt("train", "char-tiny", "--data", text_file, "--run", tmp_path / "bpe", *small, *options)
    assert trained.code == 0, trained.err
    first = gg.load(tmp_path / "bpe").look().tokens().tokens[0]
    assert (first["text"], first["special"]) == ("<|endoftext|>", True)


def test_a_text_alone_draws_attention(trained: Path) -> None:
    assert glassgpt("look", trained, "--text", TEXT).out == show(trained, "attention").out


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_a_terminal_of_80_columns_holds_every_line(trained: Path) -> None:
    for view in ("attention", "loss"):
        code, lines = on_terminal("look", trained, "--text", (TEXT + " ") * 2, "--show", view)
        assert code == 0 and max(map(cell_len, lines)) <= 80, lines
        assert len(lines) > 8


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_a_terminal_has_colours_unless_it_must_not(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    _, coloured = raw_terminal("look", trained, "--text", TEXT, "--show", "loss")
    monkeypatch.setenv("NO_COLOR", "1")
    _, plain = raw_terminal("look", trained, "--text", TEXT, "--show", "loss")
    assert b"\x1b[" in coloured and b"\x1b" not in plain
    assert re.sub(rb"\x1b\[[0-9;]*m", b"", coloured) == plain


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--show", "loss", "--port", "4243"], "--port is for the web app"),
        (["--text", "The", "--no-browser"], "--browser/--no-browser is for the web app"),
        (["--show", "loss", "--host", "127.0.0.1"], "--host is for the web app"),
        (["--head", "0.0"], "--head is for a view in the terminal: add --show"),
        (["--json"], "--json is for a view in the terminal"),
        (["--checkpoint", "last"], "--checkpoint is for a view in the terminal"),
        (["--show", "lens", "--layer", "0"], "--layer is for --show experts, not for --show lens"),
        (["--show", "experts"], "has no experts: its MLPs compute for all tokens"),
        (["--show", "guesses"], "predicts what comes next, and no hidden tokens"),
        (["--text", "The", "--target", "cat"], "--target is for an encoder-decoder, and"),
        (["--text", "The", "--part", "cross"], "--part is for an encoder-decoder, and"),
        (["--show", "lens", "--head", "0.0"], "--head is for --show attention, not for --show lens"),
        (["--show", "lens", "--part", "cross"], "--part is for --show attention, not for --show lens"),
        (["--show", "loss", "--position", "1"], "--position is for --show lens, not for --show loss"),
        (["--show", "attention", "--head", "1"], "--head 1 is not a head"),
        (["--show", "attention", "--head", "0.7"], "there is no head 7: a block has 2 heads, counted from 0"),
        (["--show", "attention", "--head", "5.0"], "no block 5 has attention; blocks that have it: 0, 1"),
        (["--show", "lens", "--text", "The", "--position", "3"], "there is no position 3: the text has 3 tokens"),
        (["--show", "lens", "--text", "The", "--position", "-1"], "there is no position -1"),
        (["--show", "tokens", "--text", ""], "the text is empty"),
        (["--show", "tokens", "--text", "ж"], "character 'ж'"),
        (["--show", "attention", "--text", "The cat " * 9], "more than the model's block_size of 32"),
        (["--show", "heads"], "--show"),
        (["--show", "loss", "--checkpoint", "7"], "7"),
    ],
)
def test_options_that_do_not_fit_are_refused(trained: Path, options: list[str], message: str) -> None:
    error = glassgpt("look", trained, *options).error
    assert message in error and "\n" not in error


def test_a_view_is_of_one_run(trained: Path) -> None:
    for runs in ([], [trained, trained]):
        assert glassgpt("look", *runs, "--show", "loss").error == "--show loss draws one run: name one"


def test_a_run_without_samples_asks_for_a_text(run: Path) -> None:
    (run / "samples.jsonl").unlink()
    assert "has no sample to look at: give --text" in glassgpt("look", run, "--show", "loss").error


def test_damaged_weights_are_named(run: Path) -> None:
    for folder in (run / "checkpoints").iterdir():
        (folder / "model.safetensors").write_bytes(b"broken")
    assert "model.safetensors" in glassgpt("look", run, "--show", "loss").error


def test_the_public_object_shows_itself(trained: Path) -> None:
    run = gg.load(trained)
    look = run.look(TEXT)
    assert isinstance(look, Look)
    assert repr(look).startswith("Which tokens does the model read?")
    assert ".attention(layer, head)" in repr(look)
    assert look._repr_html_().startswith('<div class="glassgpt-look">')
    assert math.isfinite(look.losses().mean)
