"""HTML for a page that is one file: tables, embedded data, and scripts that nothing can be slipped into."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib import resources
from string import Template
from typing import Any


def asset(name: str) -> str:
    """The text of a file in `assets/`."""
    return (resources.files("glassgpt.report") / "assets" / name).read_text(encoding="utf-8")


def render(*, title: str, body: str, data: Any, library: str) -> str:
    """The whole page around `body`, which is HTML; `data` is what its script draws, by the JavaScript `library`."""
    script = asset("report.js")
    return Template(asset("report.html")).substitute(
        policy=content_policy([library, script]),
        title=escape(title),
        style=asset("report.css"),
        body=body,
        data=embedded_json(data),
        plotly=library,
        script=script,
    )


def content_policy(scripts: Iterable[str]) -> str:
    """A Content-Security-Policy under which these scripts run, no other does, and nothing is loaded from anywhere."""
    hashes = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in hashes)
    return f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:"


def embedded_json(value: Any) -> str:
    """JSON that may stand inside a <script> element: no "<" in it can end the element."""
    return json.dumps(value, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def table(rows: Iterable[Sequence[str]], header: Sequence[str] = (), *, kind: str = "") -> str:
    """A table of cells that are HTML already; the first cell of a row names it."""
    head = f"<thead><tr>{''.join(f'<th>{cell}</th>' for cell in header)}</tr></thead>" if header else ""
    lines = "\n".join(
        f"<tr><th>{first}</th>{''.join(f'<td>{cell}</td>' for cell in rest)}</tr>" for first, *rest in rows
    )
    return f'<div class="scroll"><table class="{kind}">{head}<tbody>\n{lines}\n</tbody></table></div>'


def flattened(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings as one level, `{"model": {"n_head": 4}}` as `{"model.n_head": "4"}`; nothing is escaped yet."""
    flat: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= flattened(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = setting(value)
    return flat


def setting(value: Any) -> str:
    """A setting as its owner would type it."""
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
