"""Opens the models of runs, keeps some, and computes for one request at a time.

A forward pass uses all cores, so a second one at the same time would only make both slow. Requests wait in a short
line; one that comes when the line is full is told so. A computation whose page has gone is stopped at the next block.
"""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from torch import Tensor

from glassgpt.errors import UserError
from glassgpt.inspection.taps import sites, tapped
from glassgpt.models import Model
from glassgpt.runs.folder import find_checkpoint
from glassgpt.runs.run import Run, open_run

T = TypeVar("T")
MOST_WAITING = 4  # requests that may wait for the one that computes
CACHE_BYTES = 1 << 30  # of weights: the checkpoints of a small run, for its film
POLL_SECONDS = 0.1  # between two looks at whether the page is still there


class Busy(UserError):
    """Too many requests wait."""


class Gone(Exception):
    """The page that asked is closed, or asks for something else now."""


@dataclass(frozen=True)
class Bench:
    """A model that is ready, and what a long computation asks to learn whether it should stop."""

    run: Run
    stop: threading.Event

    @property
    def model(self) -> Model:
        """The model, in evaluation mode."""
        return self.run.model

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Raises Gone in the next block of a forward pass once the computation should stop."""

        def check(_: Tensor) -> None:
            self.check()

        names = [name for name in sites(self.model) if name.endswith(".resid")]
        with tapped(self.model, dict.fromkeys(names, check)):
            yield

    def check(self) -> None:
        """Raises Gone if the computation should stop."""
        if self.stop.is_set():
            raise Gone


class Workbench:
    """Computes with the models of runs, for one request at a time."""

    def __init__(self, device: str = "auto") -> None:
        self._device = device
        self._turn = asyncio.Lock()
        self._waiting = 0
        self._opened: OrderedDict[tuple[Path, str, float], Run] = OrderedDict()

    async def compute(
        self, folder: Path, step: str | int, work: Callable[[Bench], T], is_gone: Callable[[], Awaitable[bool]]
    ) -> T:
        """Runs `work` in a thread. Raises Busy if too many wait, Gone if the page has gone, and what `work` raises."""
        if self._waiting >= MOST_WAITING:
            raise Busy("this server is computing for other pages: try again in a moment")
        self._waiting += 1
        try:
            await self._turn.acquire()
        finally:
            self._waiting -= 1
        stop = threading.Event()
        try:
            if await is_gone():
                raise Gone
            task = asyncio.create_task(asyncio.to_thread(self._work, folder, step, work, stop))
            while not task.done():
                await asyncio.wait([task], timeout=POLL_SECONDS)
                if not task.done() and not stop.is_set() and await is_gone():
                    stop.set()
            return task.result()
        finally:
            stop.set()
            self._turn.release()

    def _work(self, folder: Path, step: str | int, work: Callable[[Bench], T], stop: threading.Event) -> T:
        bench = Bench(self._open(folder, step), stop)
        with bench.watched():
            return work(bench)

    def _open(self, folder: Path, step: str | int) -> Run:
        """The run with the weights of that step, from those kept if the checkpoint's files are still the same."""
        checkpoint = find_checkpoint(folder, step)
        key = (folder.resolve(), checkpoint.path.name, checkpoint.path.stat().st_mtime)
        if key not in self._opened:
            run = open_run(folder, checkpoint=checkpoint.step, device=self._device)
            run.check_language_model()
            run.model  # noqa: B018  # reads the weights now, so that damaged ones are not kept
            self._opened[key] = run
        self._opened.move_to_end(key)
        while len(self._opened) > 1 and sum(map(_bytes, self._opened.values())) > CACHE_BYTES:
            self._opened.popitem(last=False)
        return self._opened[key]


def _bytes(run: Run) -> int:
    return sum(parameter.nbytes for parameter in run.model.parameters())
