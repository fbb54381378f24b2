"""Loads the weights that the `transformers` library saved, without using the library.

A folder written by `save_pretrained` contains config.json and the weights: model.safetensors, or shards of it with an
index, or in older folders pytorch_model.bin. The model is the same as ours (layouts.py says which). Four things differ
in the files: the names; one matrix of ours may be several there; the matrices of GPT-2, which its Conv1D stores as
(in, out) and nn.Linear as (out, in); and, in older files, additional buffers with the causal mask.
"""

from __future__ import annotations

import contextlib
import json
import pickle
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from glassgpt.config import strict_arguments
from glassgpt.errors import UserError
from glassgpt.files import check_regular, read_json
from glassgpt.interop.layouts import HARMLESS, LAYOUTS, Layout
from glassgpt.models import Model, ModelConfig, build_model

Tensors = dict[str, Tensor]
Names = Mapping[str, tuple[str, ...]]  # of our parameters, and of their parts in the file

MASKS = (".attn.bias", ".attn.masked_bias")
HEAD = "lm_head.weight"
EMBEDDING = "token_embedding.weight"


@strict_arguments
def load_hf(folder: Path | str, *, dropout: float = 0.0) -> Model:
    """The model that `transformers` saved in this folder, a GPT-2 or a modern GPT, in float32 on the CPU.

    Set `dropout` to train further: it is not part of the weights. Nothing is downloaded and nothing in the folder is
    executed. Raises UserError for a missing or damaged file, another architecture, an option that our architecture does
    not have, and for tensors that are missing, surplus or of another shape.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(
            f"there is no folder {folder}: load_hf reads a folder written by `save_pretrained`, and downloads nothing"
        )
    path = folder / "config.json"
    layout, config = read_config(path, dropout)
    with torch.device("meta"):
        model = build_model(layout.architecture, config)  # only the shapes: the weights come from the file
    tensors = read_tensors(folder)
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    names = names_in(tensors, layout, config)
    if not has_biases(path):
        tensors = zero_biases(shapes, names) | tensors
    model.load_state_dict(translated(tensors, shapes, names, layout, folder), assign=True)
    return model


def read_config(path: Path, dropout: float) -> tuple[Layout, ModelConfig]:
    """The architecture and the sizes in a config.json. Raises UserError unless it describes one of ours.

    Of two architectures for one type, the first is taken whose settings fit.
    """
    saved = read_json(path)
    layouts = [layout for layout in LAYOUTS if layout.model_type == saved.get("model_type")]
    if not layouts:
        known = ", ".join(sorted({json.dumps(layout.model_type) for layout in LAYOUTS}))
        raise UserError(f"{path}: model_type is {json.dumps(saved.get('model_type'))}, only {known} can be loaded")
    for layout in layouts:
        try:
            return layout, config_of(saved, layout, dropout)
        except UserError as error:
            if layout is layouts[-1]:
                raise UserError(f"{path}: {error}") from None
    raise AssertionError


def config_of(saved: Mapping[str, Any], layout: Layout, dropout: float) -> ModelConfig:
    """Our config with the settings of a config.json. Raises UserError for a setting that we do not have, by name."""
    sizes = {ours: saved.get(theirs, getattr(layout.defaults, ours)) for ours, theirs in layout.sizes.items()}
    for ours, size in sizes.items():
        if type(size) is not int:
            raise UserError(f"{layout.sizes[ours]} is {json.dumps(size)}, not an integer")
    config = layout.config(sizes | dict(layout.settings(saved)), dropout)
    for name, option in layout.options(config).items():
        value = saved.get(name, option.value if option.absent is None else option.absent)
        if value not in (option.value, *option.also):
            wanted = option.also[-1] if option.value is None and option.also else option.value
            raise UserError(f"{name} is {json.dumps(value)}, but {layout.ours} has {json.dumps(wanted)}")
    known = {*layout.sizes.values(), *layout.options(config), *layout.dropouts, *HARMLESS, *layout.harmless}
    for name, value in saved.items():
        if name not in known and value not in (None, False):  # what is off is as if it were not there
            raise UserError(f"{name} is {json.dumps(value)}, and {layout.ours} has no such setting")
    return config


def has_biases(path: Path) -> bool:
    """Whether the model of a config.json has biases: true unless it has `"bias": false`, as nanoGPT's may."""
    return read_json(path).get("bias") is not False


