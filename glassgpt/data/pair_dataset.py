"""Tokenises the pairs of a text once, and caches them as examples under a key of their content."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from glassgpt.data.cache import writing
from glassgpt.data.corpora import Corpus, load_text
from glassgpt.data.dataset import MANIFEST_NAME, TOKENIZER_NAME, is_tokenized, sha256_of, tokenizer_sha256
from glassgpt.data.dataset_cache import (
    DataConfig,
    cache_key,
    cached_folder,
    check_tokenizer_of,
    discard,
    folders_of,
    reload_text,
)
from glassgpt.data.examples import Examples, open_examples, write_examples
from glassgpt.data.manifest import Manifest, Split, TokenizerRecord, load_manifest
from glassgpt.data.pairs import Ends, Pair, make_pairs, split_pairs
from glassgpt.errors import UserError
from glassgpt.files import new_folder
from glassgpt.tokenizers import Tokenizer, TokenizerConfig, build_tokenizer, load_tokenizer, open_tokenizer
from glassgpt.tokenizers.build import NAMES


@dataclass(frozen=True)
class PairDataset:
    """Pairs of a source and a target as token ids, split and ready for training. See `PairLoader` for their form."""

    folder: Path
    manifest: Manifest
    tokenizer: Tokenizer
    train: Examples
    val: Examples
    note: str  # one line: which text, why, and whether its pairs were cached

    @property
    def ends(self) -> Ends:
        """The tokens with which targets start and stop."""
        return Ends.of(self.tokenizer)


def build_pairs(
    data: DataConfig, tokenizer: TokenizerConfig | Tokenizer, *, corpus: Corpus | None = None
) -> PairDataset:
    """The pairs of `data`, from the cache or made now. `corpus` replaces the text of `data.source`.

    The pairs are split first, then tokenised. A tokenizer given as a config is trained as for a text, see
    `build_dataset`. Raises UserError for `data.pairs` that is not set, a text without pairs, ids without a text, and
    as `build_dataset` does.
    """
    if data.pairs is None:
        raise UserError("data.pairs is not set: it says which pairs of source and target to make of the text")
    if isinstance(tokenizer, TokenizerConfig) and tokenizer.name not in NAMES:
        tokenizer = open_tokenizer(tokenizer.name)  # the cache key depends on the contents of the file
    if corpus is None and is_tokenized(data.source):
        raise UserError(f"{data.source} has token ids and no text: pairs are made of a text")
    corpus = corpus or load_text(data.source)
    text_sha256 = sha256_of(corpus.text)
    folder = cached_folder(cache_key(text_sha256, data.val_fraction, tokenizer, data.pairs))
    remark = ""
    if folder.exists():
        try:
            return _from_corpus(open_pairs(folder), corpus, "; made before, in the cache")
        except UserError as error:
            remark = f"; made again, since the cache was damaged: {error}"
            discard(folder)
    train, val = split_pairs(make_pairs(corpus.text, data.pairs), data.val_fraction)
    if isinstance(tokenizer, TokenizerConfig):
        tokenizer = build_tokenizer(tokenizer, whole_text=_joined([*train, *val]), train_text=_joined(train))
    ends = Ends.of(tokenizer)
    with writing(folder), new_folder(folder) as temporary:
        Manifest(
            key=folder.name,
            name=corpus.name,
            source=corpus.source,
            note=corpus.note,
            text_sha256=text_sha256,
            val_fraction=data.val_fraction,
            tokenizer=TokenizerRecord(tokenizer.name, tokenizer.vocab_size, tokenizer_sha256(tokenizer)),
            train=_write_split(temporary, "train", train, tokenizer, ends),
            val=_write_split(temporary, "val", val, tokenizer, ends),
            pairs=data.pairs,
        ).save(temporary / MANIFEST_NAME)
        tokenizer.save(temporary / TOKENIZER_NAME)
    return _from_corpus(open_pairs(folder), corpus, remark)


def open_pairs(folder: Path) -> PairDataset:
    """The pairs in a folder of the cache. Raises UserError, naming file and reason, if it is damaged."""
    manifest = load_manifest(folder / MANIFEST_NAME)
    tokenizer = load_tokenizer(folder / TOKENIZER_NAME)
    train, val = (open_examples(folder / name) for name in ("train", "val"))
    return PairDataset(folder, manifest, tokenizer, train, val, manifest.note)


def reopen_pairs(manifest: Manifest, tokenizer: Tokenizer) -> PairDataset:
    """The pairs of a run, from the manifest and tokenizer in its folder: from the cache, or made again.

    Raises UserError if they must be made again, and the source no longer gives the same text, or another version of
    GlassGPT made other pairs of it.
    """
    check_tokenizer_of(manifest, tokenizer)
    for folder in folders_of(manifest):
        with contextlib.suppress(UserError):  # a missing or damaged cache entry can be made again
            found = open_pairs(folder)
            if _same_sizes(found.manifest, manifest):
                return replace(found, manifest=manifest)
    corpus = replace(reload_text(manifest), name=manifest.name)
    config = DataConfig(manifest.source, manifest.val_fraction, pairs=manifest.pairs)
    made = build_pairs(config, tokenizer, corpus=corpus)
    if not _same_sizes(made.manifest, manifest):
        raise UserError(
            f"the run began with {_sizes(manifest)} of {manifest.name}, and this version of GlassGPT makes"
            f" {_sizes(made.manifest)} of it (data.pairs = {manifest.pairs}): start a new run"
        )
    return made


def _same_sizes(one: Manifest, other: Manifest) -> bool:
    return (one.train, one.val) == (other.train, other.val)


def _sizes(manifest: Manifest) -> str:
    return f"{manifest.train.documents:,} + {manifest.val.documents:,} pairs"


def encode_source(tokenizer: Tokenizer, ends: Ends, source: str) -> NDArray[np.int64]:
    """The ids of a source, with the stop at its end."""
    return np.append(tokenizer.encode_to_numpy(source).astype(np.int64), ends.stop_id)


def _write_split(folder: Path, name: str, pairs: Sequence[Pair], tokenizer: Tokenizer, ends: Ends) -> Split:
    def examples() -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        for pair in pairs:
            source, target = (encode_source(tokenizer, ends, text) for text in pair)
            yield np.concatenate([source, target]), np.repeat([0, 1], [len(source), len(target)])

    counts = write_examples(folder / name, examples(), tokenizer.vocab_size)
    characters = sum(len(source) + len(target) for source, target in pairs)
    n_bytes = sum(len((source + target).encode()) for source, target in pairs)
    return Split(characters, n_bytes, counts.tokens, (name,), documents=len(pairs))


def _joined(pairs: Sequence[Pair]) -> str:
    return "\n".join(text for pair in pairs for text in pair)


def _from_corpus(dataset: PairDataset, corpus: Corpus, remark: str) -> PairDataset:
    """The dataset with this corpus's name and source: the same text may have been cached from another source."""
    manifest = replace(dataset.manifest, name=corpus.name, source=corpus.source, note=corpus.note)
    return replace(dataset, manifest=manifest, note=corpus.note + remark)
