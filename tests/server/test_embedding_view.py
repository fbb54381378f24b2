"""The tokens that are alike to one, and the map whose axes stay the same at every checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from app_client import Client
from numpy.typing import NDArray

import glassgpt as gg
from glassgpt.inspection.embeddings import neighbours
from glassgpt.server.views import embedding

Answer = tuple[dict[str, Any], dict[str, NDArray[Any]]]


def ask(client: Client, **fields: Any) -> Answer:
    status, answer = client.post("/api/embedding", {"run": "letters", **fields})
    assert status == 200, answer
    return answer


def rows(runs: Path, step: int, ids: NDArray[Any]) -> NDArray[np.float64]:
    """The embeddings of the ids at a checkpoint, around their mean."""
    model: Any = gg.load(runs / "letters", checkpoint=step).model
    found: NDArray[np.float64] = model.token_embedding.weight.detach().double().numpy()[ids]
    return found - found.mean(axis=0)


@pytest.mark.parametrize("most", [500, 5], ids=["the whole vocabulary", "the nearest"])
def test_all_checkpoints_are_on_the_axes_of_one(
    client: Client, trained_runs: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr(embedding, "MOST_ON_MAP", most)
    monkeypatch.setattr(embedding, "NEAREST_ON_MAP", 12)
    run = gg.load(trained_runs / "letters", checkpoint=4)
    shown = ask(client, id=3, step=4)[1]["ids"]
    nearest = [3, *neighbours(run.model, 3, 12).ids.tolist()]
    assert shown.tolist() == (nearest if most == 5 else list(range(run.tokenizer.vocab_size)))
    axes = np.linalg.svd(rows(trained_runs, 4, shown), full_matrices=False)[2][:2].T  # (C, 2)
    for step in (4, 2, 0):
        meta, arrays = ask(client, id=3, step=step, axes=4)
        assert (meta["step"], meta["id"]) == (step, 3)
        np.testing.assert_array_equal(arrays["ids"], shown)
        x = rows(trained_runs, step, shown)
        expected = x @ axes
        signs = np.sign((expected * arrays["points"]).sum(axis=0))
        if step == 4:
            first, frame = signs, arrays["frame"]
            points = arrays["points"]
            np.testing.assert_allclose(frame, np.stack([points.min(axis=0), points.max(axis=0)], axis=1))
        np.testing.assert_array_equal(signs, first)  # no axis turns round from one checkpoint to the next
        np.testing.assert_array_equal(arrays["frame"], frame)
        np.testing.assert_allclose(arrays["points"], expected * signs, atol=1e-5)
        np.testing.assert_allclose(arrays["shares"], (expected**2).sum(axis=0) / (x**2).sum(), atol=1e-5)


def test_neighbours_are_those_of_the_checkpoint(client: Client, trained_runs: Path) -> None:
    for step in (0, 4):
        run = gg.load(trained_runs / "letters", checkpoint=step)
        meta, arrays = ask(client, id=5, step=step, axes=4)
        found = neighbours(run.model, 5, 10)
        assert arrays["near_ids"].tolist() == found.ids.tolist()
        np.testing.assert_allclose(arrays["similarities"], found.similarities.numpy(), atol=1e-6)
        assert all(meta["names"][str(id)]["text"] == run.tokenizer.decode([id]) for id in found.ids.tolist())


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "name a token: its id"),
        ({"id": 999}, "token id 999 is outside the model's vocabulary"),
        ({"id": -1}, "token id -1 is outside"),
        ({"id": 1, "axes": 3}, "has no checkpoint '3'"),
    ],
)
def test_bad_input_is_answered_with_a_sentence(client: Client, fields: dict[str, Any], said: str) -> None:
    status, answer = client.post("/api/embedding", {"run": "letters", **fields})
    assert status == 400 and said in answer["error"]
