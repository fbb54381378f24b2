"""Starts the server of the app on a port, and opens the browser."""

from __future__ import annotations

import socket
import threading
import webbrowser
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import urlencode

import uvicorn

from glassgpt.errors import UserError
from glassgpt.runtime.device import build_runtime
from glassgpt.server.app import build_app
from glassgpt.server.guard import LOOPBACK, Access
from glassgpt.server.library import Library
from glassgpt.server.workbench import Workbench


def serve(
    runs: Sequence[Path],
    root: Path,
    *,
    access: Access,
    device: str,
    browser: bool,
    started: Callable[[str], None],
) -> None:
    """Serves the app until it is interrupted. `started` is told the address, once it answers.

    Raises UserError if the port is in use, if the device is not there, for an empty token, and if another address than
    loopback is given without a token.
    """
    build_runtime(device)
    if access.token == "":
        raise UserError("the token is empty: give one that is hard to guess, or leave --token out")
    if access.token is None and access.host not in (*LOOPBACK, "::1"):
        raise UserError(f"{access.host} can be reached from other machines: give a --token that they have to know")
    listening = _listen(access.host, access.port)
    access = Access(access.host, listening.getsockname()[1], access.token)
    app = build_app(Library(runs, root), Workbench(device), access)
    config = uvicorn.Config(
        app, log_level="error", access_log=False, server_header=False, timeout_graceful_shutdown=1, ws="none"
    )
    shown = access.host if access.host not in ("", "0.0.0.0", "::") else socket.gethostname()
    address = f"http://{f'[{shown}]' if ':' in shown else shown}:{access.port}/"
    if access.token is not None:
        address += f"?{urlencode({'token': access.token})}"
    started(address)
    if browser:
        threading.Timer(0.5, webbrowser.open, [address]).start()
    with listening:
        uvicorn.Server(config).run(sockets=[listening])


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises UserError if the address cannot be used."""
    name = host.strip("[]")
    try:
        family = socket.getaddrinfo(name or None, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((name, port), family=family)
    except (OSError, UnicodeError, OverflowError) as error:
        reason = str(error.strerror if isinstance(error, OSError) else error).partition(" (while")[0]  # Python adds it
        raise UserError(f"cannot listen on {host}, port {port} ({reason}): choose another --port") from None
