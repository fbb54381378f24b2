"""Loads the weights that the `transformers` library saved, without using the library.

A folder written by `save_pretrained` contains config.json and the weights: model.safetensors, or shards of it with an
index, or in older folders pytorch_model.bin. The model is the same as ours (layouts/ says which). Five things differ
in the files: the names; one matrix of ours may be several there; the matrices of GPT-2, which its Conv1D stores as
(in, out) and nn.Linear as (out, in); in older files, buffers with the causal mask or the rotary frequencies; and the
experts of the published GPT-oss, which are in four bits (mxfp4.py).
"""

from __future__ import annotations

import contextlib
import pickle
import re
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from glassgpt.config import strict_arguments
from glassgpt.errors import UserError
from glassgpt.files import check_regular, read_json
from glassgpt.interop.layout import HARMLESS, Layout, as_json
from glassgpt.interop.layouts import LAYOUTS
from glassgpt.interop.mxfp4 import dequantised
from glassgpt.interop.remote_code import refuse_code
from glassgpt.models import EncoderDecoderModel, Model, ModelConfig, find_architecture
from glassgpt.training.tensor_files import StoredTensor, TensorReader

Stored = dict[str, StoredTensor]
Names = Mapping[str, tuple[str, ...]]  # of our parameters, and of their parts in the file

BUFFERS = (".attn.bias", ".attn.masked_bias", ".rotary_emb.inv_freq")  # what older files have, and is computed
HEAD = "lm_head.weight"
EMBEDDING = "token_embedding.weight"
DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


@strict_arguments
def load_hf(folder: Path | str, *, dropout: float = 0.0) -> Model | EncoderDecoderModel:
    """The model that `transformers` saved in this folder, in float32 on the CPU; it must be one of ours (layouts/).

    Set `dropout` to train further: it is not part of the weights. Nothing is downloaded and nothing in the folder is
    executed. Raises UserError for a missing or damaged file, another architecture, an option that our architecture does
    not have, and for tensors that are missing, surplus or of another shape.
    """
    model, weights = open_hf(folder, dropout=dropout)
    model.load_state_dict({name: stored.read().to(torch.float32) for name, stored in weights.items()}, assign=True)
    return model


def open_hf(folder: Path | str, *, dropout: float = 0.0) -> tuple[Model | EncoderDecoderModel, Stored]:
    """As `load_hf`, but the model is on the meta device, and its weights are still in the files.

    They are checked, in our layout and under our names, and each is read when it is asked for, in the dtype of the file
    (float64 becomes float32).
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(
            f"there is no folder {folder}: load_hf reads a folder written by `save_pretrained`, and downloads nothing"
        )
    path = folder / "config.json"
    layout, config = read_config(path, dropout)
    with torch.device("meta"):
        model = find_architecture(layout.architecture).model(config)
    tensors = known_names(open_tensors(folder), layout)
    if is_quantised(path):
        tensors = dequantised(tensors, folder)
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    names = names_in(tensors, layout, config)
    if not has_biases(path):
        tensors = zero_biases(shapes, names) | tensors
    drop_repeated(tensors, layout, config, folder)
    return model, translated(tensors, shapes, names, layout, folder)


def read_config(path: Path, dropout: float) -> tuple[Layout, ModelConfig]:
    """The architecture and the sizes in a config.json. Raises UserError unless it describes one of ours.

    Of two architectures for one type, the first is taken whose settings fit.
    """
    saved = read_json(path)
    refuse_code(saved, path)
    layouts = [layout for layout in LAYOUTS if layout.model_type == saved.get("model_type")]
    if not layouts:
        known = ", ".join(sorted({as_json(layout.model_type) for layout in LAYOUTS}))
        raise UserError(f"{path}: model_type is {as_json(saved.get('model_type'))}, only {known} can be loaded")
    for layout in layouts:
        try:
            return layout, config_of(saved, layout, dropout)
        except UserError as error:
            if layout is layouts[-1]:
                raise UserError(f"{path}: {error}{_names_there(str(error), layout)}") from None
    raise AssertionError


def _names_there(sentence: str, layout: Layout) -> str:
    """What the sizes that a sentence names are called in config.json: the reader has that file, not our settings."""
    named = [ours for ours in layout.sizes if re.search(rf"model\.{ours}\b", sentence)]
    return f" (there {', '.join(f'{layout.sizes[ours]} is model.{ours}' for ours in named)})" if named else ""


def config_of(saved: Mapping[str, Any], layout: Layout, dropout: float) -> ModelConfig:
    """Our config with the settings of a config.json. Raises UserError for a setting that we do not have, by name."""
    sizes = {ours: saved.get(theirs, getattr(layout.defaults, ours)) for ours, theirs in layout.sizes.items()}
    for ours, size in sizes.items():
        if type(size) is not int:
            raise UserError(f"{layout.sizes[ours]} is {as_json(size)}, not an integer")
    config = layout.config(sizes | dict(layout.settings(saved)), dropout)
    for name, option in layout.options(config).items():
        value = saved.get(name, option.value if option.absent is None else option.absent)
        if value not in (option.value, *option.also):
            wanted = option.also[-1] if option.value is None and option.also else option.value
            raise UserError(f"{name} is {as_json(value)}, but {layout.ours} has {as_json(wanted)}")
    for name in ("dtype", "torch_dtype"):  # each tensor has its own; an unknown name is a mistake
        if (value := saved.get(name)) is not None and value not in (dtypes := _names_of(DTYPES)):
            raise UserError(f"{name} is {as_json(value)}, and weights can be in one of {', '.join(dtypes)}")
    known = {*layout.sizes.values(), *layout.options(config), *layout.dropouts, *HARMLESS, *layout.harmless}
    for name, value in saved.items():
        if name not in known and value not in (None, False):  # what is off is as if it were not there
            raise UserError(f"{name} is {as_json(value)}, and {layout.ours} has no such setting")
    return config


def has_biases(path: Path) -> bool:
    """Whether the model of a config.json has biases: true unless it has `"bias": false`, as nanoGPT's may."""
    return read_json(path).get("bias") is not False


def is_quantised(path: Path) -> bool:
    """Whether the file of a config.json may hold MXFP4; `read_config` has refused other quantizations."""
    return read_json(path).get("quantization_config") is not None


def zero_biases(shapes: Mapping[str, torch.Size], names: Names) -> Stored:
    """Zero biases under their Hugging Face names: a model without biases equals one with zero biases."""
    return {
        theirs: StoredTensor(torch.empty(shapes[ours], device="meta"), partial(torch.zeros, shapes[ours]))
        for ours, (theirs, *_) in names.items()
        if ours.endswith(".bias")
    }


def open_tensors(folder: Path) -> Stored:
    """All tensors of the folder, by their names in the file: of safetensors or pickles, in one file or in shards."""
    for name, stored_in in (("model.safetensors", _in_safetensors), ("pytorch_model.bin", _in_pickles)):
        if (folder / name).exists():
            return stored_in([folder / name])
        index = folder / f"{name}.index.json"
        if index.exists():
            return stored_in(_shards(index))
    raise UserError(f"{folder} has no weights: neither model.safetensors nor pytorch_model.bin, nor shards of them")


def known_names(tensors: Stored, layout: Layout) -> Stored:
    """The tensors without those of other tasks, and under today's names if an older library wrote them."""
    found = {}
    for name, tensor in tensors.items():
        if not name.startswith(layout.others):
            end = next((end for end in layout.older if name.endswith(end)), "")
            now = name.removesuffix(end) + layout.older.get(end, "")
            found[name if now in tensors else now] = tensor  # a file with both names has a surplus tensor
    return found


def names_in(tensors: Iterable[str], layout: Layout, config: ModelConfig) -> Names:
    """The names of every parameter in a file. A model without a head is saved without the prefix of a whole model."""
    dropped = "" if any(name.startswith(layout.prefix) for name in tensors) else layout.prefix
    return {ours: tuple(name.removeprefix(dropped) for name in theirs) for ours, theirs in layout.names(config)}


def drop_repeated(tensors: Stored, layout: Layout, config: ModelConfig, folder: Path) -> None:
    """Removes tensors that say nothing new. Raises UserError for one that differs from what it should repeat."""
    for name, first in layout.copies.items():
        copy = tensors.pop(name, None)
        if copy is not None and (first not in tensors or not _equal(copy, tensors[first])):
            raise UserError(f"{folder}: {name} differs from {first}, but in {layout.family} they are tied: one tensor")
    for name, compute in layout.computed.items():
        if (stored := tensors.pop(name, None)) is not None:
            if stored.like.shape != (config.block_size, config.n_embd):
                raise UserError(
                    f"{folder}: {name} is {tuple(stored.like.shape)}, config.json needs"
                    f" {(config.block_size, config.n_embd)}"
                )
            wanted = compute(config)
            if not _close(stored.read().to(wanted), wanted):
                raise UserError(f"{folder}: {name} is not what {layout.ours} computes in its place")


def _equal(one: StoredTensor, other: StoredTensor) -> bool:
    return one.like.shape == other.like.shape and torch.equal(one.read(), other.read())


def _close(found: Tensor, wanted: Tensor) -> bool:
    """Whether numbers up to 1 are equal but for rounding to bfloat16, by 0.002. Learned ones would differ by more."""
    return torch.allclose(found, wanted, rtol=0, atol=0.004)


