"""Where the text comes from: a known name, a file, a folder of text files, or stdin."""

from __future__ import annotations

import contextlib
import hashlib
import platform
import time
from dataclasses import dataclass
from pathlib import Path

from glassgpt.data.cache import cache_folder
from glassgpt.data.download import DownloadError, download
from glassgpt.data.text_files import read_file, read_folder, read_stdin
from glassgpt.errors import UserError, unknown

SHAKESPEARE_URL = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
SHAKESPEARE_SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
AUTO_SECONDS = 5.0  # how long `auto` may wait for the network
NAMED_SECONDS = 60.0  # how long a corpus that was asked for by name may
RETRY_SECONDS = 600.0  # after a failure `auto` leaves the network alone for so long

NAMES = {
    "auto": "shakespeare where it is cached or downloads within 5 s, else python-manual",
    "shakespeare": "Tiny Shakespeare, 1,115,394 characters of plays, downloaded once",
    "python-manual": "the language reference inside Python itself, about 465,000 characters, no network",
}
STDIN = "-"
IN_MEMORY = "memory"  # the source of a text that a Python program handed over


@dataclass(frozen=True)
class Corpus:
    """A text and where it is from. `load_text(source)` gives the same text again, except for stdin and memory."""

    name: str  # short, for headings
    text: str
    source: str  # a known name, an absolute path, "-" or "memory"
    note: str  # one line: which text this is, and why this one


def load_text(source: str) -> Corpus:
    """The text of `source`: `auto`, `shakespeare`, `python-manual`, a file, a folder of text files, or `-` for stdin.

    A known name means the same in every folder: a file of that name is reached as `./shakespeare`.
    Raises UserError for an unknown name, and for text that is missing, empty, binary or not UTF-8.
    """
    if source == STDIN:
        return Corpus("stdin", read_stdin(), STDIN, "text from stdin")
    if source == "auto":
        return _auto()
    if source == "shakespeare":
        return _shakespeare()
    if source == "python-manual":
        return _python_manual()
    return _from_path(source)


def text_corpus(text: str, name: str = "text") -> Corpus:
    """A text that a program already holds, as a corpus. Raises UserError where it is empty or cannot be UTF-8."""
    if not text:
        raise UserError("the text is empty: there is nothing to learn from")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"the text has a lone surrogate U+{ord(text[error.start]):04X} at character {error.start}: not Unicode text"
        ) from None
    return Corpus(name, text, IN_MEMORY, "text given in memory")


def shakespeare_path() -> Path:
    """Where the cache keeps Tiny Shakespeare."""
    return cache_folder() / "corpora" / "shakespeare.txt"


def _from_path(source: str) -> Corpus:
    path = Path(source).expanduser()
    if path.is_dir():
        text, note = read_folder(path)
        return Corpus(path.absolute().name, text, str(path.absolute()), f"{note} from folder {path}")
    if path.exists():
        return Corpus(path.name, read_file(path), str(path.absolute()), f"text of {path}")
    if "/" in source or "\\" in source or path.suffix:
        raise UserError(f"there is no file or folder {source}; give a text file, a folder, '-' or one of: {_names()}")
    raise unknown("text (no file or folder has this name either)", source, NAMES)


def _auto() -> Corpus:
    """Shakespeare if that takes no more than `AUTO_SECONDS`, else the manual; the note says why."""
    cached = _cached_shakespeare()
    if cached is not None:
        return _shakespeare_corpus(cached, "found in the cache")
    try:
        _leave_network_alone_after_failure()
        return _download_shakespeare(AUTO_SECONDS)
    except DownloadError as error:
        manual = _python_manual()
        note = f"{manual.note}, because Tiny Shakespeare is not in the cache and {error}"
        return Corpus(manual.name, manual.text, manual.source, note)


def _shakespeare() -> Corpus:
    cached = _cached_shakespeare()
    if cached is not None:
        return _shakespeare_corpus(cached, "found in the cache")
    try:
        return _download_shakespeare(NAMED_SECONDS)
    except DownloadError as error:
        raise UserError(
            f"Tiny Shakespeare is not in the cache and {error}; put the file at {shakespeare_path()} yourself, "
            "or take the text 'python-manual', which needs no network"
        ) from error


def _shakespeare_corpus(text: str, how: str) -> Corpus:
    return Corpus("shakespeare", text, "shakespeare", f"Tiny Shakespeare, {how}")


def _cached_shakespeare() -> str | None:
    """The cached text, or None where it is missing or not what was downloaded once."""
    with contextlib.suppress(OSError):
        data = shakespeare_path().read_bytes()
        if hashlib.sha256(data).hexdigest() == SHAKESPEARE_SHA256:
            return data.decode()
    return None


def _download_shakespeare(seconds: float) -> Corpus:
    path = shakespeare_path()
    try:
        download(SHAKESPEARE_URL, path, sha256=SHAKESPEARE_SHA256, seconds=seconds)
    except DownloadError as error:
        _remember_failure(error)
        raise
    _failure_path().unlink(missing_ok=True)
    return _shakespeare_corpus(path.read_bytes().decode(), f"downloaded to {path}")


def _failure_path() -> Path:
    return shakespeare_path().with_suffix(".failed")


def _remember_failure(error: DownloadError) -> None:
    with contextlib.suppress(OSError):  # a cache that cannot be written only costs the next call its wait
        _failure_path().parent.mkdir(parents=True, exist_ok=True)
        _failure_path().write_text(str(error), encoding="utf-8")


def _leave_network_alone_after_failure() -> None:
    """Raises the last DownloadError again while it is fresh, so that only the first of several calls waits."""
    with contextlib.suppress(OSError):
        age = time.time() - _failure_path().stat().st_mtime
        if 0 <= age < RETRY_SECONDS:
            reason = _failure_path().read_text(encoding="utf-8")
            raise DownloadError(f"{reason} ({age / 60:.0f} min ago; `--data shakespeare` tries again now)")


def _python_manual() -> Corpus:
    try:
        from pydoc_data.topics import topics
    except ImportError as error:
        raise UserError(
            "this Python comes without its manual (pydoc_data.topics): give a text file with --data FILE"
        ) from error
    text = "\n\n".join(topics[name].strip("\n") for name in sorted(topics)) + "\n"
    note = f"the language reference of Python {platform.python_version()}"
    return Corpus("python-manual", text, "python-manual", note)


def _names() -> str:
    return ", ".join(sorted(NAMES))
