"""`glassgpt import` of folders with something wrong in them: one sentence, exit code 2, and nothing is left behind."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import glassgpt
from safetensors.torch import load_file, save_file

from glassgpt.interop.huggingface_export import write_hf_folder
from glassgpt.models.llama import Llama, LlamaConfig
from glassgpt.tokenizers.bpe import BPETokenizer
from glassgpt.training import tensor_files

TOKENIZER = BPETokenizer.train("The quick brown fox jumps over the lazy dog.\n", 262, ["<|endoftext|>"])
GATE = "model.layers.0.mlp.gate_proj.weight"
SHARD = "model-00002-of-00003.safetensors"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Llama in three shards, of which the second has the gate of the first block."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "llama"
    path.mkdir()
    torch.manual_seed(0)
    model = Llama(LlamaConfig(TOKENIZER.vocab_size, 16, 2, 2, 8, n_hidden=12))
    write_hf_folder(path, model, TOKENIZER, "card")
    (path / "glassgpt_tokenizer.json").unlink()
    whole = load_file(path / "model.safetensors")
    (path / "model.safetensors").unlink()
    firsts = ("model.embed_tokens.weight", "model.norm.weight"), ("model.layers.0.",), ("model.layers.1.", "lm_head.")
    files = {
        f"model-0000{n}-of-00003.safetensors": [name for name in whole if name.startswith(first)]
        for n, first in enumerate(firsts, start=1)
    }
    for file, names in files.items():
        save_file({name: whole[name] for name in names}, path / file)
    index = tensor_files.index_of(files, whole)
    (path / "model.safetensors.index.json").write_text(json.dumps(index))
    return path


def config(**fields: Any) -> Callable[[Path], object]:
    return file("config.json", **fields)


def file(name: str, **fields: Any) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        path = folder / name
        path.write_text(json.dumps((json.loads(path.read_text()) if path.exists() else {}) | fields))

    return change


def shard(**tensors: torch.Tensor | None) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        named = {name.replace("__", "."): tensor for name, tensor in tensors.items()}
        changed = load_file(folder / SHARD) | named
        save_file({name: tensor for name, tensor in changed.items() if tensor is not None}, folder / SHARD)

    return change


def gate(tensor: torch.Tensor | None) -> Callable[[Path], object]:
    return shard(**{GATE: tensor})


def cut_short(folder: Path) -> None:
    (folder / SHARD).write_bytes((folder / SHARD).read_bytes()[:-100])


def no_header(folder: Path) -> None:
    (folder / SHARD).write_bytes(b"")


def more_ids(folder: Path) -> None:
    BPETokenizer.train("one two three four", 270).save(folder / "glassgpt_tokenizer.json")


def code_in_a_pickle(folder: Path) -> None:
    for path in folder.glob("model*"):
        path.unlink()
    torch.save({"model.norm.weight": print}, folder / "pytorch_model.bin")


def test_the_folder_itself_is_imported(folder: Path) -> None:
    assert glassgpt("import", folder, "--run", "mine").code == 0


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (config(model_type="mamba"), 'model_type is "mamba", only "bert"'),
        (config(alibi=True), 'alibi is true, and the architecture "llama" has no such setting'),
        (config(hidden_size=None), "hidden_size is null, not an integer"),
        (config(rms_norm_eps=float("nan")), "rms_norm_eps is NaN, not a finite number"),
        (config(auto_map={"AutoConfig": "x.Y"}), "asks for code of its repository (auto_map): such code is never run"),
        (file("tokenizer_config.json", auto_map={"AutoTokenizer": ["x.Y", None]}), "_config.json asks for code"),
        (config(quantization_config={"quant_method": "fp8"}), "quantization_config is"),
        (lambda folder: (folder / SHARD).unlink(), f"names {SHARD}, but there is no such file"),
        (cut_short, f"{SHARD} cannot be read as safetensors, download it again if it is incomplete"),
        (no_header, f"{SHARD} cannot be read as safetensors, download it again if it is incomplete"),
        (gate(torch.zeros(12, 8, dtype=torch.int8)), f"{GATE} is int8 (12, 8), which cannot be read"),
        (gate(torch.zeros(12, 8).to(torch.float8_e4m3fn)), f"{GATE} is float8_e4m3fn (12, 8), which cannot be read"),
        (gate(torch.zeros(8, 12)), f"{GATE} is float32 (8, 12), config.json needs floats (12, 8)"),
        (gate(None), f"lacks tensors for the Llama of its config.json: {GATE}"),
        (shard(model__layers__7__x=torch.zeros(2)), "has surplus tensors for the Llama of its config.json: model.la"),
        (shard(lm_head__weight=torch.zeros(2)), "has the tensor lm_head.weight, and so has another shard"),
        (more_ids, "ids, the model 262: they do not belong together"),
        (file("model.safetensors.index.json", weight_map={"x": "../x"}), "names a file outside of its folder: ../x"),
        (file("model.safetensors.index.json", weight_map=["x"]), 'has no "weight_map"'),
        (code_in_a_pickle, "pytorch_model.bin is damaged, or holds something other than weights"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(folder: Path, change: Callable[[Path], object], told: str) -> None:
    change(folder)
    error = glassgpt("import", folder, "--run", "mine").error
    assert told in error
    assert len(error) < 700 and not Path("runs/mine").exists()


def test_rotary_frequencies_of_older_files_are_left_out(folder: Path) -> None:
    """Files of Llama 1 and 2 have them as a buffer in every block; transformers computes them too."""
    shard(**{"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(2)})(folder)
    assert glassgpt("import", folder, "--run", "mine").code == 0
