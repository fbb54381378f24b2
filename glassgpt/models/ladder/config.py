"""The config of the ladder models: the same for all ten sections, so that only the architecture differs."""

from __future__ import annotations

from dataclasses import dataclass

from glassgpt.models.sizes import check_sizes


@dataclass(frozen=True)
class LadderConfig:
    """The sizes of a section's model. Raises UserError for invalid sizes.

    A section uses only the sizes that it needs: `block_size` and `n_embd` from section 2
    on, `n_head` from section 5 on, `n_layer` from section 7 on, `dropout` in section 10.
    """

    vocab_size: int = 65
    block_size: int = 64
    n_layer: int = 6
    n_head: int = 4
    n_embd: int = 64
    dropout: float = 0.0

    def __post_init__(self) -> None:
        check_sizes(self)
