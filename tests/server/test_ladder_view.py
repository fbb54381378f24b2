"""Ladder: what the page is told about the ten sections, from a real climb of tiny models and from the package."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from app_client import Client

from glassgpt.course.climb import LadderListener, LadderTraining, climb_ladder
from glassgpt.course.results import save_results
from glassgpt.data.corpora import text_corpus
from glassgpt.data.dataset_cache import DataConfig, build_dataset
from glassgpt.models.ladder import SECTIONS
from glassgpt.runtime.device import Runtime
from glassgpt.server.library import Library
from glassgpt.server.views.ladder import PACKAGE, answer, figures
from glassgpt.tokenizers import TokenizerConfig

Serve = Callable[[Path], Client]
TINY = LadderTraining(steps=2, seeds=1, batch_rows=2, block_size=6, n_head=2, n_embd=8)


@pytest.fixture(scope="module")
def climbed(text: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs with a whole climb in `ladder`. Not to be changed."""
    root = tmp_path_factory.mktemp("climbed") / "runs"
    dataset = build_dataset(DataConfig("text"), TokenizerConfig("char"), corpus=text_corpus(text[:3000]))
    runtime = Runtime(torch.device("cpu"), "float32")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("glassgpt.course.climb.SAMPLE_TOKENS", 4)
        rows = climb_ladder(dataset, SECTIONS, TINY, runtime, LadderListener(), runs=root / "ladder")
    save_results(root / "ladder", rows)
    return root


@pytest.fixture
def root(climbed: Path, tmp_path: Path) -> Path:
    """A copy of the climb, to change."""
    return Path(shutil.copytree(climbed, tmp_path / "runs"))


def ladder(client: Client) -> dict[str, Any]:
    status, found = client.get("/api/ladder")
    assert status == 200, found
    return found


def test_ten_sections_and_the_figures_of_the_package(serve: Serve, tmp_path: Path) -> None:
    found = ladder(serve(tmp_path))
    assert [section["number"] for section in found["sections"]] == list(range(1, 11))
    for section, known in zip(found["sections"], SECTIONS, strict=True):
        assert (section["name"], section["idea"]) == (known.name, known.idea)
        assert section["adds"] and section["drawing"]["svg"].startswith("<svg")
        assert sum(line["kind"] != "removed" for line in section["lines"]) == section["n_lines"]
        assert Path(section["file"]).is_file()
    assert (found["sections"][7]["n_added"], found["sections"][7]["n_removed"]) == (2, 2)
    (package,) = found["climbs"]
    assert package["id"] == PACKAGE and package["problem"] is None and len(package["rows"]) == 10
    assert "Measured with glassgpt ladder on " in package["measured"]
    assert {row["run"] for row in package["rows"]} == {None}


def test_a_climb_among_the_runs_comes_first(serve: Serve, climbed: Path) -> None:
    client = serve(climbed)
    own, package = ladder(client)["climbs"]
    rows = json.loads((climbed / "ladder" / "ladder.json").read_text())
    assert (own["id"], package["id"]) == ("ladder", PACKAGE)
    assert own["measured"] == "Measured by your own climb, ladder: 2 steps, 1 seed."
    for shown, row in zip(own["rows"], rows, strict=True):
        assert {name: shown[name] for name in ("n_params", "val_loss", "sample", "steps")}.items() <= row.items()
        assert shown["losses"] == [*row["losses"][:-1], row["val_loss"]]
    assert own["rows"][0]["shape"] == ""
    assert own["rows"][8]["shape"] == "3 layers, 2 heads, 8 channels, 6 positions"
    assert own["rows"][9]["shape"] == "6 layers, 2 heads, 32 channels, 48 positions"


