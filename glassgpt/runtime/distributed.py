"""Ranks: the processes of one job, as torchrun starts them. Each of them trains on a slice of every batch.

They exchange data in two ways. Decisions of one rank go through the job's store, a small key-value table that torchrun
keeps: the other ranks wait for it, however long it takes. Sums and tensors go through the process group, which detects
a rank that has died.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import re
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from glassgpt.errors import RankLost, ReportedByFirstRank, UserError

T = TypeVar("T")

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
JOIN_SECONDS = 120.0  # from the first rank that is there to the last
LOST_SECONDS = 50.0  # without an answer a rank is lost; most losses show at once, as a closed connection
COMPILING_SECONDS = 600.0  # the same where ranks compile, some for minutes longer than others
POLL_SECONDS = 0.02


@dataclass(frozen=True)
class Ranks:
    """This process's place: `rank` of `world_size` in the job, `local_rank` of `local_world_size` on its node.

    Without a `store` it is alone, and everything below is done at once, by itself.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_world_size: int = 1
    node: int = 0
    store: Store | None = None

    @property
    def first(self) -> bool:
        """Whether this is the rank that decides, prints and writes."""
        return self.rank == 0

    @property
    def several(self) -> bool:
        return self.world_size > 1

    def rank_slice(self, n: int) -> tuple[int, int]:
        """Half-open slice of `n` items for this rank, split evenly."""
        return n * self.rank // self.world_size, n * (self.rank + 1) // self.world_size

    def on_first(self, work: Callable[[], T]) -> T:
        """Runs `work` on the first rank and returns its result, a JSON value, on every rank. The others wait for it.

        A UserError of `work` is raised on every rank, as ReportedByFirstRank on the others.
        """
        if not self.several:
            return work()
        store, key = self._next_key("first")
        if not self.first:
            message = _wait_for(store, key)
            if message["error"] is not None:
                raise ReportedByFirstRank(message["error"])
            return message["result"]
        try:
            result = work()
        except UserError as error:
            _publish(store, key, {"error": str(error), "result": None})
            raise
        _publish(store, key, {"error": None, "result": result})
        return result

    def on_all(self, work: Callable[[], T], *, first_of_node_first: bool = False) -> T:
        """Runs `work` on every rank and returns this rank's own result.

        Where it raises UserError on any rank, all ranks raise: the first of the failing ones its own error, the others
        ReportedByFirstRank. `work` must not call `on_first` or `on_all` itself. With `first_of_node_first` the other
        ranks of a node begin once the node's first has finished, so that they find in its cache what it has made there.
        """
        if not self.several:
            return work()
        store, key = self._next_key("all")
        result, failure = None, None
        if first_of_node_first and self.local_rank != 0:
            _wait_for(store, f"{key} {self.rank - self.local_rank}")
        try:
            result = work()
        except UserError as error:
            failure = error
        _publish(store, f"{key} {self.rank}", None if failure is None else str(failure))
        errors = [_wait_for(store, f"{key} {rank}") for rank in range(self.world_size)]
        failing = next((rank for rank, error in enumerate(errors) if error is not None), None)
        if failing is None:
            return cast(T, result)
        if failing == self.rank and failure is not None:
            raise failure
        raise ReportedByFirstRank(errors[failing])

    def sum(self, values: list[float]) -> list[float]:
        """Each value summed over the ranks."""
        return self._reduce(values, dist.ReduceOp.SUM)

    def largest(self, value: int) -> int:
        """The largest of all ranks' values."""
        return int(self._reduce([value], dist.ReduceOp.MAX)[0])

    def _reduce(self, values: list[float], operation: dist.ReduceOp.RedOpType) -> list[float]:
        if not self.several:
            return values
        tensor = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(tensor, operation)
        return tensor.tolist()

    def broadcast(self, tensor: Tensor) -> None:
        """Overwrites the tensor with the first rank's."""
        if self.several:
            dist.broadcast(tensor, 0)

    def connect(self, device: torch.device, *, compiling: bool) -> None:
        """Lets the ranks exchange tensors, by NCCL between GPUs and by gloo between CPUs, until `together` ends."""
        if self.store is None:
            return
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
            store=PrefixStore("tensors", self.store),
            rank=self.rank,
            world_size=self.world_size,
            timeout=timedelta(seconds=COMPILING_SECONDS if compiling else LOST_SECONDS),
        )

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """The block in which the ranks work as one job: the connection ends with it.

        Raises RankLost, in the place of the library's own error, where another rank has died. A UserError of another
        rank than the first names the rank.
        """
        if self.store is None:
            yield
            return
        try:
            yield
        except RuntimeError as error:
            if not (self.several and _is_of_exchange(error)):
                raise
            reason = str(error).strip().splitlines()[0]
            raise RankLost(
                f"rank {self.rank} has lost the other ranks: one of them ended, or the network failed ({reason});"
                " read its own message, then give the same command with --resume"
            ) from None
        except Exception as error:
            traceback.clear_frames(error.__traceback__)  # they hold what is left of the model's wrapper
            _disconnect()
            if not self.first and isinstance(error, UserError) and not isinstance(error, ReportedByFirstRank):
                raise UserError(f"rank {self.rank}: {error}") from None
            raise
        _disconnect()

    def _next_key(self, kind: str) -> tuple[Store, str]:
        """The key of the next exchange: every rank comes to the same ones in the same order."""
        assert self.store is not None  # torchrun's ranks have one
        return self.store, f"{kind} {self.store.add(f'{kind} seen by {self.rank}', 1)}"


