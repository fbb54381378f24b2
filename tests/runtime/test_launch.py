"""The launcher of ranks: one message for a failure, and the exit code of the ranks. Tiny programs stand for them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from glassgpt.errors import UserError
from glassgpt.runtime import launch
from glassgpt.runtime.launch import check_devices, run_ranks

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")

SEND = """
from glassgpt.runtime.distributed import join_ranks
ranks = join_ranks()
with ranks.together():
    decided = ranks.on_first(lambda: "the decision")
print(decided)
"""
SLOW = "import time; time.sleep(1)"
WAIT = "import time; time.sleep(60)"
REFUSE = "print('a warning', file=sys.stderr); sys.stderr.write('glassgpt: rank 1: no memory\\n'); sys.exit(2)"


def program(*of_rank: str) -> list[str]:
    """The command of ranks of which each runs its own lines."""
    return [sys.executable, "-c", f"import os, sys; exec({list(of_rank)!r}[int(os.environ['RANK'])])"]


def test_each_rank_is_told_its_place_and_only_the_first_writes(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    note = (
        f"open({str(tmp_path)!r} + '/' + os.environ['RANK'], 'w').write(' '.join(os.environ[name] for name in"
        " ('WORLD_SIZE', 'LOCAL_RANK', 'LOCAL_WORLD_SIZE', 'GROUP_RANK', 'MASTER_ADDR', 'GLASSGPT_LAUNCHED')))\n"
        "print('out', os.environ['RANK']); print('err', os.environ['RANK'], file=sys.stderr)"
    )
    assert run_ranks(program(note, note), 2) == 0
    assert [(tmp_path / rank).read_text() for rank in "01"] == [f"2 {rank} 2 0 127.0.0.1 1" for rank in "01"]
    assert capfd.readouterr() == ("out 0\n", "err 0\n")


def test_a_sentence_of_any_rank_is_said_once(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match=r"^rank 1: no memory$"):
        run_ranks(program("sys.exit(2)", REFUSE, "sys.exit(2)"), 3)
    assert run_ranks(program("sys.stderr.write('glassgpt: wrong\\n'); sys.exit(2)", "sys.exit(2)"), 2) == 2
    assert capfd.readouterr().err == "glassgpt: wrong\n"


def test_an_interrupt_before_the_first_rank_could_refuse_is_an_interrupt(capfd: pytest.CaptureFixture[str]) -> None:
    """It ended with code 2 and without a word: the other rank leaves the sentence to the first."""
    assert run_ranks(program("import time; time.sleep(0.3); sys.exit(130)", "sys.exit(2)"), 2) == 130
    assert capfd.readouterr().err == ""


def test_a_traceback_is_shown_once(capfd: pytest.CaptureFixture[str]) -> None:
    assert run_ranks(program("1 / 0", "1 / 0"), 2) == 1
    assert capfd.readouterr().err.count("ZeroDivisionError") == 1
    assert run_ranks(program(f"sys.exit({launch.LOST})", "1 / 0"), 2) == 1
    error = capfd.readouterr().err
    assert error.startswith("rank 1:\nTraceback") and error.count("ZeroDivisionError") == 1


def test_a_killed_rank_ends_the_others(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(launch, "GRACE_SECONDS", 0.2)
    with pytest.raises(
        UserError, match=r"^rank 1 was ended by SIGKILL, perhaps because the memory was full: .*--resume"
    ):
        run_ranks(program(WAIT, "os.kill(os.getpid(), 9)", f"sys.exit({launch.LOST})"), 3)
    assert capfd.readouterr().err == ""


def test_the_first_rank_leaves_last(capfd: pytest.CaptureFixture[str]) -> None:
    """It serves the store, from which a slower rank still has to read what the first one decided."""
    late = SEND.replace("    decided", f"    {SLOW}\n    decided")
    assert run_ranks(program(SEND, late), 2) == 0
    assert capfd.readouterr().out == "the decision\n"


def test_ranks_that_lost_each_other_say_why() -> None:
    lost = f"sys.stderr.write('glassgpt: rank 1 has lost the other ranks\\n'); sys.exit({launch.LOST})"
    with pytest.raises(UserError, match=r"^rank 1 has lost the other ranks$"):
        run_ranks(program(f"sys.exit({launch.LOST})", lost), 2)


LAUNCHER = """
import sys
from glassgpt.runtime.launch import run_ranks
sys.exit(run_ranks(sys.argv[1:], 2))
"""
COUNT = """
import signal, time
received = []
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda number, _: received.append(number))
print("ready", flush=True)
while not received:
    time.sleep(0.01)
time.sleep(0.2)
open(f"{sys.argv[1]}/{os.environ['RANK']}", "w").write(repr(list(map(int, received))))
sys.exit(128 + received[0])
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_reaches_each_rank_once(tmp_path: Path, number: signal.Signals) -> None:
    """Also from a terminal, which sends it to the whole group of processes."""
    ready = COUNT.replace('print("ready", flush=True)', "open(f\"{sys.argv[1]}/ready-{os.environ['RANK']}\", 'w')")
    command = [*program(ready, ready), str(tmp_path)]
    process = subprocess.Popen([sys.executable, "-c", LAUNCHER, *command], start_new_session=True)
    wait_until_exist({tmp_path / "ready-0": process, tmp_path / "ready-1": process})
    os.killpg(process.pid, number)
    assert process.wait(timeout=30) == 128 + number
    assert [(tmp_path / rank).read_text() for rank in "01"] == [f"[{int(number)}]"] * 2


def wait_until_exist(files: Mapping[Path, subprocess.Popen[bytes]]) -> None:
    while not all(file.exists() for file in files):
        assert all(process.poll() is None for process in files.values())
        time.sleep(0.01)


@pytest.mark.parametrize("n", [-1, 0, 100_000])
def test_a_number_of_devices_out_of_range_is_refused(n: int) -> None:
    with pytest.raises(UserError, match=rf"^--devices {n} is out of range: it must be at least 1"):
        check_devices(n)


def test_ranks_of_torchrun_start_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(UserError, match="torchrun has started them already"):
        check_devices(2)
