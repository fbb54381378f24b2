"""Tokenises a text once: splits it, tokenises it, and caches the ids as shards under a key of their content."""

from __future__ import annotations

import contextlib
import json
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from glassgpt.data.cache import cache_folder, writing
from glassgpt.data.corpora import IN_MEMORY, STDIN, Corpus, load_text
from glassgpt.data.dataset import (
    MANIFEST_NAME,
    TOKENIZER_NAME,
    Dataset,
    open_dataset,
    open_tokenized,
    reopen_tokenized,
    sha256_of,
    tokenizer_sha256,
)
from glassgpt.data.manifest import VERSION, Manifest, Split, TokenizerRecord
from glassgpt.data.pairs import RULES, RULES_VERSION
from glassgpt.data.shards import dtype_for, shard_writer
from glassgpt.errors import UserError, shown, unknown
from glassgpt.files import new_folder
from glassgpt.tokenizers import Tokenizer, TokenizerConfig, build_tokenizer, open_tokenizer
from glassgpt.tokenizers.build import NAMES
from glassgpt.tokenizers.patterns import safe_slices

_PIECE = 1 << 20  # characters tokenised at once: bounds the memory in addition to the text itself


@dataclass(frozen=True)
class DataConfig:
    """Which text, and how much of its end is the validation split."""

    source: str = "auto"  # a known name (glassgpt data list), a file, a folder of texts or of token shards, - for stdin
    val_fraction: float = 0.1  # fraction at the end used for validation, of characters; of tokens in foreign files
    document_mask: bool = False  # no token attends across the start of a document
    mask_fraction: float = 0.15  # stage mlm: fraction of the tokens that are hidden
    pairs: str | None = None  # stage seq2seq: pairs that a text gives: tab (source, tab, target), reverse, vowels

    def __post_init__(self) -> None:
        if not self.source:
            raise UserError("data.source is empty; give a name, a file, a folder or '-'")
        try:
            self.source.encode()
        except UnicodeEncodeError:  # Python reads the bytes of an argument that are not UTF-8 as lone surrogates
            raise UserError(
                f"data.source = {shown(self.source)}: this name is not UTF-8, so no config can hold it: rename the file"
            ) from None
        if not 0 < self.val_fraction < 1:
            raise UserError(f"data.val_fraction must lie between 0 and 1, not {self.val_fraction}")
        if not 0 < self.mask_fraction < 1:
            raise UserError(f"data.mask_fraction must lie between 0 and 1, not {self.mask_fraction}")
        if self.pairs is not None and self.pairs not in RULES:
            raise unknown("data.pairs", self.pairs, RULES)


def build_dataset(data: DataConfig, tokenizer: TokenizerConfig | Tokenizer, *, corpus: Corpus | None = None) -> Dataset:
    """The dataset of `data`, from the cache or built now. `corpus` replaces the text of `data.source`.

    The text is split first, then tokenised. A tokenizer given as a config is trained, if it needs training, on the
    training split; `char` takes the alphabet of the full text. In memory: the text, its two splits, one piece of ids.
    Raises UserError for bad text, a tokenizer that cannot be loaded, and a cache that cannot be written.
    """
    if isinstance(tokenizer, TokenizerConfig) and tokenizer.name not in NAMES:
        tokenizer = open_tokenizer(tokenizer.name)  # the cache key depends on the contents of the file
    if corpus is None and (found := open_tokenized(data.source, data.val_fraction, tokenizer)):
        return found
    corpus = corpus or load_text(data.source)
    text_sha256 = sha256_of(corpus.text)
    folder = cached_folder(cache_key(text_sha256, data.val_fraction, tokenizer))
    remark = ""
    if folder.exists():
        try:
            return _from_corpus(open_dataset(folder), corpus, "; tokenised before, in the cache")
        except UserError as error:
            remark = f"; tokenised again, since the cache was damaged: {error}"
            discard(folder)
    _write_folder(folder, corpus, text_sha256, data.val_fraction, tokenizer)
    return _from_corpus(open_dataset(folder), corpus, remark)


def reopen_dataset(manifest: Manifest, tokenizer: Tokenizer) -> Dataset:
    """The dataset of a run, from the manifest and tokenizer in its folder: from the cache, or built again.

    Raises UserError if it must be built again but the source no longer gives the same text.
    """
    check_tokenizer_of(manifest, tokenizer)
    if (found := dataset_at_hand(manifest, tokenizer)) is not None:
        return found
    corpus = replace(reload_text(manifest), name=manifest.name)
    data = DataConfig(manifest.source, manifest.val_fraction)
    return build_dataset(data, tokenizer, corpus=corpus)


def check_tokenizer_of(manifest: Manifest, tokenizer: Tokenizer) -> None:
    """Raises UserError if the tokenizer is not the one of the manifest."""
    if tokenizer_sha256(tokenizer) != manifest.tokenizer.sha256:
        raise UserError(
            f"the tokenizer is not the one in the data manifest ({manifest.tokenizer.name}, "
            f"sha256 {manifest.tokenizer.sha256[:12]}…): restore the run's own tokenizer.json"
        )


def dataset_at_hand(manifest: Manifest, tokenizer: Tokenizer) -> Dataset | None:
    """The dataset of a run if its ids are at hand; None if a text must be tokenised again.

    Raises UserError if it was trained on shards that are missing or have changed, or on pairs.
    """
    if manifest.pairs is not None:
        raise UserError(
            f"the run was trained on pairs of a source and a target ({manifest.pairs}), and this needs a plain text"
        )
    if manifest.text_sha256 is None:
        return reopen_tokenized(manifest, tokenizer)
    for folder in folders_of(manifest):
        with contextlib.suppress(UserError):  # a missing or damaged cache entry can be built again
            found = open_dataset(folder)
            if _same_ids(found.manifest, manifest):
                return replace(found, manifest=manifest)
    return None


