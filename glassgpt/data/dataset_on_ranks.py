"""The same data on every rank: described by the first, made once on each node, opened by all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from glassgpt.data.dataset import Dataset
from glassgpt.data.dataset_cache import reopen_dataset
from glassgpt.data.manifest import Manifest
from glassgpt.runtime.distributed import Ranks
from glassgpt.tokenizers.build import build_again


def build_on_every_node(ranks: Ranks, make: Callable[[], Dataset]) -> Dataset:
    """`make` on the first rank. On each other node one rank makes the same in its own cache; all open it."""
    made: list[Dataset] = []

    def describe() -> tuple[Manifest, dict[str, Any]]:
        made.append(make())
        return made[0].manifest, made[0].tokenizer.to_dict()

    manifest, tokenizer = ranks.on_first(describe)
    return ranks.first_of_node_first(lambda: made[0] if made else reopen_dataset(manifest, build_again(tokenizer)))
