"""HTML for self-contained pages: tables, embedded data, and a content policy against injected scripts."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib import resources
from itertools import repeat
from string import Template
from typing import Any

from glassgpt.ownership import HTML_MARK


def asset(name: str) -> str:
    """The text of a file in `assets/`."""
    return (resources.files("glassgpt.report") / "assets" / name).read_text(encoding="utf-8")


def render(*, title: str, body: str, data: Any) -> str:
    """The complete page around `body` (HTML). Its script draws `data` with uPlot, see `assets/uplot/README.md`."""
    library, script = asset("uplot/uPlot.iife.min.js"), asset("report.js")
    return Template(asset("report.html")).substitute(
        generator=HTML_MARK,
        policy=content_policy([library, script]),
        title=escape(title),
        style=asset("uplot/uPlot.min.css") + "\n" + asset("look.css") + asset("report.css"),
        body=body,
        data=embedded_json(data),
        licence=asset("uplot/LICENSE").strip(),
        library=library,
        script=script,
    )


def content_policy(scripts: Iterable[str]) -> str:
    """A Content-Security-Policy that allows only these scripts and loads nothing from the network."""
    hashes = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in hashes)
    return f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:"


def embedded_json(value: Any) -> str:
    """JSON that is safe inside a <script> element: "<" is escaped, so it cannot end the element."""
    return json.dumps(value, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def table(rows: Iterable[Sequence[str]], header: Sequence[str] = (), *, kind: str = "") -> str:
    """A table of cells that are already HTML; the first cell of a row is its header.

    A cell also names its column, because a narrow screen shows each row as a card, without the head of the table.
    """
    head = f"<thead><tr>{''.join(f'<th>{cell}</th>' for cell in header)}</tr></thead>" if header else ""
    starts = [f'<td data-column="{title}">' for title in header[1:]] or repeat("<td>")
    lines = "\n".join(
        f"<tr><th>{first}</th>{''.join(f'{start}{cell}</td>' for start, cell in zip(starts, rest, strict=False))}</tr>"
        for first, *rest in rows
    )
    return f'<div class="scroll"><table class="{kind}">{head}<tbody>\n{lines}\n</tbody></table></div>'


def flattened(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Flattens nested settings, `{"model": {"n_head": 4}}` to `{"model.n_head": "4"}`; values are not yet escaped."""
    flat: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= flattened(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = setting(value)
    return flat


def setting(value: Any) -> str:
    """A setting as a user would type it."""
    match value:
        case None:
            return "–"
        case bool():
            return str(value).lower()
        case list() if value and not any(isinstance(part, dict | list) for part in value):
            return ", ".join(map(setting, value))
        case dict() | list():
            return json.dumps(value)
        case _:
            return str(value)
