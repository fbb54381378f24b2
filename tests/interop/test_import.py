"""A GPT-2 from elsewhere becomes a run, or is refused in one sentence and leaves nothing behind."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from toys import shake

import glassgpt as gg
from glassgpt.errors import UserError
from glassgpt.interop.tokenizer_export import tokenizer_json
from glassgpt.models.gpt2 import GPT2Config
from glassgpt.tokenizers.bpe import BPETokenizer

transformers = pytest.importorskip("transformers")
hub = pytest.importorskip("huggingface_hub")

TEXT = "The quick brown fox jumps over the lazy dog.\nSphinx of black quartz, judge my vow!\n" * 20
TOKENIZER = BPETokenizer.train(TEXT, 300, ["<|endoftext|>"])


def save(folder: Path, **options: Any) -> Any:
    """A model of `transformers` in a folder, with a tokenizer; returns the model."""
    torch.manual_seed(0)
    end = TOKENIZER.special_tokens["<|endoftext|>"]
    sizes = {"vocab_size": TOKENIZER.vocab_size, "n_positions": 48, "n_layer": 2, "n_head": 3, "n_embd": 24}
    config = transformers.GPT2Config(**sizes | options, bos_token_id=end, eos_token_id=end)
    model = transformers.GPT2LMHeadModel(config).eval()
    shake(model)
    model.save_pretrained(folder)
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer_json(TOKENIZER)))
    return model


@pytest.fixture
def source(tmp_path: Path) -> Path:
    save(tmp_path / "source")
    return tmp_path / "source"


def test_the_run_is_ready_to_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = save(tmp_path / "source")
    monkeypatch.chdir(tmp_path)
    run = gg.import_hf("source", run="mine")
    assert (run.folder, run.imported, run.step) == (Path("runs/mine"), True, 0)
    assert run.config.run.stage == "none"
    assert run.config.model == GPT2Config(TOKENIZER.vocab_size, block_size=48, n_layer=2, n_head=3, n_embd=24)
    prompt = "The quick"
    ids = torch.tensor([TOKENIZER.encode(prompt)])
    with torch.no_grad():
        torch.testing.assert_close(run.model(ids), theirs(ids).logits, atol=1e-4, rtol=0)
    written = theirs.generate(ids, max_new_tokens=30, do_sample=False, eos_token_id=None, pad_token_id=0)[0]
    assert run.generate(prompt, max_new_tokens=30, temperature=0.0) == TOKENIZER.decode(written.tolist())
    assert run.evaluate(text=TEXT).loss > 0


def test_the_origin_is_kept(source: Path, tmp_path: Path) -> None:
    run = gg.import_hf(source, run=tmp_path / "run")
    origin = json.loads((run.folder / "origin.json").read_text())
    assert (origin["source"], origin["revision"]) == (str(source), "")
    files = ("config.json", "model.safetensors", "tokenizer.json")
    assert origin["files"] == {name: hashlib.sha256((source / name).read_bytes()).hexdigest() for name in files}


def test_pickled_weights_do(tmp_path: Path) -> None:
    theirs = save(tmp_path / "source")
    (tmp_path / "source/model.safetensors").unlink()
    torch.save(theirs.state_dict(), tmp_path / "source/pytorch_model.bin")
    run = gg.import_hf(tmp_path / "source", run=tmp_path / "run")
    assert torch.equal(run.model.norm.bias, theirs.transformer.ln_f.bias)


def test_a_padded_vocabulary_writes_no_padding(tmp_path: Path) -> None:
    save(tmp_path / "source", vocab_size=TOKENIZER.vocab_size + 30)
    run = gg.import_hf(tmp_path / "source", run=tmp_path / "run")
    with torch.no_grad():
        run.model.token_embedding.weight[TOKENIZER.vocab_size :] *= 100
    assert run.generate("The", max_new_tokens=20, seed=1)
    gg.export_hf(run, tmp_path / "out")
    assert json.loads((tmp_path / "out/config.json").read_text())["vocab_size"] == TOKENIZER.vocab_size


def test_what_is_missing_in_an_imported_run_is_said(source: Path, tmp_path: Path) -> None:
    run = gg.import_hf(source, run=tmp_path / "run")
    for use in (run.evaluate, lambda: run.manifest, lambda: gg.train(run=run.folder, resume=True)):
        with pytest.raises(UserError, match="was imported and not trained here, so it has no text"):
            use()


def test_a_tokenizer_changed_later_is_noticed(source: Path, tmp_path: Path) -> None:
    run = gg.import_hf(source, run=tmp_path / "run")
    BPETokenizer.train(TEXT, 280).save(run.folder / "tokenizer.json")
    with pytest.raises(UserError, match=r"tokenizer\.json is not the tokenizer"):
        gg.load(run.folder)


def test_an_existing_run_is_replaced_on_demand_alone(source: Path, tmp_path: Path) -> None:
    run = gg.import_hf(source, run=tmp_path / "run")
    with pytest.raises(UserError, match=r"exists: replace it with overwrite=True, or choose another run"):
        gg.import_hf(source, run=run.folder)
    save(source, n_layer=1)
    assert gg.import_hf(source, run=run.folder, overwrite=True).config.model.n_layer == 1
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/one.jpg").touch()
    with pytest.raises(UserError, match="exists and is not a run folder"):
        gg.import_hf(source, run=tmp_path / "photos", overwrite=True)


def change_config(**fields: Any) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | fields))

    return change


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (change_config(model_type="mamba"), 'model_type is "mamba"'),
        (change_config(tie_word_embeddings=False), "tie_word_embeddings is false"),
        (change_config(n_layer=3), r"lacks tensors .*h\.2\.attn\.c_attn\.bias"),
        (change_config(n_layer=1), r"has surplus tensors .*h\.1\.attn\.c_attn\.bias"),
        (change_config(vocab_size=299), r"wte\.weight is float32 \(300, 24\)"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "has no tokenizer"),
        (lambda folder: (folder / "config.json").unlink(), r"cannot read .*config\.json"),
        (
            lambda folder: cut_short(folder / "model.safetensors"),
            r"model\.safetensors cannot be read as safetensors",
        ),
        (
            lambda folder: (folder / "tokenizer.json").write_text(
                json.dumps(tokenizer_json(BPETokenizer.train(TEXT, 301)))
            ),
            "the tokenizer has 301 ids, the model 300: they do not belong together",
        ),
    ],
)  # fmt: skip
def test_a_wrong_folder_is_refused_and_leaves_nothing(
    source: Path, tmp_path: Path, change: Callable[[Path], object], told: str
) -> None:
    change(source)
    with pytest.raises(UserError, match=told):
        gg.import_hf(source, run=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_source_that_is_no_folder(source: Path, tmp_path: Path) -> None:
    for wrong, told in (
        (source / "config.json", "is a file: give the folder that it is in"),
        (tmp_path / "nowhere", "there is no folder"),
        ("../nowhere", "there is no folder"),
        ("a/b/c", "there is no folder"),
    ):
        with pytest.raises(UserError, match=told):
            gg.import_hf(wrong, run=tmp_path / "run")
    with pytest.raises(UserError, match="leave revision out"):
        gg.import_hf(source, run=tmp_path / "run", revision="main")


# --- what the hub refuses; tests/system/test_hub_downloads.py asks a server ------------------------------------------


def response(status: int) -> Any:
    """What the hub's client hands to its errors."""
    http = sys.modules[hub.errors.HTTPError.__module__]
    if hub.__version__.startswith("0."):  # by the package requests, which builds a response step by step
        answered = sys.modules["requests"].Response()
        answered.status_code = status
        return answered
    return http.Response(status, request=http.Request("GET", "https://huggingface.co/api/models/x"))


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (lambda: hub.errors.RepositoryNotFoundError("404", response=response(404)), "has no repository of that name"),
        (lambda: hub.errors.GatedRepoError("403", response=response(403)), "owner/name is gated"),
        (lambda: hub.errors.RevisionNotFoundError("404", response=response(404)), "has no revision 'v9'"),
        (lambda: hub.errors.LocalEntryNotFoundError("offline"), "cannot be reached"),
        (lambda: hub.errors.HfHubHTTPError("502", response=response(502)), r"huggingface\.co failed \(status 502\)"),
        (lambda: OSError(28, "No space left on device"), "cannot store 'owner/name' in the hub's cache: No space"),
    ],
)
def test_what_the_hub_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Callable[[], Exception], told: str
) -> None:
    def refuse(repository: str, **options: Any) -> str:
        raise error()

    monkeypatch.setattr(hub, "snapshot_download", refuse)
    with pytest.raises(UserError, match=told):
        gg.import_hf("owner/name", run=tmp_path / "run", revision="v9")
    assert not (tmp_path / "run").exists()


