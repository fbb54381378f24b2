"""The sizes that every architecture's config has, and the one check of their ranges."""

from __future__ import annotations

from typing import Protocol

from glassgpt.errors import UserError


class ModelConfig(Protocol):
    """What the rest of the package may ask of any architecture's config."""

    @property
    def vocab_size(self) -> int: ...  # number of logits; left out: that of the tokenizer
    @property
    def block_size(self) -> int: ...  # longest context, in tokens
    @property
    def n_layer(self) -> int: ...  # number of blocks
    @property
    def n_head(self) -> int: ...  # attention heads of a block
    @property
    def n_embd(self) -> int: ...  # width of the residual stream
    @property
    def dropout(self) -> float: ...  # probability of dropping an activation in training; 0: off


def check_sizes(config: ModelConfig) -> None:
    """Raises UserError for a size that no model can have, naming the field and what would do."""
    for field in ("vocab_size", "block_size", "n_layer", "n_head", "n_embd"):
        value = getattr(config, field)
        if value < 1:
            raise UserError(f"model.{field} = {value} is out of range: it must be at least 1")
    if not 0.0 <= config.dropout < 1.0:
        raise UserError(f"model.dropout = {config.dropout} is out of range: it must be at least 0 and below 1")
    below = config.n_embd - config.n_embd % config.n_head
    if below != config.n_embd:
        near = f"{below} or {below + config.n_head}" if below else f"{config.n_head}"
        raise UserError(
            f"model.n_embd = {config.n_embd} is not divisible by model.n_head = {config.n_head}: try n_embd = {near}"
        )


def check_padding(vocab_size: int, padded_vocab_size: int | None) -> None:
    """Raises UserError for an embedding with fewer rows than ids."""
    if padded_vocab_size is not None and padded_vocab_size < vocab_size:
        raise UserError(
            f"model.padded_vocab_size = {padded_vocab_size} is out of range: it must be at least"
            f" model.vocab_size = {vocab_size}"
        )


def embedding_rows(config: ModelConfig) -> int:
    """The rows of the token embedding: `vocab_size`, or `padded_vocab_size` in an architecture that pads."""
    return getattr(config, "padded_vocab_size", None) or config.vocab_size
