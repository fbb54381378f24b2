"""A corpus to shards: every document once, in order, whatever the workers, and the same after a stop at any moment."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import pytest

from glassgpt.data import corpus_to_shards as sharding
from glassgpt.data import sources
from glassgpt.data.corpus_to_shards import ShardingProgress, shard_corpus
from glassgpt.data.dataset import STATE_NAME, open_dataset
from glassgpt.data.sharding_state import ShardingConfig, load_sharding_state
from glassgpt.data.sources import LocalFiles, find_files
from glassgpt.errors import UserError
from glassgpt.files import LOCK
from glassgpt.tokenizers import Tokenizer, TokenizerConfig
from glassgpt.tokenizers.bpe import BPETokenizer

END = "<|endoftext|>"
DOCUMENTS = [
    f"document {number}: " + "some words of it, " * (number % 9) + "é😀" * (number % 3) for number in range(200)
]


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "BATCH", 700)


@pytest.fixture
def corpus(tmp_path: Path) -> LocalFiles:
    path = tmp_path / "corpus.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in [*DOCUMENTS, ""]))
    return find_files([str(path)], "text")


@pytest.fixture
def tokenizer() -> Tokenizer:
    return BPETokenizer.train(" ".join(DOCUMENTS), 300, [END])


@pytest.fixture
def config(tokenizer: Tokenizer, tmp_path: Path) -> ShardingConfig:
    tokenizer.save(tmp_path / "own.json")
    return ShardingConfig(TokenizerConfig(str(tmp_path / "own.json")), shard_tokens=1000, workers=1)


@pytest.fixture
def ids(tokenizer: Tokenizer) -> list[int]:
    """What the whole corpus must become."""
    return [id for text in DOCUMENTS for id in tokenizer.encode(END + text, allowed_special="all")]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_shards_are_the_corpus(corpus: LocalFiles, config: ShardingConfig, ids: list[int], tmp_path: Path) -> None:
    dataset = shard_corpus(corpus, tmp_path / "out", config)
    val, train = (tokens.slice(0, len(tokens)).tolist() for tokens in (dataset.val, dataset.train))
    assert (len(val), val + train) == (1000, ids)
    shards = [*dataset.manifest.val.shards, *dataset.manifest.train.shards]
    assert shards[:3] == ["val_000000.shard", "train_000001.shard", "train_000002.shard"]
    assert len(shards) == -(-len(ids) // 1000)


def test_the_manifest_counts_documents_and_bytes(corpus: LocalFiles, config: ShardingConfig, tmp_path: Path) -> None:
    manifest = shard_corpus(corpus, tmp_path / "out", config).manifest
    assert manifest.val.documents + manifest.train.documents == len(DOCUMENTS)  # type: ignore[operator]
    assert manifest.val.bytes + manifest.train.bytes == len("".join(DOCUMENTS).encode())  # type: ignore[operator]


def test_workers_change_nothing(corpus: LocalFiles, config: ShardingConfig, tmp_path: Path) -> None:
    for workers in (1, 3):
        shard_corpus(corpus, tmp_path / str(workers), replace(config, workers=workers))
    assert contents(tmp_path / "1") == contents(tmp_path / "3")


class Killed(BaseException):
    """What nothing but the test catches."""


def stop_after(count: int) -> Callable[[ShardingProgress], None]:
    """Raises at the given call, as if the process had ended there."""
    calls = iter(range(count))

    def tell(progress: ShardingProgress) -> None:
        if next(calls, None) is None:
            raise Killed

    return tell


def test_stopped_at_every_moment_it_ends_the_same(corpus: LocalFiles, config: ShardingConfig, tmp_path: Path) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    shard_corpus(corpus, whole, config)
    stops = 0
    for count in (1, 3, 5, 4, 2, 6, 100):
        try:
            shard_corpus(corpus, stopped, config, on_progress=stop_after(count))
        except Killed:
            stops += 1
    assert stops >= 4
    assert contents(stopped) == contents(whole)


def test_a_stop_between_a_shard_and_its_note(
    corpus: LocalFiles, config: ShardingConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    shard_corpus(corpus, whole, config)
    with monkeypatch.context() as patch:
        patch.setattr(sharding, "Shard", lambda *fields: (_ for _ in ()).throw(Killed()))
        with pytest.raises(Killed):
            shard_corpus(corpus, stopped, config)
    left = stopped / f".glassgpt-new-train_000001.shard-{2**22 + 1}-0123abcd"
    left.write_bytes(b"left by a process that was killed")
    shard_corpus(corpus, stopped, config)
    assert contents(stopped) == contents(whole)
    assert not left.exists()


def test_hidden_files_of_the_user_are_kept(corpus: LocalFiles, config: ShardingConfig, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    theirs = {".lock": "pid 4711", ".draft.tmp": "years of work"}
    for name, text in theirs.items():
        (tmp_path / "out" / name).write_text(text)
    shard_corpus(corpus, tmp_path / "out", config)
    assert {name: (tmp_path / "out" / name).read_text() for name in theirs} == theirs


def test_a_finished_folder_is_left_as_it_is(corpus: LocalFiles, config: ShardingConfig, tmp_path: Path) -> None:
    shard_corpus(corpus, tmp_path / "out", config)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    notes: list[str] = []
    shard_corpus(corpus, tmp_path / "out", config, note=notes.append)
    assert notes == [f"{tmp_path / 'out'} is finished already"]
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()} == before


def test_other_settings_are_refused_by_name(corpus: LocalFiles, config: ShardingConfig, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shard_corpus(corpus, out, config)
    before = contents(out)
    with pytest.raises(UserError, match=r"started with other settings: --shard-tokens differ"):
        shard_corpus(corpus, out, replace(config, shard_tokens=999))
    with pytest.raises(UserError, match="the tokenizer differ"):
        shard_corpus(corpus, out, replace(config, tokenizer=TokenizerConfig("bpe", vocab_size=280)))
    corpus.files[0].write_text('{"text": "another"}')
    with pytest.raises(UserError, match=r"the documents \(files, sizes, times\) differ"):
        shard_corpus(corpus, out, config)
    assert contents(out) == before


def test_documents_without_a_text_are_counted_and_said(config: ShardingConfig, tmp_path: Path) -> None:
    """Wherever the null ones stand, and however often the work was stopped. An empty text is a text."""
    lines = [{"text": text} for text in DOCUMENTS]
    for place in (0, 1, 30, 31, 32, 120, 200, 207, 208):
        lines.insert(place, {"text": None})
    lines.insert(50, {"text": ""})
    path = tmp_path / "nulls.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"text": null}\n' * 80)
    corpus = find_files([str(path)], "text")
    notes: list[str] = []
    whole = shard_corpus(corpus, tmp_path / "whole", config, note=notes.append)
    assert whole.manifest.null_documents == 89
    assert notes[-1] == "89 documents were left out: they have null in place of a text"
    for count in (1, 3, 5, 4, 2, 6, 100):
        with contextlib.suppress(Killed):
            shard_corpus(corpus, tmp_path / "stopped", config, on_progress=stop_after(count))
    assert contents(tmp_path / "stopped") == contents(tmp_path / "whole")


def test_nothing_is_said_where_every_document_has_a_text(
    corpus: LocalFiles, config: ShardingConfig, tmp_path: Path
) -> None:
    notes: list[str] = []
    assert shard_corpus(corpus, tmp_path / "out", config, note=notes.append).manifest.null_documents == 0
    assert notes == []


def test_a_mistake_before_the_first_shard_can_be_mended(
    corpus: LocalFiles, config: ShardingConfig, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="has no column 'body'"):
        shard_corpus(replace(corpus, column="body"), tmp_path / "out", config)
    shard_corpus(corpus, tmp_path / "out", config)


def test_a_folder_of_other_things_is_refused(corpus: LocalFiles, config: ShardingConfig, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match="holds something else"):
        shard_corpus(corpus, tmp_path / "out", config)
    assert contents(tmp_path / "out") == {"thesis.tex": b"years of work"}


def test_a_corpus_of_one_shard_is_refused_with_a_proposal(
    corpus: LocalFiles, config: ShardingConfig, ids: list[int], tmp_path: Path
) -> None:
    with pytest.raises(
        UserError, match=rf"has only {len(ids):,} tokens.*smaller --shard-tokens, such as {len(ids) // 10},"
    ):
        shard_corpus(corpus, tmp_path / "out", replace(config, shard_tokens=1_000_000))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("text", ["", '{"text": ""}\n{"text": null}\n'])
def test_a_corpus_without_text_is_refused(text: str, config: ShardingConfig, tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text(text)
    with pytest.raises(UserError, match=r"empty\.jsonl has no documents, or only empty ones"):
        shard_corpus(find_files([str(tmp_path / "empty.jsonl")], "text"), tmp_path / "out", config)
    assert not (tmp_path / "out").exists()


def test_two_processes_do_not_share_a_folder(corpus: LocalFiles, config: ShardingConfig, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with filelock.FileLock(tmp_path / "out" / LOCK), pytest.raises(UserError, match="another process is preparing"):
        shard_corpus(corpus, tmp_path / "out", config)


def test_a_tokenizer_is_trained_on_the_beginning(corpus: LocalFiles, tmp_path: Path) -> None:
    chosen = TokenizerConfig("bpe", vocab_size=280)
    config = ShardingConfig(chosen, train_tokenizer_on=500, shard_tokens=1000, workers=1)
    notes: list[str] = []
    dataset = shard_corpus(corpus, tmp_path / "out", config, note=notes.append)
    texts = "\n".join(DOCUMENTS)
    beginning, total = [], 0
    for text in DOCUMENTS:
        beginning.append(text[: 500 - total])
        total += len(text)
        if total >= 500:
            break
    assert texts.startswith("\n".join(beginning))
    assert dataset.tokenizer.to_dict() == BPETokenizer.train(beginning, 280, [END]).to_dict()
    assert notes == ["training a tokenizer on the first 500 characters"]


def test_tokenizers_that_cannot_serve_are_refused(corpus: LocalFiles, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="needs the alphabet of the whole corpus"):
        ShardingConfig(TokenizerConfig("char"))
    BPETokenizer.train("text", 256).save(tmp_path / "plain.json")
    with pytest.raises(
        UserError, match=r"has neither <\|endoftext\|> nor a bos_token, one of which must separate documents"
    ):
        shard_corpus(corpus, tmp_path / "out", ShardingConfig(TokenizerConfig(str(tmp_path / "plain.json"))))
    with pytest.raises(UserError, match="workers is 0"):
        ShardingConfig(workers=0)


def test_a_document_that_cannot_be_encoded_is_named(config: ShardingConfig, tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text('{"text": "fine"}\n{"text": "half \\ud83d"}\n')
    with pytest.raises(UserError, match=r"bad\.jsonl, line 2: the text has a lone surrogate, U\+D83D"):
        shard_corpus(find_files([str(tmp_path / "bad.jsonl")], "text"), tmp_path / "out", config)


def test_a_shard_put_in_the_place_of_another_is_noticed(
    corpus: LocalFiles, config: ShardingConfig, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shard_corpus(corpus, out, config)
    shutil.copy(out / "train_000001.shard", out / "train_000002.shard")
    with pytest.raises(UserError, match=r"do not match its manifest\.json"):
        open_dataset(out)


def test_a_damaged_note_is_refused(corpus: LocalFiles, config: ShardingConfig, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    for text in ("{", "{}", "[]", '{"format": "glassgpt-preparation", "version": 1}'):
        (out / STATE_NAME).write_text(text)
        with pytest.raises(UserError, match=r"preparation\.json is damaged"):
            load_sharding_state(out)


@pytest.mark.parametrize(
    "change",
    [{"position": value} for value in ("x", [0, "a"], {}, 5, [-1, 0], [99, 0], None)]
    + [{"settings": {}}, {"settings": {"source": 3}}],
    ids=str,
)
def test_a_damaged_place_to_continue_at_is_refused(
    corpus: LocalFiles, config: ShardingConfig, tmp_path: Path, change: dict[str, Any]
) -> None:
    out = tmp_path / "out"
    with pytest.raises(Killed):
        shard_corpus(corpus, out, config, on_progress=stop_after(10))
    state = json.loads((out / STATE_NAME).read_text())
    (out / STATE_NAME).write_text(json.dumps({**state, **change}))
    before = contents(out)
    with pytest.raises(UserError, match=r"preparation\.json is damaged .*delete .*out and start again"):
        shard_corpus(corpus, out, config)
    assert contents(out) == before


def test_a_place_after_the_last_document_is_not_the_end_of_the_corpus(
    corpus: LocalFiles, config: ShardingConfig, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with pytest.raises(Killed):
        shard_corpus(corpus, out, config, on_progress=stop_after(10))
    state = json.loads((out / STATE_NAME).read_text())
    (out / STATE_NAME).write_text(json.dumps({**state, "position": [0, 9999]}))
    with pytest.raises(UserError, match=r"corpus\.jsonl has nothing at position \[0, 9999\]"):
        shard_corpus(corpus, out, config)


def test_an_unfinished_text_of_an_earlier_version_is_not_continued_at_wrong_places(
    corpus: LocalFiles, config: ShardingConfig, tmp_path: Path
) -> None:
    """Version 1 counted the pieces of a text by other cuts. The documents of other files count as before."""
    (tmp_path / "long.txt").write_text("\n".join(DOCUMENTS))
    text = find_files([str(tmp_path / "long.txt")], "text")

    def continue_from_version_1(source: LocalFiles, finished: bool) -> None:
        out = tmp_path / f"{source.files[0].suffix}-{finished}"
        with contextlib.suppress(Killed):
            shard_corpus(source, out, config, on_progress=stop_after(1000 if finished else 4))
        state = json.loads((out / STATE_NAME).read_text())
        (out / STATE_NAME).write_text(json.dumps({**state, "version": 1}))
        shard_corpus(source, out, config)

    continue_from_version_1(corpus, finished=False)
    continue_from_version_1(text, finished=True)
    with pytest.raises(UserError, match="begun by an earlier version of glassgpt, which cut long texts at"):
        continue_from_version_1(text, finished=False)


def test_progress_tells_tokens_and_the_time_left(
    corpus: LocalFiles, config: ShardingConfig, ids: list[int], tmp_path: Path
) -> None:
    told: list[ShardingProgress] = []
    shard_corpus(corpus, tmp_path / "out", config, on_progress=told.append)
    assert told[-1].tokens == told[-1].new_tokens == len(ids)
    assert told[-1].fraction == 1.0
    assert told[-1].eta == 0.0
    assert told[1].eta is not None and told[1].eta > 0


def test_words_that_look_like_the_separator_stay_text(
    config: ShardingConfig, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    (tmp_path / "odd.txt").write_text(f"one {END} two" * 10)
    source = find_files([str(tmp_path / "odd.txt")], "text")
    dataset = shard_corpus(source, tmp_path / "out", replace(config, shard_tokens=50))
    ids = np.concatenate([tokens.slice(0, len(tokens)) for tokens in (dataset.val, dataset.train)])
    assert np.flatnonzero(ids == tokenizer.special_tokens[END]).tolist() == [0]
    assert tokenizer.decode(ids[1:].tolist()) == f"one {END} two" * 10
