"""Starts the ranks of a job on this machine, one process for each device, and waits until all have ended.

torchrun starts the ranks of several nodes. On one machine this launcher can do more, because it knows the program that
it starts: after Ctrl-C the ranks have all the time they need to save, a failure is reported once, and the exit code is
that of the ranks.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import IO, Any

from glassgpt.errors import UserError

LAUNCHED = "GLASSGPT_LAUNCHED"  # set in the environment of the ranks started here
LOST = 75  # exit code of a rank that has lost another one: that other one has the cause
# They ask for an end. SIGHUP comes when the terminal closes or an ssh connection is lost; Windows has none.
STOP_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
GRACE_SECONDS = 10.0  # between the first rank that fails and the end of the others
POLL_SECONDS = 0.05
FEWEST = 8  # this many ranks are allowed on any machine, however few processors it has


def is_launched() -> bool:
    """Whether this process is a rank that `run_ranks` has started."""
    return LAUNCHED in os.environ


def check_devices(n: int) -> None:
    """Raises UserError for a number of devices that cannot be started, or if torchrun has started the ranks already."""
    if "RANK" in os.environ:
        raise UserError("--devices starts the ranks itself, and torchrun has started them already: use one of the two")
    most = max(FEWEST, os.cpu_count() or 1)
    if not 1 <= n <= most:
        raise UserError(f"--devices {n} is out of range: it must be at least 1 and, on this machine, at most {most}")


@dataclass
class _Rank:
    process: subprocess.Popen[bytes]
    stderr: IO[bytes] | None  # what it has written; None: it writes where this process does
    killed: bool = False  # by this process


@dataclass
class _Job:
    ranks: list[_Rank] = field(default_factory=list)
    ended: list[int] = field(default_factory=list)  # ranks in the order in which they ended
    received: list[int] = field(default_factory=list)  # signals

    def code(self, rank: int) -> int:
        return self.ranks[rank].process.returncode

    def failed(self) -> list[int]:
        return [rank for rank in self.ended if self.code(rank) != 0]


def run_ranks(command: Sequence[str], n: int) -> int:
    """Runs `command` as `n` ranks with the environment variables that torchrun would set, and returns the exit code.

    The first rank has stdin, stdout and stderr of this process. The stderr of the others is kept, and shown only if one
    of them caused a failure. SIGINT, SIGTERM and SIGHUP are passed on. When a rank has failed, the others have
    GRACE_SECONDS to end. Raises UserError if a rank was killed, or if the ranks lost each other.
    """
    job = _Job()
    previous = _catch_signals(job)
    try:
        for environment in _environments(n):
            job.ranks.append(_start(command, environment, first=not job.ranks))
        _wait(job)
    finally:
        for rank in job.ranks:
            rank.process.kill()  # nothing, where it has ended
        for number, handler in previous.items():
            signal.signal(number, handler)
    return _outcome(job)


def _environments(n: int) -> list[dict[str, str]]:
    """The environment of each rank."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    job = {
        LAUNCHED: "1", "WORLD_SIZE": str(n), "LOCAL_WORLD_SIZE": str(n), "GROUP_RANK": "0",
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // n))),
    }  # fmt: skip
    return [{**os.environ, **job, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(n)]


def _start(command: Sequence[str], environment: dict[str, str], *, first: bool) -> _Rank:
    """Starts a rank in a session of its own: Ctrl-C then reaches only this process, which passes it on once."""
    stderr = None if first else tempfile.TemporaryFile()  # noqa: SIM115  # closed when the rank is dropped
    other = None if first else subprocess.DEVNULL
    process = subprocess.Popen(
        command, env=environment, stdin=other, stdout=other, stderr=stderr, start_new_session=True
    )
    return _Rank(process, stderr)


def _catch_signals(job: _Job) -> dict[int, Any]:
    """Records signals in the job. Returns the previous handlers."""
    caught = [number for number in STOP_SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]  # as under nohup
    return {number: signal.signal(number, lambda number, _: job.received.append(number)) for number in caught}


def _wait(job: _Job) -> None:
    """Waits until all ranks have ended. It polls, so that a signal is passed on at once."""
    passed_on, give_up = 0, float("inf")
    while len(job.ended) < len(job.ranks):
        for number in job.received[passed_on:]:
            passed_on += 1
            for rank in job.ranks:
                rank.process.send_signal(number)
        for number, rank in enumerate(job.ranks):
            if number not in job.ended and rank.process.poll() is not None:
                job.ended.append(number)
        now = time.monotonic()
        if job.failed():
            give_up = min(give_up, now + GRACE_SECONDS)
        if now >= give_up:
            for number, rank in enumerate(job.ranks):
                if number not in job.ended and not rank.killed:
                    rank.killed = True
                    rank.process.kill()
        time.sleep(POLL_SECONDS)


def _outcome(job: _Job) -> int:
    """The exit code of the job. Shows the message of the rank that failed, if it is not the first rank's own."""
    failed = [rank for rank in job.failed() if not job.ranks[rank].killed]
    causes = [rank for rank in failed if job.code(rank) != LOST]
    if not failed:
        return 0
    if not causes:
        raise UserError(_sentence(job, failed) or "the ranks have lost each other: run the same command with --resume")
    rank = causes[0]
    code = job.code(rank)
    stopped = [code for code in map(job.code, causes) if -code in job.received or code - 128 in STOP_SIGNALS]
    if stopped and job.code(0) != 2:  # told to stop, maybe before the first rank could say why the others had refused
        return stopped[0] if stopped[0] > 0 else 128 - stopped[0]
    if code < 0:
        memory = ", perhaps because the memory was full" if -code == signal.SIGKILL else ""
        raise UserError(
            f"rank {rank} was ended by {signal.Signals(-code).name}{memory}: run the same command with --resume"
        )
    if code == 2:  # one rank has the sentence, and the others end silently
        if sentence := _sentence(job, causes) or _sentence(job, failed):
            raise UserError(sentence)
    elif 0 not in causes:  # the first rank's traceback has been seen
        sys.stderr.write(f"rank {rank}:\n{_written(job.ranks[rank])}")
    return code


def _sentence(job: _Job, ranks: Sequence[int]) -> str | None:
    """The sentence with which one of these ranks refused, if it was not the first rank, whose stderr has been seen."""
    for rank in ranks:
        for line in _written(job.ranks[rank]).splitlines():
            if line.startswith("glassgpt: "):
                return line.removeprefix("glassgpt: ")
    return None


def _written(rank: _Rank) -> str:
    """What a rank has written on stderr; nothing for the first, which writes where this process does."""
    if rank.stderr is None:
        return ""
    rank.stderr.seek(0)
    return rank.stderr.read().decode(errors="replace")