def folders_of(manifest: Manifest) -> list[Path]:
    """The two folders of the cache that may have the shards of a run, which was trained on a text.

    The first key may be that of a tokenizer config. The second is of the same text and the run's tokenizer.json, from
    which the shards are built again.
    """
    tokenizer = {"sha256": manifest.tokenizer.sha256}
    again = _hash_inputs(manifest.text_sha256, manifest.val_fraction, tokenizer, manifest.pairs)
    return [cached_folder(manifest.key), cached_folder(again)]


def cached_folder(key: str) -> Path:
    """Folder of the cache for the shards of `key`."""
    return cache_folder() / "prepared" / key


def split_text(text: str, val_fraction: float) -> tuple[str, str]:
    """(training text, validation text): the first 1 - val_fraction of the characters, and the rest."""
    n_train = int((1 - val_fraction) * len(text))
    if n_train == 0 or n_train == len(text):
        raise UserError(
            f"a text of {len(text)} characters cannot be split into training and validation "
            f"({val_fraction:.0%} at its end); give a longer text"
        )
    return text[:n_train], text[n_train:]


def cache_key(
    text_sha256: str, val_fraction: float, tokenizer: TokenizerConfig | Tokenizer, pairs: str | None = None
) -> str:
    """The cache key of the ids that these inputs give. It needs no trained tokenizer."""
    return _hash_inputs(text_sha256, val_fraction, _tokenizer_identity(tokenizer), pairs)


def _hash_inputs(text_sha256: str | None, val_fraction: float, tokenizer: dict[str, Any], pairs: str | None) -> str:
    inputs = [VERSION, text_sha256, val_fraction, tokenizer, *([] if pairs is None else [pairs, RULES_VERSION])]
    return sha256_of(json.dumps(inputs, sort_keys=True))[:32]


def _tokenizer_identity(tokenizer: TokenizerConfig | Tokenizer) -> dict[str, Any]:
    if isinstance(tokenizer, TokenizerConfig):
        return asdict(tokenizer)
    return {"sha256": tokenizer_sha256(tokenizer)}


def _write_folder(
    folder: Path, corpus: Corpus, text_sha256: str, val_fraction: float, tokenizer: TokenizerConfig | Tokenizer
) -> None:
    train_text, val_text = split_text(corpus.text, val_fraction)
    if isinstance(tokenizer, TokenizerConfig):
        tokenizer = build_tokenizer(tokenizer, whole_text=corpus.text, train_text=train_text)
    with writing(folder), new_folder(folder) as temporary:
        manifest = Manifest(
            key=folder.name,
            name=corpus.name,
            source=corpus.source,
            note=corpus.note,
            text_sha256=text_sha256,
            val_fraction=val_fraction,
            tokenizer=TokenizerRecord(tokenizer.name, tokenizer.vocab_size, tokenizer_sha256(tokenizer)),
            train=_write_split(temporary, "train", train_text, tokenizer),
            val=_write_split(temporary, "val", val_text, tokenizer),
        )
        tokenizer.save(temporary / TOKENIZER_NAME)
        manifest.save(temporary / MANIFEST_NAME)


def _write_split(folder: Path, name: str, text: str, tokenizer: Tokenizer) -> Split:
    shard = f"{name}.shard"
    n_bytes = 0
    with shard_writer(folder / shard, dtype_for(tokenizer.vocab_size)) as writer:
        for piece in safe_slices(text, _PIECE, tokenizer.safe_cut):
            writer.append(tokenizer.encode_to_numpy(piece))
            n_bytes += len(piece.encode())
        n_tokens = writer.header().count
    return Split(len(text), n_bytes, n_tokens, (shard,))


def discard(folder: Path) -> None:
    """Removes a damaged folder. It is renamed first, so that no process sees it half deleted."""
    with (
        writing(folder),
        tempfile.TemporaryDirectory(prefix=".damaged-", dir=folder.parent) as aside,
        contextlib.suppress(FileNotFoundError),  # another process was first
    ):
        folder.rename(Path(aside) / folder.name)


def _from_corpus(dataset: Dataset, corpus: Corpus, remark: str) -> Dataset:
    """The dataset with this corpus's name and source: the same text may have been cached from another source."""
    manifest = replace(dataset.manifest, name=corpus.name, source=corpus.source, note=corpus.note)
    return replace(dataset, manifest=manifest, note=corpus.note + remark)


def _same_ids(one: Manifest, other: Manifest) -> bool:
    return (one.text_sha256, one.val_fraction, one.tokenizer) == (
        other.text_sha256,
        other.val_fraction,
        other.tokenizer,
    )


def reload_text(manifest: Manifest) -> Corpus:
    """Loads the text of a manifest from its source again, and checks its sha256."""
    if manifest.source in (STDIN, IN_MEMORY):
        origin = "stdin" if manifest.source == STDIN else "memory"
        raise UserError(
            f"the shards of this run are no longer in the cache ({cached_folder(manifest.key)}), and its text came "
            f"from {origin}: prepare the same text again, with `glassgpt data prepare --val-fraction "
            f"{manifest.val_fraction} --tokenizer` and the run's tokenizer.json"
        )
    corpus = load_text(manifest.source)
    found, expected = sha256_of(corpus.text), manifest.text_sha256 or ""
    if found != expected:
        raise UserError(
            f"the text {manifest.source} has changed since this run was made: its sha256 is {found[:12]}…, "
            f"the run was trained on {expected[:12]}…; restore the text, or start a new run"
        )
    return corpus
