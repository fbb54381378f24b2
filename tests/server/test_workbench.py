"""One computation at a time, a short line of others, and none for a page that has gone."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest
import torch

pytest.importorskip("fastapi", reason="needs the packages of [serve]")

from glassgpt.server.workbench import MOST_WAITING, Bench, Busy, Gone, Workbench


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
