"""Text to shards: the split, the cache, the manifest, and what happens when any of them is not as it was."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glassgpt.data import dataset_cache as prepare_module
from glassgpt.data.corpora import text_corpus
from glassgpt.data.dataset import Dataset, open_dataset, sha256_of
from glassgpt.data.dataset_cache import (
    DataConfig,
    build_dataset,
    cached_folder,
    reopen_dataset,
    split_text,
)
from glassgpt.data.manifest import load_manifest
from glassgpt.errors import UserError
from glassgpt.tokenizers import TokenizerConfig, build_tokenizer
from glassgpt.tokenizers.patterns import PATTERNS, safe_cut, safe_slices

TEXT = "".join(f"Line {i}: «Ωmega» and ordinary words.\n" for i in range(100))
CHAR = TokenizerConfig("char")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    return path


@pytest.fixture
def dataset(source: Path) -> Dataset:
    return build_dataset(DataConfig(str(source)), CHAR)


def whole_text(dataset: Dataset) -> str:
    parts = [tokens.slice(0, len(tokens)) for tokens in (dataset.train, dataset.val)]
    return dataset.tokenizer.decode(np.concatenate(parts).tolist())


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 1.5, float("nan")])
def test_the_validation_fraction_has_a_range(fraction: float) -> None:
    with pytest.raises(UserError, match=re.escape(f"data.val_fraction must lie between 0 and 1, not {fraction}")):
        DataConfig(val_fraction=fraction)


def test_an_empty_source_is_refused() -> None:
    with pytest.raises(UserError, match=r"data\.source is empty"):
        DataConfig(source="")


@given(st.text(min_size=2))
def test_the_split_is_that_of_the_lecture(text: str) -> None:
    train, val = split_text(text, 0.1)
    assert train + val == text
    assert len(train) == int(0.9 * len(text))


@pytest.mark.parametrize(("text", "fraction"), [("a", 0.1), ("abc", 0.9)])
def test_a_text_too_short_to_split_is_refused(text: str, fraction: float) -> None:
    with pytest.raises(UserError, match=f"a text of {len(text)} characters cannot be split"):
        split_text(text, fraction)


def test_the_shards_hold_the_text_in_its_two_parts(dataset: Dataset) -> None:
    assert whole_text(dataset) == TEXT
    assert len(dataset.train) == int(0.9 * len(TEXT))


def test_the_manifest_records_source_split_tokenizer_and_sizes(dataset: Dataset, source: Path) -> None:
    manifest = dataset.manifest
    train, val = split_text(TEXT, 0.1)
    assert manifest.source == str(source)
    assert manifest.text_sha256 == sha256_of(TEXT)
    assert (manifest.train.characters, manifest.train.bytes) == (len(train), len(train.encode()))
    assert (manifest.val.characters, manifest.val.bytes) == (len(val), len(val.encode()))
    assert (manifest.train.tokens, manifest.val.tokens) == (len(dataset.train), len(dataset.val))
    assert (manifest.tokenizer.name, manifest.tokenizer.vocab_size) == ("char", len(set(TEXT)))
    on_disk = json.loads((dataset.folder / "manifest.json").read_text(encoding="utf-8"))
    assert on_disk == json.loads(json.dumps(manifest.to_dict()))
    assert load_manifest(dataset.folder / "manifest.json") == manifest


def test_the_alphabet_of_char_is_that_of_the_whole_text() -> None:
    corpus = text_corpus("a" * 95 + "bcdef")
    dataset = build_dataset(DataConfig("memory"), CHAR, corpus=corpus)
    assert dataset.manifest.tokenizer.vocab_size == 6


def test_a_second_call_tokenises_nothing(dataset: Dataset, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(prepare_module, "build_tokenizer")
    monkeypatch.delattr(prepare_module, "safe_slices")
    again = build_dataset(DataConfig(str(source)), CHAR)
    assert again.folder == dataset.folder
    assert whole_text(again) == TEXT
    assert again.note.endswith("tokenised before, in the cache")


def test_other_text_split_or_tokenizer_have_other_folders(dataset: Dataset, source: Path) -> None:
    config = DataConfig(str(source))
    folders = {
        dataset.folder,
        build_dataset(replace(config, val_fraction=0.2), CHAR).folder,
        build_dataset(config, replace(CHAR, special_tokens=("<end>",))).folder,
        build_dataset(config, CHAR, corpus=text_corpus(TEXT + "more")).folder,
    }
    assert len(folders) == 4


def test_the_same_text_from_elsewhere_shares_the_shards_and_keeps_its_source(dataset: Dataset, tmp_path: Path) -> None:
    other = tmp_path / "other.txt"
    other.write_text(TEXT)
    again = build_dataset(DataConfig(str(other)), CHAR)
    assert again.folder == dataset.folder
    assert (again.manifest.source, again.manifest.name) == (str(other), "other.txt")


def test_a_tokenizer_may_be_given_as_object_or_file(source: Path, tmp_path: Path) -> None:
    tokenizer = build_tokenizer(CHAR, whole_text=TEXT + "ÄÖÜ", train_text="")
    tokenizer.save(tmp_path / "tokenizer.json")
    config = DataConfig(str(source))
    by_object = build_dataset(config, tokenizer)
    by_file = build_dataset(config, TokenizerConfig(str(tmp_path / "tokenizer.json")))
    assert by_object.folder == by_file.folder
    assert by_object.manifest.tokenizer.vocab_size == tokenizer.vocab_size == len(set(TEXT)) + 3
    assert whole_text(by_file) == TEXT


def test_a_tokenizer_in_a_folder_counts_by_what_it_holds(source: Path, tmp_path: Path) -> None:
    named = TokenizerConfig(str(tmp_path / "run") + "/")
    (tmp_path / "run").mkdir()
    for extra in ("ÄÖÜ", "ÄÖ"):
        tokenizer = build_tokenizer(CHAR, whole_text=TEXT + extra, train_text="")
        tokenizer.save(tmp_path / "run/tokenizer.json")
        found = build_dataset(DataConfig(str(source)), named)
        assert found.manifest.tokenizer.vocab_size == tokenizer.vocab_size


def test_a_file_named_as_a_tokenizer_does_not_hide_it(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "char").write_text("a file of the user's own")
    monkeypatch.chdir(tmp_path)
    assert build_dataset(DataConfig(str(source)), CHAR).tokenizer.name == "char"


def test_a_character_unknown_to_the_tokenizer_leaves_nothing_behind(source: Path, cache: Path) -> None:
    tokenizer = build_tokenizer(CHAR, whole_text="abc", train_text="abc")
    with pytest.raises(UserError, match="L"):
        build_dataset(DataConfig(str(source)), tokenizer)
    assert list((cache / "prepared").iterdir()) == []


@pytest.mark.parametrize("name", ["manifest.json", "tokenizer.json", "train.shard", "val.shard"])
@pytest.mark.parametrize("damage", ["removed", "truncated"])
def test_a_damaged_cache_is_made_anew_and_says_so(dataset: Dataset, source: Path, name: str, damage: str) -> None:
    path = dataset.folder / name
    data = path.read_bytes()
    path.unlink()
    if damage == "truncated":
        path.write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match=re.escape(name)):
        open_dataset(dataset.folder)
    again = build_dataset(DataConfig(str(source)), CHAR)
    assert "tokenised again, since the cache was damaged" in again.note
    assert whole_text(again) == TEXT
    assert path.read_bytes() == data
    assert [entry.name for entry in dataset.folder.parent.iterdir()] == [dataset.folder.name]


def test_a_manifest_that_does_not_fit_its_shards_is_refused(dataset: Dataset) -> None:
    manifest = replace(dataset.manifest, val=replace(dataset.manifest.val, tokens=5))
    manifest.save(dataset.folder / "manifest.json")
    with pytest.raises(UserError, match=f"val.shard hold {len(dataset.val)} tokens, the manifest says 5"):
        open_dataset(dataset.folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda fields: fields.update(version=2), "has version 2; this GlassGPT reads 1"),
        (lambda fields: fields.update(format="other"), "is not a data manifest"),
        (lambda fields: fields.pop("source"), "is damaged: manifest.source is missing"),
        (lambda fields: fields["train"].pop("bytes"), "is damaged: .*bytes"),
        (lambda fields: fields.update(tokenizer="char"), "is damaged"),
        (lambda fields: fields["train"].update(shards=[]), "is damaged: .*no shards"),
    ],
)
def test_a_foreign_or_damaged_manifest_is_refused(dataset: Dataset, change: Callable, message: str) -> None:
    path = dataset.folder / "manifest.json"
    fields = json.loads(path.read_text(encoding="utf-8"))
    change(fields)
    path.write_text(json.dumps(fields))
    with pytest.raises(UserError, match=f"manifest.json.*{message}"):
        load_manifest(path)


def test_a_run_finds_its_shards_again(dataset: Dataset, source: Path) -> None:
    source.unlink()
    again = reopen_dataset(dataset.manifest, dataset.tokenizer)
    assert again.folder == dataset.folder


def test_a_run_keeps_its_source_where_another_prepared_the_same_text_first(dataset: Dataset) -> None:
    manifest = replace(dataset.manifest, source="/elsewhere/text.txt")
    assert reopen_dataset(manifest, dataset.tokenizer).manifest == manifest


def test_a_run_makes_its_shards_again_from_the_same_text(
    dataset: Dataset, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GLASSGPT_CACHE", str(cache / "another"))
    again = reopen_dataset(dataset.manifest, dataset.tokenizer)
    assert again.folder.is_relative_to(cache / "another")
    assert whole_text(again) == TEXT


def test_a_run_whose_text_has_changed_is_refused(dataset: Dataset, cache: Path, source: Path) -> None:
    source.write_text(TEXT + "one more line\n")
    assert reopen_dataset(dataset.manifest, dataset.tokenizer).folder == dataset.folder
    (dataset.folder / "train.shard").unlink()
    with pytest.raises(UserError, match=r"the text .*text\.txt has changed since this run was made"):
        reopen_dataset(dataset.manifest, dataset.tokenizer)


@pytest.mark.parametrize(("name", "origin"), [("-", "stdin"), ("memory", "memory")])
def test_a_text_that_cannot_be_had_again_is_said(dataset: Dataset, name: str, origin: str) -> None:
    (dataset.folder / "train.shard").unlink()
    with pytest.raises(UserError, match=f"no longer in the cache .* came from {origin}"):
        reopen_dataset(replace(dataset.manifest, source=name), dataset.tokenizer)


def test_the_same_text_prepared_with_the_tokenizer_of_the_run_is_found(dataset: Dataset, tmp_path: Path) -> None:
    manifest = replace(dataset.manifest, source="-")
    shutil.rmtree(dataset.folder)
    dataset.tokenizer.save(tmp_path / "tokenizer.json")
    anew = build_dataset(
        DataConfig("text"), TokenizerConfig(str(tmp_path / "tokenizer.json")), corpus=text_corpus(TEXT)
    )
    assert anew.folder != dataset.folder
    again = reopen_dataset(manifest, dataset.tokenizer)
    assert (again.folder, again.manifest) == (anew.folder, manifest)


def test_a_run_with_another_tokenizer_is_refused(dataset: Dataset) -> None:
    other = build_tokenizer(CHAR, whole_text=TEXT + "Ä", train_text="")
    with pytest.raises(UserError, match="the tokenizer is not the one"):
        reopen_dataset(dataset.manifest, other)


def test_a_key_that_holds_other_ids_is_not_taken(dataset: Dataset, source: Path) -> None:
    """Say, after an update of Python changed what a bpe tokenizer of the same config learns."""
    tokenizer = build_tokenizer(CHAR, whole_text=TEXT + "Ä", train_text="")
    older = build_dataset(DataConfig(str(source)), tokenizer).manifest
    again = reopen_dataset(replace(older, key=dataset.manifest.key), tokenizer)
    assert again.folder == cached_folder(older.key) != dataset.folder


def test_a_full_disk_is_a_user_error_and_leaves_nothing(
    source: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"cannot write .*: No space left on device"):
        build_dataset(DataConfig(str(source)), CHAR)
    assert list((cache / "prepared").iterdir()) == []


def test_a_cache_that_cannot_be_written_is_a_user_error(source: Path, cache: Path) -> None:
    cache.write_text("a file where the folder must be")
    with pytest.raises(UserError, match=r"cannot write .*GLASSGPT_CACHE"):
        build_dataset(DataConfig(str(source)), CHAR)


def test_processes_that_prepare_the_same_at_once_all_succeed(source: Path, cache: Path) -> None:
    program = (
        "import sys; from glassgpt.data.dataset_cache import *\n"
        "sys.stdin.readline()\n"  # all begin together
        "dataset = build_dataset(DataConfig(sys.argv[1]), TokenizerConfig('char'))\n"
        "print(len(dataset.train) + len(dataset.val))"
    )
    pipe = subprocess.PIPE
    processes = [
        subprocess.Popen([sys.executable, "-c", program, str(source)], stdin=pipe, stdout=pipe, text=True)
        for _ in range(4)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    assert [process.communicate()[0].strip() for process in processes] == [str(len(TEXT))] * 4
    assert len(list((cache / "prepared").iterdir())) == 1


CODE = (
    "def f(x):\n    return x // 2\n\n\nclass A:\n\tpass.\n/ slash.\nOn\n'quoted'\n"
    "日本語の文。\n次の行\nΩ.\r\nwindows\r\n\r\n\n"
)


@pytest.mark.parametrize("pattern", PATTERNS.values())
def test_a_text_in_pieces_has_the_ids_of_the_whole(test_data: Callable[[str], Path], pattern: str) -> None:
    """With the ranks of GPT-2 for all three: where a text may be cut depends on the split pattern alone."""
    import tiktoken

    test_data("tiktoken")
    encoding = tiktoken.get_encoding("gpt2")
    ranks = encoding._mergeable_ranks
    encoding = tiktoken.Encoding("cut", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
    text = test_data("tinyshakespeare.txt").read_text()[:100_000] + CODE * 20
    pieces = list(safe_slices(text, 1, safe_cut(pattern)))
    assert len(pieces) > 2000
    assert "".join(pieces) == text
    assert [id for piece in pieces for id in encoding.encode_ordinary(piece)] == encoding.encode_ordinary(text)
