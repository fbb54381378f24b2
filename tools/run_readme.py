"""Runs the `bash` and `python` blocks of Markdown files as written, in order, as a reader would.

Each file gets one fresh folder, so that a later block can use what an earlier one made; the Python blocks share their
names. The first failing command stops its block. The environment's programs come first on PATH and caches are private.
The texts and tokenizers that the blocks name are taken from GLASSGPT_TEST_DATA, where that is set; else a known text
may be downloaded. A block after a comment line `<!-- not run: why -->` is listed, not run. With --small, what the
comments `<!-- small: … -->` say is replaced (glassgpt/course/page.py).
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from glassgpt.course.page import Size
from glassgpt.course.running import Outcome, environment, run_page


def private_environment(home: Path) -> dict[str, str]:
    """The environment of the commands, with private caches under `home`."""
    cache = home / "cache"
    env = environment() | {"GLASSGPT_CACHE": str(cache), "HF_HUB_OFFLINE": "1"}
    data = Path(os.environ.get("GLASSGPT_TEST_DATA", "test-data-not-given")).absolute()
    if (data / "tinyshakespeare.txt").exists():  # as if downloaded before
        (cache / "corpora").mkdir(parents=True)
        shutil.copy(data / "tinyshakespeare.txt", cache / "corpora" / "shakespeare.txt")
    if (data / "tiktoken").is_dir():
        env["TIKTOKEN_CACHE_DIR"] = str(data / "tiktoken")
    return env


def run_file(path: Path, size: Size, run: Callable[..., list[Outcome]] = run_page) -> list[Outcome]:
    """Runs every block of one file, and prints a line for each. `run` has the arguments of `run_page`."""

    def show(outcome: Outcome) -> None:
        block, where = outcome.block, f"{path}:{outcome.block.line}"
        if block.reason:
            print(f"not run  {where}  {block.reason}")
            return
        print(f"{'FAILED ' if outcome.problem else 'ok     '}  {where}  {outcome.seconds:.1f} s", flush=True)
        if outcome.problem:
            print(f"{block.code.strip()}\n{outcome.problem}", flush=True)

    with tempfile.TemporaryDirectory(prefix="glassgpt-readme-") as home:
        folder = Path(home, "work")
        folder.mkdir()
        return run(
            path.read_text(encoding="utf-8"), str(path), folder,
            size=size, env=private_environment(Path(home)), experiments=path.parent / "experiments", finished=show,
        )  # fmt: skip


def main() -> None:
    """Exits with 1 if any block of the files named on the command line failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--small", action="store_true", help="at small size")
    options = parser.parse_args()
    outcomes = [each for path in options.files for each in run_file(path, "small" if options.small else "full")]
    sys.exit(1 if any(each.problem for each in outcomes) else 0)


if __name__ == "__main__":
    main()
