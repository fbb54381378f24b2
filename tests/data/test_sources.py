"""What a command names, as files, and files as batches that can begin anywhere."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from glassgpt.data import sources
from glassgpt.data.corpora import text_corpus
from glassgpt.data.hub import HubDataset
from glassgpt.data.sources import LocalFiles, OneText, Source, find_files, is_local
from glassgpt.errors import UserError
from glassgpt.tokenizers.patterns import ANYWHERE


def names(source: LocalFiles) -> list[str]:
    return [path.name for path in source.files]


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(path.name)


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalFiles:
    """Three files of short documents, in batches of few."""
    monkeypatch.setattr(sources, "BATCH", 40)
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": f"document {n} of a"}) + "\n" for n in range(10)))
    (tmp_path / "b.txt").write_text("the text of b")
    (tmp_path / "c.csv").write_text("id,text\n" + "".join(f"{n},record {n} of c\n" for n in range(10)))
    return find_files([str(tmp_path / name) for name in ("a.jsonl", "b.txt", "c.csv")], "text")


def texts(source: Source, start: object = None) -> list[str]:
    return [piece.text for batch in source.batches(start) for piece in batch.pieces]


def test_documents_come_file_by_file(corpus: LocalFiles) -> None:
    expected = [f"document {n} of a" for n in range(10)] + ["the text of b"] + [f"record {n} of c" for n in range(10)]
    assert texts(corpus) == expected


def test_every_batch_can_be_begun_with_again(corpus: LocalFiles) -> None:
    batches = list(corpus.batches())
    assert len(batches) > 5
    for number, batch in enumerate(batches):
        rest = [piece.text for later in batches[number:] for piece in later.pieces]
        assert texts(corpus, json.loads(json.dumps(batch.position))) == rest


def test_a_position_is_of_its_source(corpus: LocalFiles) -> None:
    text = OneText(text_corpus("a text of one piece"))
    hub = HubDataset("owner/name")
    for source, good, bad in ((corpus, [2, 0], [3, 0]), (text, 5, [0, 0]), (hub, [5, {}], [5, None])):
        source.check_position(good)
        with pytest.raises(UserError, match="position"):
            source.check_position(bad)
    with pytest.raises(UserError, match="has nothing at position 5"):
        list(text.batches(5))


def test_the_fraction_grows_to_one(corpus: LocalFiles) -> None:
    fractions = [batch.fraction for batch in corpus.batches()]
    assert fractions == sorted(fractions)  # type: ignore[type-var]
    assert fractions[-1] == 1.0


def test_settings_follow_a_changed_file(corpus: LocalFiles) -> None:
    before = corpus.settings()
    assert before == corpus.settings() == json.loads(json.dumps(before))
    corpus.files[1].write_text("another text of b")
    assert corpus.settings() != before


def test_a_text_in_memory_is_one_document(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "BATCH", 40)
    text = "words and words, and more of them\n" * 20
    source = OneText(text_corpus(text))
    batches = list(source.batches(cut=ANYWHERE))
    pieces = [batch.pieces[0].text for batch in batches]
    assert "".join(pieces) == text
    assert [batch.pieces[0].starts_document for batch in batches] == [True] + [False] * (len(batches) - 1)
    assert list(source.batches(batches[3].position, cut=ANYWHERE)) == batches[3:]
    assert texts(source) == [text]


def test_folders_patterns_and_files_in_the_order_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path / "d/2.txt", tmp_path / "d/1.txt", tmp_path / "x9.txt", tmp_path / "x10.txt", tmp_path / "last.md")
    monkeypatch.chdir(tmp_path)
    assert names(find_files(["x*.txt", "d", "last.md"], "text")) == ["x10.txt", "x9.txt", "1.txt", "2.txt", "last.md"]


def test_a_folder_of_records_means_these_alone(tmp_path: Path) -> None:
    touch(tmp_path / "README.md", tmp_path / "data/b.jsonl", tmp_path / "data/a.jsonl.gz", tmp_path / ".git/x.csv")
    assert names(find_files([str(tmp_path)], "text")) == ["a.jsonl.gz", "b.jsonl"]
    touch(tmp_path / "c.csv")
    with pytest.raises(UserError, match="holds CSV and JSON lines: name the files"):
        find_files([str(tmp_path)], "text")


def test_a_folder_of_texts_leaves_binary_files_out(tmp_path: Path) -> None:
    touch(tmp_path / "a.txt", tmp_path / "b.py")
    (tmp_path / "picture").write_bytes(b"\x89PNG\0\0")
    (tmp_path / "c.txt.gz").write_bytes(gzip.compress(b"packed"))
    assert names(find_files([str(tmp_path)], "text")) == ["a.txt", "b.py", "c.txt.gz"]


def test_nothing_and_twice_the_same_are_errors(tmp_path: Path) -> None:
    touch(tmp_path / "a.txt")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no file, folder or pattern"):
        find_files([str(tmp_path / "*.jsonl")], "text")
    with pytest.raises(UserError, match="holds no text, parquet"):
        find_files([str(tmp_path / "empty")], "text")
    with pytest.raises(UserError, match=r"a\.txt is named twice"):
        find_files([str(tmp_path / "a.txt"), str(tmp_path / "*.txt")], "text")


@pytest.mark.parametrize(
    ("name", "local"),
    [
        ("HuggingFaceFW/fineweb-edu", False), ("roneneldan/TinyStories", False), ("data/x.jsonl", True),
        ("data/x.jsonl.gz", True), ("data/*", True), ("/data/corpus", True), ("./data/x", True), ("data", True),
        ("a/b/c", True),
    ],
)  # fmt: skip
def test_ids_of_the_hub_are_told_from_paths(name: str, local: bool) -> None:
    assert is_local(name) == local


def test_a_folder_that_is_there_is_no_id_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path / "owner/name/a.txt")
    monkeypatch.chdir(tmp_path)
    assert is_local("owner/name")
