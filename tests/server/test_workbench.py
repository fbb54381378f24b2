"""One computation at a time, a short line of others, and none for a page that has gone."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import torch

pytest.importorskip("fastapi", reason="needs the packages of [serve]")

import glassgpt as gg
from glassgpt.errors import UserError
from glassgpt.inspection.trace import trace
from glassgpt.runs.run import Run
from glassgpt.server.workbench import MOST_WAITING, Bench, Busy, Gone, Passes, Workbench


async def here() -> bool:
    return False


def test_a_computation_whose_page_has_gone_stops_at_the_next_block(trained_runs: Path) -> None:
    looks, passes = iter([False, False]), []

    async def gone_after_two_looks() -> bool:
        return next(looks, True)

    def endless(bench: Bench) -> None:
        while True:
            bench.model(torch.zeros(1, 4, dtype=torch.long))
            passes.append(1)

    with pytest.raises(Gone):
        asyncio.run(Workbench("cpu").compute(trained_runs / "letters", "best", endless, gone_after_two_looks))
    assert passes


def test_a_page_that_has_gone_before_its_turn_computes_nothing(trained_runs: Path) -> None:
    async def gone() -> bool:
        return True

    with pytest.raises(Gone):
        asyncio.run(Workbench("cpu").compute(trained_runs / "letters", "best", lambda bench: pytest.fail("ran"), gone))


def test_a_full_line_is_said(trained_runs: Path) -> None:
    async def all_at_once() -> list[object]:
        bench, release, at_once, most = Workbench("cpu"), threading.Event(), [], []

        def work(_: Bench) -> str:
            at_once.append(1)
            most.append(len(at_once))
            release.wait(20)
            at_once.pop()
            return "done"

        def ask() -> asyncio.Task[str]:
            return asyncio.create_task(bench.compute(trained_runs / "letters", "best", work, here))

        first = ask()
        while not at_once:
            await asyncio.sleep(0.01)
        others = [ask() for _ in range(MOST_WAITING + 2)]
        await asyncio.sleep(0.05)
        release.set()
        results = await asyncio.gather(first, *others, return_exceptions=True)
        assert max(most) == 1
        return results

    results = asyncio.run(all_at_once())
    assert results[: 1 + MOST_WAITING] == ["done"] * (1 + MOST_WAITING)
    assert all(isinstance(result, Busy) for result in results[1 + MOST_WAITING :])
    assert len(results) == MOST_WAITING + 3


def test_those_whose_page_has_gone_keep_nobody_out(trained_runs: Path) -> None:
    async def one_after_many() -> list[object]:
        bench, begun, release, gone = Workbench("cpu"), threading.Event(), threading.Event(), []

        def work(_: Bench) -> str:
            begun.set()
            release.wait(20)
            return "done"

        async def left() -> bool:
            return bool(gone)

        def ask(is_gone: Callable[[], Awaitable[bool]]) -> asyncio.Task[str]:
            return asyncio.create_task(bench.compute(trained_runs / "letters", "best", work, is_gone))

        first = ask(here)
        while not begun.is_set():
            await asyncio.sleep(0.01)
        others = [ask(left) for _ in range(MOST_WAITING)]
        await asyncio.sleep(0.05)
        gone.append(True)
        last = ask(here)
        await asyncio.sleep(0.05)
        release.set()
        return await asyncio.gather(first, *others, last, return_exceptions=True)

    first, *others, last = asyncio.run(one_after_many())
    assert (first, last) == ("done", "done")
    assert all(isinstance(result, Gone) for result in others)


def test_the_checkpoints_of_a_run_share_its_tokenizer(trained_runs: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(trained_runs / "letters", tmp_path / "letters"))
    bench = Workbench("cpu")

    def opened(step: int) -> Run:
        return asyncio.run(bench.compute(folder, step, lambda bench: bench.run, here))

    first, last = opened(0), opened(4)
    assert last.tokenizer is first.tokenizer and (first.step, last.step) == (0, 4)
    weights = [run.model.state_dict()["token_embedding.weight"] for run in (last, gg.load(folder, checkpoint=4))]
    assert torch.equal(*weights) and not torch.equal(weights[0], first.model.state_dict()["token_embedding.weight"])
    (folder / "tokenizer.json").unlink()
    with pytest.raises(UserError, match=r"tokenizer\.json"):
        opened(2)


def test_the_oldest_passes_and_models_are_forgotten(trained_runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    passes, kept = Passes(), trace(gg.load(trained_runs / "letters").model, [1, 2, 3], ["embed"])
    for key in ("plain", "one edit"):
        passes.keep(key, kept)
    assert passes.find("plain") is kept
    assert passes.nbytes == 2 * (kept.logits.nbytes + kept["embed"].nbytes)
    passes.keep("another edit", kept)
    assert passes.find("one edit") is None and passes.find("plain") is kept
    monkeypatch.setattr("glassgpt.server.workbench.CACHE_BYTES", 0)
    bench = Workbench("cpu")
    found = [asyncio.run(bench.compute(trained_runs / "letters", 4, lambda b: b.run, here)) for _ in range(2)]
    assert found[0] is found[1]
    asyncio.run(bench.compute(trained_runs / "letters", 0, lambda _: None, here))
    assert asyncio.run(bench.compute(trained_runs / "letters", 4, lambda b: b.run, here)) is not found[0]
