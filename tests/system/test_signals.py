"""What only a process of its own can show: signals, kills, two at once, and what a start costs."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import random
import signal
import subprocess
import sys
import termios
from pathlib import Path
from unittest import mock

import pytest
from command_line import Command, contents, figures, glassgpt, last_checkpoint, settings, weights

from glassgpt.runs import train as train_module
from glassgpt.training.metrics import read_lines

ENDLESS = ["--max-steps", 1_000_000]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_finishes_the_step_saves_and_leaves(
    start: type[Command], text_file: Path, tmp_path: Path, trained: Path, number: int, code: int
) -> None:
    run = tmp_path / "run"
    command = start("train", "char-tiny", "--data", text_file, "--run", run, *ENDLESS, *settings(), "--json")
    command.wait_for("step     7/")
    returned, out, err = command.end(number)
    assert (returned, out) == (code, "")
    assert "Traceback" not in err
    assert "--resume" in err.splitlines()[-1]
    assert str(run) in err.splitlines()[-1]

    steps = [line["step"] for line in figures(run) if "lr" in line]
    assert last_checkpoint(run).name == f"step-{steps[-1]:08d}"
    assert (run / "report.html").is_file()
    if steps[-1] < 40:  # a slow machine delivers the signal late
        assert glassgpt("train", "--run", run, "--resume", "--max-steps", 40).code == 0
        assert weights(run) == weights(trained)
        assert [line for line in figures(run) if "lr" in line] == [line for line in figures(trained) if "lr" in line]


def attach(ignored: bool) -> None:
    """Makes the terminal on stdin that of the new session."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else signal.SIG_DFL)
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


@pytest.mark.parametrize("ignored", [False, True])
def test_a_terminal_that_closes_ends_no_run_unsaved(text_file: Path, tmp_path: Path, ignored: bool) -> None:
    """Its signal comes when no message can be shown any more. With it ignored, as under nohup, training goes on."""
    run, (master, slave) = tmp_path / "run", pty.openpty()
    command = [
        sys.executable,
        "-m",
        "glassgpt",
        "train",
        "char-tiny",
        "--data",
        text_file,
        "--run",
        run,
        *ENDLESS,
        *settings(),
    ]
    process = subprocess.Popen(
        [str(word) for word in command], stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
        preexec_fn=lambda: attach(ignored),
    )  # fmt: skip
    os.close(slave)
    try:
        while len(read_lines(run / "metrics.jsonl")) < 7:  # the last line may be half written
            os.read(master, 4096)
        os.close(master)
        if ignored:
            before = len(read_lines(run / "metrics.jsonl"))
            while len(read_lines(run / "metrics.jsonl")) < before + 20:
                assert process.poll() is None
            process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == (143 if ignored else 129)
    finally:
        process.kill()
    assert last_checkpoint(run).name == f"step-{figures(run)[-1]['step']:08d}"


def test_a_signal_that_ends_the_reader_of_stderr_too_saves_all_the_same(
    start: type[Command], text_file: Path, tmp_path: Path
) -> None:
    """As Ctrl-C does with `glassgpt train 2>&1 | tee log`."""
    run = tmp_path / "run"
    command = start("train", "char-tiny", "--data", text_file, "--run", run, *ENDLESS, *settings(checkpoint__every=0))
    command.wait_for("step     7/")
    assert command.process.stderr is not None
    command.process.stderr.close()
    command.process.send_signal(signal.SIGINT)
    assert command.process.wait(timeout=60) == 130
    steps = [line["step"] for line in figures(run) if "lr" in line]
    assert last_checkpoint(run).name == f"step-{steps[-1]:08d}"


