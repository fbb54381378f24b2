"""The size fields that every architecture's config has, and the check of their ranges."""

from __future__ import annotations

from typing import Protocol

from glassgpt.errors import UserError, shown

# Far beyond any model in the world, and small enough that no product of two sizes overflows 64 bits.
MOST = {"vocab_size": 1 << 28, "block_size": 1 << 28, "n_layer": 1 << 12, "n_head": 1 << 16, "n_embd": 1 << 20}


class ModelConfig(Protocol):
    """The fields of an architecture's config that the rest of the package may use."""

    @property
    def vocab_size(self) -> int: ...  # number of logits; default: that of the tokenizer
    @property
    def block_size(self) -> int: ...  # longest context, in tokens
    @property
    def n_layer(self) -> int: ...  # number of blocks
    @property
    def n_head(self) -> int: ...  # attention heads per block
    @property
    def n_embd(self) -> int: ...  # width of the residual stream
    @property
    def dropout(self) -> float: ...  # probability of dropping an activation in training; 0: off


class GroupedConfig(ModelConfig, Protocol):
    """The further fields of an architecture with rotary positions and grouped queries. None stands for the usual."""

    @property
    def n_kv_head(self) -> int | None: ...  # key/value heads; None: as many as query heads
    @property
    def head_size(self) -> int | None: ...  # dimensions of a head; None: n_embd / n_head
    @property
    def n_hidden(self) -> int | None: ...  # hidden units of the MLP


def check_sizes(config: ModelConfig, *, whole_heads: bool = True) -> None:
    """Raises UserError for an invalid size; the message names the field and valid values.

    `whole_heads`: whether a head has n_embd / n_head dimensions, so that n_embd must be divisible.
    """
    for field, most in MOST.items():
        value = getattr(config, field)
        if not 1 <= value <= most:
            limit = "at least 1" if value < 1 else f"at most {most:,}: beyond that no machine has the memory"
            raise UserError(f"model.{field} = {shown(value)} is out of range: it must be {limit}")
    if not 0.0 <= config.dropout < 1.0:
        raise UserError(f"model.dropout = {config.dropout} is out of range: it must be at least 0 and below 1")
    below = config.n_embd - config.n_embd % config.n_head
    if whole_heads and below != config.n_embd:
        near = f"{below} or {below + config.n_head}" if below else f"{config.n_head}"
        raise UserError(
            f"model.n_embd = {config.n_embd} is not divisible by model.n_head = {config.n_head}: try n_embd = {near}"
        )


def check_groups(config: GroupedConfig) -> None:
    """Raises UserError unless all heads have an even number of dimensions, and each key/value head as many queries."""
    for field in ("n_kv_head", "head_size", "n_hidden"):
        value = getattr(config, field)
        if value is not None and not 1 <= value <= MOST["n_embd"]:
            raise UserError(f"model.{field} = {shown(value)} is out of range: at least 1, at most {MOST['n_embd']:,}")
    if config.n_kv_head is not None and config.n_head % config.n_kv_head:
        raise UserError(
            f"model.n_head = {config.n_head} is not divisible by model.n_kv_head = {config.n_kv_head}: as many query"
            " heads share each key/value head"
        )
    if config.head_size is None and config.n_embd % config.n_head:
        raise UserError(f"model.n_embd = {config.n_embd} is not divisible by model.n_head = {config.n_head}")
    head_size = config.head_size or config.n_embd // config.n_head
    if head_size % 2:
        raise UserError(
            f"a head has {head_size} dimensions, but rotary positions turn pairs of them: it needs an even number"
            " (model.head_size, or model.n_embd / model.n_head)"
        )


def check_above(config: ModelConfig, **bounds: float) -> None:
    """Raises UserError, with field and value, for a field that is not above its bound; NaN is not."""
    for field, bound in bounds.items():
        if not (value := getattr(config, field)) > bound:
            raise UserError(f"model.{field} = {value} is out of range: it must be above {bound:g}")


def check_padding(vocab_size: int, padded_vocab_size: int | None) -> None:
    """Raises UserError if the embedding would have fewer rows than there are ids."""
    if padded_vocab_size is not None and not vocab_size <= padded_vocab_size <= MOST["vocab_size"]:
        raise UserError(
            f"model.padded_vocab_size = {shown(padded_vocab_size)} is out of range: it must be"
            f" at least model.vocab_size = {vocab_size}, and at most {MOST['vocab_size']:,}"
        )


def attention_window(config: ModelConfig) -> int | None:
    """Positions that a query in a banded layer attends to: `band_width`; None for a config without, or for all."""
    width: int | None = getattr(config, "band_width", None)
    return width if width is not None and width < config.block_size else None


def draws_dropout(config: ModelConfig) -> bool:
    """Whether a model draws random numbers in training: one of its config's probabilities of dropout is above 0."""
    return any(getattr(config, name, 0.0) > 0 for name in ("dropout", "ngram_dropout"))


def embedding_rows(config: ModelConfig) -> int:
    """Rows of the token embedding: `padded_vocab_size` if the config has it and it is set, else `vocab_size`."""
    return getattr(config, "padded_vocab_size", None) or config.vocab_size
