"""What the cache holds, where to find it, and whether it is still whole."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glassgpt.data.corpora import load_text, shakespeare_path, verify_shakespeare
from glassgpt.data.manifest import Manifest, load_manifest
from glassgpt.data.prepare import prepared_folder
from glassgpt.data.prepared import MANIFEST_NAME, TOKENIZER_NAME, open_folder, sha256_of, tokenizer_sha256
from glassgpt.data.shards import is_shard, read_header, verify_shard
from glassgpt.errors import UserError

RUN_MANIFEST_NAME = "data.json"  # the copy of the manifest that a run folder keeps


@dataclass(frozen=True)
class Finding:
    """What a check of one file or folder found."""

    path: Path
    problem: str | None  # None: it is whole


def prepared_folders() -> list[Path]:
    """The prepared folders in the cache, whole or not, in the order of their keys."""
    parent = prepared_folder("key").parent
    if not parent.is_dir():
        return []
    return sorted(path for path in parent.iterdir() if path.is_dir() and not path.name.startswith("."))


def list_prepared() -> list[dict[str, Any]]:
    """One short entry for each prepared folder, ready for JSON; a folder that is not whole has its `problem`."""
    return [_entry(folder) for folder in prepared_folders()]


def _entry(folder: Path) -> dict[str, Any]:
    try:
        manifest = load_manifest(folder / MANIFEST_NAME)
    except UserError as error:
        return {"key": folder.name, "problem": str(error)}
    return {
        "key": manifest.key,
        "name": manifest.name,
        "tokenizer": manifest.tokenizer.name,
        "vocab_size": manifest.tokenizer.vocab_size,
        "train_tokens": manifest.train.tokens,
        "val_tokens": manifest.val.tokens,
    }


def find_prepared(target: str) -> Path | None:
    """The prepared folder that `target` means: the folder itself, a run folder whose data it is, a key or its start.

    None where it means none of these. Raises UserError where several keys start so.
    """
    folder = Path(target)
    if (folder / MANIFEST_NAME).is_file():
        return folder
    if (folder / RUN_MANIFEST_NAME).is_file():
        return prepared_folder(load_manifest(folder / RUN_MANIFEST_NAME).key)
    if folder.exists() or not re.fullmatch("[0-9a-f]{4,}", target):
        return None
    found = [path for path in prepared_folders() if path.name.startswith(target)]
    if len(found) > 1:
        raise UserError(f"{len(found)} keys in the cache begin with {target}: {', '.join(path.name for path in found)}")
    return found[0] if found else None


def describe_prepared(folder: Path, manifest: Manifest) -> dict[str, Any]:
    """A prepared folder in figures, ready for JSON."""
    fields = manifest.to_dict()
    del fields["format"], fields["version"]
    size = sum(path.stat().st_size for path in folder.iterdir())
    return {"kind": "prepared", "folder": str(folder), **fields, "size_on_disk": size}


def describe(target: str) -> dict[str, Any]:
    """A prepared folder, run folder's data, key, shard file or text, in figures ready for JSON; `kind` says which.

    Raises UserError where `target` is none of these, or damaged.
    """
    if (folder := find_prepared(target)) is not None:
        return describe_prepared(folder, load_manifest(folder / MANIFEST_NAME))
    path = Path(target)
    if is_shard(path):
        header = read_header(path)
        shard = {"kind": "shard", "path": str(path), "tokens": header.count}
        return {**shard, "dtype": header.dtype.name, "sha256": header.sha256.hex()}
    corpus = load_text(target)
    return {
        "kind": "text",
        "name": corpus.name,
        "source": corpus.source,
        "note": corpus.note,
        "characters": len(corpus.text),
        "distinct_characters": len(set(corpus.text)),
        "bytes": len(corpus.text.encode()),
        "lines": len(corpus.text.splitlines()),
        "text_sha256": sha256_of(corpus.text),
    }


def verify_folder(folder: Path) -> Manifest:
    """Reads every byte of a prepared folder. Raises UserError, naming the file and reason, if one is not as written."""
    prepared = open_folder(folder)
    manifest = prepared.manifest
    if tokenizer_sha256(prepared.tokenizer) != manifest.tokenizer.sha256:
        raise UserError(f"{folder / TOKENIZER_NAME} was altered: it is not the tokenizer of which the manifest speaks")
    for split in (manifest.train, manifest.val):
        for shard in split.shards:
            verify_shard(folder / shard)
    return manifest


def verify(target: str | None) -> Iterator[Finding]:
    """Checks a shard file, a prepared folder, a run folder's data or a key; with None all that the cache holds."""
    if target is None:
        if shakespeare_path().exists():
            yield _check(shakespeare_path(), verify_shakespeare)
        for folder in prepared_folders():
            yield _check(folder, verify_folder)
    elif (found := find_prepared(target)) is not None:
        yield _check(found, verify_folder)
    elif Path(target).is_file():
        yield _check(Path(target), verify_shard)
    else:
        raise UserError(f"nothing to verify at {target}: give a shard, a prepared folder, a run folder or a cached key")


def _check(path: Path, check: Callable[[Path], object]) -> Finding:
    try:
        check(path)
    except (UserError, OSError) as error:
        return Finding(path, str(error))
    return Finding(path, None)
