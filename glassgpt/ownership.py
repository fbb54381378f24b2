"""Decides which files and folders GlassGPT wrote: it replaces, or writes into, no others unless it is told to."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

from glassgpt.config import read_toml
from glassgpt.errors import UserError, option
from glassgpt.files import read_json, real_path

GENERATOR = "GlassGPT"  # the mark of our pages and pictures
HTML_MARK = f'<meta name="generator" content="{GENERATOR}">'
SVG_MARK = f"<metadata>{GENERATOR}</metadata>"
_HEAD = 1024  # bytes; the mark stands in the first of them
TOKENIZER_FORMAT = "glassgpt-tokenizer"

# What a run consists of: no other file takes such a name inside it.
RUN_FILES = frozenset(
    {
        "config.toml", "tokenizer.json", "data.json", "machine.json", "metrics.jsonl", "samples.jsonl", "origin.json",
        "notes.jsonl", "doctor.json", "counting.json", "trackers.json", "report.html", "checkpoints",
    }
)  # fmt: skip


def check_output(path: Path, overwrite: bool) -> None:
    """Raises UserError if a file may not be written to `path`.

    Without `overwrite`, it may replace only a page or a picture of ours, which a user makes again and again. In no case
    may it be a part of a run, or replace anything that is not a regular file, such as a folder or a device.
    """
    if path.is_dir():
        raise UserError(f"{path} is a folder: name a file to write")
    target = real_path(path)
    for folder in target.parents:
        if target.relative_to(folder).parts[0] in RUN_FILES and is_run_folder(folder):
            raise UserError(f"{path} is a part of the run {folder}: choose another name")
    if not os.path.lexists(path):
        return
    if not path.is_file() and not path.is_symlink():
        raise UserError(f"{path} is not a regular file: choose another name")
    if not overwrite and not is_ours(path):
        raise UserError(f"{path} exists: choose another name, or replace it with {option(overwrite=True)}")


def is_ours(path: Path) -> bool:
    """Whether the file is a page or a picture that carries our mark. False also if it cannot be read."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError:
        return False
    return any(mark.encode() in head for mark in (HTML_MARK, SVG_MARK))


def is_run_folder(folder: Path) -> bool:
    """Whether a folder is a run.

    Its config.toml has a format and a [model]. If config.toml is damaged, a tokenizer.json of ours beside checkpoints
    is enough. A config.toml alone is not: it may be a recipe copied from a run, or a file of another program.
    """
    if not (folder / "config.toml").is_file():
        return False
    parts = [name for name in ("tokenizer.json", "metrics.jsonl", "checkpoints") if (folder / name).exists()]
    config: dict[str, Any] = {}
    with contextlib.suppress(UserError):
        config = read_toml(folder / "config.toml")
    if type(config.get("format")) is int and isinstance(config.get("model"), dict):
        return bool(parts)
    with contextlib.suppress(UserError):
        return "checkpoints" in parts and read_json(folder / "tokenizer.json").get("format") == TOKENIZER_FORMAT
    return False


def split_runs(folder: Path) -> tuple[list[Path], list[Path]]:
    """The subfolders with a config.toml, sorted by name: the runs, and those of other programs."""
    found = [path.parent for path in sorted(folder.glob("*/config.toml"))]
    runs = [path for path in found if is_run_folder(path)]
    return runs, [path for path in found if path not in runs]
