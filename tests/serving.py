"""The app of `glassgpt look` on a free port of this machine, for tests that ask it as a page does."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import glassgpt as gg


@dataclass(frozen=True)
class Site:
    """A running server: its address, and the folder of the runs that it shows."""

    address: str
    runs: Path


LONGEST_DELAY = 0.4  # seconds, before an answer is computed and once more before it is sent


def delayed(app: Any, seed: str) -> Any:
    """The app, with answers to a page's questions that come late and in another order than they were asked for."""
    times = random.Random(seed)

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or not scope["path"].startswith("/api/"):
            await app(scope, receive, send)
            return

        async def send_late(message: Any) -> None:
            if message["type"] == "http.response.start":
                await asyncio.sleep(times.uniform(0, LONGEST_DELAY))
            await send(message)

        await asyncio.sleep(times.uniform(0, LONGEST_DELAY))
        await app(scope, receive, send_late)

    return answer


@contextmanager
def served(root: Path, token: str | None = None) -> Iterator[Site]:
    """A server over the runs in `root`, on a free port of this machine, in a thread."""
    uvicorn = pytest.importorskip("uvicorn", reason="needs the packages of [serve]")
    pytest.importorskip("fastapi", reason="needs the packages of [serve]")
    from glassgpt.server.app import build_app
    from glassgpt.server.guard import Access
    from glassgpt.server.library import Library
    from glassgpt.server.workbench import Workbench

    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        app = build_app(Library([], root), Workbench("cpu"), Access("127.0.0.1", port, token))
        if seed := os.environ.get("GLASSGPT_TEST_DELAYS"):
            app = delayed(app, seed)
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1, ws="none"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()  # the socket listens already: a request waits until the server is up
        try:
            yield Site(f"http://127.0.0.1:{port}", root)
        finally:
            server.should_exit = True
            thread.join(timeout=10)


def train_without_mlp(run: Path, text: str) -> None:
    """Makes a run of one step: section 5 of the ladder, which has attention and no neurons."""
    (source := run.parents[1] / "sentences.txt").write_text(text, encoding="utf-8")
    settings = {
        "model.architecture": "multihead", "model.n_layer": 1, "model.n_head": 2, "model.n_embd": 16,
        "model.block_size": 16, "schedule.warmup_steps": 1, "training.batch_tokens": 32, "training.max_steps": 1,
        "machine.device": "cpu", "evaluation.tokens": 100,
    }  # fmt: skip
    gg.train("char-tiny", data=source, run=run, settings=settings, listener=gg.Listener())
