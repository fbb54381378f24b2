"""The findings of `glassgpt doctor` on a run, as a section of its report."""

from __future__ import annotations

from html import escape
from pathlib import Path

from glassgpt.errors import UserError
from glassgpt.files import read_json
from glassgpt.report import page

DIAGNOSIS = "doctor.json"  # in a run folder


def diagnosis_html(run_folder: Path) -> str:
    """The verdict and a row for each check, failed ones first; empty if the doctor has not examined the run.

    Raises UserError for a damaged file.
    """
    path = run_folder / DIAGNOSIS
    if not path.exists():
        return ""
    diagnosis = read_json(path)
    try:
        findings = sorted(diagnosis["findings"], key=lambda finding: finding["status"] != "failed")
        rows = [_row(finding) for finding in findings]
        lead = f"{diagnosis['normal']} (Examined at step {diagnosis['step']}.)"
    except (LookupError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error}): run glassgpt doctor again to rewrite it") from None
    header = ("Check", "Result", "Found", "Expected", "Why, and what to do")
    return f"<h2>Is this normal?</h2>\n<p>{escape(lead)}</p>\n" + page.table(rows, header, kind="checks")


def _row(finding: dict[str, str]) -> tuple[str, ...]:
    """The cells of a finding, as HTML."""
    name, status, found, expected, reason = (
        escape(str(finding[field])) for field in ("name", "status", "figure", "expected", "reason")
    )
    result = f'<strong class="alarm">{status}</strong>' if status == "failed" else status
    remedy = f"<br><strong>To do:</strong> {escape(str(finding['remedy']))}" if finding["remedy"] else ""
    return name, result, found, expected, reason + remedy
