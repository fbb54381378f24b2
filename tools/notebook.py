"""Runs notebooks in Jupyter's kernel: those of the course for its check, and one whose outputs are to be stored.

    python tools/notebook.py docs/inside.ipynb --folder FOLDER

The cells run in FOLDER, which holds the runs that they open.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import tempfile
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import DeadKernelError
from nbformat import NotebookNode
from traitlets.config import Config

from glassgpt.course.notebook import build_notebook
from glassgpt.course.page import RUN, Size, iter_blocks
from glassgpt.course.running import SECONDS, Outcome, copy_experiments

COLOUR = re.compile(r"\x1b\[[\d;]*m")


def run_cells(
    notebook: NotebookNode, folder: Path, env: Mapping[str, str], limit: float = 600
) -> Generator[tuple[NotebookNode, float], None, None]:
    """Runs the code cells in order in `folder`; gives each with its outputs, and its seconds.

    A cell that fails, or takes longer than `limit` seconds, has an output of the kind "error"; the next is run all the
    same. Raises DeadKernelError if the kernel ends.
    """
    with tempfile.TemporaryDirectory(prefix="glassgpt-kernel-") as sockets:
        # Sockets in a folder of our own: nobody else can listen, as one could on a port.
        settings = Config(KernelManager={"transport": "ipc", "ip": f"{sockets}/kernel"})
        client = NotebookClient(
            notebook, config=settings, timeout=limit, interrupt_on_timeout=True, allow_errors=True, record_timing=False
        )
        with client.setup_kernel(cwd=str(folder), env=dict(env)):
            for index, cell in enumerate(notebook.cells):
                if cell.cell_type == "code":
                    start = time.monotonic()
                    client.execute_cell(cell, index)
                    yield cell, time.monotonic() - start


def read_outputs(cell: NotebookNode) -> tuple[str, str | None]:
    """What a cell has printed, and what went wrong or None."""
    printed = COLOUR.sub("", "".join(output.text for output in cell.outputs if output.output_type == "stream"))
    errors = [output for output in cell.outputs if output.output_type == "error"]
    problem = "\n".join(COLOUR.sub("", "\n".join(error.traceback)) for error in errors)
    return printed, f"{printed}\n{problem}".strip() if errors else None


def run_as_notebook(
    markdown: str,
    name: str,
    folder: Path,
    *,
    size: Size,
    env: Mapping[str, str],
    experiments: Path,
    finished: Callable[[Outcome], None],
) -> list[Outcome]:
    """As glassgpt.course.running.run_page, but in the cells of the notebook that is made of the page.

    `name` is the path of the page.
    """
    copy_experiments(markdown, experiments, folder)
    notebook = nbformat.reads(json.dumps(build_notebook(markdown, Path(name).parent, size)), as_version=4)
    nbformat.validate(notebook)
    outcomes = []
    env = {**env, "IPYTHONDIR": str(folder.parent / "ipython")}
    with closing(run_cells(notebook, folder, env, SECONDS[size])) as cells:
        for block in iter_blocks(markdown):
            if block.language not in RUN or block.title is not None:
                continue
            outcome = Outcome(block, 0.0, "", None)
            if block.runs:
                try:
                    cell, seconds = next(cells)
                    outcome = Outcome(block, seconds, *read_outputs(cell))
                except DeadKernelError as error:
                    outcome = Outcome(block, 0.0, "", str(error))
            outcomes.append(outcome)
            finished(outcome)
    return outcomes


def main() -> None:
    """Runs the notebook that the command line names, and writes its outputs into it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("notebook", type=Path)
    parser.add_argument("--folder", type=Path, default=Path(), help="where the cells run")
    options = parser.parse_args()
    notebook = nbformat.read(options.notebook, as_version=4)
    for cell, _ in run_cells(notebook, options.folder, os.environ):
        if problem := read_outputs(cell)[1]:
            parser.exit(1, f"{problem}\n")
    nbformat.write(notebook, options.notebook)


if __name__ == "__main__":
    main()
