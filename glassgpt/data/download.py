"""One file from the network, within a deadline that also holds for a hanging DNS look-up."""

from __future__ import annotations

import hashlib
import queue
import threading
import urllib.request
from pathlib import Path

from glassgpt.data.cache import writing
from glassgpt.files import new_file

_MAX_BYTES = 1 << 26  # whatever else comes is none of the texts known by name


class DownloadError(Exception):
    """Why a file could not be had; what to do about it is for the caller to decide."""


def download(url: str, path: Path, *, sha256: str, seconds: float) -> None:
    """Fetches `url` into `path`, whole and checked, or raises DownloadError within `seconds` in all."""
    data = fetch(url, seconds)
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise DownloadError(f"what came was refused: its sha256 is {found[:12]}…, expected {sha256[:12]}…")
    with writing(path), new_file(path) as file:
        file.write(data)


def fetch(url: str, seconds: float) -> bytes:
    """The bytes of `url`, or DownloadError within `seconds`.

    Socket timeouts do not cover name resolution, nor a server that trickles: the whole try runs in a daemon thread,
    which is left behind when the time is over.
    """
    answer: queue.SimpleQueue[bytes | Exception] = queue.SimpleQueue()

    def try_it() -> None:
        try:
            with urllib.request.urlopen(url, timeout=seconds) as response:
                answer.put(response.read(_MAX_BYTES))
        except Exception as error:  # whatever it is, the caller in the other thread must hear of it
            answer.put(error)

    threading.Thread(target=try_it, name="download", daemon=True).start()
    try:
        result = answer.get(timeout=seconds)
    except queue.Empty:
        raise DownloadError(f"no answer within {seconds:g} s") from None
    if isinstance(result, Exception):
        raise DownloadError(_reason(result)) from result
    return result


def _reason(error: Exception) -> str:
    """`Name or service not known`, rather than urllib's `<urlopen error [Errno -2] …>`."""
    cause = getattr(error, "reason", error)
    return getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
