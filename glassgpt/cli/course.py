"""`glassgpt course`: lists, shows and runs the pages of the course, and writes them as notebooks."""

from __future__ import annotations

import re
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from glassgpt.cli.output import USUAL_WIDTH, note, path_option, print_json, say, table_width
from glassgpt.errors import UserError

if TYPE_CHECKING:
    from glassgpt.course.page import Size
    from glassgpt.course.pages import Page
    from glassgpt.course.running import Outcome
WIDEST = 100  # columns of a page: longer lines are hard to read


def course(
    page: Annotated[
        str | None, typer.Argument(metavar="[PAGE]", help="A page: 4, 04-head or head. The list if left out.")
    ] = None,
    answers: Annotated[bool, typer.Option("--answers", help="Show the answers of the exercises, too.")] = False,
    browser: Annotated[
        bool,
        typer.Option("--browser/--no-browser", help="Open the page of the site, where make docs has built it."),
    ] = True,
    notebook: Annotated[Path | None, path_option("Write the page as a notebook to this file.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file of --notebook.")] = False,
    run: Annotated[bool, typer.Option("--run", help="Run the page's commands and answers, at small size.")] = False,
    full: Annotated[bool, typer.Option("--full", help="With --run: at full size.")] = False,
    folder: Annotated[
        Path | None,
        path_option("With --run: the new folder in which they run and leave their runs; else one that is removed."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the list of pages as JSON.")] = False,
) -> None:
    """List the pages of the course, read one here or in the browser, run it, or write it as a notebook."""
    from glassgpt.course.pages import find_page, list_parts, pages_folder

    for name, given, needs, there in (
        ("--overwrite", overwrite, "--notebook", notebook is not None),
        ("--full", full, "--run", run),
        ("--folder", folder is not None, "--run", run),
    ):
        if given and not there:
            raise UserError(f"{name} is for {needs}: add {needs}, or leave {name} out")
    if page is None:
        if notebook is not None or run or answers:
            raise UserError("which page? Name one, such as glassgpt course 4; glassgpt course lists them")
        parts = list_parts(pages_folder())
        if as_json:
            print_json([
                {"page": each.name, "title": each.title, "part": part.title, "path": str(each.path)}
                for part in parts for each in part.pages
            ])  # fmt: skip
        else:
            width = max(len(page.name) for part in parts for page in part.pages)
            for number, part in enumerate(parts):
                typer.echo("\n" * bool(number) + part.title)
                for each in part.pages:
                    typer.echo(f"  {each.name:<{width}}  {re.sub(r'^[0-9]+ · ', '', each.title)}")
            note("glassgpt course PAGE shows one, such as glassgpt course 4")
        return
    if as_json:
        raise UserError("--json is for the list of pages: leave out the page, or --json")
    found = find_page(page)
    if notebook is not None:
        _write_notebook(found, notebook, overwrite)
    if run:
        _run(found, "full" if full else "small", folder)
    if notebook is None and not run:
        _show(found, answers, browser)


def _write_notebook(page: Page, path: Path, overwrite: bool) -> None:
    from glassgpt.course.notebook import build_notebook
    from glassgpt.course.running import EXPERIMENTS, copy_experiments
    from glassgpt.files import dump_json, write_text
    from glassgpt.ownership import check_output

    check_output(path, overwrite)
    write_text(path, dump_json(build_notebook(page.markdown, page.path.parent), indent=1) + "\n")
    say(path)
    if copy_experiments(page.markdown, page.path.parent / "experiments", path.parent):
        note(f"the scripts that it runs are in {path.parent / EXPERIMENTS}")


def _run(page: Page, size: Size, folder: Path | None) -> None:
    from glassgpt.course.running import check_figures, environment, run_page, work_folder

    def show(outcome: Outcome) -> None:
        block = outcome.block
        state = "not run" if block.reason else "failed" if outcome.problem else "ok"
        rest = f"{outcome.seconds:6.1f} s" if not block.reason else f"        {block.reason}"
        say(f"{state:<7}  line {block.line:<4} {block.language:<6} {rest}")
        if outcome.problem:
            note(f"{block.code.strip()}\n{outcome.problem}")

    with work_folder(folder) as place:
        outcomes = run_page(
            page.markdown, page.name, place,
            size=size, env=environment(), experiments=page.path.parent / "experiments", finished=show,
        )  # fmt: skip
    figures, _ = check_figures(page.markdown, outcomes, size)
    for problem in figures:
        note(problem)
    if figures or any(outcome.problem for outcome in outcomes):
        raise typer.Exit(1)


def _show(page: Page, answers: bool, browser: bool) -> None:
    from rich.console import Console
    from rich.markdown import Markdown

    from glassgpt.course.terminal import terminal_text

    if browser and page.site is not None:
        say(page.site)
        webbrowser.open(page.site.as_uri())
        return
    console = Console(width=min(table_width() or USUAL_WIDTH, WIDEST), highlight=False)
    console.print(Markdown(terminal_text(page.markdown, answers), hyperlinks=False))
    note(f"this page is {page.path}")
