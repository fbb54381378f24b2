"""Draws a run as one SVG picture: `python tools/run_picture.py RUN OUT`. That of the README is docs/demo.svg."""

from __future__ import annotations

import sys
from pathlib import Path

from glassgpt.report.run_picture import draw_run
from glassgpt.report.run_record import read_record
from glassgpt.runs.folder import find_run

if __name__ == "__main__":
    run, out = sys.argv[1:]
    Path(out).write_text(draw_run(read_record(find_run(run))), encoding="utf-8")
