"""Loads GPT-2 weights that the `transformers` library saved, without using the library.

A folder written by `GPT2LMHeadModel.save_pretrained` contains config.json and the weights: model.safetensors, or shards
of it with an index, or in older folders pytorch_model.bin. The model is the same as ours. Three things differ in the
files: the names; the matrices, which its Conv1D stores as (in, out) and nn.Linear as (out, in); and, in older files,
additional buffers with the causal mask.
"""

from __future__ import annotations

import contextlib
import json
import pickle
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from glassgpt.config import strict_arguments
from glassgpt.errors import UserError
from glassgpt.files import check_regular, read_json
from glassgpt.models.gpt2 import GPT2, GPT2Config

Tensors = dict[str, Tensor]

SIZES = {
    "vocab_size": "vocab_size",
    "block_size": "n_positions",
    "n_layer": "n_layer",
    "n_head": "n_head",
    "n_embd": "n_embd",
}
# Options that a model of type "gpt2" must have to be the GPT-2 of the paper. The first value is the library's default.
GPT2_OPTIONS: dict[str, tuple[Any, ...]] = {
    "activation_function": ("gelu_new", "gelu_pytorch_tanh"),  # two names of one function
    "layer_norm_epsilon": (1e-5,),
    "scale_attn_weights": (True,),
    "scale_attn_by_inverse_layer_idx": (False,),
    "add_cross_attention": (False,),
    "tie_word_embeddings": (True,),
}
OUTSIDE_BLOCKS = {
    "wte.weight": "token_embedding.weight",
    "wpe.weight": "position_embedding.weight",
    "ln_f.weight": "norm.weight",
    "ln_f.bias": "norm.bias",
}
IN_BLOCK = {
    "ln_1": "norm1",
    "attn.c_attn": "attn.qkv",
    "attn.c_proj": "attn.proj",
    "ln_2": "norm2",
    "mlp.c_fc": "mlp.up",
    "mlp.c_proj": "mlp.down",
}
MASKS = (".attn.bias", ".attn.masked_bias")
TIED_HEAD = "lm_head.weight"


@strict_arguments
def load_hf(folder: Path | str, *, dropout: float = 0.0) -> GPT2:
    """The GPT-2 that `transformers` saved in this folder, in float32 on the CPU, with a tied head.

    Set `dropout` to train further: it is not part of the weights. Nothing is downloaded and nothing in the folder is
    executed. Raises UserError for a missing or damaged file, another architecture, an option that GPT-2 does not have,
    and for tensors that are missing, surplus or of another shape.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(
            f"there is no folder {folder}: load_hf reads a folder written by `save_pretrained`, and downloads nothing"
        )
    config = read_config(folder / "config.json", dropout)
    with torch.device("meta"):
        model = GPT2(config)  # only the shapes: the weights come from the file
    tensors = read_tensors(folder)
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    if not has_biases(folder / "config.json"):
        tensors = zero_biases(shapes, config.n_layer, _prefix(tensors)) | tensors
    model.load_state_dict(translated(tensors, shapes, config.n_layer, folder), assign=True)
    return model


def read_config(path: Path, dropout: float) -> GPT2Config:
    """The sizes in a config.json. Raises UserError unless it describes GPT-2."""
    saved = read_json(path)
    if saved.get("model_type") != "gpt2":
        raise UserError(f'{path}: model_type is {json.dumps(saved.get("model_type"))}, only "gpt2" can be loaded')
    defaults = GPT2Config()
    sizes = {ours: saved.get(theirs, getattr(defaults, ours)) for ours, theirs in SIZES.items()}
    for ours, size in sizes.items():
        if type(size) is not int:
            raise UserError(f"{path}: {SIZES[ours]} is {json.dumps(size)}, not an integer")
    width = 4 * sizes["n_embd"]
    for option, allowed in (GPT2_OPTIONS | {"n_inner": (None, width)}).items():
        value = saved.get(option, allowed[0])
        if value not in allowed:
            raise UserError(f"{path}: {option} is {json.dumps(value)}, but GPT-2 has {json.dumps(allowed[-1])}")
    return GPT2Config(**sizes, dropout=dropout)


def has_biases(path: Path) -> bool:
    """Whether the model of a config.json has biases: true unless it has `"bias": false`, as nanoGPT's may."""
    return read_json(path).get("bias") is not False


def zero_biases(shapes: dict[str, torch.Size], n_layer: int, prefix: str) -> Tensors:
    """Zero biases under their Hugging Face names: a model without biases equals GPT-2 with zero biases."""
    return {prefix + theirs: torch.zeros(shapes[ours]) for theirs, ours in names(n_layer) if theirs.endswith(".bias")}


def read_tensors(folder: Path) -> Tensors:
    """All tensors of the folder, by their names in the file. Reads safetensors or pickles, in one file or in shards."""
    for name, read in (("model.safetensors", _read_safetensors), ("pytorch_model.bin", _read_pickle)):
        if (folder / name).exists():
            return read(folder / name)
        index = folder / f"{name}.index.json"
        if index.exists():
            return {key: tensor for shard in _shards(index) for key, tensor in read(shard).items()}
    raise UserError(f"{folder} has no weights: neither model.safetensors nor pytorch_model.bin, nor shards of them")


