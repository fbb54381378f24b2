"""Which text a name or path gives, with and without a network."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from glassgpt.data import corpora
from glassgpt.data.corpora import load_text, shakespeare_path, text_corpus, verify_shakespeare
from glassgpt.data.download import DownloadError
from glassgpt.data.token_files import local_path
from glassgpt.errors import UserError


class Network:
    """Stands in for the network: counts the calls, gives `body` or fails."""

    def __init__(self, body: bytes | None) -> None:
        self.body = body
        self.waits: list[float] = []

    def __call__(self, url: str, seconds: float) -> bytes:
        assert url == corpora.SHAKESPEARE_URL
        self.waits.append(seconds)
        if self.body is None:
            raise DownloadError("Name or service not known")
        return self.body


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> Network:
    network = Network(None)
    monkeypatch.setattr("glassgpt.data.download.fetch", network)
    return network


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> Network:
    """A network that has the play, in short."""
    network = Network(b"First Citizen:\nBefore we proceed any further, hear me speak.\n")
    monkeypatch.setattr("glassgpt.data.download.fetch", network)
    monkeypatch.setattr(corpora, "SHAKESPEARE_SHA256", hashlib.sha256(network.body or b"").hexdigest())
    return network


def test_the_real_file_has_the_checksum(test_data: Callable[[str], Path], offline: Network) -> None:
    shakespeare_path().parent.mkdir(parents=True)
    shutil.copy(test_data("tinyshakespeare.txt"), shakespeare_path())
    corpus = load_text("auto")
    assert (corpus.name, len(corpus.text), corpus.note) == (
        "shakespeare",
        1_115_394,
        "Tiny Shakespeare, from the cache",
    )
    assert offline.waits == []


def test_shakespeare_is_downloaded_once(online: Network) -> None:
    first, second = load_text("shakespeare"), load_text("auto")
    assert first.text == second.text == (online.body or b"").decode()
    assert first.source == second.source == "shakespeare"
    assert "downloaded to" in first.note
    assert "from the cache" in second.note
    assert len(online.waits) == 1


def test_auto_waits_five_seconds_at_most(online: Network) -> None:
    assert load_text("auto").source == "shakespeare"
    assert online.waits == [5.0]


def test_auto_takes_the_manual_offline_and_says_why(offline: Network) -> None:
    corpus = load_text("auto")
    assert corpus.source == "python-manual"
    assert corpus.text == load_text("python-manual").text
    assert "because Tiny Shakespeare could not be downloaded: Name or service not known" in corpus.note


def test_auto_leaves_the_network_alone_after_a_failure(offline: Network) -> None:
    load_text("auto")
    assert "min ago; data='shakespeare' tries at once" in load_text("auto").note
    assert len(offline.waits) == 1
    long_ago = time.time() - corpora.RETRY_SECONDS - 1
    os.utime(shakespeare_path().with_suffix(".failed"), (long_ago, long_ago))
    load_text("auto")
    assert len(offline.waits) == 2


def test_asking_by_name_tries_again_at_once(offline: Network) -> None:
    load_text("auto")
    with pytest.raises(UserError, match=r"could not be downloaded from https://.*Name or service not known; try again"):
        load_text("shakespeare")
    assert offline.waits == [5.0, 60.0]


def test_a_wrong_download_is_refused(online: Network) -> None:
    online.body = b"<html>Please log in to the hotel's network</html>"
    with pytest.raises(UserError, match="the downloaded file was rejected"):
        load_text("shakespeare")
    assert not shakespeare_path().exists()
    assert load_text("auto").source == "python-manual"


@pytest.mark.parametrize("read", [load_text, local_path])
def test_the_home_of_an_unknown_user_is_named(read: Callable[[str], object]) -> None:
    with pytest.raises(UserError, match="no home folder for ~nobody-of-this-name/x: write the path"):
        read("~nobody-of-this-name/x")


def test_a_damaged_copy_in_the_cache_is_replaced(online: Network) -> None:
    load_text("shakespeare")
    shakespeare_path().write_text("First Citizen:\nBefore we")
    with pytest.raises(UserError, match=r"shakespeare\.txt is not Tiny Shakespeare"):
        verify_shakespeare(shakespeare_path())
    assert load_text("shakespeare").text == (online.body or b"").decode()
    verify_shakespeare(shakespeare_path())


def test_a_cache_that_cannot_be_written_is_a_user_error(online: Network, cache: Path) -> None:
    cache.write_text("a file where the folder must be")
    with pytest.raises(UserError, match=r"cannot write .*shakespeare\.txt"):
        load_text("shakespeare")


def test_offline_a_cache_that_cannot_be_written_does_no_harm(offline: Network, cache: Path) -> None:
    cache.write_text("a file where the folder must be")
    assert load_text("auto").source == "python-manual"


def test_the_manual_is_long_prose() -> None:
    corpus = load_text("python-manual")
    assert 300_000 < len(corpus.text) < 1_000_000
    assert 'The "assert" statement\n' in corpus.text
    assert corpus.text == load_text("python-manual").text
    paragraphs = corpus.text.removesuffix("\n").split("\n\n")
    assert len(paragraphs) == len(set(paragraphs))  # some topics of pydoc are parts of others


def test_echoes_are_the_same_everywhere_and_repeat_themselves() -> None:
    text = load_text("echoes").text
    assert len(text) == 834_294
    assert hashlib.sha256(text.encode()).hexdigest().startswith("5ea738f0ebfc838b")
    lines = [line.split(" ") for line in text.splitlines()]
    assert {(len(set(words)), len(words)) for words in lines} == {(1, 3), (1, 4)}
    assert {len(words[0]) for words in lines} == set(range(3, 15))
    assert set("".join(words[0] for words in lines)) == set("abcdefghijklmnopqrstuvwxyz")


def test_a_file_and_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "plays"
    folder.mkdir()
    (folder / "hamlet.txt").write_text("To be")
    one, many = load_text(str(folder / "hamlet.txt")), load_text(str(folder))
    assert (one.name, one.text, one.source) == ("hamlet.txt", "To be", str(folder / "hamlet.txt"))
    assert (many.name, many.text, many.source) == ("plays", "To be", str(folder))


def test_the_source_is_found_again_from_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "text.txt").write_text("text")
    monkeypatch.chdir(tmp_path)
    source = load_text("text.txt").source
    monkeypatch.chdir("/")
    assert load_text(source).text == "text"


def test_a_known_name_wins_over_a_file_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "python-manual").write_text("my own")
    monkeypatch.chdir(tmp_path)
    assert load_text("python-manual").note.endswith("(and not the file of this name, which is ./python-manual)")
    assert load_text("./python-manual").text == "my own"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("shakespere", "'shakespere' is neither a known corpus nor an existing path: did you mean 'shakespeare'?"),
        ("qqqq", "Known: auto, echoes, python-manual, shakespeare"),
        ("gone.txt", "there is no file or folder 'gone.txt'"),
        ("no/such/folder", "there is no file or folder 'no/such/folder'"),
        ("~nobody-of-this-name/text", "there is no home folder for ~nobody-of-this-name/text"),
        ("To be, or not to be, that is the question: " * 200, "cannot read 'To be, .*: File name too long"),
    ],
)
def test_a_source_that_is_nothing_is_refused(source: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_text(source)


def test_text_in_memory() -> None:
    assert text_corpus("héllo").text == "héllo"
    with pytest.raises(UserError, match="the text is empty"):
        text_corpus("")
    with pytest.raises(UserError, match=r"lone surrogate U\+D83D at character 2"):
        text_corpus("ab\ud83d")
