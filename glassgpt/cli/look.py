"""`glassgpt look`: opens the web app that shows the inside of models, or draws one view of it in the terminal."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from glassgpt.cli.output import USUAL_WIDTH, note, print_json, table_width
from glassgpt.cli.sample import CHECKPOINT_HELP, RUN_HELP, open_run
from glassgpt.errors import UserError

if TYPE_CHECKING:
    from glassgpt.report.look import Look
    from glassgpt.report.look.drawing import View
    from glassgpt.report.look.pair import PairLook

Part = Literal["cross", "encoder", "decoder"]
Show = Literal["attention", "lens", "tokens", "loss", "experts", "guesses"]
APP, TERMINAL = "The web app", "In the terminal"
APP_OPTIONS = {"host": "--host", "port": "--port", "token": "--token", "browser": "--browser/--no-browser"}
TERMINAL_OPTIONS = {
    "target": "--target", "part": "--part", "checkpoint": "--checkpoint", "head": "--head", "layer": "--layer",
    "position": "--position", "as_json": "--json",
}  # fmt: skip


def look(
    context: typer.Context,
    runs: Annotated[
        list[str] | None,
        typer.Argument(metavar="[RUN]...", help=f"{RUN_HELP} A folder of runs, or all runs if left out."),
    ] = None,
    device: Annotated[str, typer.Option(help="Device: auto, cpu, cuda or mps.")] = "auto",
    show: Annotated[
        Show | None, typer.Option(help="What to draw; attention if only --text is given.", rich_help_panel=TERMINAL)
    ] = None,
    text: Annotated[
        str | None,
        typer.Option(help="Text to look at; else the beginning of the run's last sample.", rich_help_panel=TERMINAL),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            help="For an encoder-decoder, whose --text is the source: the target; else the model writes it.",
            rich_help_panel=TERMINAL,
        ),
    ] = None,
    part: Annotated[
        Part | None,
        typer.Option(help="For attention of an encoder-decoder; cross if left out.", rich_help_panel=TERMINAL),
    ] = None,
    checkpoint: Annotated[str, typer.Option(help=CHECKPOINT_HELP, rich_help_panel=TERMINAL)] = "best",
    head: Annotated[
        str | None,
        typer.Option(
            metavar="L.H",
            help="For attention: block and head, such as 2.1; else the head whose kind is clearest.",
            rich_help_panel=TERMINAL,
        ),
    ] = None,
    layer: Annotated[
        int | None, typer.Option(help="For experts: a block; else all of them.", rich_help_panel=TERMINAL)
    ] = None,
    position: Annotated[
        int | None,
        typer.Option(
            help="For lens: a token, of an encoder-decoder of its target, counted from 0; else the last one.",
            rich_help_panel=TERMINAL,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.", rich_help_panel=TERMINAL)] = False,
    host: Annotated[
        str,
        typer.Option(help="Address to listen on; any but this machine's own needs --token.", rich_help_panel=APP),
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(help="Port to listen on; 0: any that is free.", rich_help_panel=APP)
    ] = 4242,  # fixed, so that a page of the course can link to a view
    token: Annotated[str | None, typer.Option(help="A secret that a page must know.", rich_help_panel=APP)] = None,
    browser: Annotated[
        bool, typer.Option("--browser/--no-browser", help="Open the browser.", rich_help_panel=APP)
    ] = True,
) -> None:
    """Look inside: a web app on this machine with curves, tokens, attention and predictions of your runs.

    With --show or --text, it draws one view of one run in the terminal instead.
    """
    if show is None and text is None:
        if given := _given(context, TERMINAL_OPTIONS):
            raise UserError(f"{given} is for a view in the terminal: add --show, or leave it out")
        _serve(runs or [], host, port, token, device, browser)
        return
    if given := _given(context, APP_OPTIONS):
        raise UserError(f"{given} is for the web app, which --show and --text do not start: leave it out")
    show = show or "attention"
    if head is not None and show != "attention":
        raise UserError(f"--head is for --show attention, not for --show {show}: leave it out")
    if layer is not None and show != "experts":
        raise UserError(f"--layer is for --show experts, not for --show {show}: leave it out")
    if position is not None and show != "lens":
        raise UserError(f"--position is for --show lens, not for --show {show}: leave it out")
    if runs is None or len(runs) != 1:
        raise UserError(f"--show {show} draws one run: name one")
    if part is not None and show != "attention":
        raise UserError(f"--part is for --show attention, not for --show {show}: leave it out")
    layer_and_head = _parse_head(head)
    from glassgpt.models import find_architecture

    opened = open_run(runs[0], checkpoint, device, "float32")
    view: View
    if find_architecture(opened.config.architecture).kind == "encoder-decoder":
        pair = opened.look_pair(text, target)
        view, words = _view_of_pair(pair, show, part or "cross", layer_and_head, position), pair.source
    else:
        if given := _given(context, {"target": "--target", "part": "--part"}):
            raise UserError(f"{given} is for an encoder-decoder, and {runs[0]} is none: leave it out")
        seen = opened.look(text)
        view, words = _view(seen, show, layer_and_head, layer, position), seen.text
    if as_json:
        print_json({"run": str(opened.folder), "step": opened.step, "show": show, "text": words, **view.to_dict()})
    else:
        _print(view)


def _given(context: typer.Context, options: dict[str, str]) -> str | None:
    """The first of the options (by parameter) that stands on the command line."""
    sources = {name: context.get_parameter_source(name) for name in options}
    return next((options[name] for name, source in sources.items() if source and source.name == "COMMANDLINE"), None)


def _parse_head(head: str | None) -> tuple[int, int] | tuple[None, None]:
    if head is None:
        return None, None
    if not (found := re.fullmatch(r"([0-9]{1,6})\.([0-9]{1,6})", head)):
        raise UserError(f"--head {head} is not a head: give a block and a head with a point between them, such as 2.1")
    return int(found[1]), int(found[2])


def _view(
    seen: Look, show: Show, head: tuple[int, int] | tuple[None, None], layer: int | None, position: int | None
) -> View:
    match show:
        case "attention":
            return seen.attention(*head)
        case "lens":
            return seen.lens(position)
        case "tokens":
            return seen.tokens()
        case "loss":
            return seen.losses()
        case "guesses":
            return seen.guesses()
        case "experts":
            return seen.experts(layer)


def _view_of_pair(
    seen: PairLook, show: Show, part: Part, head: tuple[int, int] | tuple[None, None], position: int | None
) -> View:
    match show:
        case "attention":
            return seen.attention(part, *head)
        case "lens":
            return seen.lens(position)
        case "loss":
            return seen.losses()
    raise UserError(f"--show {show} is not for an encoder-decoder: look at its attention, its lens or its loss")


def _print(view: View) -> None:
    """Prints a view. rich leaves out the colours in a file or pipe, and where NO_COLOR is set."""
    from rich.console import Console
    from rich.style import Style
    from rich.text import Text

    console = Console(highlight=False)
    for line in view.lines(table_width() or USUAL_WIDTH):
        styled = [(span.text, Style(color=span.ink or None, bgcolor=span.paper or None)) for span in line]
        text = Text.assemble(*styled)
        text.rstrip()
        console.print(text, soft_wrap=True)


def _serve(runs: list[str], host: str, port: int, token: str | None, device: str, browser: bool) -> None:
    from glassgpt.runs.folder import RUNS, find_folder_of_runs, find_run

    if not 0 <= port < 1 << 16:
        raise UserError(f"--port {port} is out of range: it must be from 0 to 65535")
    root = find_folder_of_runs(runs[0]) if len(runs) == 1 else None
    folders = [find_run(run) for run in runs] if root is None else []
    try:
        from glassgpt.server.guard import Access
        from glassgpt.server.serve import serve
    except ModuleNotFoundError as error:
        raise UserError(f"glassgpt look needs {error.name}: pip install 'glassgpt[serve]'") from None
    serve(
        folders, root or RUNS, access=Access(host, port, token), device=device, browser=browser,
        started=lambda address: note(f"{address}  (Ctrl-C ends it)"),
    )  # fmt: skip