def zero_biases(shapes: Mapping[str, torch.Size], names: Names) -> Tensors:
    """Zero biases under their Hugging Face names: a model without biases equals one with zero biases."""
    return {theirs: torch.zeros(shapes[ours]) for ours, (theirs, *_) in names.items() if ours.endswith(".bias")}


def read_tensors(folder: Path) -> Tensors:
    """All tensors of the folder, by their names in the file. Reads safetensors or pickles, in one file or in shards."""
    for name, read in (("model.safetensors", _read_safetensors), ("pytorch_model.bin", _read_pickle)):
        if (folder / name).exists():
            return read(folder / name)
        index = folder / f"{name}.index.json"
        if index.exists():
            return {key: tensor for shard in _shards(index) for key, tensor in read(shard).items()}
    raise UserError(f"{folder} has no weights: neither model.safetensors nor pytorch_model.bin, nor shards of them")


def names_in(tensors: Iterable[str], layout: Layout, config: ModelConfig) -> Names:
    """The names of every parameter in a file. A model without a head is saved without the prefix of a whole model."""
    dropped = "" if any(name.startswith(layout.prefix) for name in tensors) else layout.prefix
    return {ours: tuple(name.removeprefix(dropped) for name in theirs) for ours, theirs in layout.names(config)}


def translated(
    tensors: Tensors, shapes: Mapping[str, torch.Size], names: Names, layout: Layout, folder: Path
) -> Tensors:
    """The tensors of a file under our names, in our layout, in float32. Empties `tensors` to save memory.

    Raises UserError, with their names, for tensors that are missing, surplus, untied or of another shape.
    """
    _check_names(tensors, names, layout, folder)
    for copy, name in layout.copies.items():
        if copy in tensors and not torch.equal(tensors.pop(copy), tensors[name]):
            raise UserError(f"{folder}: {copy} differs from {name}, but in {layout.family} they are one tensor")
    if HEAD in tensors and (HEAD,) not in names.values():
        _check_tied(tensors, names[EMBEDDING][0], layout, folder)
    state = {}
    for ours, theirs in names.items():
        rows, *columns = shapes[ours]
        wanted = (rows // len(theirs), *columns)
        transposed = layout.is_transposed(ours, len(wanted))
        parts = [_take(tensors, name, wanted[::-1] if transposed else wanted, folder) for name in theirs]
        whole = torch.cat(parts) if len(parts) > 1 else parts[0]
        state[ours] = (whole.t() if transposed else whole).contiguous()
    return state


def _take(tensors: Tensors, name: str, wanted: tuple[int, ...], folder: Path) -> Tensor:
    """Removes a tensor, in float32. Raises UserError for another shape."""
    tensor = tensors.pop(name)
    if tensor.shape != wanted or not tensor.is_floating_point():
        kind = str(tensor.dtype).removeprefix("torch.")
        raise UserError(f"{folder}: {name} is {kind} {tuple(tensor.shape)}, config.json needs floats {wanted}")
    return tensor.to(torch.float32)


def _check_names(tensors: Iterable[str], names: Names, layout: Layout, folder: Path) -> None:
    found, wanted = set(tensors), {name for theirs in names.values() for name in theirs}
    known = {HEAD, *layout.copies, *layout.unused}
    surplus = {name for name in found - wanted - known if not name.endswith(MASKS)}
    for kind, wrong in (("lacks", wanted - found), ("has surplus", surplus)):
        if wrong:
            first, rest = sorted(wrong)[:3], len(wrong) - 3
            listed = ", ".join(first) + (f" and {rest} more" if rest > 0 else "")
            raise UserError(f"{folder} {kind} tensors for the {layout.family} of its config.json: {listed}")


def _check_tied(tensors: Tensors, embedding: str, layout: Layout, folder: Path) -> None:
    if not torch.equal(tensors[HEAD], tensors[embedding]):
        raise UserError(
            f"{folder}: {HEAD} differs from {embedding}, but in {layout.family} the head is tied to the embedding"
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
