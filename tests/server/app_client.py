"""A client that asks the web app without a network: requests go straight into it."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any

from glassgpt.server.guard import App
from glassgpt.server.wire import unpack

PORT = 4242


@dataclass(frozen=True)
class Client:
    """Asks an app as its own pages do."""

    app: App

    def get(self, path: str) -> tuple[int, Any]:
        """The status and the answer, as `post` gives them."""
        return self._send("GET", path, b"")

    def post(self, path: str, body: object) -> tuple[int, Any]:
        """The status, and the JSON or the unpacked meta data and arrays of the answer. Bytes are sent as they are."""
        return self._send("POST", path, body if isinstance(body, bytes) else json.dumps(body).encode())

    def _send(self, method: str, path: str, data: bytes) -> tuple[int, Any]:
        headers = [(b"host", f"localhost:{PORT}".encode()), (b"content-type", b"application/json")]
        scope = {
            "type": "http", "http_version": "1.1", "method": method, "scheme": "http", "path": path,
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