ALONE = Ranks()


def join_ranks() -> Ranks:
    """This process's place in the job that torchrun has started; ALONE where nothing of torchrun's is set.

    Raises UserError for variables that are not whole, and where the other ranks cannot be reached.
    """
    if not {"RANK", "WORLD_SIZE", "LOCAL_RANK"} & os.environ.keys():
        return ALONE
    if missing := [name for name in VARIABLES if name not in os.environ]:
        found = next(name for name in VARIABLES if name in os.environ)
        raise UserError(
            f"{found} is set in the environment and {missing[0]} is not: all of {', '.join(VARIABLES)} come from"
            " torchrun; start with torchrun --nproc-per-node N -m glassgpt -- train …, or unset them"
        )
    world_size = _read_number("WORLD_SIZE", 1, 1 << 20)
    place = Ranks(
        rank=_read_number("RANK", 0, world_size - 1),
        world_size=world_size,
        local_rank=_read_number("LOCAL_RANK", 0, world_size - 1),
        local_world_size=_read_number("LOCAL_WORLD_SIZE", 1, world_size) if "LOCAL_WORLD_SIZE" in os.environ else 1,
        node=_read_number("GROUP_RANK", 0, world_size - 1) if "GROUP_RANK" in os.environ else 0,
    )
    try:
        store, _, _ = next(rendezvous("env://", timeout=timedelta(seconds=JOIN_SECONDS)))
    except (RuntimeError, ValueError) as error:
        address = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        raise UserError(
            f"rank {place.rank} of {world_size} cannot reach the others at {address}: {str(error).splitlines()[0]};"
            " start all of them with torchrun, or unset RANK and WORLD_SIZE to train alone"
        ) from None
    times = store.add(f"joins of {place.rank}", 1)  # a program may train twice, each time with keys of its own
    return Ranks(**{**place.__dict__, "store": PrefixStore(f"glassgpt {times}", store)})


def _read_number(name: str, least: int, most: int) -> int:
    text = os.environ[name]
    if not re.fullmatch("[0-9]+", text) or not least <= int(text) <= most:
        raise UserError(
            f"{name} = '{text}' in the environment is not a number from {least} to {most}: torchrun sets it"
        )
    return int(text)


def _publish(store: Store, key: str, value: Any) -> None:
    store.set(key, json.dumps(value))


def _wait_for(store: Store, key: str) -> Any:
    """The JSON value of a key, once it is there. It polls, because a blocking call would not let signals through."""
    while not store.check([key]):
        time.sleep(POLL_SECONDS)
    return json.loads(store.get(key))


def _disconnect() -> None:
    """Ends the process group, and its threads with it: one that is alive when Python ends would abort the process."""
    if dist.is_initialized():
        dist.destroy_process_group()
        gc.collect()  # a model's wrapper, which holds the group too, is part of a circle


def _is_of_exchange(error: RuntimeError) -> bool:
    """Whether the error is the network's: gloo raises plain RuntimeErrors, which only their words tell apart."""
    words = r"gloo|NCCL|Connection (closed|reset|refused)|Broken pipe|Timed out waiting"
    return isinstance(error, dist.DistError) or re.search(words, str(error)) is not None
