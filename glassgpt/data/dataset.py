"""Opens a dataset: shards of a text in the cache, a folder of shards, or token files of other programs."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path

from glassgpt.data.manifest import Manifest, Split, TokenizerRecord, is_manifest, load_manifest
from glassgpt.data.shards import TokenArray
from glassgpt.data.token_files import TokenFiles, find_token_files, local_path, shards_key
from glassgpt.errors import UserError, option
from glassgpt.tokenizers import Tokenizer, TokenizerConfig, load_tokenizer, open_tokenizer

MANIFEST_NAME = "manifest.json"
TOKENIZER_NAME = "tokenizer.json"
STATE_NAME = "preparation.json"  # progress of sharding a corpus, see sharding_state.py
TRAINED = ("char", "bpe")  # tokenizers that are trained on the text


@dataclass(frozen=True)
class Dataset:
    """A text as token ids, split and ready for training."""

    folder: Path
    manifest: Manifest
    tokenizer: Tokenizer
    train: TokenArray
    val: TokenArray
    note: str  # one line: which text, why, and whether its shards were cached


def open_dataset(folder: Path) -> Dataset:
    """The dataset in a folder of the cache, or in a folder of shards.

    Raises UserError, naming file and reason, if it is damaged.
    """
    manifest = load_manifest(folder / MANIFEST_NAME)
    dataset = Dataset(
        folder=folder,
        manifest=manifest,
        tokenizer=load_tokenizer(folder / TOKENIZER_NAME),
        train=_open_split(folder, manifest.train),
        val=_open_split(folder, manifest.val),
        note=manifest.note,
    )
    if manifest.text_sha256 is None:
        if shards_key(dataset.val.paths + dataset.train.paths) != manifest.key:
            raise UserError(f"the shards in {folder} do not match its {MANIFEST_NAME}: restore them")
        return replace(dataset, manifest=replace(manifest, path=str(folder.absolute())))
    return dataset


def tokenizer_of(source: str) -> Path | None:
    """The tokenizer file of `source` if it is a prepared folder, else None."""
    folder = local_path(source)
    return folder / TOKENIZER_NAME if folder and is_manifest(folder / MANIFEST_NAME) else None


def sha256_of(text: str) -> str:
    """The sha256 of the text in UTF-8."""
    return hashlib.sha256(text.encode()).hexdigest()


def tokenizer_sha256(tokenizer: Tokenizer) -> str:
    """The sha256 of a tokenizer's fields, independent of the file layout: equal for equal tokenizers."""
    return sha256_of(json.dumps(tokenizer.to_dict(), sort_keys=True))


def is_tokenized(source: str) -> bool:
    """Whether the source has ids and no text: a prepared folder, finished or not, or foreign token files."""
    path = local_path(source)
    return bool(tokenizer_of(source) or (path and (path / STATE_NAME).is_file()) or find_token_files(source))


def open_tokenized(source: str, val_fraction: float, tokenizer: TokenizerConfig | Tokenizer) -> Dataset | None:
    """The dataset in a folder of shards or in foreign token files; None if the source is neither."""
    if own := tokenizer_of(source):
        dataset = open_dataset(own.parent)
        _check_tokenizer(dataset, tokenizer)
        return dataset
    path = local_path(source)
    if path and (path / STATE_NAME).is_file():
        raise UserError(f"{source} is unfinished: run its `data prepare` command again, which resumes where it stopped")
    if files := find_token_files(source):
        return _open_foreign(files, val_fraction, tokenizer)
    return None


def _check_tokenizer(dataset: Dataset, tokenizer: TokenizerConfig | Tokenizer) -> None:
    """Raises UserError if `tokenizer` is not the one that made the folder's ids."""
    record = dataset.manifest.tokenizer
    if isinstance(tokenizer, TokenizerConfig):
        same, name = tokenizer.name == record.name and tokenizer.name not in TRAINED, tokenizer.name
    else:
        same, name = tokenizer_sha256(tokenizer) == record.sha256, tokenizer.name
    if not same:
        raise UserError(
            f"{dataset.folder} holds ids of its own tokenizer, {record.name} of {record.vocab_size:,}, but '{name}' "
            f"is a different one: use {dataset.folder / TOKENIZER_NAME}, or prepare the text again"
        )


def _open_foreign(files: TokenFiles, val_fraction: float, tokenizer: TokenizerConfig | Tokenizer) -> Dataset:
    """The dataset of foreign token files, which do not say their tokenizer: the caller must."""
    if isinstance(tokenizer, TokenizerConfig):
        if tokenizer.name in TRAINED:
            raise UserError(
                f"{files.path} holds token ids without their tokenizer, which cannot be '{tokenizer.name}': name the "
                f"tokenizer that made them, for example with {option(**{'tokenizer.name': 'gpt2'})}"
            )
        tokenizer = open_tokenizer(tokenizer.name)
    train, val = files.open(val_fraction, tokenizer.vocab_size)
    kind, dtype = files.check()
    note = (
        f"{files.path}: {kind} of {dtype.name}, {len(train):,} + {len(val):,} tokens, read as ids of {tokenizer.name}"
    )
    manifest = Manifest(
        key=shards_key(files.files),
        name=files.path.name,
        source=str(files.path),
        note=note,
        text_sha256=None,
        val_fraction=val_fraction,
        tokenizer=TokenizerRecord(tokenizer.name, tokenizer.vocab_size, tokenizer_sha256(tokenizer)),
        train=Split(None, None, len(train), tuple(path.name for path in files.train)),
        val=Split(None, None, len(val), tuple(path.name for path in files.val or files.train[-1:])),
        path=str(files.path),
    )
    return Dataset(files.path, manifest, tokenizer, train, val, note)


def reopen_tokenized(manifest: Manifest, tokenizer: Tokenizer) -> Dataset:
    """The shards of a run, from the path in its manifest. Raises UserError if they are missing or have changed."""
    if manifest.path is None:
        raise UserError(
            "the run's data.json has no path of the shards: it is damaged, or was copied from a prepared folder"
        )
    exists = Path(manifest.path).exists()
    dataset = open_tokenized(manifest.path, manifest.val_fraction, tokenizer) if exists else None
    if dataset is None:
        raise UserError(f"the shards of this run are no longer in {manifest.path}: put them back")
    if dataset.manifest.key != manifest.key:
        raise UserError(f"the shards in {manifest.path} are not those that this run was trained on: restore them")
    return dataset


def _open_split(folder: Path, split: Split) -> TokenArray:
    tokens = TokenArray([folder / shard for shard in split.shards])
    if len(tokens) != split.tokens:
        raise UserError(
            f"{folder}: {', '.join(split.shards)} hold {len(tokens)} tokens, the manifest says {split.tokens}"
        )
    return tokens
