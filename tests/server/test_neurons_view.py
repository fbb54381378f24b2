"""Neurons: what the page is told equals what hooks on the model see."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from app_client import Client
from numpy.typing import NDArray
from serving import train_without_mlp
from torch import Tensor

import glassgpt as gg
from glassgpt.data.dataset_cache import dataset_at_hand
from glassgpt.models.gpt2 import GPT2, GPT2Config
from glassgpt.runs.run import Run
from glassgpt.server.views import neurons
from glassgpt.server.views.neurons import PASSAGES, REACH, tokens_read

Answer = tuple[dict[str, Any], dict[str, NDArray[Any]]]
OWN = "The cat sat on a mat. " * 4


def ask(client: Client, path: str, **fields: Any) -> Answer:
    status, answer = client.post(path, {"run": "letters", **fields})
    assert status == 200, answer
    return answer


def hidden(run: Run, ids: list[int]) -> Tensor:
    """The activations (T, F) of block 0, one window at a time, as the last matrix of the MLP receives them."""
    found: list[Tensor] = []
    handle = run.model.blocks[0].mlp.down.register_forward_pre_hook(lambda _, inputs: found.append(inputs[0][0]))
    with torch.no_grad():
        for start in range(0, len(ids), 32):
            run.model(torch.tensor([ids[start : start + 32]]))
    handle.remove()
    return torch.cat(found)


def validation_ids(run: Run) -> list[int]:
    dataset = dataset_at_hand(run.manifest, run.tokenizer)
    assert dataset is not None
    return dataset.val.slice(0, len(dataset.val)).tolist()


@pytest.mark.parametrize("name", ["letters", "pairs"])
def test_all_neurons_on_the_validation_text(client: Client, trained_runs: Path, name: str) -> None:
    run = gg.load(trained_runs / name)
    ids = validation_ids(run)
    values = hidden(run, ids)
    meta, arrays = ask(client, "/api/neurons", run=name)
    assert meta["text"] == {"source": "validation", "tokens": len(ids), "whole": len(ids), "window": 32}
    assert (meta["layer"], meta["blocks"]) == (0, [{"layer": 0, "neurons": 128, "dead": 0}])
    np.testing.assert_allclose(arrays["largest"], values.amax(dim=0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(arrays["mean"], values.mean(dim=0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(arrays["active"], (values > 0).float().mean(dim=0), rtol=1e-6)
    assert arrays["selectivity"].shape == arrays["dead"].shape == (128,)
    assert (arrays["selectivity"] >= 0).all() and (arrays["selectivity"] <= 1).all()


def test_the_passages_that_excite_a_neuron(client: Client, trained_runs: Path) -> None:
    run = gg.load(trained_runs / "letters")
    ids = validation_ids(run)
    values = hidden(run, ids)[:, 7]
    meta, arrays = ask(client, "/api/neuron", layer=0, neuron=7)
    assert 1 < len(meta["passages"]) <= PASSAGES
    place, peaks = 0, []
    for passage in meta["passages"]:
        shown = [token["id"] for token in passage["tokens"]]
        seen = arrays["values"][place : place + len(shown)]
        place += len(shown)
        peaks.append(float(seen[passage["at"]]))
        starts = [start for start in range(len(ids)) if ids[start : start + len(shown)] == shown]
        assert any(np.allclose(values[start : start + len(shown)], seen, rtol=1e-4, atol=1e-6) for start in starts)
        assert len(shown) <= 2 * REACH + 1
    assert place == len(arrays["values"])
    assert peaks[0] == pytest.approx(float(values.max()), rel=1e-4)
    assert peaks == sorted(peaks, reverse=True) and min(peaks) > 0


def test_the_tokens_on_which_and_after_which_it_is_active(client: Client, trained_runs: Path) -> None:
    run = gg.load(trained_runs / "letters")
    ids = torch.tensor(validation_ids(run))
    active = hidden(run, ids.tolist())[:, 7].clamp(min=0)
    meta, arrays = ask(client, "/api/neuron", layer=0, neuron=7)
    for name, tokens, values in (("on", ids, active), ("after", ids[:-1], active[1:])):
        shares = {int(id): float(values[tokens == id].sum() / values.sum()) for id in tokens.unique()}
        found = arrays[f"{name}_ids"].tolist()
        assert found == sorted(shares, key=lambda id: -shares[id])[:5]
        for id, (share, own) in zip(found, arrays[f"{name}_shares"], strict=True):
            assert share == pytest.approx(shares[id], rel=1e-3)
            assert own == pytest.approx(float((tokens == id).float().mean()), rel=1e-5)
            assert meta["names"][str(id)]["text"] == run.tokenizer.decode([id])


def test_what_it_adds_to_the_logits_and_what_is_lost_without_it(client: Client, trained_runs: Path) -> None:
    """In a model of one block, the logits without the neuron's column are those without its direct effect."""
    run = gg.load(trained_runs / "letters")
    ids = validation_ids(run)
    values = hidden(run, ids)[:, 7]
    peak = int(values.argmax())
    start = peak - peak % 32
    around = torch.tensor([ids[start : start + 32]])
    stream: list[Tensor] = []
    run.model.norm.register_forward_pre_hook(lambda _, inputs: stream.append(inputs[0][0, peak - start]))
    logits = []
    with torch.no_grad():
        logits.append(run.model(around)[0])
        run.model.blocks[0].mlp.down.weight[:, 7] = 0
        logits.append(run.model(around)[0])
    scales = [(one.var(unbiased=False) + 1e-5).sqrt() for one in stream]
    bias = run.model.head(run.model.norm.bias).detach()  # which the scale of the norm does not change
    direct = logits[0][peak - start] - ((logits[1][peak - start] - bias) * scales[1] / scales[0] + bias)
    losses = [F.cross_entropy(one[:-1], around[0, 1:], reduction="none") for one in logits]
    _, arrays = ask(client, "/api/neuron", layer=0, neuron=7)
    np.testing.assert_allclose(arrays["direct_logits"], direct.numpy()[arrays["direct_ids"]], rtol=1e-2, atol=1e-5)
    assert arrays["direct_ids"][0] == int(direct.argmax()) and int(direct.argmin()) in arrays["direct_ids"]
    follows = peak - start + 1 < around.size(1)
    next_losses = [float(one[peak - start]) if follows else np.nan for one in losses]
    expected = [float(losses[1].mean() - losses[0].mean()), *next_losses]
    np.testing.assert_allclose(arrays["effect"], expected, rtol=1e-4, atol=1e-6)


