"""The result of a check, and of all checks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

Status = Literal["passed", "failed", "skipped"]


@dataclass(frozen=True)
class Finding:
    """Result of one check: `figure` measured, `expected` range, the `reason` for it, and a `remedy` if it failed."""

    name: str
    status: Status
    figure: str
    expected: str
    reason: str
    remedy: str = ""


def judge(name: str, good: bool, *, figure: str, expected: str, reason: str, remedy: str) -> Finding:
    """A passed or failed check; only a failed one gets the remedy."""
    return Finding(name, "passed" if good else "failed", figure, expected, reason, "" if good else remedy)


def skip(name: str, reason: str, *, expected: str = "", figure: str = "not measured") -> Finding:
    """A check that was not run or not finished, and why."""
    return Finding(name, "skipped", figure, expected, reason)


@dataclass(frozen=True)
class Diagnosis:
    """All findings on a recipe, or on a run at `step`; `normal` answers "is this normal?" in one sentence."""

    target: str
    findings: Sequence[Finding]
    normal: str = ""
    step: int | None = None

    @property
    def healthy(self) -> bool:
        """Whether no check has failed."""
        return self.count("failed") == 0

    def count(self, status: Status) -> int:
        """Number of checks with this status."""
        return sum(finding.status == status for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """The diagnosis as `--json` prints it and doctor.json stores it."""
        return {
            "target": self.target,
            "healthy": self.healthy,
            **{status: self.count(status) for status in ("passed", "failed", "skipped")},
            "normal": self.normal,
            "step": self.step,
            "findings": [asdict(finding) for finding in self.findings],
        }
