"""What the view of runs is told: about whole runs, damaged ones, and runs that are written at this moment."""

from __future__ import annotations

import asyncio
import json
import math
import os
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import ANY
from urllib.parse import quote

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from serving import Site, served

pytest.importorskip("fastapi", reason="needs the packages of [serve]")

from glassgpt.files import dump_json
from glassgpt.server import live, references
from glassgpt.server.library import Library
from glassgpt.server.live import Followed, Mark, Watched, follow
from glassgpt.server.references import ReferenceBook
from glassgpt.server.views.runs import pack_metrics, run_details
from glassgpt.server.wire import unpack
from glassgpt.training.metrics import cut_back

SETTINGS = {
    "model.n_layer": 1, "model.n_head": 1, "model.n_embd": 16, "model.block_size": 16, "schedule.warmup_steps": 2,
    "training.batch_tokens": 64, "training.max_steps": 6, "machine.device": "cpu", "evaluation.every": 3,
    "evaluation.tokens": 200, "evaluation.sample_every": 3, "evaluation.sample_tokens": 5, "evaluation.log_every": 1,
    "checkpoint.every": 3,
}  # fmt: skip


@pytest.fixture(scope="module")
def trained(text: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of six steps. Not to be changed."""
    import glassgpt as gg

    root = tmp_path_factory.mktemp("server")
    (root / "sentences.txt").write_text(text, encoding="utf-8")
    gg.train(
        "char-tiny", data=root / "sentences.txt", run=root / "runs" / "first", settings=SETTINGS, listener=gg.Listener()
    )
    return root / "runs" / "first"


@pytest.fixture
def runs(trained: Path, tmp_path: Path) -> Path:
    """A folder of runs with a copy of the trained one, `first`."""
    shutil.copytree(trained, tmp_path / "runs" / "first")
    return tmp_path / "runs"


@pytest.fixture
def site(runs: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr(live, "POLL_SECONDS", 0.02)
    with served(runs) as found:
        yield found


def get(site: Site, path: str) -> Any:
    with urllib.request.urlopen(f"{site.address}{path}", timeout=10) as answer:
        data = answer.read()
    return unpack(data) if path.endswith("/metrics") else json.loads(data)


def figures(path: Path) -> tuple[Any, dict[str, Any]]:
    return unpack(pack_metrics(path))


def line(step: int, loss: float = 2.0, **more: object) -> dict[str, Any]:
    return {"step": step, "tokens_seen": step * 64, "train/loss": loss, "seconds": step / 10, **more}


def write(folder: Path, *lines: dict[str, Any], end: str = "\n") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.jsonl").write_text("\n".join(map(dump_json, lines)) + end)
    return folder


def add(path: Path, *lines: dict[str, Any], end: str = "\n") -> None:
    with path.open("a") as file:
        file.write("\n".join(map(dump_json, lines)) + end)


# --- whole runs -----------------------------------------------------------------------------------------------------


def test_a_run_with_all_that_is_known(site: Site) -> None:
    [card] = get(site, "/api/runs")["runs"]
    details = get(site, "/api/runs/first")
    assert details["state"] == card["state"] == "finished"
    assert (details["step"], details["max_steps"], card["problem"]) == (6, 6, None)
    assert details["config"]["model.n_embd"] == "16"
    assert [sample["step"] for sample in details["samples"]] == [0, 3, 6]
    meta, columns = get(site, "/api/runs/first/metrics")
    assert columns["train:step"].tolist() == [1, 2, 3, 4, 5, 6]
    assert columns["val:step"].tolist() == [0, 3, 6]
    assert columns["val:val/loss"][-1] == pytest.approx(card["val_loss"], abs=1e-6)  # that of the whole split
    assert meta["finished"]


def test_references_are_counted_once_and_without_a_second_tokenisation(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library, book = Library([], runs), ReferenceBook()
    card, _ = library.open("first")
    found = book.find(card, runs / "first")
    assert found.problem is None
    assert found.uniform == pytest.approx(math.log(card.vocab_size or 0))
    assert 0 < (found.bigram or 0) < (found.unigram or 0) < (found.uniform or 0)
    assert (found.ngram or 0) > 0 and found.order == 6
    shutil.copytree(runs / "first", runs / "second")
    (runs / "second" / "counting.json").unlink()
    assert book.find(library.open("second")[0], runs / "second") == found
    monkeypatch.setattr(references, "counting_losses", None)
    shutil.copytree(runs / "second", runs / "third")
    assert book.find(library.open("third")[0], runs / "third") == found


def test_references_of_a_run_whose_tokens_are_gone(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLASSGPT_CACHE", str(tmp_path / "empty"))
    library, folder = Library([], runs), runs / "first"
    kept = ReferenceBook().find(library.open("first")[0], folder)
    assert kept.problem is None and kept.ngram is not None  # the run has them in a file
    (folder / "counting.json").unlink()
    found = ReferenceBook().find(library.open("first")[0], folder)
    assert found.uniform is not None
    assert found.unigram is None
    assert found.problem == "the tokens of its text are no longer in the cache, so they cannot be counted"
    assert not (tmp_path / "empty").exists()


def test_there_is_no_such_run(site: Site) -> None:
    for path in ("/api/runs/other", "/api/runs/..%2Ffirst", "/api/runs/other/metrics", "/api/runs/other/references"):
        with pytest.raises(urllib.error.HTTPError) as refused:
            get(site, path)
        assert refused.value.code == 404


def test_fifty_runs_are_read_once(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(50):
        shutil.copytree(trained, tmp_path / f"run-{number}")
    library = Library([], tmp_path)
    assert len(library.cards()) == 50
    monkeypatch.setattr("glassgpt.server.library.read_record", None)  # a second reading would fail
    assert {card.state for card in library.cards()} == {"finished"}


# --- what cannot be read, or not wholly -----------------------------------------------------------------------------


def test_a_damaged_line_costs_that_line_alone(runs: Path) -> None:
    path = runs / "first" / "metrics.jsonl"
    lines = path.read_bytes().split(b"\n")
    lines[2] = b"{damaged"
    path.write_bytes(b"\n".join(lines))
    _, columns = figures(runs / "first")
    assert len(columns["train:step"]) == 5
    details = run_details(Library([], runs), "first")
    assert details["state"] == "damaged"
    assert "metrics.jsonl, line 3" in details["problem"]
    assert len(details["samples"]) == 3


@pytest.mark.parametrize("name", ["config.toml", "machine.json", "data.json", "notes.jsonl", "doctor.json"])
def test_a_damaged_file_is_named_and_the_rest_is_shown(runs: Path, name: str) -> None:
    (runs / "first" / name).write_text("[model\n{")
    details = run_details(Library([], runs), "first")
    assert name in details["problem"]
    assert len(figures(runs / "first")[1]["train:step"]) == 6


def test_a_run_that_has_written_nothing_yet(runs: Path) -> None:
    for name in ("metrics.jsonl", "samples.jsonl"):
        (runs / "first" / name).unlink()
    details = run_details(Library([], runs), "first")
    assert (details["step"], details["samples"]) == (None, [])
    assert figures(runs / "first") == ({"mark": "0-0", "skipped": [], "finished": False}, {})


def test_a_run_without_a_config_is_no_surprise(runs: Path) -> None:
    (runs / "first" / "config.toml").unlink()
    assert Library([], runs).cards() == []
    assert Library([runs / "first"], runs).cards()[0].id == "first"


@pytest.mark.parametrize("value", ["NaN", "1e400", "true", '"text"', "null", "[1]", "1" + "0" * 400])
def test_a_value_that_cannot_be_drawn_is_a_gap(tmp_path: Path, value: str) -> None:
    folder = write(tmp_path / "run", line(1), line(2))
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(f'{{"step": 3, "train/loss": {value}, "lr": 1}}\n')
    _, columns = figures(folder)
    assert columns["train:step"].tolist() == [1, 2, 3]
    assert np.isnan(columns["train:train/loss"]).tolist() == [False, False, True]


def test_steps_that_were_not_applied_are_named(tmp_path: Path) -> None:
    folder = write(tmp_path / "run", line(1), line(2, math.nan, skipped="the loss is not finite"), line(3))
    meta, columns = figures(folder)
    assert meta["skipped"] == [2]
    assert columns["train:step"].tolist() == [1, 3]


# --- files that grow ------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 400), min_size=1, max_size=12), st.integers(1, 200))
def test_every_line_comes_once_however_the_file_is_written(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int], most: int
) -> None:
    path = tmp_path_factory.mktemp("grows") / "metrics.jsonl"
    data = "".join(dump_json(line(step)) + "\n" for step in range(1, 31)).encode()
    followed, seen, written = Followed(path), [], 0
    for cut in [*cuts, len(data)]:
        with path.open("ab") as file:
            file.write(data[written : written + cut])
        written = min(len(data), written + cut)
        seen += followed.look() or []
    assert [found["step"] for found in seen] == [*range(1, 31)]
    resumed = Followed(path, Mark.parse(str(followed.mark)))
    assert resumed.look() == []
    parts = Followed(path)
    again = []
    while found := parts.look(max(most, 120)):
        again += found
    assert again == seen


def test_a_half_written_line_comes_when_it_is_whole(tmp_path: Path) -> None:
    folder = write(tmp_path / "run", line(1), line(2), end="")
    meta, columns = figures(folder)
    assert columns["train:step"].tolist() == [1]
    followed = Followed(folder / "metrics.jsonl", Mark.parse(meta["mark"]))
    add(folder / "metrics.jsonl", end="\n")
    assert [found["step"] for found in followed.look() or []] == [2]


def test_a_file_that_a_resume_cuts_back_is_read_again(tmp_path: Path) -> None:
    path = write(tmp_path / "run", *(line(step) for step in range(1, 20))) / "metrics.jsonl"
    followed = Followed(path)
    followed.look()
    cut_back(path, lambda found: found["step"] <= 10)
    add(path, *(line(step, 1.5) for step in range(11, 40)))  # longer than before when it is looked at
    assert followed.look() is None
    assert len(followed.look() or []) == 39


def test_a_run_that_is_overwritten_is_read_again(tmp_path: Path) -> None:
    path = write(tmp_path / "run", line(1), line(2)) / "metrics.jsonl"
    followed = Followed(path)
    followed.look()
    path.unlink()
    assert followed.look() is None
    assert followed.look() == []
    write(tmp_path / "run", line(1, 3.0), line(2, 3.0), line(3, 3.0))
    assert len(followed.look() or []) == 3


@pytest.mark.parametrize("text", ["", "x", "-1-2", "1", "9" * 30 + "-1", "1-2-3", "²-1"])
def test_a_mark_that_is_none_means_the_start(text: str) -> None:
    assert Mark.parse(text) == Mark()


# --- events ---------------------------------------------------------------------------------------------------------


def events_of(answer: Any, *names: str) -> Iterator[tuple[str, Any]]:
    """The events of a stream of those names, as they come."""
    name = ""
    for raw in answer:
        field, _, value = raw.decode().rstrip("\n").partition(": ")
        if field == "event":
            name = value
        elif field == "data" and name in names:
            yield name, json.loads(value)


def test_what_a_training_run_writes_reaches_the_page(site: Site) -> None:
    folder = site.runs / "first"
    details, (meta, _) = get(site, "/api/runs/first"), get(site, "/api/runs/first/metrics")
    address = f"{site.address}/api/live?run=first&figures={meta['mark']}&samples={details['samples_mark']}"
    with urllib.request.urlopen(address, timeout=10) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        events = events_of(answer, "figures", "sample", "again", "runs")
        assert next(events) == ("runs", {"ids": ["first"]})
        add(folder / "metrics.jsonl", line(7, 1.25), line(8, math.nan, skipped="not finite"))
        name, data = next(events)
        assert (name, data["run"]) == ("figures", "first")
        assert data["lines"][0]["train/loss"] == 1.25
        assert data["lines"][1] == {"step": 8, "tokens_seen": 512, "seconds": 0.8, "skipped": True}
        add(folder / "samples.jsonl", {"step": 8, "prompt": "", "text": "<b>\u2028\n\n"})
        assert next(events)[1]["text"] == "<b>\u2028\n\n"
        cut_back(folder / "metrics.jsonl", lambda found: found["step"] <= 3)
        assert next(events) == ("again", {"run": "first"})
    assert get(site, "/api/runs/first")["state"] == "training"


def test_a_new_run_is_announced(site: Site) -> None:
    with urllib.request.urlopen(f"{site.address}/api/live", timeout=10) as answer:
        events = events_of(answer, "runs")
        assert next(events)[1] == {"ids": ["first"]}
        shutil.copytree(site.runs / "first", site.runs / "second")
        assert next(events)[1] == {"ids": ["first", "second"]}


def test_a_run_that_is_gone_does_not_end_the_stream(site: Site) -> None:
    with urllib.request.urlopen(f"{site.address}/api/live?run=gone&run=first", timeout=10) as answer:
        events = events_of(answer, "runs", "figures")
        assert next(events) == ("runs", {"ids": ["first"]})
        assert next(events) == ("figures", {"run": "first", "mark": ANY, "lines": ANY})


def test_following_ends_when_the_page_is_gone(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "POLL_SECONDS", 0)
    looks = iter([False, False, True])

    async def gone() -> bool:
        return next(looks)

    async def collect() -> list[bytes]:
        followed = Watched("first", Followed(runs / "first" / "metrics.jsonl"), Followed(runs / "first" / "none"))
        return [event async for event in follow([followed], dict, gone)]

    assert [event.split(b"\n")[0] for event in asyncio.run(collect())] == [b"event: runs", b"event: figures"]


def test_a_quiet_run_counts_as_stopped(runs: Path) -> None:
    path = runs / "first" / "metrics.jsonl"
    cut_back(path, lambda found: not found.get("final"))
    library = Library([], runs)
    assert library.cards()[0].state == "training"
    os.utime(path, times=(time.time() - 3600,) * 2)
    assert library.cards()[0].state == "stopped"


def test_a_run_whose_name_and_sample_are_no_utf8(trained: Path, tmp_path: Path) -> None:
    """One of them made every answer about runs fail."""
    folder = Path(shutil.copytree(trained, tmp_path / "runs" / os.fsdecode(b"odd\xff")))
    with (folder / "samples.jsonl").open("a") as file:
        file.write('{"step": 6, "prompt": "", "text": "half \\ud800 of it"}\n')
    with served(folder.parent) as site:
        (card,) = json.load(urllib.request.urlopen(f"{site.address}/api/runs"))["runs"]
        assert card["id"] == "odd\\udcff"
        details = json.load(urllib.request.urlopen(f"{site.address}/api/runs/{quote(card['id'])}"))
    assert details["samples"][-1]["text"] == "half \ud800 of it"
