"""The grid of the logit lens is what the model's norm and head say of its streams, and costs no pass of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from app_client import Client
from numpy.typing import NDArray

import glassgpt as gg
from glassgpt.inspection.edit import edit
from glassgpt.server.views import inside
from glassgpt.tokenizers.pieces import tokens_of

WORDS = "The cat sat on a mat."
Answer = tuple[dict[str, Any], dict[str, NDArray[Any]]]


def ask(client: Client, path: str = "/api/lens", **fields: Any) -> Answer:
    status, answer = client.post(path, {"run": "letters", "text": WORDS, **fields})
    assert status == 200, answer
    return answer


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The ids of each forward pass that the views make."""
    made: list[list[int]] = []
    whole: Callable[..., Any] = inside.trace

    def counted(model: Any, ids: list[int], names: Any) -> Any:
        made.append(ids)
        return whole(model, ids, names)

    monkeypatch.setattr(inside, "trace", counted)
    return made


@pytest.mark.parametrize(
    ("name", "step", "off"), [("letters", 4, []), ("letters", 0, ["blocks.0.head.1"]), ("pairs", 2, ["blocks.0"])]
)
def test_the_grid_is_what_norm_and_head_say_of_each_stream(
    client: Client, trained_runs: Path, name: str, step: int, off: list[str]
) -> None:
    run = gg.load(trained_runs / name, checkpoint=step)
    tokens = torch.tensor([run.tokenizer.encode(WORDS)])
    model: Any = run.model
    with edit(model, zero=off):
        logits, found = gg.capture(model, tokens, ["embed", "blocks.0.resid"])
    with torch.no_grad():
        by_hand = [F.linear(model.norm(stream[0]), model.token_embedding.weight) for stream in found.values()]
    shares = torch.stack(by_hand)[..., : run.tokenizer.vocab_size].softmax(dim=-1).max(dim=-1)
    meta, arrays = ask(client, run=name, step=step, edits=off)
    assert (meta["start"], meta["step"]) == (0, step)
    np.testing.assert_array_equal(arrays["ids"], shares.indices.numpy())
    np.testing.assert_array_equal(arrays["ids"][-1], logits[0].argmax(dim=-1).numpy())
    np.testing.assert_allclose(arrays["probabilities"] / 255, shares.values.numpy(), atol=0.51 / 255)
    known = sorted(set(arrays["ids"].ravel().tolist()))
    assert meta["names"] == {str(id): token for id, token in zip(known, tokens_of(run.tokenizer, known), strict=True)}


def test_a_large_vocabulary_shows_a_window(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    _, whole = ask(client)
    n_tokens, vocabulary = whole["ids"].shape[1], ask(client, "/api/next")[1]["logits"].shape[0]
    assert ask(client, "/api/inside")[0]["lens_positions"] == n_tokens == len(WORDS)
    monkeypatch.setattr(inside, "LENS_LOGITS", 2 * vocabulary * 6 + 1)  # an embedding and a block, at 6 positions
    assert ask(client, "/api/inside")[0]["lens_positions"] == 6
    for start in (0, 9, n_tokens - 2):
        meta, part = ask(client, start=start)
        assert meta["start"] == start
        np.testing.assert_array_equal(part["ids"], whole["ids"][:, start : start + 6])
    monkeypatch.setattr(inside, "LENS_LOGITS", 1)
    assert ask(client)[1]["ids"].shape == (2, 1)
    monkeypatch.setattr(inside, "LENS_LOGITS", 10**9)
    monkeypatch.setattr(inside, "LENS_POSITIONS", 4)
    assert ask(client)[1]["ids"].shape == (2, 4)


def test_the_answers_about_a_text_share_its_pass(client: Client, passes: list[list[int]]) -> None:
    for path in ("/api/inside", "/api/next", "/api/lens"):
        ask(client, path)
    ask(client, "/api/next", position=3)
    assert len(passes) == 1
    for path in ("/api/inside", "/api/next", "/api/lens"):
        ask(client, path, edits=["blocks.0.head.0"])
    assert len(passes) == 2  # the one without the edit was kept
    ask(client, text="A mat.")
    ask(client, step=0)
    assert len(passes) == 4


def test_a_kept_pass_answers_as_a_new_one(client: Client, serve: Callable[[Path], Client], trained_runs: Path) -> None:
    fields = {"edits": ["blocks.0.head.0"], "position": 5}
    for path in ("/api/inside", "/api/lens"):
        ask(client, path, **fields)
    _, kept = ask(client, "/api/next", **fields)
    _, new = ask(serve(trained_runs), "/api/next", **fields)
    for name in ("logits", "plain_logits", "lens_probabilities"):
        np.testing.assert_allclose(kept[name], new[name], atol=1e-5)
    assert np.abs(kept["logits"] - kept["plain_logits"]).max() > 1e-3


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"start": 21}, "there is no position 21: the text has 21 tokens"),
        ({"start": -1}, "there is no position -1"),
        ({"edits": ["blocks.9"]}, "there is no 'blocks.9'"),
        ({"text": "cat " * 20}, "80 tokens, and 32 can be looked into"),
    ],
)
def test_bad_input_is_answered_with_a_sentence(client: Client, fields: dict[str, Any], said: str) -> None:
    status, answer = client.post("/api/lens", {"run": "letters", "text": WORDS, **fields})
    assert status in (400, 413) and said in answer["error"]