def test_a_second_interrupt_stops_at_once(start: type[Command], text_file: Path, tmp_path: Path) -> None:
    # One step of this run takes minutes: 2¹⁸ rows, one at a time.
    minutes = settings(training__batch_tokens=2**23, training__micro_batch=1, training__max_steps=2)
    run = tmp_path / "run"
    command = start("train", "char-tiny", "--data", text_file, "--run", run, *minutes)
    command.wait_for("step 0 writes")
    for _ in range(2):
        with pytest.raises(subprocess.TimeoutExpired):  # time to begin its step, and then to notice the signal
            command.process.wait(timeout=1.5)
        command.process.send_signal(signal.SIGINT)
    returned, _, err = command.end()
    assert returned == 130
    assert "Traceback" not in err
    assert err.splitlines()[-1] == f"glassgpt: stopped at once: {run} has its last checkpoint, go on with --resume"
    assert last_checkpoint(run).name == "step-00000000"


@pytest.mark.parametrize(
    ("moment", "said"),
    [
        ("build_session", "stopped before the first step: nothing was saved"),
        ("decide_new_run", "stopped: what was not finished is not saved"),
    ],
)
def test_an_interrupt_before_the_first_step_says_what_it_left(
    text_file: Path, elsewhere: Path, moment: str, said: str
) -> None:
    with mock.patch.object(train_module, moment, side_effect=KeyboardInterrupt):
        result = glassgpt("train", "char-tiny", "--data", text_file, "--run", "new", *settings())
    assert (result.code, result.out) == (130, "")
    assert result.err.splitlines()[-1] == f"glassgpt: {said}"
    assert not Path("runs/new").exists()


def test_killed_at_random_moments_a_run_ends_as_if_it_had_not_been(
    start: type[Command], text_file: Path, tmp_path: Path, trained: Path
) -> None:
    run, steps = tmp_path / "run", random.Random(3)
    for first, last in ((1, 12), (13, 25), (26, 38)):
        command = start("train", "char-tiny", "--data", text_file, "--run", run, "--resume", *settings())
        command.wait_for(f"step {steps.randint(first, last):>5}/")
        assert command.end(signal.SIGKILL)[0] == -signal.SIGKILL
    assert glassgpt("train", "--run", run, "--resume").code == 0
    assert weights(run) == weights(trained)
    assert figures(run) == figures(trained)
    assert (run / "samples.jsonl").read_bytes() == (trained / "samples.jsonl").read_bytes()
    assert not [name for name in contents(run) if ".tmp" in name]


def test_a_run_that_is_being_trained_is_left_alone(start: type[Command], text_file: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    options = ["--data", text_file, "--run", run, *settings()]
    first = start("train", *options, *ENDLESS)
    first.wait_for("step     3/")
    for way in (["--resume", *ENDLESS], ["--overwrite"]):
        assert str(run) in glassgpt("train", *options, *way).error
    assert first.process.poll() is None
    assert first.end(signal.SIGKILL)[0] == -signal.SIGKILL
    steps = [line["step"] for line in figures_until_a_kill(run) if "lr" in line]
    assert steps == list(range(1, len(steps) + 1))  # nobody else wrote there
    assert glassgpt("train", *options, "--overwrite").code == 0  # and the killed one holds nobody up


def figures_until_a_kill(run: Path) -> list[dict[str, object]]:
    """The whole lines of metrics.jsonl: a kill may cut the last one short."""
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1]]


def test_help_needs_no_torch() -> None:
    code = (
        "import sys; sys.argv = ['glassgpt', '--help']\n"
        "from glassgpt.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print('\\nloaded:', *(name for name in ('torch', 'numpy', 'tiktoken') if name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for verb in ("train", "sample", "eval", "report", "recipes", "data"):
        assert verb in done.stdout
    assert done.stdout.splitlines()[-1].strip() == "loaded:"


def test_a_reader_that_leaves_early_is_no_error(start: type[Command], trained: Path) -> None:
    command = start("sample", trained, "--prompt", "The cat", "--max-new-tokens", 100_000)
    assert command.process.stdout is not None
    assert command.process.stdout.read(7) == "The cat"
    command.process.stdout.close()
    assert command.process.stderr is not None
    assert command.process.stderr.read() == ""
    assert command.process.wait(timeout=60) == 0
