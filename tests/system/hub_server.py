"""A small server that speaks the part of the Hugging Face hub's API which downloads use, for tests on this machine.

It serves repositories from memory. Large files (LFS) are redirected to another path, as the hub redirects to its
storage. Faults can be planted: an answer of another status, or a connection that is cut in the middle of a file.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

API = re.compile(
    r"/api/(models|datasets)/(?P<id>[\w.-]+/[\w.-]+?)(?:/(?P<verb>revision|tree|paths-info)/(?P<rest>.*))?$"
)
RESOLVE = re.compile(r"/(datasets/)?(?P<id>[\w.-]+/[\w.-]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)$")
LARGE = 4096  # bytes from which a file is kept in large-file storage


@dataclass
class Repository:
    """Files by path. `token` must be sent with every request, if it is set; `gated` refuses every one."""

    files: dict[str, bytes]
    token: str | None = None
    gated: bool = False
    revisions: frozenset[str] = frozenset({"main"})

    @property
    def commit(self) -> str:
        digest = hashlib.sha1()
        for path, content in sorted(self.files.items()):
            digest.update(path.encode() + b"\0" + content)
        return digest.hexdigest()

    def has(self, revision: str) -> bool:
        return revision in self.revisions or revision == self.commit


@dataclass
class Hub:
    """The repositories of a server, what was asked of it, and the faults to come."""

    repositories: dict[str, Repository]
    endpoint: str = ""
    storage: str = ""  # the same server under another host name
    requests: list[str] = field(default_factory=list)  # "GET /path", in order
    failing: Counter[int] = field(default_factory=Counter)  # status → how many of the next file requests get it
    cut: list[int] = field(default_factory=list)  # the next large downloads end after that many bytes
    lock: threading.Lock = field(default_factory=threading.Lock)

    def next_failure(self) -> int | None:
        with self.lock:
            for status in self.failing:
                if self.failing[status] > 0:
                    self.failing[status] -= 1
                    return status
        return None

    def next_cut(self) -> int | None:
        with self.lock:
            return self.cut.pop(0) if self.cut else None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub  # set by `serve`

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        url = urlsplit(self.path)
        path = unquote(url.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.hub.requests.append(f"{self.command} {path}")
        if path.startswith("/storage/"):
            self._storage(path)
        elif found := API.match(path):
            self._api(found, parse_qs(url.query), body)
        elif found := RESOLVE.match(path):
            self._resolve(found)
        else:
            self._fail(404, "RepoNotFound")

    def _repository(self, name: str) -> Repository | None:
        """The repository, if this request may see it; else the answer is sent."""
        repository = self.hub.repositories.get(name)
        if repository is None or (
            repository.token and self.headers.get("Authorization") != f"Bearer {repository.token}"
        ):
            self._fail(401, "RepoNotFound")  # the hub does not tell a private repository from a missing one
            return None
        if repository.gated:
            self._fail(403, "GatedRepo")
            return None
        return repository

    def _api(self, found: re.Match[str], query: dict[str, list[str]], body: bytes) -> None:
        repository = self._repository(found["id"])
        if repository is None:
            return
        revision, _, folder = (found["rest"] or "main").partition("/")
        if not repository.has(revision):
            self._fail(404, "RevisionNotFound")
            return
        if found["verb"] == "tree":
            self._send_json(list(_entries(repository, folder, recursive="recursive" in query)))
        elif found["verb"] == "paths-info":
            wanted = parse_qs(body.decode()).get("paths", []) or json.loads(body or b"{}").get("paths", [])
            self._send_json([entry for path in wanted for entry in _named(repository, path)])
        else:
            siblings = [{"rfilename": name} for name in sorted(repository.files)]
            self._send_json({"id": found["id"], "sha": repository.commit, "siblings": siblings, "private": False})

    def _resolve(self, found: re.Match[str]) -> None:
        if (status := self.hub.next_failure()) is not None:
            self._fail(status, None, {"Retry-After": "0"})
            return
        repository = self._repository(found["id"])
        if repository is None:
            return
        if not repository.has(found["revision"]):
            self._fail(404, "RevisionNotFound")
            return
        content = repository.files.get(found["path"])
        headers = {"X-Repo-Commit": repository.commit}
        if content is None:
            self._fail(404, "EntryNotFound", headers)
            return
        headers["ETag"] = f'"{_etag(content)}"'
        if len(content) < LARGE:
            self._send(200, content, headers)
            return
        headers |= {"X-Linked-Etag": headers["ETag"], "X-Linked-Size": str(len(content))}
        headers["Location"] = f"{self.hub.storage}/storage/{_etag(content)}"  # another host, as the hub's own is
        self._send(302, b"", headers)

    def _storage(self, path: str) -> None:
        content = next(
            content
            for repository in self.hub.repositories.values()
            for content in repository.files.values()
            if path.endswith(_etag(content))
        )
        status, start, end = 200, 0, len(content) - 1
        headers = {"ETag": f'"{_etag(content)}"', "Accept-Ranges": "bytes"}
        if found := re.match(r"bytes=(\d+)-(\d*)$", self.headers.get("Range", "")):
            status, start = 206, int(found[1])
            end = min(int(found[2] or end), end)
            headers["Content-Range"] = f"bytes {start}-{end}/{len(content)}"
        part = content[start : end + 1]
        cut = self.hub.next_cut() if self.command == "GET" else None
        self._send(status, part, headers, cut=cut)

    def _send_json(self, value: object) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _fail(self, status: int, code: str | None, headers: dict[str, str] | None = None) -> None:
        known = {"X-Error-Code": code, "X-Error-Message": code} if code else {}
        self._send(status, b"", known | (headers or {}))

    def _send(self, status: int, body: bytes, headers: dict[str, str], *, cut: int | None = None) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[:cut])
        if cut is not None:
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Keeps the test output clean."""


def _etag(content: bytes) -> str:
    """The hub names small files by git's hash and large ones by sha256."""
    if len(content) < LARGE:
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    return hashlib.sha256(content).hexdigest()


def _entry(path: str, content: bytes) -> dict[str, object]:
    entry: dict[str, object] = {"type": "file", "path": path, "size": len(content), "oid": _etag(content)}
    if len(content) >= LARGE:
        entry["lfs"] = {"oid": _etag(content), "size": len(content), "pointerSize": 130}
    return entry


def _entries(repository: Repository, folder: str, *, recursive: bool) -> Iterator[dict[str, object]]:
    """The files under `folder`, and without `recursive` only the names directly in it."""
    prefix = f"{folder}/" if folder else ""
    folders = set()
    for path, content in sorted(repository.files.items()):
        if not path.startswith(prefix):
            continue
        inner = path.removeprefix(prefix)
        if recursive or "/" not in inner:
            yield _entry(path, content)
        if "/" in inner and (name := prefix + inner.split("/")[0]) not in folders:
            folders.add(name)
            yield {"type": "directory", "path": name, "oid": "0" * 40, "size": 0}


def _named(repository: Repository, path: str) -> Iterator[dict[str, object]]:
    if path in repository.files:
        yield _entry(path, repository.files[path])
    elif any(name.startswith(f"{path}/") for name in repository.files):
        yield {"type": "directory", "path": path, "oid": "0" * 40, "size": 0}


@contextlib.contextmanager
def serve(repositories: dict[str, Repository]) -> Iterator[Hub]:
    """Serves the repositories on a free port of this machine; `hub.endpoint` is the URL for HF_ENDPOINT."""
    hub = Hub(repositories)
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    hub.storage = f"http://localhost:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
