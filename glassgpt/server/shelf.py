"""The tokenizers that a page can show: a run's own, and those that are on this machine. None is downloaded."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from glassgpt.errors import UserError
from glassgpt.server.library import Library
from glassgpt.tokenizers import Tokenizer, load_tokenizer
from glassgpt.tokenizers.char import CharTokenizer
from glassgpt.tokenizers.pretrained import PRETRAINED, PretrainedTokenizer, is_at_hand

MOST_MODELS = 4  # SentencePiece files that are offered
KEPT = 8  # tokenizers in memory: those of large vocabularies take tens of megabytes


@dataclass(frozen=True)
class Entry:
    """A tokenizer on the shelf. `missing` is how to get it, or None if it is at hand."""

    name: str
    label: str
    path: Path | None = None
    missing: str | None = None


class Shelf:
    """Finds tokenizers by the names that requests use: never by a path. `folder` may hold SentencePiece files."""

    def __init__(self, library: Library, folder: Path) -> None:
        self._library, self._folder = library, folder

    def entries(self, run: str | None) -> list[Entry]:
        """Those of a page, with what is missing. Raises UnknownRun."""
        found = []
        if run is not None:
            found.append(Entry("run", f"run {run}", self._library.find(run) / "tokenizer.json"))
        found.append(Entry("char", "char"))
        for name in PRETRAINED:
            how = f"connect to the network once and run glassgpt tokenizer info --tokenizer {name}"
            found.append(Entry(name, name, missing=None if is_at_hand(name) else how))
        models = sorted(self._folder.glob("*.model"))[:MOST_MODELS]
        found += [Entry(path.name, path.name, path) for path in models]
        if not models:
            how = (
                "put the .model file of a model, such as Llama 2's, into the folder in which glassgpt look was started"
            )
            found.append(Entry("sentencepiece", "SentencePiece", missing=how))
        return found

    def find(self, name: str, run: str | None) -> Entry:
        """The entry with that name. Raises UserError for one that is not there, or not at hand."""
        entry = next((entry for entry in self.entries(run) if entry.name == name), None)
        if entry is None:
            raise UserError(f"there is no tokenizer '{name}' here")
        if entry.missing is not None:
            raise UserError(f"the tokenizer {entry.label} is not at hand: {entry.missing}")
        return entry

    def open(self, entry: Entry, text: str) -> Tokenizer:
        """The tokenizer. That of characters has the characters of the text. Raises UserError if it is damaged."""
        if entry.name == "char":
            return CharTokenizer.train(text)
        if entry.path is None:
            return _published(entry.name)
        try:
            changed = entry.path.stat().st_mtime_ns
        except OSError:
            raise UserError(f"{entry.label} has no {entry.path.name}") from None
        return _loaded(entry.path, changed)


@lru_cache(KEPT)
def _loaded(path: Path, changed: int) -> Tokenizer:
    return load_tokenizer(path)


@lru_cache
def _published(name: str) -> Tokenizer:
    return PretrainedTokenizer.from_name(name)
