"""Loads a text from a known corpus name, a file, a folder of text files, or stdin."""

from __future__ import annotations

import contextlib
import hashlib
import platform
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from glassgpt.data.cache import cache_folder
from glassgpt.data.documents import kind_of
from glassgpt.data.download import DownloadError, download
from glassgpt.data.text_files import read_file, read_folder, read_stdin
from glassgpt.errors import UserError, known_names, option
from glassgpt.files import user_path
from glassgpt.runtime.splitmix import splitmix64

SHAKESPEARE_URL = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
SHAKESPEARE_SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
AUTO_SECONDS = 5.0  # download timeout of `auto`
NAMED_SECONDS = 60.0  # download timeout of a corpus requested by name
ECHOES = 25_000  # lines of the corpus of this name
RETRY_SECONDS = 600.0  # after a failure, `auto` does not retry the download for this long

NAMES = {
    "auto": "shakespeare, or python-manual if it does not download in 5 s",
    "shakespeare": "Tiny Shakespeare, 1,115,394 characters of plays, downloaded once",
    "python-manual": "Python's language reference, 370,000 characters, needs no network",
    "echoes": "random words said several times, 830,000 characters, needs no network",
}
STDIN = "-"
IN_MEMORY = "memory"  # the source of a text that a Python program passed in


@dataclass(frozen=True)
class Corpus:
    """A text and its source. `load_text(source)` gives the same text again, except for stdin and memory."""

    name: str  # short, for headings
    text: str
    source: str  # a known name, an absolute path, "-" or "memory"
    note: str  # one line: which text this is, and why it was chosen


def load_text(source: str) -> Corpus:
    """The text of `source`: a known name (see `NAMES`), a file, a folder of text files, or `-` for stdin.

    A known name takes precedence over a file of the same name, which is reached as `./shakespeare`.
    Raises UserError for an unknown name, and for text that is missing, empty, binary or not UTF-8.
    """
    if not source:
        raise UserError("the name of the text is empty: give a known name, a file, a folder, or '-' for stdin")
    if source == STDIN:
        return Corpus("stdin", read_stdin(), STDIN, "stdin")
    if source not in NAMES:
        return _from_path(source)
    corpus = {"auto": _auto, "shakespeare": _shakespeare, "python-manual": _python_manual, "echoes": _echoes}[source]()
    if Path(source).exists():
        return replace(corpus, note=f"{corpus.note} (and not the file of this name, which is ./{source})")
    return corpus


def text_corpus(text: str, name: str = "text") -> Corpus:
    """A corpus from a text in memory. Raises UserError if it is empty or cannot be encoded as UTF-8."""
    if not text:
        raise UserError("the text is empty: there is nothing to learn from")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"the text has a lone surrogate U+{ord(text[error.start]):04X} at character {error.start}: not Unicode text"
        ) from None
    return Corpus(name, text, IN_MEMORY, "a text in memory")


def shakespeare_path() -> Path:
    """Path of Tiny Shakespeare in the cache."""
    return cache_folder() / "corpora" / "shakespeare.txt"


def verify_shakespeare(path: Path) -> None:
    """Raises UserError if the cached file is not Tiny Shakespeare."""
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != SHAKESPEARE_SHA256:
        raise UserError(
            f"{path} is not Tiny Shakespeare: its sha256 is {found[:12]}…, expected {SHAKESPEARE_SHA256[:12]}…; "
            "delete it, and it will be downloaded again"
        )


def _from_path(source: str) -> Corpus:
    try:
        path = user_path(source)
        is_folder, exists = path.is_dir(), path.exists()
    except OSError as error:  # a text given instead of a file name
        raise UserError(f"cannot read '{source[:40]}': {error.strerror}; give a name, a file or a folder") from error
    if is_folder:
        text, which = read_folder(path)
        return Corpus(path.absolute().name, text, str(path.absolute()), f"{path}: {which}")
    if exists and kind_of(path) == "parquet":
        raise UserError(
            f"{source} is parquet: convert it to shards first, with `glassgpt data prepare {source} --out DIR`"
        )
    if exists:
        return Corpus(path.name, read_file(path), str(path.absolute()), str(path))
    if path.name != source or path.suffix:
        raise UserError(
            f"there is no file or folder '{source}'; give one, '-' for stdin, or a name: {', '.join(NAMES)}; "
            "to use a dataset of the hub, convert it to shards first, with `glassgpt data prepare --out DIR`"
        )
    raise UserError(f"'{source}' is neither a known corpus nor an existing path{known_names(source, NAMES)}")


