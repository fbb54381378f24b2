"""Runs one command of a case in a forked process: with its own streams, limits and folder, as a shell would run it.

The parent has imported the package and has run nothing, so that every case starts from the same state and a case costs
milliseconds. A crash, a hang or an allocation of all memory ends the child alone.
"""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import select
import signal
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from glassgpt.cli.main import main

MEMORY = 6 << 30  # bytes of address space; torch alone maps one or two GiB
GRACE = 10.0  # seconds that a command may take to stop after an interrupt


@dataclass(frozen=True)
class Streams:
    """What the three standard streams are. A path is opened; None is a closed stream."""

    stdin: str | None = os.devnull
    stdout: str | None = ""  # "": collected
    stderr: str | None = ""
    encoding: str = "utf-8"  # of stdout and stderr


@dataclass(frozen=True)
class Ended:
    """How a command ended, and what it wrote."""

    code: int  # negative: the signal that killed it
    out: str
    err: str
    overdue: bool  # it had not ended at the limit, and was interrupted


def run_forked(arguments: tuple[str, ...], folder: Path, streams: Streams, limit: float) -> Ended:
    """Runs `glassgpt ARGUMENTS` in `folder`. After `limit` seconds it is interrupted as by Ctrl-C, then killed."""
    collected = folder.parent / f"{folder.name}-out", folder.parent / f"{folder.name}-err"
    child = os.fork()
    if child == 0:
        _be_the_command(arguments, folder, streams, *map(str, collected))
    ended = os.pidfd_open(child)
    overdue = False
    try:
        if not _wait(ended, limit):
            overdue = True
            for number in (signal.SIGINT, signal.SIGINT, signal.SIGKILL):  # training stops at once at the second
                os.kill(child, number)
                if _wait(ended, GRACE):
                    break
    finally:
        os.close(ended)
        _, status = os.waitpid(child, 0)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)  # processes that it started
    texts = []
    for path in collected:
        texts.append(path.read_bytes().decode("utf-8", "replace") if path.exists() else "")
        path.unlink(missing_ok=True)
    return Ended(os.waitstatus_to_exitcode(status), *texts, overdue)


def _wait(ended: int, seconds: float) -> bool:
    poll = select.poll()
    poll.register(ended, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def _be_the_command(arguments: tuple[str, ...], folder: Path, streams: Streams, out: str, err: str) -> NoReturn:
    """The child: prepares what a shell and the interpreter prepare, runs the command, and ends as they do."""
    code = 1
    try:
        gc.freeze()
        os.setsid()
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.chdir(folder)
        os.environ["HOME"] = str(folder)
        sys.stdin = _stream(0, streams.stdin, "r", streams.encoding)  # type: ignore[assignment]
        sys.stdout = _stream(1, out if streams.stdout == "" else streams.stdout, "w", streams.encoding)  # type: ignore[assignment]
        sys.stderr = _stream(2, err if streams.stderr == "" else streams.stderr, "w", streams.encoding)  # type: ignore[assignment]
        sys.argv = ["glassgpt", *arguments]
        code = _run_main()
    finally:
        os._exit(code)


def _stream(number: int, path: str | None, mode: str, encoding: str) -> object:
    if path is None:
        os.close(number)
        return None  # as the interpreter does at its start
    handle = os.open(path, os.O_RDONLY if mode == "r" else os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.dup2(handle, number)
    os.close(handle)
    return os.fdopen(
        number, mode, encoding=encoding, errors="backslashreplace" if number == 2 else "strict", closefd=False,
        buffering=1 if number == 2 else -1,
    )  # fmt: skip


def _run_main() -> int:
    code = 0
    try:
        main()
    except SystemExit as ended:
        code = int(ended.code or 0)
    except BaseException:
        code = 1
        if sys.stderr is not None:
            traceback.print_exc()
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except Exception:
            code = 120  # as the interpreter does, which also prints "Exception ignored"
    return code


def warm_up() -> None:
    """Imports what the commands import, so that no child has to."""
    import torch

    import glassgpt.course.climb
    import glassgpt.data.inventory
    import glassgpt.doctor.diagnosis
    import glassgpt.planning.plan
    import glassgpt.report.daybook_page
    import glassgpt.runs.exporting
    import glassgpt.runs.importing
    import glassgpt.runs.train
    import glassgpt.tricks.measure  # noqa: F401

    torch.nn.init.normal_(torch.nn.Linear(1, 1, device="meta").weight)  # torch imports hundreds of modules for this
