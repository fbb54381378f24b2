"""Ranks: the processes of one job, started by `--devices` or torchrun. Each rank trains on a slice of every batch.

They exchange data in two ways. Decisions of one rank go through the job's store, a small key-value table. torchrun
provides it; where `glassgpt train --devices` has started the job, the first rank does. The other ranks wait for a
decision without a time limit. Sums and tensors go through the process group, which detects a rank that has died.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import re
import socket
import time
import traceback
import zlib
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
JOIN_SECONDS = 120.0  # between the first rank that joins and the last
RESOLVE_SECONDS = 10.0  # until the address of the first node must be known: a cluster may publish it late
LOST_SECONDS = 50.0  # timeout after which a rank counts as lost; most losses show at once, as a closed connection
COMPILING_SECONDS = 600.0  # the same while ranks compile: some take minutes longer than others
LEAVE_SECONDS = 10.0  # how long the first rank waits at the end for the others, one of which may have died
POLL_SECONDS = 0.02


@dataclass(frozen=True)
class Ranks:
    """This process's position: `rank` of `world_size` in the job, `local_rank` of `local_world_size` on its node.

    Without a `store` the process is alone, and every method below returns at once without communication.
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

        A UserError from `work` is raised on every rank: unchanged on the first, as ReportedByFirstRank on the others.
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

        If it raises UserError on any rank, all ranks raise. The lowest failing rank raises its own error, the others
        ReportedByFirstRank. `work` must not exchange anything itself. With `first_of_node_first`, the first rank of a
        node finishes before the others of that node begin, so that they find its files in the cache; if it fails, they
        do not begin.
        """
        if not self.several:
            return work()
        store, key = self._next_key("all")
        result, failure, given_up = None, None, None
        if first_of_node_first and self.local_rank != 0:
            given_up = _wait_for(store, f"{key} {self.rank - self.local_rank}")
        try:
            result = work() if given_up is None else None
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
        """The maximum of `value` over the ranks."""
        return int(self._reduce([value], dist.ReduceOp.MAX)[0])

    def _reduce(self, values: list[float], operation: dist.ReduceOp.RedOpType) -> list[float]:
        if not self.several:
            return values
        tensor = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(tensor, operation)
        return tensor.tolist()

    def broadcast(self, tensor: Tensor) -> None:
        """Overwrites the tensor with that of the first rank."""
        if self.several:
            dist.broadcast(tensor, 0)

    def connect(self, device: torch.device, *, compiling: bool) -> None:
        """Starts the process group (NCCL between GPUs, gloo between CPUs), which `together` ends.

        From here on, ranks that wait for each other count as lost after LOST_SECONDS. So call it when nothing slow is
        left to prepare: the data, a download, the model.
        """
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
        """Context in which the ranks work as one job; the connection closes at its end.

        Raises RankLost, instead of the library's own error, if another rank has died. A UserError raised on a rank
        other than the first names that rank.
        """
        if self.store is None:
            yield
            return
        try:
            yield
        except RuntimeError as error:
            if not (self.several and _is_network_error(error)):
                raise
            reason = str(error).strip().splitlines()[0]
            raise RankLost(
                f"rank {self.rank} has lost the other ranks: one of them exited, or the network failed ({reason});"
                " read that rank's own message, then run the same command with --resume"
            ) from None
        except Exception as error:
            traceback.clear_frames(error.__traceback__)  # they hold references to the wrapped model
            _disconnect()
            self._leave(self.store)
            if not self.first and isinstance(error, UserError) and not isinstance(error, ReportedByFirstRank):
                raise UserError(f"rank {self.rank}: {error}") from None
            raise
        _disconnect()
        self._leave(self.store)

    def _leave(self, store: Store) -> None:
        """Lets the first rank leave last: it may serve the store, from which the others read what it has decided."""
        if not self.first:
            _publish(store, f"left {self.rank}", None)
            return
        others = [f"left {rank}" for rank in range(1, self.world_size)]
        give_up = time.monotonic() + LEAVE_SECONDS
        while not store.check(others) and time.monotonic() < give_up:
            time.sleep(POLL_SECONDS)

    def _next_key(self, kind: str) -> tuple[Store, str]:
        """The key of the next exchange. Every rank makes the same exchanges in the same order, so the keys match."""
        assert self.store is not None  # the ranks of a job have one
        return self.store, f"{kind} {self.store.add(f'{kind} seen by {self.rank}', 1)}"


ALONE = Ranks()


def join_ranks() -> Ranks:
    """This process's position in the job that torchrun started; ALONE if torchrun's variables are not set.

    Raises UserError if variables are missing or invalid, or if the other ranks cannot be reached.
    """
    if not {"RANK", "WORLD_SIZE", "LOCAL_RANK"} & os.environ.keys():
        return ALONE
    if missing := [name for name in VARIABLES if name not in os.environ]:
        found = next(name for name in VARIABLES if name in os.environ)
        raise UserError(
            f"{found} is set in the environment and {missing[0]} is not: all of {', '.join(VARIABLES)} come from"
            " torchrun; start with it, or unset them and use --devices N"
        )
    world_size = _read_number("WORLD_SIZE", 1, 1 << 20)
    place = Ranks(
        rank=_read_number("RANK", 0, world_size - 1),
        world_size=world_size,
        local_rank=_read_number("LOCAL_RANK", 0, world_size - 1),
        local_world_size=_read_number("LOCAL_WORLD_SIZE", 1, world_size) if "LOCAL_WORLD_SIZE" in os.environ else 1,
        node=_read_number("GROUP_RANK", 0, world_size - 1) if "GROUP_RANK" in os.environ else 0,
    )
    _check_address(os.environ["MASTER_ADDR"])
    try:
        store, _, _ = next(rendezvous("env://", timeout=timedelta(seconds=JOIN_SECONDS)))
    except (RuntimeError, ValueError) as error:
        address = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        raise UserError(
            f"rank {place.rank} of {world_size} cannot reach the others at {address}: {str(error).splitlines()[0]};"
            " start all of them with torchrun, or unset RANK and WORLD_SIZE to train alone"
        ) from None
    times = store.add(f"joins of {place.rank}", 1)  # a program may train twice; each run needs its own keys
    return Ranks(**{**place.__dict__, "store": PrefixStore(f"glassgpt {times}", store)})


def _check_address(address: str) -> None:
    """Raises UserError for a host name that is still unknown after RESOLVE_SECONDS; torch would try for minutes."""
    end = time.monotonic() + RESOLVE_SECONDS
    while True:
        try:
            socket.getaddrinfo(address, None)
            return
        except (OSError, UnicodeError) as error:  # UnicodeError: a label of more than 63 characters
            if time.monotonic() >= end:
                reason = (error.strerror if isinstance(error, OSError) else None) or "not a host name"
                raise UserError(
                    f"MASTER_ADDR = {address!r} in the environment is not a host that this machine can find ({reason}):"
                    " give the name or address of the first node"
                ) from None
        time.sleep(1.0)


def _read_number(name: str, least: int, most: int) -> int:
    text = os.environ[name]
    if not re.fullmatch("[0-9]{1,9}", text) or not least <= int(text) <= most:
        raise UserError(
            f"{name} = '{text}' in the environment is not a number from {least} to {most}: torchrun sets it"
        )
    return int(text)


def _publish(store: Store, key: str, value: Any) -> None:
    # Compressed, because the store takes no more than 8 MiB: a large tokenizer would not fit.
    store.set(key, zlib.compress(json.dumps(value).encode()))  # type: ignore[arg-type]  # takes bytes too


def _wait_for(store: Store, key: str) -> Any:
    """Waits for a key and returns its JSON value. It polls, because a blocking call would delay signal handlers."""
    while not store.check([key]):
        time.sleep(POLL_SECONDS)
    return json.loads(zlib.decompress(store.get(key)))


def _disconnect() -> None:
    """Ends the process group and its threads. A thread still alive when Python exits would abort the process."""
    if dist.is_initialized():
        dist.destroy_process_group()
        gc.collect()  # the wrapped model also refers to the group, and is part of a reference cycle


def _is_network_error(error: RuntimeError) -> bool:
    """Whether a network failure caused the error. gloo raises plain RuntimeErrors, so only the message tells."""
    words = r"gloo|NCCL|Connection (closed|reset|refused)|Broken pipe|Timed out waiting"
    return isinstance(error, dist.DistError) or re.search(words, str(error)) is not None
