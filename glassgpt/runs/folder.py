"""Making a run folder: where it goes, who may write to it, and how it appears, whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import glassgpt
from glassgpt.errors import UserError, unknown
from glassgpt.files import locked, read_json, recover_folder, remove_unfinished, replacing_folder, write_text
from glassgpt.runs.config import RunConfig, dump_config
from glassgpt.runtime.device import Runtime, describe_machine
from glassgpt.tokenizers import Tokenizer
from glassgpt.training.checkpoint import Checkpoint, best_checkpoint, discard, list_checkpoints, remove_leftovers
from glassgpt.training.config_formats import NO_STAGE, read_config
from glassgpt.training.metrics import Line, cut_back, final_record, read_lines

RUNS = Path("runs")


def is_imported(folder: Path) -> bool:
    """Whether a run folder holds weights from elsewhere that have not been trained here."""
    kind = read_config(folder / "config.toml").get("run")
    return isinstance(kind, dict) and kind.get("stage") == NO_STAGE


def named_folder(run: str | Path) -> Path:
    """Where a run of that name goes: a path as it is, a name under runs/."""
    folder = Path(run) if "/" in str(run) or os.sep in str(run) else RUNS / run
    last = Path(run).name
    if last in ("", "..") or len(os.fsencode(last)) > 200:
        raise UserError(f"--run '{run}' names no folder: give a name, or a path that ends in one")
    return folder


def free_folder(name: str) -> Path:
    """The folder of that name under runs/, or the first of name-2, name-3, … that does not exist."""
    candidates = [RUNS / name, *(RUNS / f"{name}-{number}" for number in range(2, 10_000))]
    return next(path for path in candidates if not path.exists())


def check_free(folder: Path, overwrite: bool) -> None:
    """Raises UserError where a new run at `folder` would replace what it may not."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not all((folder / name).exists() for name in ("config.toml", "tokenizer.json", "checkpoints")):
        raise UserError(f"{folder} exists and is not a run folder: choose another --run; nothing was changed")
    if not overwrite:
        raise UserError(f"{folder} exists: go on with --resume, replace it with --overwrite, or choose another --run")


@contextlib.contextmanager
def lock_run(folder: Path) -> Iterator[None]:
    """Holds a lock on the run: two processes never write one folder. It ends with the process, however that ends."""
    name = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]
    path = Path(tempfile.gettempdir()) / f"glassgpt-{name}.lock"
    with contextlib.ExitStack() as held:
        try:
            busy = f"another process is training {folder}: wait for it, or choose another --run"
            held.enter_context(locked(path, busy))
        except OSError as error:
            raise UserError(f"cannot lock {folder} by {path}: {error.strerror}; another user may hold it") from None
        with contextlib.suppress(OSError):  # what hinders it, the run itself will meet
            recover_folder(folder)
        yield


@contextlib.contextmanager
def new_run_folder(
    folder: Path, config: RunConfig, tokenizer: Tokenizer, runtime: Runtime, n_parameters: int
) -> Iterator[Path]:
    """A folder with what every run has, to be filled with the rest; then it becomes `folder`, in place of an old run.

    A run exists or it does not. Raises UserError where the disk refuses.
    """
    try:
        with replacing_folder(folder) as temporary:
            write_text(temporary / "config.toml", dump_config(config))
            tokenizer.save(temporary / "tokenizer.json")
            _write_machine(temporary, _describe_session(runtime) | {"parameters": n_parameters})
            yield temporary
    except OSError as error:
        raise UserError(f"cannot write the run folder {folder}: {error.strerror}") from None


def record_session(folder: Path, runtime: Runtime, step: int) -> None:
    """Adds to machine.json where, when and by which version the run goes on after `step`; the first session stays."""
    machine = read_json(folder / "machine.json") if (folder / "machine.json").exists() else {}
    later = [*machine.get("later", []), {"after_step": step, **_describe_session(runtime)}]
    _write_machine(folder, {**machine, "later": later})


def _describe_session(runtime: Runtime) -> dict[str, Any]:
    begun = datetime.now().astimezone().isoformat(timespec="seconds")
    return {**describe_machine(runtime), "glassgpt": version(), "begun": begun}


def _write_machine(folder: Path, machine: dict[str, Any]) -> None:
    write_text(folder / "machine.json", json.dumps(machine, indent=1) + "\n")


