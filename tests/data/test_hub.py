"""Data sets of the hub: the same code on a folder laid out like one, and what is said where the hub is out of reach."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from glassgpt.data import hub
from glassgpt.data.corpus_to_shards import ShardingProgress, shard_corpus
from glassgpt.data.hub import HubDataset, fineweb_edu
from glassgpt.data.sharding_state import ShardingConfig
from glassgpt.errors import UserError
from glassgpt.tokenizers import TokenizerConfig
from glassgpt.tokenizers.bpe import BPETokenizer

TEXTS = [f"document {number}, which has some words" for number in range(90)]


@pytest.fixture
def dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HubDataset:
    """Three parquet files of a few row groups, in batches of a few documents."""
    pytest.importorskip("datasets")
    monkeypatch.setattr(hub, "BATCH", 200)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    folder = tmp_path / "set"
    folder.mkdir()
    for number in range(3):
        texts = TEXTS[30 * number : 30 * number + 30]
        table = pa.table({"id": list(range(30)), "text": texts})
        pq.write_table(table, folder / f"train-{number:05d}-of-00003.parquet", row_group_size=7)
    return HubDataset(str(folder))


def test_documents_are_streamed_in_order(dataset: HubDataset) -> None:
    assert [piece.text for batch in dataset.batches() for piece in batch.pieces] == TEXTS


def test_every_batch_can_be_begun_with_again(dataset: HubDataset) -> None:
    batches = list(dataset.batches())
    assert len(batches) > 10
    for number in (0, 1, 5, len(batches) - 1):
        position = json.loads(json.dumps(batches[number].position))
        again = list(dataset.batches(position))
        assert [piece.text for batch in again for piece in batch.pieces] == [
            piece.text for batch in batches[number:] for piece in batch.pieces
        ]
        assert again[0].pieces[0].where == batches[number].pieces[0].where


def test_the_settings_name_the_data_set(dataset: HubDataset) -> None:
    assert dataset.pinned(None) == dataset  # a folder has no revisions
    assert json.loads(json.dumps(dataset.settings()))["hub"] == dataset.id


def test_going_on_reads_the_revision_of_the_beginning() -> None:
    asked = HubDataset("owner/name")
    earlier = asked.settings() | {"revision": "abc"}
    assert asked.pinned(earlier).revision == "abc"


def test_what_is_not_there_names_what_is(dataset: HubDataset) -> None:
    with pytest.raises(UserError, match=r"has no column 'body'.*it has id, text"):
        next(HubDataset(dataset.id, column="body").batches())
    with pytest.raises(UserError, match=r"is not text but '0'"):
        next(HubDataset(dataset.id, column="id").batches())
    with pytest.raises(UserError, match=r"Bad split: test.*--config and --split"):
        next(HubDataset(dataset.id, split="test").batches())
    with pytest.raises(UserError, match=r"'other' not found.*--config and --split"):
        next(HubDataset(dataset.id, config="other").batches())


def test_a_hub_out_of_reach_is_one_sentence() -> None:
    with pytest.raises(UserError, match=r"cannot read dataset 'HuggingFaceFW/fineweb-edu' from the Hugging Face hub"):
        fineweb_edu().pinned(None)
    with pytest.raises(UserError, match=r"cannot read dataset 'owner/name'.*check its id and the network"):
        next(HubDataset("owner/name", revision="abc").batches())


def test_without_the_library_the_extra_is_named(dataset: HubDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match=r"pip install 'glassgpt\[data\]'"):
        next(dataset.batches())


def test_the_samples_of_fineweb_edu() -> None:
    assert fineweb_edu("100BT") == HubDataset("HuggingFaceFW/fineweb-edu", config="sample-100BT")
    with pytest.raises(UserError, match="unknown sample of fineweb-edu '10B': did you mean '10BT'"):
        fineweb_edu("10B")


class Killed(BaseException):
    """What nothing but the test catches."""


def test_a_stopped_preparation_goes_on_in_the_middle_of_the_stream(dataset: HubDataset, tmp_path: Path) -> None:
    BPETokenizer.train(" ".join(TEXTS), 300, ["<|endoftext|>"]).save(tmp_path / "own.json")
    config = ShardingConfig(TokenizerConfig(str(tmp_path / "own.json")), shard_tokens=150, workers=1)
    whole = shard_corpus(dataset, tmp_path / "whole", config)
    calls = iter(range(12))

    def stop(progress: ShardingProgress) -> None:
        if next(calls, None) is None:
            raise Killed

    with pytest.raises(Killed):
        shard_corpus(dataset, tmp_path / "stopped", config, on_progress=stop)
    notes: list[str] = []
    stopped = shard_corpus(dataset, tmp_path / "stopped", config, note=notes.append)
    assert "resuming in" in notes[0]
    assert stopped.manifest.key == whole.manifest.key
    assert stopped.manifest.train.documents + stopped.manifest.val.documents == len(TEXTS)  # type: ignore[operator]
