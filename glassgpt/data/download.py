"""Downloads one file within a time limit, which also covers a hanging DNS lookup."""

from __future__ import annotations

import hashlib
import queue
import threading
import urllib.request
from pathlib import Path

from glassgpt.data.cache import writing
from glassgpt.files import new_file

_MAX_BYTES = 1 << 26  # more than any of the corpora known by name


class DownloadError(Exception):
    """A download failed. The caller decides what to do."""


def download(url: str, path: Path, *, sha256: str, seconds: float) -> None:
    """Downloads `url` to `path` atomically and checks it. Raises DownloadError within `seconds` in total."""
    data = fetch(url, seconds)
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise DownloadError(f"the downloaded file was rejected: its sha256 is {found[:12]}…, not {sha256[:12]}…")
    with writing(path), new_file(path) as file:
        file.write(data)


def fetch(url: str, seconds: float) -> bytes:
    """The bytes of `url`, or DownloadError within `seconds`.

    Socket timeouts cover neither name resolution nor a server that sends very slowly. So the request runs in a daemon
    thread, which is abandoned when the time is over.
    """
    answer: queue.SimpleQueue[bytes | Exception] = queue.SimpleQueue()

    def request() -> None:
        try:
            with urllib.request.urlopen(url, timeout=seconds) as response:
                data = response.read(_MAX_BYTES)
                length = response.headers.get("Content-Length")
                if length and len(data) < min(int(length), _MAX_BYTES):  # `read` with a size does not check this
                    raise DownloadError(f"the connection ended after {len(data):,} of {int(length):,} bytes")
                answer.put(data)
        except Exception as error:  # any error must reach the caller in the other thread
            answer.put(error)

    threading.Thread(target=request, name="download", daemon=True).start()
    try:
        result = answer.get(timeout=seconds)
    except queue.Empty:
        raise DownloadError(f"no answer within {seconds:g} s") from None
    if isinstance(result, DownloadError):
        raise result
    if isinstance(result, Exception):
        raise DownloadError(_reason(result)) from result
    return result


def _reason(error: Exception) -> str:
    """`Name or service not known`, rather than urllib's `<urlopen error [Errno -2] …>`."""
    cause = getattr(error, "reason", error)
    return getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
