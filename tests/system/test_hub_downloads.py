"""Downloads from the Hugging Face hub, from a server on this machine that speaks the same API."""

from __future__ import annotations

import importlib
import importlib.util
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hub_server import Hub, Repository, serve

import glassgpt as gg
from glassgpt.data.corpus_to_shards import ShardingProgress, shard_corpus
from glassgpt.data.hub import FINEWEB_EDU, fineweb_edu
from glassgpt.data.sharding_state import ShardingConfig
from glassgpt.errors import UserError
from glassgpt.evaluation import hellaswag
from glassgpt.interop.tokenizer_export import tokenizer_json
from glassgpt.tokenizers import TokenizerConfig
from glassgpt.tokenizers.bpe import BPETokenizer

transformers = pytest.importorskip("transformers")
huggingface_hub = pytest.importorskip("huggingface_hub")

TEXT = "The quick brown fox jumps over the lazy dog.\nSphinx of black quartz, judge my vow!\n" * 20
TOKENIZER = BPETokenizer.train(TEXT, 300, ["<|endoftext|>"])
DOCUMENTS = [f"Document {number} is about the number {number * 7919 % 1000}, and little else." for number in range(400)]
PRIVATE = "hf_sesame"


class Clock:
    """Stands for the module `time` in the hub's client, whose retries would wait for seconds."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


@pytest.fixture(scope="session")
def model_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a small GPT-2 as `transformers` writes them; the weights are large enough to be redirected."""
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    end = TOKENIZER.special_tokens["<|endoftext|>"]
    config = transformers.GPT2Config(
        vocab_size=300, n_positions=32, n_layer=2, n_head=2, n_embd=16, bos_token_id=end, eos_token_id=end
    )
    transformers.GPT2LMHeadModel(config).save_pretrained(folder)
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer_json(TOKENIZER)))
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="session")
def dataset_files() -> dict[str, bytes]:
    """FineWeb-Edu's layout in small: a README that names the samples, and their parquet files."""
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    readme = (
        "---\nconfigs:\n- config_name: sample-10BT\n  data_files:\n  - split: train\n    path: sample/10BT/*\n---\n"
    )
    files = {"README.md": readme.encode()}
    for number in range(2):
        file = io.BytesIO()
        texts = DOCUMENTS[200 * number : 200 * number + 200]
        parquet.write_table(pa.table({"text": texts, "id": texts}), file, row_group_size=40, compression="none")
        files[f"sample/10BT/{number:03d}_00000.parquet"] = file.getvalue()
    return files


@pytest.fixture
def hub(
    model_files: dict[str, bytes],
    dataset_files: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Hub]:
    """The server, and this process's client set to use it, with an empty cache."""
    import huggingface_hub.utils._http as http

    repositories = {
        "owner/tiny": Repository(model_files),
        "owner/private": Repository(model_files, token=PRIVATE),
        "owner/gated": Repository(model_files, gated=True),
        FINEWEB_EDU: Repository(dataset_files),
    }
    with serve(repositories) as hub:
        constants = huggingface_hub.constants
        monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(http, "time", Clock())
        if importlib.util.find_spec("datasets"):
            datasets = importlib.import_module("datasets")
            monkeypatch.setattr(datasets.config, "HF_ENDPOINT", hub.endpoint)
            monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
            huggingface_hub.HfFileSystem.clear_instance_cache()
        huggingface_hub.close_session()
        yield hub
        huggingface_hub.close_session()


