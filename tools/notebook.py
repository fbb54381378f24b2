"""Runs the code cells of a notebook without Jupyter, and writes their outputs into it.

    python tools/notebook.py docs/inside.ipynb --folder FOLDER

The cells run in FOLDER, which holds the runs that they open. As in Jupyter, the value of a cell's last line is its
output, as text and, if it has it, as HTML; what a cell prints comes before.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import io
import json
from pathlib import Path
from typing import Any


def run_cell(code: str, number: int, names: dict[str, Any]) -> list[dict[str, Any]]:
    """The outputs of cell `number`, in the format of notebooks (nbformat 4). Its definitions are added to `names`."""
    tree = ast.parse(code)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    printed, value = io.StringIO(), None
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, "<cell>", "exec"), names)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), "<cell>", "eval"), names)
    outputs: list[dict[str, Any]] = []
    if printed.getvalue():
        outputs.append({"output_type": "stream", "name": "stdout", "text": lines(printed.getvalue())})
    if value is not None:
        data = {"text/plain": lines(repr(value))}
        if hasattr(value, "_repr_html_"):
            data["text/html"] = lines(value._repr_html_())
        outputs.append({"output_type": "execute_result", "execution_count": number, "metadata": {}, "data": data})
    return outputs


def lines(text: str) -> list[str]:
    """A text as notebooks store it, so that a change of one line is a change of one line of the file."""
    return text.splitlines(keepends=True)


def run_notebook(notebook: dict[str, Any]) -> dict[str, Any]:
    """The notebook with the outputs of its code cells, which run in order in the current folder."""
    names: dict[str, Any] = {"__name__": "__main__"}
    cells = []
    number = 0
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            number += 1
            cell = cell | {"execution_count": number, "outputs": run_cell("".join(cell["source"]), number, names)}
        cells.append(cell)
    return notebook | {"cells": cells}


def main() -> None:
    """Runs the notebook that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("notebook", type=Path)
    parser.add_argument("--folder", type=Path, default=Path(), help="where the cells run")
    arguments = parser.parse_args()
    notebook = json.loads(arguments.notebook.read_text(encoding="utf-8"))
    with contextlib.chdir(arguments.folder):
        executed = run_notebook(notebook)
    arguments.notebook.write_text(json.dumps(executed, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