def find_last(folder: Path, max_steps: int) -> Checkpoint:
    """The checkpoint from which the run goes on. Raises UserError where there is none, or it is beyond `max_steps`."""
    whole = [checkpoint for checkpoint in list_checkpoints(folder / "checkpoints") if checkpoint.resumable]
    if not whole:
        raise UserError(f"{folder} has no checkpoint to resume from; begin again with --overwrite")
    if whole[-1].step > max_steps:
        raise UserError(f"{folder} is already at step {whole[-1].step}, beyond --max-steps {max_steps}")
    return whole[-1]


def has_ended(folder: Path) -> bool:
    """Whether the run has written its last figures."""
    return final_record(read_lines(folder / "metrics.jsonl")) is not None


def cut_back_to(folder: Path, step: int) -> None:
    """Forgets what came after the checkpoint, and what only the end of a shorter run had added."""
    remove_unfinished(folder)
    remove_leftovers(folder / "checkpoints")
    for checkpoint in list_checkpoints(folder / "checkpoints"):
        if checkpoint.step > step:
            discard(checkpoint.path)

    def keep(record: Line) -> bool:  # what is due at step 0 is done when the loop begins, so again now
        return bool(0 < step >= record["step"] and not record.get("final"))

    files = (folder / "metrics.jsonl", folder / "samples.jsonl")
    for file in files:
        read_lines(file)  # raises for a damaged one, before the other is changed
    for file in files:
        cut_back(file, keep)


def version() -> str:
    """The version of glassgpt, with the commit where it runs from a checkout."""
    package = Path(glassgpt.__file__).parent
    command = ["git", "-C", str(package), "describe", "--always", "--dirty", "--abbrev=12"]
    if not (package.parent / ".git").exists():
        return glassgpt.__version__
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=5)
    except (OSError, subprocess.SubprocessError):
        return glassgpt.__version__
    return f"{glassgpt.__version__} ({done.stdout.strip()})"


def check_trained(folder: Path) -> None:
    """Raises UserError for an imported run, where a text or figures of its own are needed."""
    if is_imported(folder):
        raise UserError(
            f"{folder} was imported and not trained here, so it has no text and no figures of its own: evaluate it with"
            f" --data, or fine-tune it with glassgpt train --init-from {folder}"
        )


def find_run(run: str | Path) -> Path:
    """The folder of an existing run: a name under runs/, else a path."""
    with contextlib.suppress(OSError):  # a name too long for the file system is no run
        for folder in (RUNS / run, Path(run)):
            if (folder / "config.toml").is_file():
                return folder
        if str(run) and (Path(run).is_dir() or (RUNS / run).is_dir()):
            raise UserError(f"{run} is not a run folder: it has no config.toml")
    names = [path.parent.name for path in sorted(RUNS.glob("*/config.toml"))]
    if not names:
        raise UserError(f"there is no run '{run}', and none under {RUNS}/ yet: glassgpt train makes one")
    raise unknown("run", str(run), names)


def named_run(run: str | Path) -> str:
    """A run as a config names it: the path of its folder, also where only its name was given."""
    with contextlib.suppress(UserError):  # one that is gone keeps the name it is given
        return str(find_run(run))
    return str(run)


def find_checkpoint(folder: Path, which: str | int) -> Checkpoint:
    """ "best", "last", or a step.

    The best of a run that has ended is that of its last figures, taken over the whole validation split; before, the one
    with the lowest loss so far, and the last where none was evaluated.
    """
    checkpoints = list_checkpoints(folder / "checkpoints")
    if not checkpoints:
        raise UserError(
            f"{folder} has no checkpoint: training was stopped before the first; start it again with --overwrite"
        )
    if which == "last":
        return checkpoints[-1]
    if which == "best":
        final = final_record(read_lines(folder / "metrics.jsonl")) or {}
        found = [checkpoint for checkpoint in checkpoints if checkpoint.step == final.get("best/step")]
        return next(iter(found), None) or best_checkpoint(checkpoints) or checkpoints[-1]
    steps = [checkpoint.step for checkpoint in checkpoints]
    if not re.fullmatch("[0-9]+", str(which)) or int(which) not in steps:
        raise UserError(f"{folder} has no checkpoint '{which}': it has best, last, {', '.join(map(str, steps))}")
    return checkpoints[steps.index(int(which))]
