"""`glassgpt look`: opens the web app that shows runs, tokens and the inside of models."""

from __future__ import annotations

from typing import Annotated

import typer

from glassgpt.cli.output import note
from glassgpt.cli.sample import RUN_HELP


def look(
    runs: Annotated[
        list[str] | None, typer.Argument(metavar="[RUN]...", help=f"{RUN_HELP} All runs if left out.")
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; any but this machine's own needs --token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0: any that is free.")] = 4242,
    token: Annotated[str | None, typer.Option(help="A secret that a page must know.")] = None,
    device: Annotated[str, typer.Option(help="Device: auto, cpu, cuda or mps.")] = "auto",
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the browser.")] = True,
) -> None:
    """Look inside: a web app on this machine with curves, tokens, attention and predictions of your runs."""
    from glassgpt.errors import UserError
    from glassgpt.runs.folder import RUNS, find_run

    if not 0 <= port < 1 << 16:
        raise UserError(f"--port {port} is out of range: it must be from 0 to 65535")
    folders = [find_run(run) for run in runs or []]
    try:
        from glassgpt.server.guard import Access
        from glassgpt.server.serve import serve
    except ModuleNotFoundError as error:
        raise UserError(f"glassgpt look needs {error.name}: pip install 'glassgpt[serve]'") from None
    serve(
        folders, RUNS, access=Access(host, port, token), device=device, browser=browser,
        started=lambda address: note(f"{address}  (Ctrl-C ends it)"),
    )  # fmt: skip
