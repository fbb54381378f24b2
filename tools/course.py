"""Checks the pages of the course, so that none goes stale.

    python tools/course.py [PAGE]...      the form of each page, and that the code it shows is its file's
    python tools/course.py --run small    … and runs each page's notebook, at small size (make check)
    python tools/course.py --run full     … at full size, and compares the figures that the page quotes (make course)
    python tools/course.py --write        renews the code; with --run full, the figures too

Each problem names the page and the line. The exit code is 1 where there is any.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from excerpts import check_excerpt, renew_page
from notebook import run_as_notebook
from page_format import INDEX, check_format
from run_readme import run_file

from glassgpt.course.page import Size, check_expressions, format_like, iter_blocks
from glassgpt.course.running import check_figures
from glassgpt.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
COURSE = ROOT / "docs" / "course"


def choose_pages(names: list[str]) -> list[Path]:
    """The pages of these names, or all of them."""
    found = {path.stem: path for path in sorted(COURSE.glob("*.md"))}
    for name in names:
        if name not in found:
            sys.exit(f"docs/course has no page {name}.md")
    return [found[name] for name in names] or [path for name, path in found.items() if name != INDEX]


def check_page(path: Path) -> Iterator[str]:
    """What can be said without running anything."""
    yield from check_format(path)
    markdown = path.read_text(encoding="utf-8")
    yield from check_expressions(markdown)
    for block in iter_blocks(markdown):
        if block.title is not None and (problem := check_excerpt(block, ROOT)):
            yield f"{problem}; --write renews it"
        try:
            block.code_at("small")
        except UserError as error:
            yield str(error)


def run_page(path: Path, size: Size, write: bool) -> Iterator[str]:
    """Runs the page as a notebook; what failed, and which figures are others."""
    markdown = path.read_text(encoding="utf-8")
    outcomes = run_file(path, size, run_as_notebook)
    yield from (f"line {each.block.line}: this block fails" for each in outcomes if each.problem)
    problems, true = check_figures(markdown, outcomes, size)
    if write and size == "full":
        for quoted, value in reversed(true.items()):
            if problem := quoted.problem(value):
                begin, end = quoted.span
                markdown = markdown[:begin] + format_like(value, quoted.number) + markdown[end:]
                problems.remove(problem)
                print(f"{path.name}: {problem}: renewed")
        path.write_text(markdown, encoding="utf-8")
    yield from problems


def main() -> None:
    """Checks, runs or renews the pages that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", nargs="*", metavar="PAGE", help="such as 04-head; all by default")
    parser.add_argument("--run", choices=("small", "full"))
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--jobs", type=int, default=1, help="pages that are run at the same time")
    options = parser.parse_args()
    pages, started = choose_pages(options.pages), time.monotonic()

    def problems_of(path: Path) -> list[str]:
        problems = list(check_page(path))
        return problems + list(run_page(path, options.run, options.write)) if options.run else problems

    for path in pages if options.write else ():
        path.write_text(renew_page(path.read_text(encoding="utf-8"), ROOT), encoding="utf-8")
    if options.jobs > 1:  # threads of several pages on the same cores would wait for each other
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // options.jobs)))
    with ThreadPoolExecutor(options.jobs) as pool:
        found = list(pool.map(problems_of, pages))
    for path, problems in zip(pages, found, strict=True):
        for problem in problems:
            print(f"{path.relative_to(ROOT)}: {problem}", file=sys.stderr)
    if options.run:
        print(f"{time.monotonic() - started:.0f} s in all")
    sys.exit(1 if any(found) else 0)


if __name__ == "__main__":
    main()
