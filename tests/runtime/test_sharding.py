"""How often FSDP gathers the parameters of a model, counted on ranks that do not exist."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._python_dispatch import TorchDispatchMode

from glassgpt.models.gpt2 import GPT2, GPT2Config
from glassgpt.runtime.distributed import Ranks
from glassgpt.runtime.parallel import shard
from glassgpt.training.losses import Batch, next_token_loss

N_LAYER = 3


@pytest.fixture
def two_ranks() -> Iterator[Ranks]:
    dist.init_process_group("fake", rank=0, world_size=2, store=FakeStore())
    yield Ranks(world_size=2, local_world_size=2)
    dist.destroy_process_group()


class Exchanges(TorchDispatchMode):
    """Counts the operations of torch.distributed by name."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function.namespace == "c10d":
            self.counts[function.overloadpacket.__name__] += 1
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("chunk", [None, 8])
def test_a_pass_gathers_each_block_twice_and_the_rest_once(two_ranks: Ranks, chunk: int | None) -> None:
    """A block is gathered forward and backward; the embeddings and the head stay in memory between the two."""
    model = GPT2(GPT2Config(vocab_size=11, block_size=8, n_layer=N_LAYER, n_head=2, n_embd=16))
    shard(model, torch.device("cpu"), two_ranks, None)
    tokens = torch.zeros(2, 8, dtype=torch.long)
    for _ in range(2):
        with Exchanges() as exchanges:
            next_token_loss(model, Batch(tokens, tokens), chunk=chunk).sum.backward()
        assert exchanges.counts == {"_allgather_base_": 1 + 2 * N_LAYER, "_reduce_scatter_base_": 1 + N_LAYER}
