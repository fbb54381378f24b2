"""Damage to one file: to its bytes, to the values in it, or to what kind of thing lies in its place."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import shutil
import tomllib
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import tomli_w

from glassgpt.training.checkpoint import STATE, _state_checksum

LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 548118077\n"
PLACES = ("missing", "folder", "fifo", "dangling link", "link to itself", "endless device")
HOW = ("cut", "flip", "insert", "put", "all")
PIECES = (b"", b"\xff", b"\0", b"\n", b"{", LFS_POINTER, b"[" * 100_000, b"\xef\xbb\xbf", b"9" * 5000)
NUMBERS = (-1, 0, 2, 3, 2**31, 2**32, 2**53 + 1, 2**63, 2**64, 10**12, 10**20, 10**400, -(10**400), 0.5, 1e308,
           float("nan"), float("inf"), float("-inf"))  # fmt: skip
VALUES = (None, True, False, *NUMBERS, "", "none", "a\nb", "\x1b[31m", "é", "\ud800", "x" * 10_000, [], {}, [[]],
          [None], [1], ["a"], {"": None}, {"step": 1})  # fmt: skip


@dataclass(frozen=True)
class Damage:
    """What happens to the file `path` of the world."""

    path: str
    kind: str
    seed: tuple[Any, ...]

    def apply(self, folder: Path) -> None:
        """Damages the copy in `folder`."""
        path = folder / self.path
        if self.kind in PLACES:
            _replace(path, self.kind)
        elif self.kind == "bytes":
            path.write_bytes(_damaged_bytes(path.read_bytes(), *self.seed))
        else:
            _edit(path, *self.seed)


def draw_damage(random: Random, path: str) -> Damage:
    """Damage to a file: mostly to its values where it has some."""
    kinds = ["place", "bytes", "bytes"] + ["value"] * 6 * path.endswith((".json", ".jsonl", ".toml"))
    kind = random.choice(kinds)
    if kind == "place":
        return Damage(path, random.choice(PLACES), ())
    if kind == "bytes":
        return Damage(path, kind, (random.random(), random.choice(HOW), random.choice(PIECES)))
    choices = tuple(random.randrange(1000) for _ in range(random.randint(1, 6)))
    change = random.choice(("set", "set", "set", "set", "delete", "add"))
    return Damage(path, kind, (choices, change, random.choice(VALUES)))


def _replace(path: Path, kind: str) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "dangling link":
        path.symlink_to("not-there")
    elif kind == "link to itself":
        path.symlink_to(path.name)
    elif kind == "endless device":
        path.symlink_to("/dev/zero")


def _damaged_bytes(data: bytes, place: float, how: str, what: bytes) -> bytes:
    index = int(place * len(data))
    if how == "cut":
        return data[:index]
    if how == "flip" and data:
        return data[:index] + bytes([data[index] ^ (1 << index % 8)]) + data[index + 1 :]
    if how == "insert":
        return data[:index] + what + data[index:]
    if how == "put":
        return data[:index] + what + data[index + len(what) :]
    return what


def _edit(path: Path, choices: tuple[int, ...], change: str, new: Any) -> None:
    """Changes one value in a JSON or TOML file, and signs a checkpoint's state again, so that its checksum fits."""
    data = path.read_bytes()
    if path.suffix == ".jsonl":
        lines = data.decode().splitlines()
        number = choices[0] % len(lines)
        lines[number] = _dump(_changed(json.loads(lines[number]), choices[1:], change, new))
        path.write_bytes("\n".join([*lines, ""]).encode())
    elif path.suffix == ".toml":
        changed = _changed(tomllib.loads(data.decode()), choices, change, new)
        try:
            path.write_bytes(tomli_w.dumps(changed).encode())
        except (TypeError, ValueError, AttributeError):  # TOML has no null
            path.write_bytes(data + b"\n[")
    else:
        changed = _changed(json.loads(data), choices, change, new)
        if path.name == STATE:
            with contextlib.suppress(TypeError, LookupError, AttributeError):
                changed["checksums"][STATE] = _state_checksum(changed)
        path.write_text(_dump(changed))


def _dump(value: Any) -> str:
    try:
        return json.dumps(value)
    except ValueError:  # more digits than Python converts
        return "9" * 5000


def _changed(value: Any, choices: tuple[int, ...], change: str, new: Any) -> Any:
    """A copy with one node changed; the choices lead from the root to it."""
    root = copy.deepcopy(value)
    node, parent, key = root, None, None
    for choice in choices:
        keys = list(node) if isinstance(node, dict) else list(range(len(node))) if isinstance(node, list) else []
        if not keys:
            break
        parent, key = node, keys[choice % len(keys)]
        node = parent[key]
    if parent is None:
        return new if change == "set" else root
    if change == "delete":
        del parent[key]
    elif change == "add":
        parent.append(node) if isinstance(parent, list) else parent.update(surplus=node)
    else:
        parent[key] = new
    return root
