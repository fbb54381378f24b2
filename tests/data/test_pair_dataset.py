"""Pairs as stored examples: made once, found again, and refused where they are not those of the text any more."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from glassgpt.data.corpora import text_corpus
from glassgpt.data.dataset import open_dataset
from glassgpt.data.dataset_cache import DataConfig, cached_folder, reopen_dataset
from glassgpt.data.inventory import describe_dataset, verify
from glassgpt.data.manifest import load_manifest
from glassgpt.data.pair_dataset import PairDataset, build_pairs, encode_source, open_pairs, reopen_pairs
from glassgpt.data.pairs import RULES, make_pairs, split_pair
from glassgpt.errors import UserError
from glassgpt.tokenizers import TokenizerConfig
from glassgpt.tokenizers.char import CharTokenizer

TEXT = "".join(f"{word} and {word[::-1]}\n" for word in ("house", "river", "window", "garden", "letter", "winter"))
CHAR = TokenizerConfig("char", special_tokens=("<|endoftext|>",))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    return path


def config(source: object, pairs: str | None = "reverse") -> DataConfig:
    return DataConfig(str(source), 0.25, pairs=pairs)


def texts(dataset: PairDataset, split: str) -> list[tuple[str, str]]:
    """The pairs of a split, decoded, without the stop."""
    examples, found = getattr(dataset, split), []
    for number in range(len(examples)):
        source, target = split_pair(examples, number)
        assert source[-1] == target[-1] == dataset.ends.stop_id
        found.append((dataset.tokenizer.decode(source[:-1]), dataset.tokenizer.decode(target[:-1])))
    return found


def test_pairs_are_stored_as_they_were_made(source: Path) -> None:
    dataset = build_pairs(config(source), CHAR)
    train, val = texts(dataset, "train"), texts(dataset, "val")
    words = {*TEXT.split()}
    assert {source for source, _ in [*train, *val]} == words
    assert all(target == source[::-1] for source, target in [*train, *val])
    manifest = dataset.manifest
    assert (manifest.train.documents, manifest.val.documents) == (len(train), len(val)) == (9, 4)
    assert manifest.train.characters == sum(len(a) + len(b) for a, b in train)
    assert manifest.train.tokens == manifest.train.characters + 2 * len(train)  # a stop after each
    assert load_manifest(dataset.folder / "manifest.json") == manifest


def test_the_alphabet_covers_both_splits(source: Path) -> None:
    dataset = build_pairs(config(source, "vowels"), CHAR)
    assert set(TEXT) - {"\n"} <= set(dataset.tokenizer.decode(range(dataset.tokenizer.vocab_size)))


def test_the_second_time_they_come_from_the_cache(source: Path, tmp_path: Path) -> None:
    first = build_pairs(config(source), CHAR)
    changed = first.folder.stat().st_mtime_ns
    again = build_pairs(config(source), CHAR)
    assert "made before, in the cache" in again.note and "in the cache" not in first.note
    assert again.folder == first.folder and again.folder.stat().st_mtime_ns == changed
    shutil.copy(source, tmp_path / "other.txt")
    other = build_pairs(config(tmp_path / "other.txt"), CHAR)
    assert other.folder == first.folder and other.manifest.source.endswith("other.txt")


def test_each_rule_and_fraction_has_pairs_of_its_own(source: Path) -> None:
    datas = (config(source), config(source, "vowels"), DataConfig(str(source), 0.5, pairs="reverse"))
    assert len({build_pairs(data, CHAR).folder for data in datas}) == 3


def test_a_damaged_cache_is_made_again(source: Path) -> None:
    dataset = build_pairs(config(source), CHAR)
    before = texts(dataset, "train")
    (dataset.folder / "train" / "ids.shard").write_bytes(b"damaged")
    again = build_pairs(config(source), CHAR)
    assert "made again, since the cache was damaged" in again.note
    assert texts(again, "train") == before


def test_a_run_finds_its_pairs_again_without_the_cache(source: Path, cache: Path) -> None:
    dataset = build_pairs(config(source), CHAR)
    reopened = reopen_pairs(dataset.manifest, dataset.tokenizer)
    assert reopened.folder == dataset.folder
    shutil.rmtree(cache)
    again = reopen_pairs(dataset.manifest, dataset.tokenizer)
    assert (texts(again, "train"), texts(again, "val")) == (texts(reopened, "train"), texts(reopened, "val"))
    assert again.tokenizer.to_dict() == dataset.tokenizer.to_dict()
    found = reopen_pairs(dataset.manifest, dataset.tokenizer)  # under the key of the run's own tokenizer
    assert found.folder == again.folder != dataset.folder and found.manifest == dataset.manifest


def test_a_text_that_has_changed_is_refused(source: Path, cache: Path) -> None:
    dataset = build_pairs(config(source), CHAR)
    shutil.rmtree(cache)
    source.write_text(TEXT + "more\n")
    with pytest.raises(UserError, match=r"text\.txt"):
        reopen_pairs(dataset.manifest, dataset.tokenizer)


def test_pairs_of_another_version_are_refused(source: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = build_pairs(config(source, "vowels"), CHAR)
    made = make_pairs(TEXT, "vowels")
    monkeypatch.setitem(RULES, "vowels", lambda text: made[1:])
    shutil.rmtree(cache)
    with pytest.raises(UserError, match=r"began with \d+ \+ \d+ pairs of .*: start a new run"):
        reopen_pairs(dataset.manifest, dataset.tokenizer)


def test_another_tokenizer_is_refused(source: Path) -> None:
    dataset = build_pairs(config(source), CHAR)
    with pytest.raises(UserError, match=r"the tokenizer is not the one in the data manifest"):
        reopen_pairs(dataset.manifest, CharTokenizer.train(TEXT + "#", ["<|endoftext|>"]))


def test_a_text_in_memory_is_found_while_the_cache_has_it(cache: Path) -> None:
    dataset = build_pairs(config("auto"), CHAR, corpus=text_corpus(TEXT))
    assert texts(reopen_pairs(dataset.manifest, dataset.tokenizer), "val") == texts(dataset, "val")
    shutil.rmtree(cache)
    with pytest.raises(UserError, match="memory"):
        reopen_pairs(dataset.manifest, dataset.tokenizer)


def test_pairs_are_not_mistaken_for_a_text(source: Path) -> None:
    dataset = build_pairs(config(source), CHAR)
    with pytest.raises(UserError, match=r"trained on pairs of a source and a target \(reverse\)"):
        reopen_dataset(dataset.manifest, dataset.tokenizer)
    with pytest.raises(UserError):
        open_dataset(dataset.folder)


def test_what_gives_no_pairs_is_refused(source: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.pairs is not set"):
        build_pairs(config(source, None), CHAR)
    with pytest.raises(UserError, match=r"unknown data\.pairs 'revers': did you mean 'reverse'"):
        config(source, "revers")
    with pytest.raises(UserError, match=r"line 1 of the text is not a pair"):
        build_pairs(config(source, "tab"), CHAR)
    with pytest.raises(UserError, match="no token that ends a target"):
        build_pairs(config(source), TokenizerConfig("char"))
    assert not list(cached_folder("x").parent.glob("*"))  # nothing is left of them


def test_a_folder_of_ids_is_refused(source: Path) -> None:
    dataset = build_pairs(config(source), CHAR)
    with pytest.raises(UserError, match="has token ids and no text"):
        build_pairs(config(dataset.folder), CHAR)


def test_a_folder_of_pairs_is_described_and_checked(source: Path) -> None:
    dataset = build_pairs(config(source), CHAR)
    described = describe_dataset(dataset.folder, dataset.manifest)
    assert described["pairs"] == "reverse"
    assert described["tokens"] == dataset.manifest.train.tokens + dataset.manifest.val.tokens
    assert described["size_on_disk"] == sum(f.stat().st_size for f in dataset.folder.rglob("*") if f.is_file())
    assert [finding.problem for finding in verify(str(dataset.folder))] == [None]
    shard = dataset.folder / "val" / "ids.shard"
    shard.write_bytes(shard.read_bytes()[:-1] + b"\xff")
    assert [finding.problem is None for finding in verify(str(dataset.folder))] == [False]


def test_a_source_ends_with_the_stop(source: Path) -> None:
    dataset = build_pairs(config(source), CHAR)
    ids = encode_source(dataset.tokenizer, dataset.ends, "river")
    assert ids.tolist() == [*dataset.tokenizer.encode("river"), dataset.ends.stop_id]
    assert encode_source(dataset.tokenizer, dataset.ends, "").tolist() == [dataset.ends.stop_id]
    assert open_pairs(dataset.folder).note == dataset.manifest.note
