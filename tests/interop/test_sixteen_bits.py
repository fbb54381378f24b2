"""Published weights of 16 bits stay so in a run, are read one after the other, and go out as they came in."""

from __future__ import annotations

import json
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from toys import shake

import glassgpt as gg
from glassgpt.interop.tokenizer_export import tokenizer_json
from glassgpt.runs.run import Run
from glassgpt.tokenizers.bpe import BPETokenizer
from glassgpt.training import tensor_files
from glassgpt.training.tensor_files import TensorReader

transformers = pytest.importorskip("transformers")

TEXT = "The quick brown fox jumps over the lazy dog.\nSphinx of black quartz, judge my vow!\n" * 20
TOKENIZER = BPETokenizer.train(TEXT, 300, ["<|endoftext|>"])
V = TOKENIZER.vocab_size
SHARDS = "model-*-of-*.safetensors"


def save(folder: Path, dtype: torch.dtype, max_shard_size: str = "5GB") -> Any:
    """A small Llama of transformers with a tokenizer."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=V, hidden_size=24, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=40, max_position_embeddings=48,
    )  # fmt: skip
    theirs = transformers.LlamaForCausalLM(config).eval()
    shake(theirs)
    theirs = theirs.to(dtype)
    theirs.save_pretrained(folder, max_shard_size=max_shard_size)
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer_json(TOKENIZER)))
    return theirs


def tensors_in(folder: Path) -> dict[str, Tensor]:
    return {name: tensor for file in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(file).items()}


def assert_same_bits(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor), name


@pytest.fixture(scope="module", params=[torch.bfloat16, torch.float16], ids=str)
def imported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path, Run]:
    """Their model, its folder of several shards, and the run."""
    folder = tmp_path_factory.mktemp("sixteen")
    theirs = save(folder / "theirs", request.param, "10KB")
    assert len(list((folder / "theirs").glob(SHARDS))) > 3
    return theirs, folder / "theirs", gg.import_hf(folder / "theirs", run=folder / "run")


def test_the_run_has_the_bits_of_the_file(imported: tuple[Any, Path, Run]) -> None:
    theirs, folder, run = imported
    (weights,) = run.checkpoint.path.glob("*.safetensors")
    stored = load_file(weights)
    assert {tensor.dtype for tensor in stored.values()} == {theirs.dtype}
    assert torch.equal(stored["blocks.2.mlp.gate.weight"], theirs.model.layers[2].mlp.gate_proj.weight)
    assert torch.equal(stored["norm.weight"], theirs.model.norm.weight)
    in_bits = sum(2 * tensor.numel() for tensor in tensors_in(folder).values())
    assert in_bits <= weights.stat().st_size < in_bits + 8000  # and a header


@torch.no_grad()
def test_it_computes_in_float32_unless_told_otherwise(imported: tuple[Any, Path, Run]) -> None:
    theirs, folder, run = imported
    wide = transformers.LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokens = torch.randint(V, (2, 40), generator=torch.Generator().manual_seed(1))
    assert run.model.norm.weight.dtype == torch.float32
    torch.testing.assert_close(run.model(tokens), wide(tokens).logits, atol=2e-5, rtol=1e-5)
    if theirs.dtype == torch.bfloat16:
        narrow = gg.load(run.folder, dtype="bfloat16").model
        assert all(torch.equal(p, narrow.get_parameter(name)) for name, p in run.model.named_parameters())


def test_every_use_of_a_run_takes_it(imported: tuple[Any, Path, Run], tmp_path: Path) -> None:
    run = gg.load(imported[2].folder)
    assert run.generate("The quick", max_new_tokens=5, seed=1).startswith("The quick")
    assert run.evaluate(text=TEXT).loss > 0
    assert str(run.look("The quick").attention())
    (tmp_path / "text.txt").write_text(TEXT)
    trained = gg.train(
        init_from=run.folder, data=str(tmp_path / "text.txt"), run=tmp_path / "tuned", max_steps=1,
        settings={"training.batch_tokens": 48, "machine.device": "cpu"},
    )  # fmt: skip
    (first,) = (tmp_path / "tuned/checkpoints/step-00000001").glob("model*.safetensors")
    assert {tensor.dtype for tensor in load_file(first).values()} == {torch.float32}
    moved = (trained.model.norm.weight - run.model.norm.weight).abs().max()
    assert 0 < moved < 0.01


@pytest.mark.parametrize("opened", [False, True], ids=["by name", "as a run that was used"])
def test_an_export_has_the_bits_that_came_in(imported: tuple[Any, Path, Run], tmp_path: Path, opened: bool) -> None:
    theirs, folder, run = imported
    if opened:
        run.generate("The", max_new_tokens=2, seed=1)
    out = gg.export_hf(run if opened else run.folder, tmp_path / "out")
    assert_same_bits(tensors_in(out), tensors_in(folder))
    assert json.loads((out / "config.json").read_text())["dtype"] == str(theirs.dtype).removeprefix("torch.")
    again = transformers.AutoModelForCausalLM.from_pretrained(out, dtype="auto")
    assert again.dtype == theirs.dtype


def test_a_run_that_was_changed_is_exported_with_the_change(tmp_path: Path) -> None:
    save(tmp_path / "theirs", torch.bfloat16)
    run = gg.import_hf(tmp_path / "theirs", run=tmp_path / "run")
    with torch.no_grad():
        run.model.norm.weight.fill_(1.5)
    found = tensors_in(gg.export_hf(run, tmp_path / "out"))["model.norm.weight"]
    assert torch.equal(found, torch.full((24,), 1.5, dtype=torch.bfloat16))


def test_dtypes_may_differ_within_a_file(tmp_path: Path) -> None:
    save(tmp_path / "theirs", torch.bfloat16)
    file = tmp_path / "theirs/model.safetensors"
    mixed = {name: tensor.float() if "norm" in name else tensor for name, tensor in load_file(file).items()}
    mixed["model.embed_tokens.weight"] = mixed["model.embed_tokens.weight"].double()
    save_file(mixed, file)
    run = gg.import_hf(tmp_path / "theirs", run=tmp_path / "run")
    mixed["model.embed_tokens.weight"] = mixed["model.embed_tokens.weight"].float()  # float64 is not kept
    assert_same_bits(tensors_in(gg.export_hf(run, tmp_path / "out")), mixed)
    assert json.loads((tmp_path / "out/config.json").read_text())["dtype"] == "float32"


def test_pickles_keep_their_dtype(tmp_path: Path) -> None:
    theirs = save(tmp_path / "theirs", torch.bfloat16)
    (tmp_path / "theirs/model.safetensors").unlink()
    torch.save(theirs.state_dict(), tmp_path / "theirs/pytorch_model.bin")
    run = gg.import_hf(tmp_path / "theirs", run=tmp_path / "run")
    found = load_file(run.checkpoint.path / "model.safetensors")
    assert found["head.weight"].dtype == torch.bfloat16 and torch.equal(found["head.weight"], theirs.lm_head.weight)


def test_no_more_than_one_file_of_the_run_is_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Follows every tensor that is read until it is freed."""
    save(tmp_path / "theirs", torch.bfloat16, "10KB")
    live, most = 0, 0
    read = TensorReader.read

    def freed(size: int) -> None:
        nonlocal live
        live -= size

    def followed(self: TensorReader, name: str) -> Tensor:
        nonlocal live, most
        tensor = read(self, name)
        size = tensor.numel() * tensor.element_size()
        live += size
        most = max(most, live)
        weakref.finalize(tensor.untyped_storage(), freed, size)
        weakref.finalize(tensor, freed, 0)
        return tensor

    monkeypatch.setattr(TensorReader, "read", followed)
    monkeypatch.setattr(tensor_files, "MAX_FILE_BYTES", 20_000)
    run = gg.import_hf(tmp_path / "theirs", run=tmp_path / "run")
    weights = tensors_in(tmp_path / "theirs")
    whole, largest = (f(2 * tensor.numel() for tensor in weights.values()) for f in (sum, max))
    assert len(list(run.checkpoint.path.glob(SHARDS))) > 2
    assert largest < most <= 20_000 < whole / 2
    assert live == 0
