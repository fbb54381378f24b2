"""Makes a notebook of a page: its text becomes text cells, and each block that a reader runs a cell of code.

The format is nbformat 4.5, written without Jupyter, which is not needed to make a notebook. Pictures are part of it.
"""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import Any

from glassgpt.course.page import BLOCK, Link, Size, iter_blocks, map_links, without_comments

PICTURES = {".svg": "image/svg+xml", ".png": "image/png"}
OPENED = re.compile(r"<details>\n<summary>([^\n]+)</summary>")


def build_notebook(markdown: str, folder: Path, size: Size = "full") -> dict[str, Any]:
    """The notebook of a page whose pictures are in `folder`. Its code cells are the blocks that run, in order.

    A bash block becomes a cell of %%bash, which ends at the first command that fails. The code of a hidden answer is
    hidden in JupyterLab until one clicks on it.
    """
    cells: list[dict[str, Any]] = []
    text, end, answer = "", 0, ""  # `answer` is the title of the hidden answer that we are in, "" outside
    for block, match in zip(iter_blocks(markdown), BLOCK.finditer(markdown), strict=True):
        text += markdown[end : match.start()]
        end = match.end()
        if not block.runs:
            text += f"```{block.language}\n{block.code}```"
            continue
        answer = _add_text(cells, text, answer, folder)
        text = ""
        code = ("%%bash -e\n" if block.language == "bash" else "") + block.code_at(size)
        hidden = {"jupyter": {"source_hidden": True}} if answer else {}
        cells.append(_cell("code", len(cells), code, hidden) | {"execution_count": None, "outputs": []})
    _add_text(cells, text + markdown[end:], answer, folder)
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}


def _cell(kind: str, number: int, source: str, metadata: dict[str, Any]) -> dict[str, Any]:
    lines = source.strip("\n").splitlines(keepends=True)
    return {"cell_type": kind, "id": f"cell-{number}", "metadata": metadata, "source": lines}


def _add_text(cells: list[dict[str, Any]], text: str, answer: str, folder: Path) -> str:
    """Adds a text cell, unless it would be empty.

    HTML cannot reach from cell to cell. So an answer that code divides is opened and closed in each of its text cells.
    Returns the title of the answer in which the text ends, or "".
    """
    text = without_comments(text)
    if answer:
        rest = text.partition("</details>")[0]
        text = f"<details>\n<summary>{answer}</summary>\n{text}" if rest.strip() else text.partition("</details>")[2]
    opened = OPENED.findall(text)
    ends_inside = text.count("<details>") > text.count("</details>")
    if ends_inside:
        text = f"{text.rstrip()}\n\n</details>"
    attachments: dict[str, dict[str, str]] = {}

    def change(link: Link) -> str:
        path = folder / link.target
        if link.picture and path.suffix in PICTURES:
            data = base64.b64encode(path.read_bytes()).decode()
            attachments[path.name] = {PICTURES[path.suffix]: data}
            return f"![{link.label}](attachment:{path.name})"
        return link.label if link.local else str(link)

    text = map_links(text, change)
    if text.strip():
        cell = _cell("markdown", len(cells), text, {})
        cells.append(cell | {"attachments": attachments} if attachments else cell)
    return opened[-1] if ends_inside else ""
