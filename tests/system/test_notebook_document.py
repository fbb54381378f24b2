"""docs/inside.ipynb runs as written, and its pictures are those that the code draws today."""

from __future__ import annotations

import importlib.util
import json
import os
import re
from pathlib import Path
from typing import Any

from command_line import glassgpt

from glassgpt.report import page

ROOT = Path(__file__).resolve().parent.parent.parent
NOTEBOOK = ROOT / "docs" / "inside.ipynb"
spec = importlib.util.spec_from_file_location("notebook", ROOT / "tools" / "notebook.py")
assert spec is not None and spec.loader is not None
notebook_tool = importlib.util.module_from_spec(spec)
spec.loader.exec_module(notebook_tool)


def outputs(notebook: dict[str, Any]) -> list[dict[str, str]]:
    """What each code cell shows, by kind: printed text, or the value of its last line in each format."""
    found = []
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            shown: dict[str, str] = {}
            for output in cell["outputs"]:
                parts = {"printed": output["text"]} if "text" in output else output["data"]
                shown |= {kind: "".join(text) for kind, text in parts.items()}
            found.append(shown)
    return found


def test_the_notebook_is_in_step_with_the_code(elsewhere: Path) -> None:
    """A run of five steps stands in for the one that the notebook opens: its numbers differ, the pictures do not."""
    small = {"training.max_steps": 5, "schedule.warmup_steps": 1, "training.batch_tokens": 64, "evaluation.tokens": 64}
    options = [part for name, value in small.items() for part in ("--set", f"{name}={value}")]
    trained = glassgpt("train", "induction", *options)
    assert trained.code == 0, trained.err

    stored = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    executed = notebook_tool.nbformat.read(NOTEBOOK, as_version=4)
    for _ in notebook_tool.run_cells(executed, Path(), os.environ):
        pass
    advice = "run tools/notebook.py docs/inside.ipynb in a folder with runs/induction"
    for before, now in zip(outputs(stored), outputs(executed), strict=True):
        assert before and before.keys() == now.keys(), advice
        if "printed" in before:
            assert re.sub(r"[\d.]+", "0", before["printed"]) == re.sub(r"[\d.]+", "0", now["printed"]), advice
        else:
            question, html = before["text/plain"].splitlines()[0], before["text/html"]
            assert question == now["text/plain"].splitlines()[0], advice
            assert question in html and page.asset("look.css") in html, advice
            assert set(re.findall(r"<\w+", html)) == set(re.findall(r"<\w+", now["text/html"])), advice
    counts = [cell["execution_count"] for cell in stored["cells"] if cell["cell_type"] == "code"]
    assert counts == list(range(1, len(counts) + 1))


def test_the_notebook_is_small() -> None:
    assert NOTEBOOK.stat().st_size < 100_000