def _auto() -> Corpus:
    """Shakespeare if it is cached or downloads within `AUTO_SECONDS`, else the manual; the note says why."""
    cached = _cached_shakespeare()
    if cached is not None:
        return _shakespeare_corpus(cached, "from the cache")
    try:
        _raise_recent_failure()
        return _download_shakespeare(AUTO_SECONDS)
    except DownloadError as error:
        manual = _python_manual()
        return replace(manual, note=f"{manual.note}, because Tiny Shakespeare could not be downloaded: {error}")


def _shakespeare() -> Corpus:
    cached = _cached_shakespeare()
    if cached is not None:
        return _shakespeare_corpus(cached, "from the cache")
    try:
        return _download_shakespeare(NAMED_SECONDS)
    except DownloadError as error:
        raise UserError(
            f"Tiny Shakespeare could not be downloaded from {SHAKESPEARE_URL}: {error}; try again, put the file at "
            f"{shakespeare_path()} yourself, or use 'python-manual', which needs no network"
        ) from error


def _shakespeare_corpus(text: str, how: str) -> Corpus:
    return Corpus("shakespeare", text, "shakespeare", f"Tiny Shakespeare, {how}")


def _cached_shakespeare() -> str | None:
    """The cached text, or None if it is missing or has another checksum."""
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
        _record_failure(error)
        raise
    _failure_path().unlink(missing_ok=True)
    return _shakespeare_corpus(path.read_bytes().decode(), f"downloaded to {path}")


def _failure_path() -> Path:
    return shakespeare_path().with_suffix(".failed")


def _record_failure(error: DownloadError) -> None:
    with contextlib.suppress(OSError):  # if the cache cannot be written, the next call only waits again
        _failure_path().parent.mkdir(parents=True, exist_ok=True)
        _failure_path().write_text(str(error), encoding="utf-8")


def _raise_recent_failure() -> None:
    """Raises the last DownloadError again for `RETRY_SECONDS`, so that only the first of several calls waits."""
    with contextlib.suppress(OSError):
        age = time.time() - _failure_path().stat().st_mtime
        if 0 <= age < RETRY_SECONDS:
            reason = _failure_path().read_text(encoding="utf-8")
            raise DownloadError(f"{reason} ({age / 60:.0f} min ago; {option(data='shakespeare')} tries at once)")


def _python_manual() -> Corpus:
    try:
        from pydoc_data.topics import topics
    except ImportError as error:
        raise UserError(
            "this Python installation lacks its manual (pydoc_data.topics): give a text file with"
            f" {option(data='FILE')}"
        ) from error
    # Some topics contain others. Each paragraph is used once, or it could be in both training and validation.
    paragraphs = "\n\n".join(topics[name].strip("\n") for name in sorted(topics)).split("\n\n")
    text = "\n\n".join(dict.fromkeys(paragraphs)) + "\n"
    note = f"python-manual, the language reference of Python {platform.python_version()}"
    return Corpus("python-manual", text, "python-manual", note)


def _echoes() -> Corpus:
    """Each line says one random word of 3 to 14 letters 3 or 4 times; the same text on every machine.

    No word can be guessed the first time, and every word can be copied after that. This is what induction heads do
    (Olsson et al. 2022), so a small model learns it within minutes.
    """
    lines = []
    random = splitmix64(np.arange(16 * ECHOES, dtype=np.uint64)).reshape(ECHOES, 16)
    for length, times, *letters in random.tolist():
        word = "".join(chr(ord("a") + letter % 26) for letter in letters[: 3 + length % 12])
        lines.append(" ".join([word] * (3 + times % 2)) + "\n")
    return Corpus("echoes", "".join(lines), "echoes", "echoes, random words said several times")
