"""The findings of `glassgpt doctor` on a run, as a section of its report."""

from __future__ import annotations

from html import escape
from pathlib import Path

from glassgpt.errors import UserError
from glassgpt.files import read_json
from glassgpt.report import page

DIAGNOSIS = "doctor.json"  # in a run folder


def diagnosis_html(run_folder: Path) -> str:
    """The verdict and a row for each check; empty if the doctor has not examined the run.

    Raises UserError for a damaged file.
    """
    path = run_folder / DIAGNOSIS
    if not path.exists():
        return ""
    diagnosis = read_json(path)
    try:
        rows = [
            (finding["name"], finding["status"], finding["figure"], finding["expected"], _advice(finding))
            for finding in diagnosis["findings"]
        ]
        lead = f"{diagnosis['normal']} (Examined at step {diagnosis['step']}.)"
    except (LookupError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error}): run glassgpt doctor again to rewrite it") from None
    cells = [tuple(escape(str(cell)) for cell in row) for row in rows]
    header = ("Check", "", "Found", "Expected", "Why, and what to do")
    return f"<h2>Is this normal?</h2>\n<p>{escape(lead)}</p>\n" + page.table(cells, header, kind="wide")


def _advice(finding: dict[str, str]) -> str:
    return f"{finding['reason']} → {finding['remedy']}" if finding["remedy"] else finding["reason"]
