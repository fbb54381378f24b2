"""Lists, finds, describes and verifies prepared data, in the cache and elsewhere."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glassgpt.data.corpora import Corpus, load_text, shakespeare_path, verify_shakespeare
from glassgpt.data.dataset import (
    MANIFEST_NAME,
    STATE_NAME,
    TOKENIZER_NAME,
    open_dataset,
    sha256_of,
    tokenizer_sha256,
)
from glassgpt.data.dataset_cache import cached_folder, folders_of
from glassgpt.data.examples import verify_examples
from glassgpt.data.foreign import LLMC
from glassgpt.data.manifest import Manifest, is_manifest, load_manifest
from glassgpt.data.pair_dataset import open_pairs
from glassgpt.data.sharding_state import load_sharding_state
from glassgpt.data.shards import TokenArray, read_header, verify_shard
from glassgpt.data.token_files import OURS, TokenFiles, describe_file, find_token_files, verify_ids
from glassgpt.errors import UserError, counted
from glassgpt.ownership import is_run_folder

RUNS = Path("runs")  # where a name that is no path may be that of a run
RUN_MANIFEST_NAME = "data.json"  # the copy of the manifest in a run folder
GPT2_VOCAB, LLAMA3_VOCAB = 50257, 128256  # vocabulary sizes of the published tokenizers


@dataclass(frozen=True)
class Finding:
    """The result of verifying one file or folder."""

    path: Path
    problem: str | None  # None: it is intact


def cached_folders() -> list[Path]:
    """The prepared folders in the cache, damaged ones included, sorted by key."""
    parent = cached_folder("key").parent
    if not parent.is_dir():
        return []
    return sorted(path for path in parent.iterdir() if path.is_dir() and not path.name.startswith("."))


def list_datasets() -> list[dict[str, Any]]:
    """One short JSON-ready entry per prepared folder in the cache. That of a damaged folder has a `problem`."""
    return [_entry(folder) for folder in cached_folders()]


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


def find_dataset(target: str) -> Path | None:
    """The prepared folder that `target` names: by its path, or by its cache key or the start of it.

    None if there is no such folder. Raises UserError if several keys start with `target`.
    """
    folder = Path(target)
    if is_manifest(folder / MANIFEST_NAME):
        return folder
    if folder.exists() or not re.fullmatch("[0-9a-f]{4,}", target):
        return None
    found = [path for path in cached_folders() if path.name.startswith(target)]
    if len(found) > 1:
        raise UserError(f"{len(found)} keys in the cache begin with {target}: {', '.join(path.name for path in found)}")
    return found[0] if found else None


def data_of_run(target: str) -> Manifest | None:
    """The data manifest of a run folder; None if `target` is not a run folder."""
    path = Path(target) / RUN_MANIFEST_NAME
    return load_manifest(path) if is_manifest(path) else None


def describe_dataset(folder: Path, manifest: Manifest) -> dict[str, Any]:
    """Sizes and settings of a prepared folder, JSON-ready."""
    fields = manifest.to_dict()
    del fields["version"]
    first = folder / manifest.train.shards[0]
    fields["format"], dtype = describe_file(first if manifest.pairs is None else first / "ids.shard")
    fields |= {"tokens": manifest.train.tokens + manifest.val.tokens, "dtype": dtype.name}
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return {"kind": "prepared", "folder": str(folder), **fields, "size_on_disk": size}


def describe(target: str) -> dict[str, Any]:
    """Describes prepared data, a run folder's data, token files or a text, JSON-ready; `kind` says which of them.

    Raises UserError if `target` is none of these, or damaged.
    """
    _check_target(target)
    if manifest := data_of_run(target):
        target = _place_of(manifest, target)
    if (folder := find_dataset(target)) is not None:
        return describe_dataset(folder, load_manifest(folder / MANIFEST_NAME))
    if files := find_token_files(target):
        return _describe_token_files(files)
    if (Path(target) / STATE_NAME).is_file():
        return _describe_unfinished(Path(target))
    return _describe_text(load_text(target))


def _check_target(target: str) -> None:
    if not target:  # as a path, it would be the current folder
        raise UserError("the name of the data is empty: give a text, token files, a folder or a cache key")
    folder = RUNS / target
    if not Path(target).exists() and is_run_folder(folder):
        raise UserError(f"'{target}' is the name of a run: give its folder, {folder}")
    if is_run_folder(Path(target)) and not (Path(target) / RUN_MANIFEST_NAME).exists():
        raise UserError(f"the run {target} was imported, not trained: it has no data")


def _place_of(manifest: Manifest, run: str) -> str:
    """The folder, or the file, with the data of a run. Raises UserError if it was removed from the cache."""
    if manifest.path:
        return manifest.path
    found = [folder for folder in folders_of(manifest) if folder.exists()]
    if not found:
        raise UserError(f"the data of {run} is no longer in the cache: `glassgpt eval {run}` prepares it again")
    return str(found[0])


def _describe_token_files(files: TokenFiles) -> dict[str, Any]:
    form, dtype = files.check()
    fields = {"format": form, "path": str(files.path), "tokens": len(TokenArray(files.files)), "dtype": dtype.name}
    if files.path.is_dir():
        parts = {"train": files.train, "val": files.val}
        shards = {name: {"shards": [path.name for path in paths]} for name, paths in parts.items()}
        return {"kind": "shards", **fields, **shards}
    if form == OURS:
        fields["sha256"] = read_header(files.path).sha256.hex()
    return {"kind": "shard", **fields}


def _describe_unfinished(folder: Path) -> dict[str, Any]:
    state = load_sharding_state(folder)
    shards = [shard.name for shard in state.shards]
    return {"kind": "unfinished", "format": OURS, "folder": str(folder), "tokens": state.tokens, "shards": shards}


def _describe_text(corpus: Corpus) -> dict[str, Any]:
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


def verify(target: str | None, vocab_size: int | None = None) -> Iterator[Finding]:
    """Verifies every byte of `target`: token files, a prepared folder, a run folder's data or a cache key.

    None verifies the whole cache. Our own shards are compared with their checksums. In foreign files, every id must be
    below `vocab_size`. Its default is that of Llama 3 for llm.c files with uint32 ids, else that of GPT-2.
    """
    if vocab_size is not None and vocab_size < 1:
        raise UserError(f"--vocab-size is {vocab_size}, but must be 1 or more: the largest id plus one")
    if target is not None:
        _check_target(target)
    manifest = data_of_run(target) if target else None
    if target and manifest:
        target = _place_of(manifest, target)
        vocab_size = vocab_size or manifest.tokenizer.vocab_size
    if target is None:
        if shakespeare_path().exists():
            yield _check(shakespeare_path(), verify_shakespeare)
        for folder in cached_folders():
            yield _check(folder, _verify_folder)
    elif (found := find_dataset(target)) is not None:
        yield _check(found, _verify_folder)
    elif files := find_token_files(target):
        yield from _verify_token_files(files, vocab_size)
    elif (Path(target) / STATE_NAME).is_file():
        yield from _verify_unfinished(Path(target))
    elif Path(target).is_file():
        yield _check(Path(target), verify_shard)
    else:
        raise UserError(f"nothing to verify at {target}: give token files, a prepared or run folder, or a cached key")


def _verify_folder(folder: Path) -> None:
    manifest = load_manifest(folder / MANIFEST_NAME)
    if manifest.pairs is not None:
        for name in manifest.train.shards + manifest.val.shards:
            verify_examples(folder / name)
        tokenizer = open_pairs(folder).tokenizer
    else:
        for shard in manifest.val.shards + manifest.train.shards:
            verify_shard(folder / shard)
        tokenizer = open_dataset(folder).tokenizer
    if tokenizer_sha256(tokenizer) != manifest.tokenizer.sha256:
        raise UserError(f"{folder / TOKENIZER_NAME} was altered: it is not the tokenizer in the manifest")


def _verify_token_files(files: TokenFiles, vocab_size: int | None) -> Iterator[Finding]:
    together = _check(files.path, lambda path: files.check())
    if together.problem:
        yield together
        return
    for path in files.files:
        yield _check(path, lambda path: _verify_file(path, vocab_size))


def _verify_file(path: Path, vocab_size: int | None) -> None:
    form, dtype = describe_file(path)
    if form == OURS:
        verify_shard(path)
    if form != OURS or vocab_size is not None:
        default = LLAMA3_VOCAB if form == LLMC and dtype.itemsize == 4 else GPT2_VOCAB
        verify_ids(path, vocab_size or default)


def _verify_unfinished(folder: Path) -> Iterator[Finding]:
    """A finding per shard, and one for the folder: an unfinished folder is a problem even if its shards are intact."""
    shards = load_sharding_state(folder).shards
    for shard in shards:
        yield _check(folder / shard.name, verify_shard)
    yield Finding(
        folder, f"{folder} is unfinished, with {counted(len(shards), 'shard')}: run its `data prepare` command again"
    )


def _check(path: Path, check: Callable[[Path], object]) -> Finding:
    try:
        check(path)
    except (UserError, OSError) as error:
        return Finding(path, str(error))
    return Finding(path, None)
