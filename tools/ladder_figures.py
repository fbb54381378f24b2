"""Stores the figures of a climb in the package, where `glassgpt look` shows them to those who have not climbed yet.

glassgpt ladder --out runs/ladder
python tools/ladder_figures.py runs/ladder
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

from glassgpt.course.climb import run_name
from glassgpt.course.results import SHIPPED, read_results
from glassgpt.files import dump_json, write_text
from glassgpt.models.ladder import SECTIONS
from glassgpt.report.run_record import read_machine

DIGITS = 5  # significant ones


def main() -> None:
    """Reads a results folder and writes the file of the package."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="results folder of glassgpt ladder")
    parser.add_argument("--command", default="glassgpt ladder", help="the command that made it")
    parser.add_argument("--text", default="Tiny Shakespeare", help="the name of its text")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = [dict(row) for row in read_results(options.folder)]
    if len(rows) != len(SECTIONS):
        parser.error(f"{options.folder} has {len(rows)} of {len(SECTIONS)} sections")
    machine = read_machine(options.folder / run_name(SECTIONS[0], 0))
    about = {
        "command": options.command,
        "machine": f"{machine['processor']}, {machine['cores']} cores, torch {machine['torch'].split('+')[0]}",
        "text": options.text,
    }
    lines = [dump_json({name: _rounded(value) for name, value in row.items() if name != "idea"}) for row in rows]
    head = dump_json(about, indent=1).removesuffix("\n}")
    write_text(Path("glassgpt/course") / SHIPPED, f'{head},\n "rows": [\n  ' + ",\n  ".join(lines) + "\n ]\n}\n")


def _rounded(value: Any) -> Any:
    """The value with as many digits as are shown, so that the file stays small."""
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    if isinstance(value, float) and value and math.isfinite(value):
        return round(value, DIGITS - 1 - math.floor(math.log10(abs(value))))
    return value


if __name__ == "__main__":
    main()
