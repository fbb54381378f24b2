"""Runs the blocks of a page as a reader would: in order, in one folder, the Python blocks in one session.

A bash block is a process of its own. The Python blocks share their names, as the cells of a notebook do.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from glassgpt.course.page import RUN, Block, Quoted, Size, iter_blocks, iter_quoted, parse_number
from glassgpt.errors import UserError

SECONDS = {"small": 600.0, "full": 3600.0}  # a block that takes longer has failed, also on a busy machine
EXPERIMENTS = Path("docs", "course", "experiments")  # where the pages' commands find them
# The process of the Python blocks. Each line of stdin is [code, name of the block]; after each block it prints END and
# whether the block succeeded.
SESSION = """
import json, linecache, sys, traceback
names = {"__name__": "__main__"}
for line in sys.stdin:
    code, name = json.loads(line)
    linecache.cache[name] = (len(code), None, code.splitlines(keepends=True), name)  # tracebacks show the lines
    good = True
    try:
        exec(compile(code, name, "exec"), names)
    except BaseException as error:
        traceback.print_exception(error.with_traceback(error.__traceback__.tb_next))
        good = False
    sys.stderr.flush()
    print(f"\\n{sys.argv[1]} {good}", flush=True)
"""
END = "\x1d end of block"


@dataclass(frozen=True)
class Outcome:
    """What became of one block. `problem` is None where it succeeded; a block that is not run took no time."""

    block: Block
    seconds: float
    output: str
    problem: str | None


def environment() -> dict[str, str]:
    """This process's environment, with this Python's programs first on PATH."""
    return os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"}


def run_page(
    markdown: str,
    name: str,
    folder: Path,
    *,
    size: Size,
    env: Mapping[str, str],
    experiments: Path | None = None,
    finished: Callable[[Outcome], None] = lambda outcome: None,
) -> list[Outcome]:
    """Runs every block of a page in `folder`, which exists; `finished` is told each outcome at once.

    `experiments` is the folder of scripts that the page's commands name as docs/course/experiments.
    """
    if experiments is not None:
        copy_experiments(markdown, experiments, folder)
    outcomes = []
    with PythonSession(folder, env) as session:
        for block in iter_blocks(markdown):
            if block.language not in RUN or block.title is not None:
                continue
            start = time.monotonic()
            output, problem = "", None
            if block.runs:
                try:
                    code = block.code_at(size)
                except UserError as error:
                    problem = str(error)
                else:
                    if block.language == "python":
                        output, problem = session.run(code, f"{name}, line {block.line}", SECONDS[size])
                    else:
                        output, problem = run_bash(code, folder, env, SECONDS[size])
            outcomes.append(Outcome(block, time.monotonic() - start, output, problem))
            finished(outcomes[-1])
    return outcomes


def copy_experiments(markdown: str, experiments: Path, folder: Path) -> bool:
    """Puts the scripts that the commands of a page name where these look for them; whether there was need to."""
    if EXPERIMENTS.as_posix() not in markdown or not experiments.is_dir() or (folder / EXPERIMENTS).exists():
        return False
    shutil.copytree(experiments, folder / EXPERIMENTS, ignore=shutil.ignore_patterns("__pycache__"))
    return True


def run_bash(code: str, folder: Path, env: Mapping[str, str], limit: float) -> tuple[str, str | None]:
    """Runs commands, up to the first that fails: what they print, and what went wrong or None."""
    process = start_process(["bash", "-eo", "pipefail", "-c", code], folder, env, stdin=subprocess.DEVNULL)
    try:
        output, _ = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired as late:
        return "", f"not finished after {late.timeout:g} s"
    finally:
        end_process(process)
    return output, None if process.returncode == 0 else f"exit {process.returncode}\n{output.strip()}"


class PythonSession:
    """A Python process in `folder` that keeps its names from one block of code to the next.

    It is started by the first block. One that ends or takes too long is replaced by a new one, without names.
    """

    def __init__(self, folder: Path, env: Mapping[str, str]) -> None:
        self._folder, self._env = folder, env
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> PythonSession:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._process is not None:
            end_process(self._process)

    def run(self, code: str, name: str, limit: float) -> tuple[str, str | None]:
        """Runs a block, which tracebacks call `name`: what it prints, and what went wrong or None."""
        if self._process is None or self._process.poll() is not None:
            command = [sys.executable, "-uc", SESSION, END]
            self._process = start_process(command, self._folder, self._env, stdin=subprocess.PIPE)
        process = self._process
        assert process.stdin is not None and process.stdout is not None
        start = time.monotonic()
        late = threading.Timer(limit, end_process, [process])
        late.start()
        try:
            process.stdin.write(json.dumps([code, name]) + "\n")
            process.stdin.flush()
            lines: list[str] = []
            for line in process.stdout:
                if line.startswith(END):
                    output = "".join(lines).removesuffix("\n")
                    return output, None if line.split()[-1] == "True" else output.strip()
                lines.append(line)
        finally:
            late.cancel()
        code_of_end = process.wait()
        in_time = time.monotonic() - start < limit
        why = f"Python ended with code {code_of_end}" if in_time else f"not finished after {limit:g} s"
        return "".join(lines), f"{why}\n{''.join(lines).strip()}"


def start_process(command: list[str], folder: Path, env: Mapping[str, str], *, stdin: int) -> subprocess.Popen[str]:
    """A process whose output, errors included, is read as text. It and what it starts are ended together."""
    return subprocess.Popen(
        command, cwd=folder, env=dict(env), stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        encoding="utf-8", errors="replace", start_new_session=True,
    )  # fmt: skip


def end_process(process: subprocess.Popen[str]) -> None:
    """Ends a process and what it has started, if it is still there."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def check_figures(markdown: str, outcomes: list[Outcome], size: Size) -> tuple[list[str], dict[Quoted, float]]:
    """Compares the numbers that a page quotes with what its blocks have printed.

    Returns the problems, and the true value of each quoted number. At small size a figure has to be printed, but may
    have any value, and times are not compared.
    """
    problems, printed, true = [], {}, {}
    for outcome in outcomes:
        for name, pattern in outcome.block.figures.items() if outcome.problem is None and outcome.block.runs else ():
            found = re.search(pattern, outcome.output, re.MULTILINE)
            if found is None:
                problems.append(f"line {outcome.block.line}: the block prints nothing that matches figure {name}")
            else:
                printed[name] = parse_number(found[1])
    defined = {name for outcome in outcomes for name in outcome.block.figures}
    for quoted in iter_quoted(markdown):
        if quoted.expression is not None:  # no block is needed to check it
            continue
        if quoted.name == "seconds":
            after = [each for each in outcomes if each.block.line > quoted.line and each.block.runs]
            if not after:
                problems.append(f"line {quoted.line}: no block that is run follows these seconds")
                continue
            value = after[0].seconds
        elif quoted.name in printed:
            value = printed[quoted.name]
        else:
            if quoted.name not in defined:
                problems.append(f"line {quoted.line}: no block of the page has the figure {quoted.name}")
            continue
        true[quoted] = value
        problem = quoted.problem(value)
        if problem is not None and size == "full":
            problems.append(problem)
    return problems, true


@contextlib.contextmanager
def work_folder(folder: Path | None) -> Iterator[Path]:
    """The given folder, made if need be, or one that is removed at the end. Raises UserError if it has files."""
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="glassgpt-course-") as temporary:
            yield Path(temporary)
        return
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is not an empty folder: name a new one for what the page's commands write")
    folder.mkdir(parents=True, exist_ok=True)
    yield folder
