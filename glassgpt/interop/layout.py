"""How `transformers` stores an architecture: a table for reading and for writing.

A table names the fields of config.json and the tensors. `Layout.names` pairs the names of the tensors, and
`Layout.options` has the fields that must have one value, because our architecture has no such setting.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from glassgpt.errors import UserError
from glassgpt.models import ModelConfig, find_architecture

MOST_SHOWN = 300  # characters of a value in a message
# Fields of a config.json that do not change a logit: names, dtypes, and how to train, to generate or to classify.
HARMLESS = (
    "_attn_implementation", "_name_or_path", "architectures", "attn_implementation", "bad_words_ids",
    "begin_suppress_tokens", "bias", "bos_token_id", "chunk_size_feed_forward", "decoder_start_token_id",
    "diversity_penalty", "do_sample", "dtype", "early_stopping", "encoder_no_repeat_ngram_size", "eos_token_id",
    "finetuning_task", "forced_bos_token_id", "forced_eos_token_id", "gradient_checkpointing", "id2label",
    "initializer_range", "label2id", "language", "length_penalty", "max_length", "min_length", "model_type",
    "no_repeat_ngram_size", "num_beam_groups", "num_beams", "num_return_sequences", "output_attentions",
    "output_hidden_states", "output_past", "output_scores", "pad_token_id", "prefix", "problem_type",
    "remove_invalid_values", "repetition_penalty", "return_dict", "return_dict_in_generate", "sep_token_id",
    "suppress_tokens", "task_specific_params", "temperature", "tokenizer_class", "top_k", "top_p", "torch_dtype",
    "torchscript", "transformers_version", "typical_p", "unsloth_version", "use_cache",
)  # fmt: skip


@dataclass(frozen=True)
class Option:
    """A field of config.json that must have one value."""

    value: Any  # as we write it
    also: tuple[Any, ...] = ()  # other values with the same meaning
    absent: Any = None  # what the library takes where the field is missing; None: a value that means the same


@dataclass(frozen=True)
class Stack:
    """The names in the blocks of one stack: a decoder, or an encoder. Our name comes first.

    A module that is stored in several equal parts has several names.
    """

    block: str  # with {} for the number of the block
    modules: Mapping[str, tuple[str, ...]]
    kinds: tuple[str, ...] = ("weight",)  # the parameters of a module
    parameters: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # single ones, with their whole names
    ours: str = "blocks"
    count: Callable[[Any], int] = lambda config: config.n_layer  # of its blocks, by our config

    def names(self, config: ModelConfig) -> Iterator[tuple[str, tuple[str, ...]]]:
        """(our name, names of its parts over there) of every parameter."""
        inside = {f"{our}.{kind}": tuple(f"{part}.{kind}" for part in parts)
                  for our, parts in self.modules.items() for kind in self.kinds} | dict(self.parameters)  # fmt: skip
        for n in range(self.count(config)):
            for our, parts in inside.items():
                yield f"{self.ours}.{n}.{our}", tuple(f"{self.block.format(n)}.{part}" for part in parts)


@dataclass(frozen=True)
class Layout:
    """The names and options under which `transformers` stores one architecture. In `outside` our name comes first."""

    architecture: str  # our name
    ours: str  # how a message names it
    family: str  # the name of the model over there
    model_type: str
    model_class: str
    defaults: ModelConfig  # the sizes that missing fields of config.json stand for
    sizes: Mapping[str, str]
    options: Callable[[Any], Mapping[str, Option]]  # by our config
    dropouts: tuple[str, ...]
    prefix: str  # of all tensors but the head; a file of the model without a head does not have it
    outside: Mapping[str, str]
    stacks: tuple[Stack, ...]
    others: tuple[str, ...] = ()  # how the names of tensors begin that no logit depends on: left out
    older: Mapping[str, str] = field(default_factory=dict)  # how names end in older files, and how they end now
    copies: Mapping[str, str] = field(default_factory=dict)  # what a file may have a second time, and its first name
    computed: Mapping[str, Callable[[Any], Tensor]] = field(default_factory=dict)  # by our config; a file may have them
    rows: tuple[str, ...] = ()  # our vectors (n,) that are stored as one row (1, n)
    conv1d: bool = False  # the matrices in blocks are stored as (in, out), not as (out, in)
    harmless: tuple[str, ...] = ()  # further fields of config.json that do not change a logit
    settings: Callable[[Mapping[str, Any]], Mapping[str, Any]] = lambda _: {}  # other fields of our config
    fixed: Mapping[str, Any] = field(default_factory=dict)  # fields of our config that the library has no place for
    fixed_costs: str = ""  # what a model with them loses, for the error

    @property
    def generates(self) -> bool:
        """Whether the model continues a text."""
        return find_architecture(self.architecture).kind != "encoder"

    def names(self, config: ModelConfig) -> Iterator[tuple[str, tuple[str, ...]]]:
        """(our name, names of its parts over there) of every parameter."""
        for our, theirs in self.outside.items():
            if our != "head.weight" or not getattr(config, "tied", False):
                yield our, (theirs,)
        for stack in self.stacks:
            yield from stack.names(config)

    def is_transposed(self, our: str, dimensions: int) -> bool:
        """Whether this parameter is stored as (in, out)."""
        return self.conv1d and our.startswith("blocks.") and dimensions == 2

    def config(self, settings: Mapping[str, Any], dropout: float) -> ModelConfig:
        """Our config. Raises UserError for sizes that are out of range."""
        return find_architecture(self.architecture).config(**settings, **self.fixed, dropout=dropout)


def as_json(value: Any) -> str:
    """A value of config.json as a message shows it: its beginning, if it is long."""
    text = json.dumps(value)
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}…"


def setting(saved: Mapping[str, Any], name: str, kind: type, absent: Any) -> Any:
    """A field of config.json, or what the library takes where it is missing.

    Raises UserError for another type, and for NaN and infinity, which JSON files of Python may have.
    """
    value = saved.get(name, absent)
    if kind is float and type(value) is int:
        value = float(value)
    finite = not isinstance(value, float) or math.isfinite(value)
    if value is not None and (type(value) is not kind or not finite):
        words = {int: "an integer", float: "a finite number", bool: "true or false"}[kind]
        raise UserError(f"{name} is {as_json(value)}, not {words}")
    return value


def required(saved: Mapping[str, Any], name: str, kind: type, absent: Any = None) -> Any:
    """A field like `setting` that may not be null. Raises UserError if it is, or if it is missing without `absent`."""
    if (value := setting(saved, name, kind, absent)) is None:
        raise UserError(f"{name} is missing or null")
    return value