def test_the_runs_of_a_climb_can_be_looked_into(serve: Serve, climbed: Path) -> None:
    client = serve(climbed)
    ids = [row["run"] for row in ladder(client)["climbs"][0]["rows"]]
    assert ids[3] == "ladder/s04-head" and None not in ids
    assert {card["id"] for card in client.get("/api/runs")[1]["runs"]} == set(ids)
    status, run = client.get("/api/runs/ladder/s04-head")
    assert (status, run["architecture"]) == (200, "head")
    assert client.get("/api/runs/ladder/s04-head/metrics")[0] == 200
    assert client.post("/api/next", {"run": "ladder/s04-head", "text": "the"})[0] == 200
    assert client.get("/api/runs/ladder/../ladder/s04-head")[0] == 404


def test_results_beside_the_runs_and_runs_that_are_named(serve: Serve, climbed: Path) -> None:
    own = ladder(serve(climbed / "ladder"))["climbs"][0]
    assert (own["id"], own["rows"][3]["run"]) == ("ladder", "s04-head")
    named = Library([climbed / "ladder" / "s04-head"], climbed)  # as in: glassgpt look ladder/s04-head
    assert (list(named.folders()), named.climbs()) == (["s04-head"], [])


def test_a_climb_that_goes_on(serve: Serve, root: Path) -> None:
    path = root / "ladder" / "ladder.json"
    path.write_text(json.dumps(json.loads(path.read_text())[:4]))
    shutil.rmtree(root / "ladder" / "s02-embedding")
    own = ladder(serve(root))["climbs"][0]
    assert own["measured"].endswith("2 steps, 1 seed, 4 of 10 sections.")
    assert [row["section"] for row in own["rows"]] == [1, 2, 3, 4]
    assert [row["run"] is None for row in own["rows"]] == [False, True, False, False]


def test_a_damaged_climb_says_so_and_the_others_are_shown(serve: Serve, root: Path) -> None:
    shutil.copytree(root / "ladder", root / "ladder-2")
    (root / "ladder" / "ladder.json").write_text("[{")
    climbs = {climb["id"]: climb for climb in ladder(serve(root))["climbs"]}
    assert list(climbs)[-1] == PACKAGE and len(climbs) == 3
    assert "ladder.json is damaged" in climbs["ladder"]["problem"] and climbs["ladder"]["rows"] == []
    assert climbs["ladder-2"]["problem"] is None and len(climbs["ladder-2"]["rows"]) == 10


def test_what_has_the_name_but_is_no_file(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "odd" / "ladder.json").mkdir(parents=True)
    climb, package = ladder(serve(tmp_path))["climbs"]
    assert climb["problem"] and len(package["rows"]) == 10


def row(number: int, loss: float | None, spread: float | None = 0.0) -> dict[str, Any]:
    return {
        "section": number, "name": SECTIONS[number - 1].name, "n_params": 9, "val_loss": loss, "spread": spread,
        "val_losses": [loss], "seconds": 1.0, "sample": "", "steps": [0, 1], "losses": [4.0, loss],
    }  # fmt: skip


def test_a_change_within_the_spread_is_none() -> None:
    rows: Any = [row(1, 2.0, 0.05), row(2, 1.92, 0.04), row(3, 1.5), row(4, None, None), row(5, 1.4), row(6, 1.6)]
    found = figures(rows, {})
    assert [entry["verdict"] for entry in found] == [None, "about the same", "better", None, None, "worse"]
    assert found[2]["change"] == pytest.approx(-0.42)


def test_the_answer_names_the_largest_gain_and_what_is_worse() -> None:
    rows: Any = [row(1, 2.5), row(2, 2.4), row(3, 3.0), row(4, 2.1)]
    said = answer(figures(rows, {}))
    assert "from 2.50 to 2.10 nats per character" in said
    assert "that of head: 0.30" in said  # below the best so far, not below averaging
    assert said.endswith("averaging is worse than the one before.")
    assert "No section is better than bigram" in answer(figures([row(1, 2.0), row(2, 2.5)], {}))  # type: ignore[list-item]
    assert "One section alone" in answer(figures([row(4, 2.0)], {}))  # type: ignore[list-item]
    assert "One section alone" in answer(figures([], {}))
