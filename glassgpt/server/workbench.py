"""Opens the models of runs, keeps some, and computes for one request at a time.

A forward pass uses all cores, so a second one at the same time would only make both slow. Requests wait in a short
line; one that comes when the line is full is told so. A computation whose page has gone is stopped at the next block.
"""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from torch import Tensor

from glassgpt.errors import UserError
from glassgpt.inspection.taps import sites, tapped
from glassgpt.inspection.trace import Trace
from glassgpt.models import Model, find_architecture
from glassgpt.runs.folder import find_checkpoint
from glassgpt.runs.run import Run, open_run
from glassgpt.training.checkpoint import Checkpoint

T = TypeVar("T")
MOST_WAITING = 4  # requests that may wait for the one that computes
CACHE_BYTES = 1 << 30  # of weights and passes: the checkpoints of a small run, for its film
MOST_PASSES = 2  # that are kept of each checkpoint: one with parts switched off, and one without
POLL_SECONDS = 0.1  # between two looks at whether the page is still there


class Busy(UserError):
    """Too many requests wait."""


class Gone(Exception):
    """The page that asked is closed, or asks for something else now."""


class Passes:
    """The last forward passes of one checkpoint, so that several questions about a text share one pass."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Hashable, Trace] = OrderedDict()

    def find(self, key: Hashable) -> Trace | None:
        """The pass that was kept under this key, if it is still there."""
        if key in self._kept:
            self._kept.move_to_end(key)
        return self._kept.get(key)

    def keep(self, key: Hashable, trace: Trace) -> None:
        """Keeps a pass, and forgets the one that was not used for longest if there are too many."""
        self._kept[key] = trace
        while len(self._kept) > MOST_PASSES:
            self._kept.popitem(last=False)

    @property
    def nbytes(self) -> int:
        """How much memory they take."""
        tensors = [t for kept in self._kept.values() for t in (kept.logits, *kept.activations.values())]
        return sum(t.untyped_storage().nbytes() for t in tensors)  # logits may be a part of those of padding rows


@dataclass(frozen=True)
class Opened:
    """A checkpoint that is kept: its model and its last passes."""

    run: Run
    weight_bytes: int
    passes: Passes = field(default_factory=Passes)


@dataclass(frozen=True)
class Bench:
    """A model that is ready, and what a long computation asks to learn whether it should stop."""

    run: Run
    stop: threading.Event
    passes: Passes  # of this model
    open_step: Callable[[int], Run]  # another checkpoint of the same run

    @property
    def model(self) -> Model:
        """The model, in evaluation mode. Raises UserError for an encoder-decoder."""
        return self.run.model

    def check_decoder(self) -> None:
        """Raises UserError for a model that does not predict what comes next in a text."""
        kind = find_architecture(self.run.config.architecture).kind
        if kind != "decoder":
            raise UserError(
                f"this view is for models that predict what comes next in a text, and this is an {kind}: see Inside"
            )

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Raises Gone in the next block of a forward pass once the computation should stop."""

        def check(_: Tensor) -> None:
            self.check()

        model = self.run.any_model
        names = [name for name in sites(model) if name.endswith(".resid")]
        with tapped(model, dict.fromkeys(names, check)):
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
        self._waiting: dict[object, Callable[[], Awaitable[bool]]] = {}
        self._opened: OrderedDict[tuple[Hashable, str, int], Opened] = OrderedDict()

    async def compute(
        self, folder: Path, step: str | int, work: Callable[[Bench], T], is_gone: Callable[[], Awaitable[bool]]
    ) -> T:
        """Runs `work` in a thread. Raises Busy if too many wait, Gone if the page has gone, and what `work` raises."""
        if len(self._waiting) >= MOST_WAITING:
            await self._forget_gone()
        if len(self._waiting) >= MOST_WAITING:
            raise Busy("this server is computing for other pages: try again in a moment")
        place = object()
        self._waiting[place] = is_gone
        try:
            await self._turn.acquire()
        finally:
            self._waiting.pop(place, None)
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

    async def _forget_gone(self) -> None:
        """Those whose page has gone do not count: a page that moves on quickly leaves many behind."""
        for place, is_gone in list(self._waiting.items()):
            if await is_gone():
                self._waiting.pop(place, None)

    def _work(self, folder: Path, step: str | int, work: Callable[[Bench], T], stop: threading.Event) -> T:
        opened = self._open(folder, step)
        bench = Bench(opened.run, stop, opened.passes, partial(self._open_run, folder))
        with bench.watched():
            return work(bench)

    def _open_run(self, folder: Path, step: int) -> Run:
        return self._open(folder, step).run

    def _open(self, folder: Path, step: str | int) -> Opened:
        """The run with the weights of that step, from those kept if the checkpoint's files are still the same."""
        checkpoint = find_checkpoint(folder, step)
        of_run = (folder.resolve(), *(_changed(folder / name) for name in ("config.toml", "tokenizer.json")))
        key = (of_run, checkpoint.path.name, _changed(checkpoint.path))
        if key not in self._opened:
            run = self._read_checkpoint(folder, of_run, checkpoint)
            # Reads the weights now, so that damaged ones are not kept.
            self._opened[key] = Opened(run, sum(parameter.nbytes for parameter in run.any_model.parameters()))
        self._opened.move_to_end(key)
        while len(self._opened) > 1 and self._kept_bytes() > CACHE_BYTES:
            self._opened.popitem(last=False)
        return self._opened[key]

    def _read_checkpoint(self, folder: Path, of_run: Hashable, checkpoint: Checkpoint) -> Run:
        """A checkpoint of the run, with the tokenizer of another one that is kept: reading it can take longest."""
        for known, opened in self._opened.items():
            if known[0] == of_run:
                return replace(opened.run, checkpoint=checkpoint)
        run = open_run(folder, checkpoint=checkpoint.step, device=self._device)
        run.check_plain_model()
        return run

    def _kept_bytes(self) -> int:
        return sum(opened.weight_bytes + opened.passes.nbytes for opened in self._opened.values())


def _changed(path: Path) -> int:
    """When the file or folder was changed last; 0 if it is not there."""
    return path.stat().st_mtime_ns if path.exists() else 0