def test_without_a_network_the_hub_cannot_be_reached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real client, offline by its own switch, with an empty cache."""
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"there is no folder 'gpt2', and huggingface\.co cannot be reached"):
        gg.import_hf("gpt2", run="mine")


def test_an_endpoint_without_a_scheme_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub.constants, "ENDPOINT", "mirror.example")
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(UserError, match=r"mirror\.example cannot be reached"):
        gg.import_hf("owner/name", run=tmp_path / "run")


def test_a_name_that_no_repository_can_have(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no repository can have that name"):
        gg.import_hf("owner/name--wrong", run=tmp_path / "run")


def test_without_the_client_its_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UserError, match=r"pip install 'glassgpt\[hf\]'"):
        gg.import_hf("gpt2", run=tmp_path / "run")


@pytest.mark.parametrize("pickled", [False, True])
def test_a_repository_is_downloaded_and_its_commit_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pickled: bool
) -> None:
    snapshot = tmp_path / "snapshots/0123abc"
    theirs = save(snapshot)
    if pickled:
        (snapshot / "model.safetensors").unlink()
    asked: list[list[str]] = []

    def download(repository: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        assert (repository, revision) == ("owner/name", None)
        asked.append(allow_patterns)
        if "pytorch_model.bin" in allow_patterns:
            torch.save(theirs.state_dict(), snapshot / "pytorch_model.bin")
        return str(snapshot)

    monkeypatch.setattr(hub, "snapshot_download", download)
    run = gg.import_hf("owner/name", run=tmp_path / "run")
    assert len(asked) == (2 if pickled else 1)  # a pickle is asked for where there is nothing else
    assert json.loads((run.folder / "origin.json").read_text())["revision"] == "0123abc"
