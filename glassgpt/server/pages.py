"""The files of the app: the page, its styles and scripts, all from the package. Nothing is loaded from the network."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from importlib.resources.abc import Traversable
from string import Template

VIEWS = ("runs", "tokens", "inside", "loss", "heads", "ladder")
MEDIA_TYPES = {".js": "text/javascript", ".mjs": "text/javascript", ".css": "text/css", ".html": "text/html"}
LIBRARIES = {  # names that scripts import, as libraries and our own modules name them
    "preact": "vendor/preact.mjs",
    "preact/hooks": "vendor/hooks.mjs",
    "htm": "vendor/htm.mjs",
}


@dataclass(frozen=True)
class Asset:
    """A file that the app serves."""

    name: str
    data: bytes

    @property
    def media_type(self) -> str:
        """Its type, by its suffix."""
        return MEDIA_TYPES.get("." + self.name.rpartition(".")[2], "application/octet-stream") + "; charset=utf-8"

    @cached_property
    def tag(self) -> str:
        """Its ETag: a browser asks again and gets it only if it has changed."""
        return f'"{hashlib.sha256(self.data).hexdigest()[:32]}"'


class Pages:
    """Every file by its name. A request can only name one of them, so no path leads elsewhere."""

    def __init__(self) -> None:
        root = resources.files("glassgpt.server") / "assets"
        files = {name: Asset(name, data) for name, data in _read(root, "")}
        charts = resources.files("glassgpt.report") / "assets" / "uplot"
        for name in ("uPlot.iife.min.js", "uPlot.min.css"):
            files[f"vendor/{name}"] = Asset(f"vendor/{name}", (charts / name).read_bytes())
        self._template = Template(files.pop("index.html").data.decode())
        self.assets = files

    @cached_property
    def import_map(self) -> str:
        """What the names that scripts import stand for."""
        modules = {f"glass/{name}": name for name in self.assets if name.endswith(".js") and "/" not in name}
        places = {name: f"/assets/{path}" for name, path in (LIBRARIES | modules).items()}
        return json.dumps({"imports": places}, indent=1)

    @cached_property
    def index(self) -> Asset:
        """The page: it is the same for every view, which it reads from its address."""
        return Asset("index.html", self._template.substitute(import_map=self.import_map).encode())

    @property
    def policy(self) -> str:
        """The Content-Security-Policy: scripts from this server, and the import map, which must be in the page."""
        return (
            f"default-src 'none'; script-src 'self' {script_hash(self.import_map)}; style-src 'self' 'unsafe-inline';"
            " img-src 'self' data: blob:; connect-src 'self'; base-uri 'none'; form-action 'none';"
            " frame-ancestors 'none'"
        )


def script_hash(script: str) -> str:
    """How a Content-Security-Policy names an inline script."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def _read(folder: Traversable, prefix: str) -> list[tuple[str, bytes]]:
    found = []
    for file in folder.iterdir():
        if file.is_dir():
            found += _read(file, f"{prefix}{file.name}/")
        elif "." + file.name.rpartition(".")[2] in MEDIA_TYPES:
            found.append((prefix + file.name, file.read_bytes()))
    return found
