"""Runs the `bash` and `python` blocks of Markdown files as written, in order, as a reader would.

Each file gets one fresh folder, so that a later block can use what an earlier one made; the first failing command
stops its block. The environment's programs come first on PATH and caches are private. The texts and tokenizers that the
blocks name are taken from GLASSGPT_TEST_DATA, where that is set; else a known text may be downloaded. A block after a
comment line `<!-- not run: why -->` is listed, not run.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

BLOCK = re.compile(
    r"^(?:<!-- not run: (?P<reason>[^\n]+?) -->\n+)?```(?P<language>bash|python)\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
TIMEOUT_SECONDS = 300


@dataclass(frozen=True)
class Block:
    """One fenced block: where it starts, in which language, and why it is not run, if so."""

    line: int
    language: str
    code: str
    reason: str | None = None


def iter_blocks(markdown: str) -> Iterator[Block]:
    """The `bash` and `python` blocks of a Markdown text, in order."""
    for match in BLOCK.finditer(markdown):
        line = markdown.count("\n", 0, match.start("code"))  # that of the opening fence
        yield Block(line, match["language"], match["code"], match["reason"])


def environment(home: Path) -> dict[str, str]:
    """This process's environment, with this Python's programs first, and private caches under `home`."""
    cache = home / "cache"
    env = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        "GLASSGPT_CACHE": str(cache),
        "HF_HUB_OFFLINE": "1",
    }
    data = Path(os.environ.get("GLASSGPT_TEST_DATA", "test-data-not-given")).absolute()
    if (data / "tinyshakespeare.txt").exists():  # as if downloaded before
        (cache / "corpora").mkdir(parents=True)
        shutil.copy(data / "tinyshakespeare.txt", cache / "corpora" / "shakespeare.txt")
    if (data / "tiktoken").is_dir():
        env["TIKTOKEN_CACHE_DIR"] = str(data / "tiktoken")
    return env


def run_block(block: Block, folder: Path, env: dict[str, str]) -> str | None:
    """Runs one block in `folder`; what went wrong, or None."""
    program = ["bash", "-eo", "pipefail", "-c"] if block.language == "bash" else [sys.executable, "-c"]
    try:
        done = subprocess.run(
            [*program, block.code],
            cwd=folder,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=TIMEOUT_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return f"not finished after {TIMEOUT_SECONDS} s"
    return None if done.returncode == 0 else f"exit {done.returncode}\n{done.stdout.strip()}"


def run_file(path: Path) -> int:
    """Runs every block of one file and prints a line for each; the number that failed."""
    failures = 0
    with tempfile.TemporaryDirectory(prefix="glassgpt-readme-") as home:
        folder = Path(home, "work")
        folder.mkdir()
        env = environment(Path(home))
        for block in iter_blocks(path.read_text(encoding="utf-8")):
            where = f"{path}:{block.line}"
            if block.reason:
                print(f"not run  {where}  {block.reason}")
                continue
            start = time.monotonic()
            problem = run_block(block, folder, env)
            failures += problem is not None
            print(f"{'FAILED ' if problem else 'ok     '}  {where}  {time.monotonic() - start:.1f} s", flush=True)
            if problem:
                print(f"{block.code.strip()}\n{problem}", flush=True)
    return failures


def main() -> None:
    """Exits with 1 if any block of the files named on the command line failed."""
    failures = sum([run_file(Path(name)) for name in sys.argv[1:]])
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
