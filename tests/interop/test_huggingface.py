"""GPT-2 from the files of `transformers` computes what `transformers` computes; what is not GPT-2 is refused."""

from __future__ import annotations

import copy
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from toys import shake

from glassgpt.errors import UserError
from glassgpt.interop.huggingface import load_hf
from glassgpt.interop.layouts import layout_of
from glassgpt.models.gpt2 import GPT2, GPT2Config

transformers = pytest.importorskip("transformers")

TOY = {"vocab_size": 97, "n_positions": 24, "n_layer": 2, "n_head": 3, "n_embd": 24}


def reference(**options: Any) -> nn.Module:
    """A model of `transformers` with random weights, in evaluation mode."""
    torch.manual_seed(0)
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(**options, bos_token_id=0, eos_token_id=0)).eval()


@pytest.fixture(scope="module")
def toy() -> nn.Module:
    """Two layers, every weight of which matters."""
    model = reference(**TOY)
    shake(model)
    return model


@pytest.fixture
def saved(toy: nn.Module, tmp_path: Path) -> Path:
    toy.save_pretrained(tmp_path)
    return tmp_path


def some_tokens(vocab_size: int, B: int, T: int) -> Tensor:
    return torch.randint(vocab_size, (B, T), generator=torch.Generator().manual_seed(2))


def gradients(model: nn.Module, logits: Tensor, tokens: Tensor) -> dict[str, Tensor]:
    """The gradient of the mean next-token loss in every parameter."""
    model.zero_grad()
    F.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten()).backward()
    found = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert all(gradient is not None for gradient in found.values())
    return found


def assert_near(ours: Tensor, theirs: Tensor) -> None:
    """Within 1e-4, and within 1e-4 of their own size, which for gradients is the stricter."""
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)
    assert (ours - theirs).norm() <= 1e-4 * theirs.norm()


def assert_same_function(ours: GPT2, theirs: nn.Module, tokens: Tensor) -> None:
    logits, their_logits = ours(tokens), theirs(tokens).logits
    assert_near(logits, their_logits)
    found, expected = gradients(ours, logits, tokens), gradients(theirs, their_logits, tokens)
    for our_name, (name,) in layout_of(ours).names(ours.config):
        gradient = expected[name]
        in_block_matrix = gradient.dim() == 2 and name.startswith("transformer.h.")
        assert_near(found.pop(our_name), gradient.t() if in_block_matrix else gradient)
    assert not found  # every parameter of ours was compared


def test_a_toy_has_the_logits_and_gradients_of_transformers(toy: nn.Module, saved: Path) -> None:
    model = load_hf(saved)
    assert model.config == GPT2Config(vocab_size=97, block_size=24, n_layer=2, n_head=3, n_embd=24)
    assert_same_function(model, toy, some_tokens(97, B=3, T=24))


@pytest.mark.slow
def test_124m_has_the_logits_and_gradients_of_transformers(tmp_path: Path) -> None:
    theirs = reference()
    theirs.save_pretrained(tmp_path / "gpt2", max_shard_size="200MB")
    assert len(list((tmp_path / "gpt2").glob("*.safetensors"))) > 1
    ours = load_hf(str(tmp_path / "gpt2"))
    shutil.rmtree(tmp_path / "gpt2")  # half a gigabyte, which pytest would keep
    assert ours.config == GPT2Config()
    assert sum(parameter.numel() for parameter in ours.parameters()) == 124_439_808
    assert_same_function(ours, theirs, some_tokens(50257, B=1, T=64))


def test_a_loaded_model_can_be_trained(saved: Path) -> None:
    model = load_hf(saved, dropout=0.25)
    assert model.config.dropout == 0.25
    assert all(parameter.requires_grad and parameter.is_contiguous() for parameter in model.parameters())
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


Change = Callable[[dict[str, Tensor]], dict[str, Tensor]]


def rewrite(folder: Path, change: Change) -> None:
    file = folder / "model.safetensors"
    tensors = {name: tensor.clone().contiguous() for name, tensor in change(load_file(file)).items()}
    save_file(tensors, file, metadata={"format": "pt"})