def translated(tensors: Tensors, shapes: dict[str, torch.Size], n_layer: int, folder: Path) -> Tensors:
    """The tensors of a file under our names, in our layout, in float32. Empties `tensors` to save memory.

    Raises UserError, with their names, for tensors that are missing, surplus, untied or of another shape.
    """
    prefix = _prefix(tensors)
    ours = {prefix + theirs: our for theirs, our in names(n_layer)}
    _check_names(tensors, ours, folder)
    _check_tied(tensors, f"{prefix}wte.weight", folder)
    state = {}
    for theirs, our in ours.items():
        tensor = tensors.pop(theirs)
        is_conv1d = our.startswith("blocks.") and len(shapes[our]) == 2
        wanted = tuple(reversed(shapes[our])) if is_conv1d else tuple(shapes[our])
        if tensor.shape != wanted or not tensor.is_floating_point():
            kind = str(tensor.dtype).removeprefix("torch.")
            raise UserError(f"{folder}: {theirs} is {kind} {tuple(tensor.shape)}, config.json needs floats {wanted}")
        state[our] = (tensor.t() if is_conv1d else tensor).to(torch.float32).contiguous()
    return state


def names(n_layer: int) -> Iterator[tuple[str, str]]:
    """(Hugging Face name, our name) of every parameter."""
    yield from OUTSIDE_BLOCKS.items()
    for n in range(n_layer):
        for theirs, our in IN_BLOCK.items():
            for kind in ("weight", "bias"):
                yield f"h.{n}.{theirs}.{kind}", f"blocks.{n}.{our}.{kind}"


def _prefix(tensors: Iterable[str]) -> str:
    """The common prefix of the names: `GPT2LMHeadModel` writes "transformer.", `GPT2Model` (without a head) nothing."""
    return "transformer." if any(name.startswith("transformer.") for name in tensors) else ""


def _check_names(tensors: Iterable[str], ours: Iterable[str], folder: Path) -> None:
    found, wanted = set(tensors), set(ours)
    surplus = {name for name in found - wanted if name != TIED_HEAD and not name.endswith(MASKS)}
    for kind, wrong in (("lacks", wanted - found), ("has surplus", surplus)):
        if wrong:
            first, rest = sorted(wrong)[:3], len(wrong) - 3
            listed = ", ".join(first) + (f" and {rest} more" if rest > 0 else "")
            raise UserError(f"{folder} {kind} tensors for the GPT-2 of its config.json: {listed}")


def _check_tied(tensors: Tensors, embedding: str, folder: Path) -> None:
    head = tensors.get(TIED_HEAD)
    if head is not None and not torch.equal(head, tensors[embedding]):
        raise UserError(
            f"{folder}: {TIED_HEAD} differs from {embedding}, but in GPT-2 the head is tied to the embedding"
        )


def _shards(index: Path) -> list[Path]:
    """The shards that an index names, without duplicates."""
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict):
        raise UserError(f'{index} has no "weight_map"')
    shards = sorted(set(map(str, weight_map.values())))
    for shard in shards:
        if Path(shard).name != shard:  # a path could lead out of the folder
            raise UserError(f"{index} names a file outside of its folder: {shard}")
        if not (index.parent / shard).exists():
            raise UserError(f"{index} names {shard}, but there is no such file")
    return [index.parent / shard for shard in shards]


def _read_safetensors(path: Path) -> Tensors:
    try:
        check_regular(path)
        return load_file(path)
    except (SafetensorError, OSError) as error:
        _check_binary(path)
        raise UserError(f"{path} cannot be read as safetensors: {error}") from error


def _check_binary(path: Path) -> None:
    """Raises UserError if a file that cannot be read is a text, such as the one that Git LFS has in its place."""
    with contextlib.suppress(OSError, UnicodeDecodeError), path.open("rb") as file:
        head = file.read(256).decode("ascii")
        if head and head.replace("\n", "").replace("\t", "").replace("\r", "").isprintable():
            raise UserError(f"{path} is a Git LFS pointer or text, not weights: download the file itself")


def _read_pickle(path: Path) -> Tensors:
    try:
        check_regular(path)
        tensors = torch.load(path, map_location="cpu", weights_only=True)  # rejects anything that would execute code
    except (UserError, MemoryError):
        raise
    except pickle.UnpicklingError as error:  # its own text advises to load with weights_only=False, which executes code
        _check_binary(path)
        raise UserError(f"{path} is damaged, or holds something other than weights: download it again") from error
    except Exception as error:  # bytes that are no pickle can make the reader raise anything
        _check_binary(path)
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(f"{path} cannot be read as PyTorch weights: {reason}") from error
    if not isinstance(tensors, dict) or not all(isinstance(value, Tensor) for value in tensors.values()):
        raise UserError(f"{path} must hold a dict of tensors by name, but holds something else")
    return dict(tensors)
