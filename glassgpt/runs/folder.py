"""Names, finds, creates and locks run folders, and removes what was written after a checkpoint."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import glassgpt
from glassgpt.errors import UserError, option, unknown
from glassgpt.files import (
    LOCK,
    locked,
    real_path,
    recover_folder,
    remove_unfinished,
    replacing_folder,
    user_path,
    write_text,
)
from glassgpt.ownership import is_run_folder, split_runs
from glassgpt.report.run_record import read_machine
from glassgpt.runs.config import RunConfig, dump_config
from glassgpt.runtime.device import Runtime, describe_machine
from glassgpt.tokenizers import Tokenizer
from glassgpt.training.checkpoint import Checkpoint, best_checkpoint, discard, list_checkpoints
from glassgpt.training.config_formats import NO_STAGE, read_config
from glassgpt.training.metrics import Line, cut_back, final_record, read_lines

RUNS = Path("runs")


def is_imported(folder: Path) -> bool:
    """Whether the run was imported and not trained here."""
    kind = read_config(folder / "config.toml").get("run")
    return isinstance(kind, dict) and kind.get("stage") == NO_STAGE


def named_folder(run: str | Path) -> Path:
    """Folder for a run: a path stays as it is, a name goes under runs/. Raises UserError for an invalid one."""
    run = _expanded(run)
    folder = Path(run) if _has_separator(run) else RUNS / run
    last = Path(run).name
    if last in ("", "..") or len(os.fsencode(last)) > 200:
        raise UserError(
            f"{option(run=None)} '{run}' is not the name of a folder: give a name, or a path that ends in one"
        )
    return folder


def _has_separator(run: str | Path) -> bool:
    return "/" in str(run) or os.sep in str(run)


def _expanded(run: str | Path) -> str | Path:
    """The run with the home folder for a leading ~/ or ~user/, which a shell leaves in place after `--run=`."""
    return user_path(run) if str(run).startswith("~") and "/" in str(run) else run


def free_folder(name: str) -> Path:
    """The folder of that name under runs/, or the first of name-2, name-3, … that does not exist."""
    candidates = [RUNS / name, *(RUNS / f"{name}-{number}" for number in range(2, 10_000))]
    return next(path for path in candidates if not path.exists())


def check_free(folder: Path, overwrite: bool, *, resumes: bool = False) -> None:
    """Raises UserError if a new run may not be written to `folder`: it is in use, or lies inside another run.

    `resumes` says that the caller could also go on with a run that is there.
    """
    for outer in real_path(folder).parents:
        if is_run_folder(outer):
            raise UserError(
                f"{folder} lies inside the run {outer}, which may be replaced: choose another {option(run=None)}"
            )
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    whole = all((folder / name).exists() for name in ("config.toml", "tokenizer.json", "checkpoints"))
    if not whole or not is_run_folder(folder):
        raise UserError(
            f"{folder} exists and is not a run folder: choose another {option(run=None)}; nothing was changed"
        )
    if not overwrite:
        go_on = f"go on with {option(resume=True)}, " if resumes else ""
        raise UserError(
            f"{folder} exists: {go_on}replace it with {option(overwrite=True)}, or choose another {option(run=None)}"
        )


@contextlib.contextmanager
def lock_run(folder: Path) -> Iterator[None]:
    """Locks the run, so that two processes never write to one folder. It ends with the process, even if killed.

    One lock lies beside the folder, because a new run has none yet and --overwrite replaces it. Another lies in the
    folder of a run, for processes that may not write beside it, or that see it at another place, as a container does.
    """
    folder = real_path(folder)
    with contextlib.ExitStack() as held:
        try:
            try:
                held.enter_context(locked(folder.with_name(f"{LOCK}-{folder.name}"), _busy(folder)))
            except OSError:
                if not is_run_folder(folder):
                    raise
            with contextlib.suppress(OSError):  # the run itself will meet the same error and report it
                recover_folder(folder)
            if is_run_folder(folder):
                held.enter_context(lock_inside(folder))
        except OSError as error:
            raise UserError(f"cannot lock {error.filename or folder}: {error.strerror}") from None
        yield


def lock_inside(folder: Path) -> contextlib.AbstractContextManager[None]:
    """The lock in the folder of a run. `lock_run` takes it if there is a run, and the creator of a new one later."""
    return locked(real_path(folder) / LOCK, _busy(folder))


def _busy(folder: Path) -> str:
    return f"another process is training {folder}: wait for it, or choose another {option(run=None)}"


@contextlib.contextmanager
def new_run_folder(
    folder: Path, config: RunConfig, tokenizer: Tokenizer, runtime: Runtime, n_parameters: int
) -> Iterator[Path]:
    """Yields a temporary folder with the files of every run, for the caller to complete; then renames it to `folder`.

    The run, which replaces an old one, appears complete or not at all. Raises UserError if it cannot be written.
    """
    try:
        with replacing_folder(folder) as temporary:
            write_text(temporary / "config.toml", dump_config(config))
            tokenizer.save(temporary / "tokenizer.json")
            _write_machine(temporary, _describe_session(runtime) | {"parameters": n_parameters})
            yield temporary
    except OSError as error:
        raise UserError(f"cannot write the run folder {folder}: {error.strerror}") from None


def record_session(folder: Path, runtime: Runtime, step: int, changed: dict[str, Any]) -> None:
    """Adds to machine.json on which machine, when and with which version the run was resumed after `step`.

    `changed` has the settings that end bit-exactness there: [old, new] by name.
    """
    machine = read_machine(folder)
    later = [*machine.get("later", []), {"after_step": step, **changed, **_describe_session(runtime)}]
    _write_machine(folder, {**machine, "later": later})


def _describe_session(runtime: Runtime) -> dict[str, Any]:
    begun = datetime.now().astimezone().isoformat(timespec="seconds")
    return {**describe_machine(runtime), "glassgpt": version(), "begun": begun}


def _write_machine(folder: Path, machine: dict[str, Any]) -> None:
    write_text(folder / "machine.json", json.dumps(machine, indent=1) + "\n")


def find_last(folder: Path, max_steps: int) -> Checkpoint:
    """The last resumable checkpoint. Raises UserError if there is none, or if it is beyond `max_steps`."""
    resumable = [checkpoint for checkpoint in list_checkpoints(folder / "checkpoints") if checkpoint.resumable]
    if not resumable:
        raise UserError(f"{folder} has no checkpoint to resume from; begin again with {option(overwrite=True)}")
    if resumable[-1].step > max_steps:
        raise UserError(f"{folder} is already at step {resumable[-1].step}, beyond {option(max_steps=max_steps)}")
    return resumable[-1]


def has_ended(folder: Path) -> bool:
    """Whether the run has written its final figures."""
    return final_record(read_lines(folder / "metrics.jsonl")) is not None


def cut_back_to(folder: Path, step: int) -> None:
    """Removes what was written after `step`: checkpoints, figures and samples.

    Of a run that ended there, it also removes what was measured only because it ended.
    """
    remove_unfinished(folder)
    remove_unfinished(folder / "checkpoints")
    for checkpoint in list_checkpoints(folder / "checkpoints"):
        if checkpoint.step > step:
            discard(checkpoint.path)

    def keep(record: Line) -> bool:  # a run resumed at step 0 repeats what is due at step 0
        return bool(0 < step >= record["step"] and not record.get("final") and not record.get("at_end"))

    files = (folder / "metrics.jsonl", folder / "samples.jsonl")
    for file in files:
        read_lines(file)  # raises for a damaged file, before either is changed
    for file in files:
        cut_back(file, keep)


def version() -> str:
    """The version of glassgpt, with the commit if it runs from a git checkout."""
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
    """Raises UserError for an imported run, which has no training text and no figures."""
    if is_imported(folder):
        raise UserError(
            f"{folder} was imported and not trained here, so it has no text and no figures of its own: evaluate it with"
            f" {option(data=None)}, or train a new run with {option(init_from=str(folder))}"
        )


def list_runs() -> list[str]:
    """The names of the runs under runs/."""
    return [folder.name for folder in split_runs(RUNS)[0]]


def find_run(run: str | Path) -> Path:
    """The folder of a run, given by its name under runs/ or its path. Raises UserError if there is none.

    If both exist, `x` is the run under runs/, and what looks like a path (`./x`, `a/x`, `/a/x`) is the path.
    """
    run = _expanded(run)
    folders = [RUNS / run, Path(run)]
    if str(run).startswith((".", "~")) or _has_separator(run):
        folders.reverse()
    with contextlib.suppress(OSError):  # the name may be too long for the file system
        for folder in folders:
            if is_run_folder(folder):
                return folder
    raise missing_run(run)


def is_run(name: str) -> bool:
    """Whether there is a run of this name, or at this path."""
    with contextlib.suppress(UserError):
        return find_run(name).is_dir()
    return False


def find_folder_of_runs(name: str) -> Path | None:
    """A folder of runs, given by its name under runs/ or its path; None if it is itself a run, or has no runs."""
    if is_run(name):
        return None
    with contextlib.suppress(OSError):  # the name may be too long for the file system
        for folder in (Path(_expanded(name)), RUNS / name):
            if split_runs(folder)[0]:
                return folder
    return None


def missing_run(run: str | Path) -> UserError:
    """The error for a run that does not exist."""
    with contextlib.suppress(OSError):
        if str(run) and (Path(run).is_dir() or (RUNS / run).is_dir()):
            return UserError(
                f"{run} is a folder but not a run: a run has a config.toml with a format and a [model], and checkpoints"
                " beside it"
            )
    names = list_runs()
    if not names:
        return UserError(f"there is no run '{run}', and none under {RUNS}/ yet: glassgpt train makes one")
    return unknown("run", str(run), names)


def named_run(run: str | Path) -> str:
    """The path of a run's folder, as a config records it, given its name or path."""
    with contextlib.suppress(UserError):  # a run that was deleted: keep the given name
        return str(find_run(run))
    return str(run)


def find_checkpoint(folder: Path, which: str | int) -> Checkpoint:
    """Finds a checkpoint: "best", "last" or a step. Raises UserError if there is none.

    The best checkpoint of a finished run is the one in its final figures, measured on the whole validation split. Of
    an unfinished run, it is the one with the best score so far, or the last one if none was evaluated.
    """
    checkpoints = list_checkpoints(folder / "checkpoints")
    if not checkpoints:
        raise UserError(
            f"{folder} has no checkpoint: training was stopped before the first; start it again with"
            f" {option(overwrite=True)}"
        )
    if which == "last":
        return checkpoints[-1]
    if which == "best":
        final = final_record(read_lines(folder / "metrics.jsonl")) or {}
        found = [checkpoint for checkpoint in checkpoints if checkpoint.step == final.get("best/step")]
        return next(iter(found), None) or best_checkpoint(checkpoints) or checkpoints[-1]
    by_step = {str(checkpoint.step): checkpoint for checkpoint in checkpoints}
    wanted = str(which).lstrip("0") or "0"
    if wanted not in by_step:
        raise UserError(f"{folder} has no checkpoint '{which}': it has best, last, {', '.join(by_step)}")
    return by_step[wanted]
