"""The web app without a network: requests go straight into it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="needs the packages of [serve]")

from glassgpt.server.app import build_app
from glassgpt.server.guard import Access, App
from glassgpt.server.library import Library
from glassgpt.server.wire import unpack
from glassgpt.server.workbench import Workbench

PORT = 4242
SETTINGS = {
    "model.n_layer": 1, "model.n_head": 2, "model.n_embd": 32, "model.block_size": 32, "schedule.warmup_steps": 1,
    "training.batch_tokens": 64, "training.max_steps": 4, "machine.device": "cpu", "evaluation.every": 4,
    "evaluation.tokens": 200, "evaluation.sample_every": 4, "evaluation.sample_tokens": 5, "checkpoint.every": 2,
    "checkpoint.snapshots": 3,
}  # fmt: skip


@dataclass(frozen=True)
class Client:
    """Asks an app as its own pages do."""

    app: App

    def post(self, path: str, body: object) -> tuple[int, Any]:
        """The status, and the JSON or the unpacked meta data and arrays of the answer. Bytes are sent as they are."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = [(b"host", f"localhost:{PORT}".encode()), (b"content-type", b"application/json")]
        scope = {
            "type": "http", "http_version": "1.1", "method": "POST", "scheme": "http", "path": path,
            "raw_path": path.encode(), "query_string": b"", "headers": headers, "server": ("localhost", PORT),
        }  # fmt: skip
        return asyncio.run(self._ask(scope, data))

    async def _ask(self, scope: dict[str, Any], data: bytes) -> tuple[int, Any]:
        waiting = [{"type": "http.request", "body": data, "more_body": False}]
        sent: list[Any] = []

        async def receive() -> Any:
            if waiting:
                return waiting.pop()
            return await asyncio.Event().wait()  # the page stays open

        async def send(message: Any) -> None:
            sent.append(message)

        await self.app(scope, receive, send)
        content = b"".join(message.get("body", b"") for message in sent[1:])
        kind = dict(sent[0]["headers"])[b"content-type"]
        return sent[0]["status"], json.loads(content) if kind == b"application/json" else unpack(content)


@pytest.fixture(scope="session")
def trained_runs(text: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two runs of 4 steps: `letters` of characters, and `pairs` of a BPE. Not to be changed."""
    import glassgpt as gg

    root = tmp_path_factory.mktemp("server") / "runs"
    root.mkdir()
    (source := root.parent / "sentences.txt").write_text(text, encoding="utf-8")
    kinds = {"letters": {"tokenizer.name": "char"}, "pairs": {"tokenizer.name": "bpe", "tokenizer.vocab_size": 290}}
    for name, tokenizer in kinds.items():
        gg.train(data=source, run=root / name, settings=SETTINGS | tokenizer, listener=gg.Listener())
    return root


@pytest.fixture
def serve() -> Callable[[Path], Client]:
    """`serve(folder)` is a client of an app over the runs of a folder."""
    return lambda root: Client(build_app(Library([], root), Workbench("cpu"), Access("127.0.0.1", PORT)))


@pytest.fixture
def client(trained_runs: Path, serve: Callable[[Path], Client]) -> Client:
    """A client of an app over the trained runs."""
    return serve(trained_runs)
