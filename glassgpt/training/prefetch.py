"""Prepares the batches of the next step while the current one runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from glassgpt.training.losses import MicroBatch

Batches = Callable[[int], Sequence[MicroBatch]]


class Prefetched:
    """`batches(step)`, called in a thread one step ahead. Use it as a context manager.

    The batches must depend on the step alone. They are the same with and without it, and so are errors: that of a step
    is raised when the step is asked for, and never if it is not.
    """

    def __init__(self, batches: Batches) -> None:
        self._batches = batches
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="prefetch")
        self._next: tuple[int, Future[Sequence[MicroBatch]]] | None = None

    def __enter__(self) -> Prefetched:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown(cancel_futures=True)

    def __call__(self, step: int) -> Sequence[MicroBatch]:
        """The batches of the step; those of the next are prepared from now on."""
        if self._next is None or self._next[0] != step:
            self._next = step, self._thread.submit(self._batches, step)
        found = self._next[1].result()
        self._next = step + 1, self._thread.submit(self._batches, step + 1)
        return found
