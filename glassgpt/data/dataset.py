"""A dataset, opened: a text's shards in the cache, a folder of shards, or token files of other programs."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path

from glassgpt.data.manifest import Manifest, Split, TokenizerRecord, is_manifest, load_manifest
from glassgpt.data.shards import TokenArray
from glassgpt.data.token_files import TokenFiles, find_token_files, local_path, shards_key
from glassgpt.errors import UserError
from glassgpt.tokenizers import Tokenizer, TokenizerConfig, load_tokenizer, open_tokenizer

MANIFEST_NAME = "manifest.json"
TOKENIZER_NAME = "tokenizer.json"
STATE_NAME = "preparation.json"  # how far sharding a corpus has come, see sharding_state.py
TRAINED = ("char", "bpe")  # tokenizers that are made from the text


@dataclass(frozen=True)
class Dataset:
    """A text as token ids, split and ready for training."""

    folder: Path
    manifest: Manifest
    tokenizer: Tokenizer
    train: TokenArray
    val: TokenArray
    note: str  # one line: which text, why, and whether the shards were there already


def open_dataset(folder: Path) -> Dataset:
    """The dataset in a folder, of the cache or of a corpus in shards.

    Raises UserError, naming file and reason, where it is damaged.
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
            raise UserError(f"the shards in {folder} are not those of which its {MANIFEST_NAME} speaks: restore them")
        return replace(dataset, manifest=replace(manifest, path=str(folder.absolute())))
    return dataset


def tokenizer_of(source: str) -> Path | None:
    """The tokenizer file of a prepared folder that is named as a source of text; None for any other source."""
    folder = local_path(source)
    return folder / TOKENIZER_NAME if folder and is_manifest(folder / MANIFEST_NAME) else None


def sha256_of(text: str) -> str:
    """The sha256 of the text in UTF-8."""
    return hashlib.sha256(text.encode()).hexdigest()


def tokenizer_sha256(tokenizer: Tokenizer) -> str:
    """The sha256 of all that a tokenizer's file says, whatever its layout: equal for equal tokenizers."""
    return sha256_of(json.dumps(tokenizer.to_dict(), sort_keys=True))


def open_tokenized(source: str, val_fraction: float, tokenizer: TokenizerConfig | Tokenizer) -> Dataset | None:
    """The dataset in a folder of shards or in foreign token files; None where the source is neither."""
    if own := tokenizer_of(source):
        dataset = open_dataset(own.parent)
        _check_tokenizer(dataset, tokenizer)
        return dataset
    path = local_path(source)
    if path and (path / STATE_NAME).is_file():
        raise UserError(
            f"{source} is unfinished: give its `data prepare` command again, which goes on where it stopped"
        )
    if files := find_token_files(source):
        return _open_foreign(files, val_fraction, tokenizer)
    return None


def _check_tokenizer(dataset: Dataset, tokenizer: TokenizerConfig | Tokenizer) -> None:
    """Raises UserError where another tokenizer is asked for than the one whose ids the folder holds."""
    record = dataset.manifest.tokenizer
    if isinstance(tokenizer, TokenizerConfig):
        same, name = tokenizer.name == record.name and tokenizer.name not in TRAINED, tokenizer.name
    else:
        same, name = tokenizer_sha256(tokenizer) == record.sha256, tokenizer.name
    if not same:
        raise UserError(
            f"{dataset.folder} holds ids of its own tokenizer, {record.name} of {record.vocab_size:,}, and '{name}' "
            f"is another: take {dataset.folder / TOKENIZER_NAME}, or prepare the text again"
        )


def _open_foreign(files: TokenFiles, val_fraction: float, tokenizer: TokenizerConfig | Tokenizer) -> Dataset:
    """The splits of foreign token files, with a tokenizer that must be told."""
    if isinstance(tokenizer, TokenizerConfig):
        if tokenizer.name in TRAINED:
            raise UserError(
                f"{files.path} holds token ids and not their tokenizer, which cannot be '{tokenizer.name}': say whose "
                "ids they are, for example with --set tokenizer.name=gpt2"
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
    """The shards of a run, where they were. Raises UserError where they are gone, or others."""
    if manifest.path is None:
        raise UserError("the run's data.json does not say where its shards are: it is damaged, or of a prepared folder")
    there = Path(manifest.path).exists()
    dataset = open_tokenized(manifest.path, manifest.val_fraction, tokenizer) if there else None
    if dataset is None:
        raise UserError(f"the shards of this run were in {manifest.path}, and are there no longer: put them back")
    if dataset.manifest.key != manifest.key:
        raise UserError(f"the shards in {manifest.path} are not those that this run was trained on: put them back")
    return dataset


def _open_split(folder: Path, split: Split) -> TokenArray:
    tokens = TokenArray([folder / shard for shard in split.shards])
    if len(tokens) != split.tokens:
        raise UserError(
            f"{folder}: {', '.join(split.shards)} hold {len(tokens)} tokens, the manifest says {split.tokens}"
        )
    return tokens
