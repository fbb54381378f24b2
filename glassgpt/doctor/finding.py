"""What a check found: one line of the doctor's table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

Status = Literal["passed", "failed", "skipped"]


@dataclass(frozen=True)
class Finding:
    """`figure` is what was measured, `expected` what a healthy one is, `reason` why; `remedy` is for a failed check."""

    name: str
    status: Status
    figure: str
    expected: str
    reason: str
    remedy: str = ""


def judge(name: str, good: bool, *, figure: str, expected: str, reason: str, remedy: str) -> Finding:
    """Passed or failed; a remedy goes with the failed one alone."""
    return Finding(name, "passed" if good else "failed", figure, expected, reason, "" if good else remedy)


def skip(name: str, reason: str, *, expected: str = "", figure: str = "not measured") -> Finding:
    """A check that was not made, or came to no end, and why."""
    return Finding(name, "skipped", figure, expected, reason)


@dataclass(frozen=True)
class Diagnosis:
    """All findings on a recipe, or on a run as it was at `step`, with the answer to "is this normal?" in a sentence."""

    target: str
    findings: Sequence[Finding]
    normal: str = ""
    step: int | None = None

    @property
    def healthy(self) -> bool:
        """Whether no check has failed."""
        return self.count("failed") == 0

    def count(self, status: Status) -> int:
        """How many checks ended so."""
        return sum(finding.status == status for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """The diagnosis as `--json` prints it and doctor.json keeps it."""
        return {
            "target": self.target,
            "healthy": self.healthy,
            **{status: self.count(status) for status in ("passed", "failed", "skipped")},
            "normal": self.normal,
            "step": self.step,
            "findings": [asdict(finding) for finding in self.findings],
        }
