"""Who may use the server, and for how much: other sites, other hosts and large requests are refused."""

from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("starlette", reason="needs the packages of [serve]")

from glassgpt.errors import UserError
from glassgpt.server.guard import MAX_BODY, Access, Guard, TooLarge
from glassgpt.server.serve import serve

HERE = {"host": "localhost:4242"}
POST = HERE | {"content-type": "application/json"}


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """An app that answers with the size of what it has received."""
    received, more = 0, True
    while more:
        message = await receive()
        received, more = received + len(message["body"]), message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(received).encode()})


def ask(
    access: Access, headers: dict[str, str], *, method: str = "GET", path: str = "/api/runs", query: str = "",
    parts: tuple[bytes, ...] = (b"",),
) -> tuple[int, dict[str, str], bytes]:  # fmt: skip
    """The status, the headers and the body of the answer to a request."""
    waiting = [{"type": "http.request", "body": part, "more_body": n < len(parts) - 1} for n, part in enumerate(parts)]
    sent: list[Any] = []

    async def receive() -> Any:
        return waiting.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http", "method": method, "path": path, "query_string": query.encode(), "scheme": "http",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }  # fmt: skip
    asyncio.run(Guard(echo, access, "the policy")(scope, receive, send))
    names = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], names, b"".join(message.get("body", b"") for message in sent[1:])


LOOPBACK = Access("127.0.0.1", 4242)
SECRET = Access("0.0.0.0", 4242, "a secret")


@pytest.mark.parametrize("host", ["localhost:4242", "127.0.0.1:4242", "[::1]:4242", "LocalHost:4242"])
def test_this_machine_may_ask(host: str) -> None:
    status, headers, _ = ask(LOOPBACK, {"host": host, "origin": f"http://{host}", "sec-fetch-site": "same-origin"})
    assert status == 200
    assert headers["content-security-policy"] == "the policy"
    assert headers["cache-control"] == "no-store" and headers["x-frame-options"] == "DENY"


@pytest.mark.parametrize(
    "host", ["evil.example:4242", "localhost", "localhost:80", "localhost.evil.example:4242", "", "127.0.0.1:42421"]
)
def test_a_name_that_was_made_to_point_here_may_not(host: str) -> None:
    status, headers, body = ask(LOOPBACK, {"host": host})
    assert status == 403 and "localhost" in json.loads(body)["error"]
    assert headers["content-security-policy"] == "the policy"


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"}, {"origin": "null"}, {"origin": "https://localhost:4242"},
        {"origin": "http://localhost:4243"}, {"sec-fetch-site": "cross-site"}, {"sec-fetch-site": "same-site"},
    ],
)  # fmt: skip
def test_another_site_may_not(headers: dict[str, str]) -> None:
    status, _, body = ask(LOOPBACK, HERE | headers)
    assert status == 403 and "another site" in json.loads(body)["error"]


def test_a_link_from_another_site_opens_a_page_and_no_answer() -> None:
    assert ask(LOOPBACK, HERE | {"sec-fetch-site": "cross-site"}, path="/inside")[0] == 200


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
def test_a_form_of_another_site_cannot_ask(kind: str) -> None:
    assert ask(LOOPBACK, HERE | {"content-type": kind}, method="POST")[0] == 415


@pytest.mark.parametrize("length", [str(MAX_BODY + 1), "9" * 40, "-1", "x", "²"])
def test_a_request_that_says_it_is_large_is_not_read(length: str) -> None:
    status, _, body = ask(LOOPBACK, POST | {"content-length": length}, method="POST", parts=())
    assert status == 413 and "too large" in json.loads(body)["error"]


def test_a_request_that_does_not_say_how_large_it_is_is_bounded() -> None:
    assert ask(LOOPBACK, POST, method="POST", parts=(b"x" * MAX_BODY,))[2] == str(MAX_BODY).encode()
    with pytest.raises(TooLarge):
        ask(LOOPBACK, POST, method="POST", parts=(b"x" * MAX_BODY, b"x"))


def test_another_address_demands_its_token() -> None:
    elsewhere = {"host": "gpu-server:4242"}
    assert ask(SECRET, elsewhere)[0] == 401
    assert ask(SECRET, elsewhere, query="token=a+guess")[0] == 401
    assert ask(SECRET, elsewhere | {"authorization": "Bearer a guess"})[0] == 401
    assert ask(SECRET, elsewhere | {"authorization": "Bearer a secret"})[0] == 200
    status, headers, _ = ask(SECRET, elsewhere, path="/inside", query="token=a%20secret")
    assert status == 303 and headers["location"] == "/inside"
    assert ask(SECRET, elsewhere, path="/inside", query="run=a%26b&token=a+secret&step=3")[1]["location"] == (
        "/inside?run=a%26b&step=3"
    )
    cookie = headers["set-cookie"]
    assert "HttpOnly" in cookie and "samesite=strict" in cookie.lower()
    assert ask(SECRET, elsewhere | {"cookie": cookie.split(";")[0]})[0] == 200
    assert ask(SECRET, elsewhere | {"cookie": "glassgpt_token=a guess"})[0] == 401
    assert ask(SECRET, elsewhere | {"origin": "http://evil.example", "authorization": "Bearer a secret"})[0] == 403


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "gpu-server"])
def test_no_other_address_without_a_token(host: str) -> None:
    with pytest.raises(UserError, match="give a --token"):
        serve([], Path(), access=Access(host, 0), device="cpu", browser=False, started=print)


def test_a_port_that_is_in_use() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        told = rf"^cannot listen on 127.0.0.1, port {port} \(Address already in use\): choose another --port$"
        with pytest.raises(UserError, match=told):
            serve([], Path(), access=Access("127.0.0.1", port), device="cpu", browser=False, started=print)


def test_an_empty_token_would_let_everybody_in() -> None:
    for host in ("0.0.0.0", "127.0.0.1"):
        with pytest.raises(UserError, match="the token is empty"):
            serve([], Path(), access=Access(host, 0, ""), device="cpu", browser=False, started=print)


def test_a_device_that_is_not_there_is_refused_at_the_start() -> None:
    with pytest.raises(UserError, match="unknown device 'gpu'"):
        serve([], Path(), access=Access("127.0.0.1", 0), device="gpu", browser=False, started=print)
