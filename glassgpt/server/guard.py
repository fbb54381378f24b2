"""Lets only this machine's own pages use the server, and bounds what a request may ask for.

A server on the loopback address can be reached by every page that the browser has open. Such a page may send requests
to it (cross-site requests), or have its own name point to this machine and then read the answers (DNS rebinding). So
the Host header must name this machine, and an Origin header must be that of our own pages. Any other address than
loopback demands a token.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qsl, urlencode

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, RedirectResponse, Response

from glassgpt.files import dump_json

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
MAX_BODY = 1 << 20  # bytes of a request
COOKIE = "glassgpt_token"

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


@dataclass(frozen=True)
class Access:
    """Where the server listens, and the token that it demands; None: none, for loopback only."""

    host: str
    port: int
    token: str | None = None

    def allows_host(self, header: str) -> bool:
        """Whether a Host header names this server. With a token, any name does: the token is the guard."""
        if self.token is not None:
            return True
        name, separator, port = header.rpartition(":")
        if not separator or header.endswith("]"):
            name, port = header, "80"
        return name.lower() in LOOPBACK and port == str(self.port)

    def allows_token(self, given: str) -> bool:
        """Whether the token is right, in a time that does not depend on how much of it is."""
        return self.token is None or hmac.compare_digest(given.encode(), self.token.encode())


class Guard:
    """The outermost layer of the app: refuses requests, and adds the headers that keep pages safe to every answer."""

    def __init__(self, app: App, access: Access, policy: str) -> None:
        self._app, self._access, self._policy = app, access, policy

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":  # lifespan; there are no WebSockets
            await self._app(scope, receive, send)
            return

        async def send_safely(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                self._add_headers(MutableHeaders(scope=message))
            await send(message)

        refusal = self._refusal(scope)
        if refusal is not None:
            await refusal(scope, receive, send_safely)
            return
        await self._app(scope, _bounded(receive), send_safely)

    def _refusal(self, scope: Scope) -> Response | None:
        headers, access = Headers(scope=scope), self._access
        host = headers.get("host", "")
        if not access.allows_host(host):
            return refuse(403, f"this server answers to {' and '.join(LOOPBACK[:2])}, port {access.port}, only")
        origin = headers.get("origin")
        if origin is not None and origin != f"{scope['scheme']}://{host}":
            return refuse(403, "this request comes from another site")
        if headers.get("sec-fetch-site", "none") not in ("none", "same-origin") and scope["path"].startswith("/api/"):
            return refuse(403, "this request comes from another site")
        if scope["method"] == "POST" and headers.get("content-type", "").split(";")[0] != "application/json":
            return refuse(415, "the body of a request must be JSON")  # a form of another site cannot send it
        length = headers.get("content-length", "0")
        if not length.isdecimal() or len(length) > 9 or int(length) > MAX_BODY:
            return refuse(413, f"the request is too large: at most {MAX_BODY:,} bytes")
        return self._token_refusal(scope, headers)

    def _token_refusal(self, scope: Scope, headers: Headers) -> Response | None:
        if self._access.token is None:
            return None
        query = parse_qsl(scope["query_string"].decode("latin-1"))
        given = dict(query).get("token", "")
        if given and self._access.allows_token(given):  # from the printed link: a cookie takes it out of the address
            others = urlencode([(name, value) for name, value in query if name != "token"])
            answer = RedirectResponse(f"{scope['path']}?{others}" if others else scope["path"], 303)
            answer.set_cookie(COOKIE, given, httponly=True, samesite="strict")
            return answer
        try:
            cookie = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
        except CookieError:
            cookie = None
        bearer = headers.get("authorization", "").removeprefix("Bearer ")
        if self._access.allows_token(cookie.value if cookie else bearer):
            return None
        return refuse(401, "this server demands its token: open the link that glassgpt look has printed")

    def _add_headers(self, headers: MutableHeaders) -> None:
        headers["Content-Security-Policy"] = self._policy
        headers["X-Content-Type-Options"] = "nosniff"
        headers["X-Frame-Options"] = "DENY"
        headers["Referrer-Policy"] = "no-referrer"
        headers["Cross-Origin-Resource-Policy"] = "same-origin"
        headers["Cross-Origin-Opener-Policy"] = "same-origin"
        headers.setdefault("Cache-Control", "no-store")


class TooLarge(Exception):
    """The body of a request is longer than it said, or than is allowed."""


def _bounded(receive: Receive) -> Receive:
    """Counts the bytes of a body that came without a length."""
    received = 0

    async def receive_bounded() -> MutableMapping[str, Any]:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > MAX_BODY:
            raise TooLarge
        return message

    return receive_bounded


class Json(JSONResponse):
    """JSON for any text and number: a sample may hold half a character, which UTF-8 cannot encode, or a figure NaN."""

    def render(self, content: Any) -> bytes:
        """The body of the answer."""
        return dump_json(content).encode()


def refuse(status: int, sentence: str) -> Response:
    """An answer that says in one sentence why there is no other."""
    return Json({"error": sentence}, status)