def translated(tensors: Stored, shapes: Mapping[str, torch.Size], names: Names, layout: Layout, folder: Path) -> Stored:
    """The tensors of a file under our names, in our layout.

    Raises UserError, with their names, for tensors that are missing, surplus, untied or of another shape.
    """
    _check_names(tensors, names, layout, folder)
    if HEAD in tensors and (HEAD,) not in names.values():
        first = names[EMBEDDING][0]
        if not _equal(tensors[HEAD], tensors[first]):
            raise UserError(f"{folder}: {HEAD} differs from {first}, but in {layout.family} they are tied: one tensor")
    found = {}
    for ours, theirs in names.items():
        rows, *columns = (1, *shapes[ours]) if ours in layout.rows else shapes[ours]
        wanted = (rows // len(theirs), *columns)
        transposed = layout.is_transposed(ours, len(wanted))
        for name in theirs:
            _check_kind(tensors[name].like, name, wanted[::-1] if transposed else wanted, folder)
        parts = [tensors[name] for name in theirs]
        (dtype, *others) = {part.like.dtype for part in parts}
        kept = not others and dtype != torch.float64
        like = torch.empty(shapes[ours], dtype=dtype if kept else torch.float32, device="meta")
        found[ours] = StoredTensor(like, partial(_read, parts, like, transposed))
    return found


def _read(parts: Sequence[StoredTensor], like: Tensor, transposed: bool) -> Tensor:
    """A tensor of ours, from its parts in the file."""
    read = [part.read().to(like.dtype) for part in parts]
    whole = torch.cat(read) if len(read) > 1 else read[0]
    return (whole.t() if transposed else whole).contiguous().view(like.shape)


def _names_of(dtypes: Iterable[torch.dtype]) -> list[str]:
    return [str(dtype).removeprefix("torch.") for dtype in dtypes]


def _check_kind(tensor: Tensor, name: str, wanted: tuple[int, ...], folder: Path) -> None:
    """Raises UserError for another shape, and for numbers that mean nothing without a scale, as those of 8 bits."""
    kind = f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"
    if tensor.dtype not in DTYPES:
        known = ", ".join(_names_of(DTYPES))
        raise UserError(f"{folder}: {name} is {kind}, which cannot be read: weights must be in one of {known}")
    if tensor.shape != wanted:
        raise UserError(f"{folder}: {name} is {kind}, config.json needs floats {wanted}")


def _check_names(tensors: Iterable[str], names: Names, layout: Layout, folder: Path) -> None:
    found, wanted = set(tensors), {name for theirs in names.values() for name in theirs}
    surplus = {name for name in found - wanted if name != HEAD and not name.endswith(BUFFERS)}
    for kind, wrong in (("lacks", wanted - found), ("has surplus", surplus)):
        if wrong:
            first, rest = sorted(wrong)[:3], len(wrong) - 3
            listed = ", ".join(first) + (f" and {rest} more" if rest > 0 else "")
            raise UserError(f"{folder} {kind} tensors for the {layout.family} of its config.json: {listed}")


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
            raise UserError(f"{index} names {shard}, but there is no such file: download it too")
    return [index.parent / shard for shard in shards]


def _in_safetensors(paths: Iterable[Path]) -> Stored:
    found: Stored = {}
    for path in paths:
        try:
            check_regular(path)
            stored = TensorReader([path]).stored()
        except (SafetensorError, OSError) as error:
            _check_binary(path)
            raise UserError(
                f"{path} cannot be read as safetensors, download it again if it is incomplete: {error}"
            ) from error
        _add(found, stored, path)
    return found


def _add(found: Stored, more: Stored, path: Path) -> None:
    """Raises UserError for a tensor that another shard has as well."""
    if both := sorted(more.keys() & found.keys()):
        raise UserError(
            f"{path} has the tensor {both[0]}, and so has another shard: it is unclear which of them counts"
        )
    found |= more


def _check_binary(path: Path) -> None:
    """Raises UserError if a file that cannot be read is a text, such as the one that Git LFS has in its place."""
    with contextlib.suppress(OSError, UnicodeDecodeError), path.open("rb") as file:
        head = file.read(256).decode("ascii")
        if head and head.replace("\n", "").replace("\t", "").replace("\r", "").isprintable():
            raise UserError(f"{path} is a Git LFS pointer or text, not weights: download the file itself")


def _in_pickles(paths: Iterable[Path]) -> Stored:
    """They are mapped. Only a file of before PyTorch 1.6 is read into memory as a whole."""
    found: Stored = {}
    for path in paths:
        tensors = _read_pickle(path)
        _add(found, {name: StoredTensor(t.to("meta"), t.clone) for name, t in tensors.items()}, path)
    return found


def _read_pickle(path: Path) -> dict[str, Tensor]:
    try:
        check_regular(path)
        # weights_only rejects anything that would execute code.
        tensors = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
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
