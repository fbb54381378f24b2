"""The command `glassgpt` for tests, within this process: a new one would wait seconds for torch at every call."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar
from unittest import mock

from glassgpt.cli.main import main

# A GPT-2 that learns in a second, with everything due every few steps. Dropout is on: it must not disturb resuming.
SETTINGS = {
    "model.n_layer": 2, "model.n_head": 2, "model.n_embd": 32, "model.block_size": 32, "model.dropout": 0.1,
    "schedule.warmup_steps": 10,
    "training.batch_tokens": 256, "training.max_steps": 40, "evaluation.every": 10, "evaluation.tokens": 500,
    "evaluation.sample_every": 20, "evaluation.sample_tokens": 10, "checkpoint.every": 10,
    "evaluation.log_every": 1,
}  # fmt: skip
TIMINGS = ("seconds", "tokens_per_second", "mfu", "val/seconds", "validation_seconds")


@dataclass(frozen=True)
class Result:
    """How a command ended, and what it wrote."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one sentence with which the command refused. Fails where it ended in any other way."""
        assert self.code == 2, f"exit code {self.code}\n{self.err}"
        assert self.out == ""
        assert "Traceback" not in self.err
        *_, last = self.err.splitlines()
        sentences = [line for line in self.err.splitlines() if line.startswith("glassgpt: ")]
        assert sentences == [last], self.err
        return last.removeprefix("glassgpt: ")


def glassgpt(*arguments: object, stdin: bytes = b"") -> Result:
    """Runs the command as a shell would. An exception that is not the command's own to report goes to the test."""
    out, err = io.StringIO(), io.StringIO()
    argv = ["glassgpt", *map(str, arguments)]
    code = 0
    with (
        mock.patch.object(sys, "argv", argv),
        mock.patch.dict(os.environ),
        mock.patch.object(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin))),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as ended:
            code = int(ended.code or 0)
    return Result(code, out.getvalue(), err.getvalue())


class Command:
    """`glassgpt …` as a process; its stderr is read line by line, so that a test knows how far it has come."""

    started: ClassVar[list[Command]] = []  # those that the fixture `end_commands` has still to end

    def __init__(self, *arguments: object, program: Sequence[object] = ("-m", "glassgpt")) -> None:
        self.process = subprocess.Popen(
            [sys.executable, *map(str, (*program, *arguments))],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"}, start_new_session=True,
        )  # fmt: skip
        self.started.append(self)

    def wait_for(self, words: str) -> None:
        """Returns once a line of stderr has begun with `words`."""
        assert self.process.stderr is not None
        seen = []
        for line in self.process.stderr:
            seen.append(line)
            if line.startswith(words):
                return
        raise AssertionError(f"ended without '{words}':\n{''.join(seen)}")

    def end(self, number: int | None = None) -> tuple[int, str, str]:
        """Sends a signal, if one is given, and waits for exit code, stdout and the rest of stderr."""
        if number is not None:
            self.process.send_signal(number)
        out, err = self.process.communicate(timeout=60)
        return self.process.returncode, out, err


def settings(**changes: object) -> list[str]:
    """The tiny configuration as `--set` options; `training__max_steps=3` changes one field of it."""
    fields = SETTINGS | {name.replace("__", "."): value for name, value in changes.items()}
    return [part for name, value in fields.items() for part in ("--set", f"{name}={value}")]


def last_checkpoint(run: Path) -> Path:
    """The folder of the run's last checkpoint."""
    return max((run / "checkpoints").glob("step-*"))


def weights(run: Path) -> dict[str, bytes]:
    """The bytes of the last checkpoint's weights and optimizer state."""
    return {file.name: file.read_bytes() for file in sorted(last_checkpoint(run).glob("*.safetensors"))}


def figures(run: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl without what a clock had measured."""
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [{name: value for name, value in json.loads(line).items() if name not in TIMINGS} for line in lines]


def contents(folder: Path) -> dict[str, str]:
    """Every file below `folder` with the sha256 of its bytes: equal where nothing was lost or changed."""
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }
