"""Loss: what the page is told about a text is what evaluation measures."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from app_client import Client
from numpy.typing import NDArray

import glassgpt as gg
from glassgpt.data.shards import TokenArray, write_shard
from glassgpt.evaluation.validation import Evaluation, bytes_per_token, evaluate
from glassgpt.runs.run import Run
from glassgpt.runtime.device import Runtime

SHORT = "The cat sat on a mat."
LONG = "The dogs ran home to eat and sleep. " * 4  # more tokens than block_size = 32


def losses(client: Client, **fields: Any) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    status, answer = client.post("/api/losses", fields)
    assert status == 200, answer
    return answer


def measured(run: Run, text: str, folder: Path, stride: int | None) -> Evaluation:
    write_shard(path := folder / "ids.bin", run.tokenizer.encode(text), np.dtype(np.uint16))
    cpu = Runtime(torch.device("cpu"), "float32")
    return evaluate(run.model, TokenArray([path]), bytes_per_token(run.tokenizer), cpu, stride=stride)


@pytest.mark.parametrize("name", ["letters", "pairs"])
@pytest.mark.parametrize(("words", "stride"), [(SHORT, None), (LONG, 16)])
def test_the_mean_is_what_evaluate_measures(
    client: Client, trained_runs: Path, tmp_path: Path, name: str, words: str, stride: int | None
) -> None:
    run = gg.load(trained_runs / name)
    meta, arrays = losses(client, run=name, text=words)
    expected = measured(run, words, tmp_path, stride)
    assert meta["mean"] == pytest.approx(expected.loss, rel=1e-5)
    assert meta["bits_per_byte"] == pytest.approx(expected.bits_per_byte, rel=1e-5)
    assert (meta["stride"], meta["block_size"]) == (stride, 32)
    assert [token["id"] for token in meta["tokens"]] == run.tokenizer.encode(words)
    assert arrays["losses"].shape == (expected.tokens,) == (len(meta["tokens"]) - 1,)
    assert meta["uniform"] == pytest.approx(math.log(run.tokenizer.vocab_size))


def test_what_was_expected(client: Client, trained_runs: Path) -> None:
    run = gg.load(trained_runs / "letters")
    meta, arrays = losses(client, run="letters", text=SHORT)
    ids = torch.tensor([run.tokenizer.encode(SHORT)])
    with torch.no_grad():
        best = run.model(ids)[0, :-1].softmax(dim=-1).topk(5)
    np.testing.assert_array_equal(arrays["expected_ids"], best.indices.numpy())
    np.testing.assert_allclose(arrays["expected_probabilities"], best.values.numpy(), rtol=1e-5)
    for id in set(best.indices.flatten().tolist()):
        assert meta["names"][str(id)]["text"] == run.tokenizer.decode([id])


def test_each_checkpoint_has_its_own_losses(client: Client) -> None:
    found = [losses(client, run="letters", step=step, text=SHORT) for step in (0, 4)]
    assert [meta["step"] for meta, _ in found] == [0, 4]
    assert found[0][0]["mean"] > found[1][0]["mean"]


@pytest.mark.parametrize(
    ("fields", "status", "said"),
    [
        ({"text": ""}, 400, "the text is empty"),
        ({"text": "T"}, 400, "a single token"),
        ({"text": "cat 字"}, 400, "character '字' (U+5B57) at position 4"),
        ({"text": "cat " * 2000}, 400, "8,000 tokens, and 4,096 can be measured"),
        ({"text": "cat", "step": 3}, 400, "has no checkpoint '3'"),
        ({"text": "cat", "run": "nobody"}, 404, "there is no run 'nobody'"),
    ],
)
def test_bad_questions(client: Client, fields: dict[str, Any], status: int, said: str) -> None:
    found, answer = client.post("/api/losses", {"run": "letters", **fields})
    assert (found, said in answer["error"]) == (status, True), answer