def without_prefix(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}


def with_masks(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    masks = {
        "transformer.h.0.attn.bias": torch.ones(1, 1, 24, 24),
        "transformer.h.1.attn.masked_bias": torch.tensor(-1e4),
    }
    return tensors | masks


def with_head(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return tensors | {"lm_head.weight": tensors["transformer.wte.weight"]}


@pytest.mark.parametrize(
    "change",
    [without_prefix, with_masks, with_head, lambda tensors: without_prefix(with_masks(with_head(tensors)))],
    ids=["without prefix", "with masks", "with tied head", "all of them"],
)
def test_every_way_of_writing_it_is_read(toy: nn.Module, saved: Path, change: Change) -> None:
    rewrite(saved, change)
    tokens = some_tokens(97, B=2, T=10)
    assert_near(load_hf(saved)(tokens), toy(tokens).logits)


def test_weights_of_half_precision_become_float32(toy: nn.Module, saved: Path) -> None:
    rewrite(saved, lambda tensors: {name: tensor.half() for name, tensor in tensors.items()})
    model = load_hf(saved)
    assert torch.equal(model.norm.weight, toy.transformer.ln_f.weight.half().float())


def test_shards_are_put_together(toy: nn.Module, tmp_path: Path) -> None:
    toy.save_pretrained(tmp_path, max_shard_size="20KB")
    assert (tmp_path / "model.safetensors.index.json").exists()
    tokens = some_tokens(97, B=2, T=10)
    assert_near(load_hf(tmp_path)(tokens), toy(tokens).logits)


def test_older_files_are_read(toy: nn.Module, saved: Path) -> None:
    (saved / "model.safetensors").unlink()
    torch.save(toy.state_dict(), saved / "pytorch_model.bin")
    tokens = some_tokens(97, B=2, T=10)
    assert_near(load_hf(saved)(tokens), toy(tokens).logits)


def test_a_model_without_biases_has_zeros_for_them(toy: nn.Module, saved: Path) -> None:
    rewrite(saved, lambda tensors: {name: tensor for name, tensor in tensors.items() if not name.endswith(".bias")})
    with pytest.raises(UserError, match=r"lacks tensors .*\.bias"):
        load_hf(saved)
    config = json.loads((saved / "config.json").read_text()) | {"bias": False}
    (saved / "config.json").write_text(json.dumps(config))
    plain = copy.deepcopy(toy)
    with torch.no_grad():
        for name, parameter in plain.named_parameters():
            if name.endswith(".bias"):
                parameter.zero_()
    tokens = some_tokens(97, B=2, T=10)
    assert_near(load_hf(saved)(tokens), plain(tokens).logits)


class Trap:
    """What unpickles into a call."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (pytest.fail, ("code of the file was executed",))


def test_nothing_in_a_file_is_executed(saved: Path) -> None:
    (saved / "model.safetensors").unlink()
    torch.save({"wte.weight": Trap()}, saved / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"pytorch_model\.bin is damaged, or holds something other than weights"):
        load_hf(saved)


def drop(name: str) -> Change:
    return lambda tensors: {key: tensor for key, tensor in tensors.items() if not key.endswith(name)}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (drop("h.1.ln_2.bias"), r"lacks tensors for the GPT-2 of its config\.json: transformer\.h\.1\.ln_2\.bias"),
        (drop("weight"), r"lacks tensors .* and 12 more"),
        (lambda tensors: tensors | {"score.weight": torch.zeros(2)}, r"has surplus tensors .*: score\.weight"),
        (
            lambda tensors: tensors | {"transformer.h.1.attn.c_attn.weight": torch.zeros(72, 24)},
            r"h\.1\.attn\.c_attn\.weight is float32 \(72, 24\), config\.json needs floats \(24, 72\)",
        ),
        (
            lambda tensors: tensors | {"transformer.wpe.weight": torch.zeros(24, 24, dtype=torch.int8)},
            r"wpe\.weight is int8 \(24, 24\)",
        ),
        (
            lambda tensors: tensors | {"lm_head.weight": torch.zeros(97, 24)},
            r"lm_head\.weight differs from transformer\.wte\.weight",
        ),
    ],
)
def test_wrong_tensors_are_named(saved: Path, change: Change, reason: str) -> None:
    rewrite(saved, change)
    with pytest.raises(UserError, match=reason):
        load_hf(saved)


@pytest.mark.parametrize(
    ("option", "value", "reason"),
    [
        ("model_type", "mamba", 'model_type is "mamba", only "gpt2", .*"qwen3" can be loaded'),
        ("alibi", True, "alibi is true, and GPT-2 has no such setting"),
        ("activation_function", "relu", "activation_function is \"relu\", but GPT-2 has"),
        ("layer_norm_epsilon", 1e-6, "layer_norm_epsilon is 1e-06, but GPT-2 has 1e-05"),
        ("scale_attn_weights", False, "scale_attn_weights is false, but GPT-2 has true"),
        ("scale_attn_by_inverse_layer_idx", True, "scale_attn_by_inverse_layer_idx is true"),
        ("tie_word_embeddings", False, "tie_word_embeddings is false"),
        ("n_inner", 100, "n_inner is 100, but GPT-2 has 96"),
        ("n_head", "3", 'n_head is "3", not an integer'),
        ("n_head", 5, "n_embd = 24 is not divisible by"),
    ],
)  # fmt: skip
def test_another_model_is_refused(saved: Path, option: str, value: object, reason: str) -> None:
    config = json.loads((saved / "config.json").read_text()) | {option: value}
    (saved / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=reason):
        load_hf(saved)


def test_missing_files_are_named(saved: Path) -> None:
    (saved / "model.safetensors").unlink()
    with pytest.raises(UserError, match="has no weights"):
        load_hf(saved)
    (saved / "config.json").unlink()
    with pytest.raises(UserError, match=r"cannot read .*config\.json: No such file"):
        load_hf(saved)
    with pytest.raises(UserError, match=r"there is no folder gpt2: .* downloads nothing"):
        load_hf("gpt2")


def test_damaged_files_are_named(saved: Path) -> None:
    weights = saved / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"model\.safetensors cannot be read as safetensors"):
        load_hf(saved)
    weights.unlink()
    (saved / "pytorch_model.bin").write_bytes(b"not a zip file")
    with pytest.raises(UserError, match=r"pytorch_model\.bin is a Git LFS pointer or text, not weights"):
        load_hf(saved)
    (saved / "pytorch_model.bin").write_bytes(b"\x80\x02not a pickle")
    with pytest.raises(
        UserError, match=r"pytorch_model\.bin is damaged, or holds something other than weights"
    ) as error:
        load_hf(saved)
    assert "weights_only" not in str(error.value)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_a_git_lfs_pointer_is_named(saved: Path, name: str) -> None:
    (saved / "model.safetensors").unlink()
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 548105171\n"
    (saved / name).write_text(pointer)
    with pytest.raises(UserError, match=rf"{name} is a Git LFS pointer or text, not weights: download the file itself"):
        load_hf(saved)
    (saved / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"config\.json is not JSON"):
        load_hf(saved)


@pytest.mark.parametrize(
    ("weight_map", "reason"),
    [
        ({"wte.weight": "../secret.safetensors"}, "names a file outside of its folder"),
        ({"wte.weight": "model-1.safetensors"}, r"names model-1\.safetensors, but there is no such file"),
        (None, 'has no "weight_map"'),
    ],
)
def test_a_wrong_index_is_refused(saved: Path, weight_map: object, reason: str) -> None:
    (saved / "model.safetensors").unlink()
    (saved / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(UserError, match=reason):
        load_hf(saved)


def test_the_package_does_not_import_transformers() -> None:
    code = "import sys, glassgpt.interop.huggingface; print('transformers' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"
