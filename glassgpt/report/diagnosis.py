"""The findings of `glassgpt doctor` on a run, as a section of its report."""

from __future__ import annotations

from html import escape
from pathlib import Path

from typing_extensions import TypedDict  # pydantic needs this one below Python 3.12

from glassgpt.config import read_json_as
from glassgpt.errors import UserError
from glassgpt.report import page

DIAGNOSIS = "doctor.json"  # in a run folder


class FindingFields(TypedDict):
    """What a page shows of one check."""

    name: str
    status: str
    figure: str
    expected: str
    reason: str
    remedy: str


class DiagnosisFile(TypedDict):
    """What a page shows of doctor.json."""

    normal: str
    step: int | None
    findings: list[FindingFields]


def read_diagnosis(run_folder: Path) -> DiagnosisFile | None:
    """What the doctor found; None if it has not examined the run. Raises UserError for a damaged file."""
    path = run_folder / DIAGNOSIS
    if not path.exists():
        return None
    try:
        diagnosis: DiagnosisFile = read_json_as(DiagnosisFile, path)
    except UserError as error:
        raise UserError(f"{error}; run glassgpt doctor again to rewrite it") from None
    return diagnosis


def diagnosis_html(run_folder: Path) -> str:
    """The verdict and a row for each check, failed ones first; empty if the doctor has not examined the run.

    Raises UserError for a damaged file.
    """
    diagnosis = read_diagnosis(run_folder)
    if diagnosis is None:
        return ""
    findings = sorted(diagnosis["findings"], key=lambda finding: finding["status"] != "failed")
    rows = [_row(finding) for finding in findings]
    lead = f"{diagnosis['normal']} (Examined at step {diagnosis['step']}.)"
    header = ("Check", "Result", "Found", "Expected", "Why, and what to do")
    return f"<h2>Is this normal?</h2>\n<p>{escape(lead)}</p>\n" + page.table(rows, header, kind="checks")


def _row(finding: FindingFields) -> tuple[str, ...]:
    """The cells of a finding, as HTML."""
    name, status, found, expected, reason, remedy = (
        escape(finding[field]) for field in ("name", "status", "figure", "expected", "reason", "remedy")
    )
    result = f'<strong class="alarm">{status}</strong>' if status == "failed" else status
    return name, result, found, expected, reason + (f"<br><strong>To do:</strong> {remedy}" if remedy else "")