def test_the_command_imports_a_repository(hub: Hub, tmp_path: Path) -> None:
    """As a user would: HF_ENDPOINT names a mirror, and nothing is in the cache."""
    env = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
    env |= {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        [sys.executable, "-m", "glassgpt", "import", "owner/tiny", "--run", "tiny"],
        cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""  # no progress bars in a file
    origin = json.loads((tmp_path / "runs/tiny/origin.json").read_text())
    assert origin["revision"] == hub.repositories["owner/tiny"].commit


def test_a_repository_is_the_same_as_its_folder(hub: Hub, model_files: dict[str, bytes], tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name, content in model_files.items():
        (source / name).write_bytes(content)
    near, far = gg.import_hf(source, run=tmp_path / "near"), gg.import_hf("owner/tiny", run=tmp_path / "far")
    for name, tensor in near.model.state_dict().items():
        assert torch.equal(tensor, far.model.state_dict()[name])
    assert near.tokenizer.encode(TEXT) == far.tokenizer.encode(TEXT)
    fetched = [request for request in hub.requests if request.startswith("GET /storage/")]
    assert len(fetched) == 2  # the weights and the tokenizer are large enough for the redirect


def test_a_second_import_downloads_nothing(hub: Hub, tmp_path: Path) -> None:
    gg.import_hf("owner/tiny", run=tmp_path / "first")
    hub.requests.clear()
    gg.import_hf("owner/tiny", run=tmp_path / "second")
    assert not [request for request in hub.requests if request.startswith("GET /storage/")]


def test_a_repository_with_pickles_alone(hub: Hub, model_files: dict[str, bytes], tmp_path: Path) -> None:
    from safetensors.torch import load

    pickled = io.BytesIO()
    torch.save(load(model_files["model.safetensors"]), pickled)
    files = {name: content for name, content in model_files.items() if name != "model.safetensors"}
    hub.repositories["owner/old"] = Repository(files | {"pytorch_model.bin": pickled.getvalue()})
    run = gg.import_hf("owner/old", run=tmp_path / "old")
    again = gg.import_hf("owner/tiny", run=tmp_path / "tiny")
    for name, tensor in run.model.state_dict().items():
        assert torch.equal(tensor, again.model.state_dict()[name])


def test_a_private_repository_opens_with_its_token(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"no repository of that name that is open to you.*set HF_TOKEN"):
        gg.import_hf("owner/private", run=tmp_path / "run")
    monkeypatch.setenv("HF_TOKEN", PRIVATE)
    assert gg.import_hf("owner/private", run=tmp_path / "run").imported


@pytest.mark.parametrize(
    ("repository", "revision", "told"),
    [
        ("owner/gated", None, "owner/gated is gated: request access"),
        ("owner/missing", None, "has no repository of that name"),
        ("owner/tiny", "v9", "has no revision 'v9'"),
    ],
)
def test_what_is_not_there_is_said(hub: Hub, tmp_path: Path, repository: str, revision: str | None, told: str) -> None:
    with pytest.raises(UserError, match=told):
        gg.import_hf(repository, revision=revision, run=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_hub_is_asked_again(hub: Hub, tmp_path: Path, status: int) -> None:
    hub.failing[status] = 2
    assert gg.import_hf("owner/tiny", run=tmp_path / "run").imported


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (429, r"127\.0\.0\.1:\d+ takes no more requests for now.*\(status 429\): wait"),
        (500, r"failed \(status 500\): try again"),
    ],
)
def test_a_hub_that_stays_busy_is_one_sentence(hub: Hub, tmp_path: Path, status: int, told: str) -> None:
    hub.failing[status] = 1000
    with pytest.raises(UserError, match=told):
        gg.import_hf("owner/tiny", run=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_connection_cut_in_a_file_goes_on_where_it_was(
    hub: Hub, model_files: dict[str, bytes], tmp_path: Path
) -> None:
    hub.cut = [1000, 700]  # shorter than both large files, which are fetched at the same time
    gg.import_hf("owner/tiny", run=tmp_path / "run")
    assert hub.cut == []
    (snapshot,) = (tmp_path / "cache").glob("models--owner--tiny/snapshots/*")
    assert (snapshot / "model.safetensors").read_bytes() == model_files["model.safetensors"]
    assert len([request for request in hub.requests if request.startswith("GET /storage/")]) == 4  # two files, two cuts


# --- FineWeb-Edu ------------------------------------------------------------------------------------------------------


@pytest.fixture
def sharding(tmp_path: Path) -> ShardingConfig:
    pytest.importorskip("datasets")
    TOKENIZER.save(tmp_path / "tokenizer.json")
    return ShardingConfig(TokenizerConfig(str(tmp_path / "tokenizer.json")), shard_tokens=2000, workers=1)


def test_fineweb_edu_streams_every_document_once(hub: Hub, sharding: ShardingConfig, tmp_path: Path) -> None:
    done = shard_corpus(fineweb_edu().pinned(None), tmp_path / "shards", sharding)
    assert done.manifest.train.documents + done.manifest.val.documents == len(DOCUMENTS)  # type: ignore[operator]
    assert [piece.text for batch in fineweb_edu().batches() for piece in batch.pieces] == DOCUMENTS


def test_a_stream_whose_connection_is_cut_goes_on(hub: Hub, sharding: ShardingConfig, tmp_path: Path) -> None:
    hub.cut = [9000, 3000]
    assert [piece.text for batch in fineweb_edu().batches() for piece in batch.pieces] == DOCUMENTS
    assert hub.cut == []


class Killed(BaseException):
    """What nothing but the test catches."""


def test_a_resumed_preparation_reads_the_revision_that_it_began_with(
    hub: Hub, sharding: ShardingConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("glassgpt.data.hub.BATCH", 2000)
    whole = shard_corpus(fineweb_edu().pinned(None), tmp_path / "whole", sharding)
    commit = hub.repositories[FINEWEB_EDU].commit
    calls = iter(range(8))

    def stop(progress: ShardingProgress) -> None:
        if next(calls, None) is None:
            raise Killed

    with pytest.raises(Killed):
        shard_corpus(fineweb_edu().pinned(None), tmp_path / "stopped", sharding, on_progress=stop)
    hub.requests.clear()
    resumed = fineweb_edu().pinned({**fineweb_edu().settings(), "revision": commit})
    stopped = shard_corpus(resumed, tmp_path / "stopped", sharding)
    assert stopped.manifest.key == whole.manifest.key
    files = [request for request in hub.requests if "/resolve/" in request]
    assert files
    assert all(commit in request for request in files)  # never "main", which may be another revision by now


def test_a_dataset_that_stays_out_of_reach_is_one_sentence(hub: Hub, sharding: ShardingConfig) -> None:
    hub.failing[500] = 1000
    with pytest.raises(
        UserError, match=r"cannot read dataset 'HuggingFaceFW/fineweb-edu'.*check its id and the network"
    ):
        next(fineweb_edu().batches())


# --- HellaSwag --------------------------------------------------------------------------------------------------------


def test_hellaswag_is_downloaded_once(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    item = {"ctx": "A man sits. he", "endings": ["runs.", "sits.", "is a cat.", "sings."], "label": 2}
    content = (json.dumps(item) + "\n").encode() * 200
    hub.repositories["rowan/hellaswag"] = Repository({"val.jsonl": content})
    monkeypatch.setenv("GLASSGPT_CACHE", str(tmp_path / "glassgpt"))
    monkeypatch.setattr(hellaswag, "URL", f"{hub.endpoint}/rowan/hellaswag/resolve/main/val.jsonl")
    monkeypatch.setattr(hellaswag, "N_ITEMS", 200)
    hub.cut = [1000]
    with pytest.raises(UserError, match="could not be downloaded"):
        hellaswag.load_items()
    assert len(hellaswag.load_items()) == 200  # by the redirect
    hub.requests.clear()
    assert len(hellaswag.load_items()) == 200
    assert hub.requests == []