def test_a_text_of_the_reader(client: Client, trained_runs: Path) -> None:
    run = gg.load(trained_runs / "letters")
    values = hidden(run, run.tokenizer.encode(OWN))
    meta, arrays = ask(client, "/api/neurons", text=OWN)
    assert meta["text"] == {"source": "own", "tokens": len(OWN), "whole": len(OWN), "window": 32}
    np.testing.assert_allclose(arrays["largest"], values.amax(dim=0), rtol=1e-4, atol=1e-6)
    meta, _ = ask(client, "/api/neuron", layer=0, neuron=3, text=OWN)
    assert "".join(token["text"] for token in meta["passages"][0]["tokens"]) in OWN
    meta, arrays = ask(client, "/api/neuron", layer=0, neuron=3, text="T")
    assert np.isnan(arrays["effect"]).all() and len(meta["passages"]) == 1


def test_samples_are_read_where_the_text_is_not_at_hand(
    trained_runs: Path, tmp_path: Path, serve: Callable[[Path], Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neurons, "dataset_at_hand", lambda *_: None)
    shutil.copytree(trained_runs / "letters", tmp_path / "runs" / "letters")
    client = serve(tmp_path / "runs")
    meta, _ = ask(client, "/api/neurons")
    assert meta["text"]["source"] == "samples" and meta["text"]["tokens"] > 0
    (tmp_path / "runs" / "letters" / "samples.jsonl").unlink()
    status, answer = serve(tmp_path / "runs").post("/api/neurons", {"run": "letters"})
    assert (status, "choose your own text" in answer["error"]) == (400, True)


def test_a_text_is_read_once_for_all_neurons(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    summary = neurons.neuron_summary
    monkeypatch.setattr(neurons, "neuron_summary", lambda *given, **named: read.append(1) or summary(*given, **named))
    for neuron in (0, 1, 2):
        ask(client, "/api/neurons")
        ask(client, "/api/neuron", layer=0, neuron=neuron)
    assert len(read) == 1
    steps = [ask(client, "/api/neurons", step=step) for step in (0, 4)]
    assert [meta["step"] for meta, _ in steps] == [0, 4]
    assert not np.array_equal(steps[0][1]["largest"], steps[1][1]["largest"])


def test_of_a_large_model_fewer_tokens_are_read() -> None:
    sizes = [(1, 32, 64), (6, 384, 256), (12, 768, 1024)]
    with torch.device("meta"):
        models = [
            GPT2(GPT2Config(vocab_size=512, block_size=block, n_layer=L, n_head=4, n_embd=C)) for L, C, block in sizes
        ]
    found = [tokens_read(model) for model in models]
    assert found == sorted(found, reverse=True) and found[0] == 8_192 and found[-1] == 2_048
    assert found[1] % 256 == 0


def test_a_model_without_neurons(text: str, tmp_path: Path, serve: Callable[[Path], Client]) -> None:
    train_without_mlp(tmp_path / "runs" / "letters", text)
    meta, arrays = ask(serve(tmp_path / "runs"), "/api/neurons")
    assert (meta["blocks"], meta["experts"], arrays) == ([], False, {})


@pytest.mark.parametrize(
    ("path", "fields", "status", "said"),
    [
        ("neurons", {"layer": 1}, 400, "there is no MLP in block 1: this model has 1 block"),
        ("neurons", {"text": "cat 字"}, 400, "character '字' (U+5B57) at position 4"),
        ("neurons", {"run": "nobody"}, 404, "there is no run 'nobody'"),
        ("neurons", {"step": 3}, 400, "has no checkpoint '3'"),
        ("neuron", {}, 400, "name a neuron: its layer and its number"),
        ("neuron", {"layer": 0, "neuron": 128}, 400, "there is no neuron 128 in block 0: it has 128 neurons"),
        ("neuron", {"layer": 0, "neuron": -1}, 400, "there is no neuron -1 in block 0"),
    ],
)
def test_bad_questions(client: Client, path: str, fields: dict[str, Any], status: int, said: str) -> None:
    found, answer = client.post(f"/api/{path}", {"run": "letters", **fields})
    assert (found, said in answer["error"]) == (status, True), answer
