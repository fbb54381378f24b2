"""What a person sees on a terminal of 80 columns, and in a pipe."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from command_line import glassgpt
from rich.cells import cell_len

from glassgpt.cli.doctor import print_finding
from glassgpt.doctor.diagnosis import diagnose
from glassgpt.report.daybook import add_note

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")

NAMES = ["a", "an-experiment-with-learning-rate-3e-4-and-seed-7", "红楼梦-第一回", "опыт"]


def on_terminal(*arguments: object) -> tuple[int, list[str]]:
    """Exit code and lines of the command on a terminal of 80 columns, without colours."""
    code, written = raw_terminal(*arguments)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written.decode().replace("\r\n", "\n"))
    return code, text.rstrip("\n").split("\n")


def raw_terminal(*arguments: object) -> tuple[int, bytes]:
    """Exit code and output of the command on a terminal of 80 columns."""
    import fcntl
    import pty
    import struct
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"} | {"TERM": "xterm"}
    command = [sys.executable, "-m", "glassgpt", *map(str, arguments)]
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    written = b""
    try:
        while part := os.read(ours, 65536):
            written += part
    except OSError:  # Linux: the last writer has closed it
        pass
    os.close(ours)
    return process.wait(), written


def with_runs(trained: Path, names: Sequence[str]) -> None:
    for name in names:
        shutil.copytree(trained, Path("runs") / name)


def test_runs_shows_names_steps_and_losses(elsewhere: Path, trained: Path) -> None:
    with_runs(trained, NAMES)
    code, lines = on_terminal("runs")
    assert code == 0 and max(map(cell_len, lines)) <= 80
    assert lines[0].split()[:3] == ["run", "steps", "val"]
    (loss,) = {line.split()[2] for line in lines[1:]}
    assert re.fullmatch(r"\d\.\d{4}", loss)
    assert sorted(line.split()[0] for line in lines[1:]) == sorted(NAMES)


def test_runs_in_a_pipe_shows_everything_or_obeys_columns(
    elsewhere: Path, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    with_runs(trained, [f"run-{number}" for number in range(3)])
    add_note(Path("runs/run-0"), "a note of many words " * 10)
    lines = glassgpt("runs").out.splitlines()
    assert any("a note of many words " * 9 in line for line in lines)
    assert lines[0].split()[:3] == ["run", "steps", "val"] and "bits/byte" in lines[0]
    monkeypatch.setenv("COLUMNS", "60")
    lines = glassgpt("runs").out.splitlines()
    assert len(lines) == 4 and max(map(len, lines)) <= 60


def test_a_damaged_run_is_named_with_its_reason(elsewhere: Path, trained: Path) -> None:
    with_runs(trained, ["good", "bad"])
    Path("runs/bad/metrics.jsonl").write_text("x\n")
    assert "bad is damaged: runs/bad/metrics.jsonl, line 1" in glassgpt("runs").out


def test_doctor_shows_all_it_found_and_explains_what_failed(
    text_file: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    findings = diagnose("char-tiny", settings={"data.source": str(text_file), "optimizer.lr": 0.2}).findings
    assert len(findings) == 10 and any(len(finding.figure) > 49 for finding in findings)
    assert {"passed", "failed"} <= {finding.status for finding in findings}
    for finding in findings:
        print_finding(finding)
        out = capsys.readouterr().out
        print_finding(finding, explain=True)
        explained = capsys.readouterr().out
        assert max(map(len, explained.splitlines())) <= 80
        assert " ".join(out.split()).startswith(f"{finding.status} {finding.name} {finding.figure}")
        assert f"expected {finding.expected} why {finding.reason}" in " ".join(explained.split())
        assert (out == explained) == (finding.status == "failed")


@pytest.mark.parametrize(
    "arguments",
    [
        (
            "train",
            "char-tiny",
            "--data",
            "no/such/file/anywhere/on/this/disk/that/is/longer/than/a/line/of/eighty/columns.txt",
        ),
        ("eval", "no-such-run", "--checkpoint", "best"),
        ("data", "list"),
        ("recipes",),
        ("train", "--help"),
    ],
)
def test_nothing_breaks_inside_a_word(elsewhere: Path, arguments: tuple[str, ...]) -> None:
    _, lines = on_terminal(*arguments)
    assert [line for line in lines if cell_len(line) > 80 and len(line.split()) > 1] == []
    assert sum(line.startswith("glassgpt: ") for line in lines) <= 1


def test_an_error_in_a_pipe_is_one_line(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    result = glassgpt("train", "char-tiny", "--data", "no/such/file")
    assert result.err == f"glassgpt: {result.error}\n"
