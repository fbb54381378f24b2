"""Streams datasets of the Hugging Face hub. Only the resulting shards are stored on disk."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from glassgpt.config import Count, convert
from glassgpt.data.documents import Piece
from glassgpt.data.sources import BATCH, DocumentBatch, Position
from glassgpt.errors import UserError, unknown

FINEWEB_EDU = "HuggingFaceFW/fineweb-edu"
FINEWEB_EDU_SAMPLES = ("10BT", "100BT", "350BT")  # billions of GPT-2 tokens


def fineweb_edu(sample: str = "10BT") -> HubDataset:
    """A published sample of FineWeb-Edu (filtered web pages)."""
    if sample not in FINEWEB_EDU_SAMPLES:
        raise unknown("sample of fineweb-edu", sample, FINEWEB_EDU_SAMPLES)
    return HubDataset(FINEWEB_EDU, config=f"sample-{sample}")


@dataclass(frozen=True)
class HubDataset:
    """A dataset by its hub id, or a local folder with the same layout.

    A position is [number of documents before it, state of the dataset's iterator].
    """

    id: str
    config: str | None = None
    split: str = "train"
    column: str = "text"
    revision: str | None = None  # commit hash, so that a resumed process reads the same data

    @property
    def name(self) -> str:
        return f"{self.id} {self.config}" if self.config else self.id

    def settings(self) -> dict[str, Any]:
        return {
            "hub": self.id,
            "config": self.config,
            "split": self.split,
            "column": self.column,
            "revision": self.revision,
        }

    def pinned(self, earlier: dict[str, Any] | None) -> HubDataset:
        """This dataset at the revision in the `earlier` settings, else at the newest. Raises UserError offline."""
        if earlier and earlier.get("hub") == self.id:
            return replace(self, revision=earlier.get("revision"))
        if Path(self.id).is_dir():
            return self
        with _errors_as_user_errors(self.id):
            from huggingface_hub import HfApi

            return replace(self, revision=HfApi().dataset_info(self.id, timeout=20).sha)

    def check_position(self, position: Any) -> None:
        convert(tuple[Count, dict[str, Any]], position, "position")

    def batches(self, start: Position = None, *, cut: re.Pattern[str] | None = None) -> Iterator[DocumentBatch]:
        """The documents in batches of about a million characters. Documents are not split."""
        with _errors_as_user_errors(self.id):
            stream = self._stream()
            done, state = start or (0, None)
            if state is not None:
                stream.load_state_dict(state)
            total = self._documents(stream)
            position = [done, stream.state_dict()]
            pieces, size = [], 0
            for number, record in enumerate(stream, done + 1):
                pieces.append(self._piece(record, number))
                size += len(pieces[-1].text)
                if size >= BATCH:
                    yield DocumentBatch(position, pieces, min(number / total, 1.0) if total else None)
                    position, pieces, size = [number, stream.state_dict()], [], 0
            if pieces:
                yield DocumentBatch(position, pieces, 1.0)

    def _stream(self) -> Any:
        try:
            import datasets
        except ImportError as error:
            raise UserError("datasets of the hub need the datasets package: pip install 'glassgpt[data]'") from error
        try:
            stream = datasets.load_dataset(
                self.id, name=self.config, split=self.split, revision=self.revision, streaming=True
            )
        except ValueError as error:  # an unknown configuration or split; the message lists the known ones
            raise UserError(f"dataset {self.id}: {error}; choose with --config and --split") from error
        columns = list(stream.features or [])
        if columns and self.column not in columns:
            raise self._no_column(columns)
        return stream.select_columns([self.column]) if columns else stream

    def _documents(self, stream: Any) -> int | None:
        """The number of documents according to the dataset's metadata; None if unknown."""
        split = (stream.info.splits or {}).get(self.split)
        return split.num_examples if split else None

    def _piece(self, record: dict[str, Any], number: int) -> Piece:
        where = f"{self.name}, document {number}"
        if self.column not in record:
            raise self._no_column(list(record))
        text = record[self.column]
        if not isinstance(text, str | None):
            raise UserError(f"{where}: column '{self.column}' is not text but {str(text)[:40]!r}")
        return Piece(text or "", True, where, 0, text is None)

    def _no_column(self, columns: list[str]) -> UserError:
        return UserError(
            f"{self.name} has no column '{self.column}': name the column with the text with --column; "
            f"it has {', '.join(columns)}"
        )


@contextlib.contextmanager
def _errors_as_user_errors(id: str) -> Iterator[None]:
    """Turns any error of the hub's libraries into a UserError: they raise a dozen unrelated error classes."""
    try:
        yield
    except (UserError, GeneratorExit):
        raise
    except ImportError as error:
        raise UserError("datasets of the hub need huggingface-hub: pip install 'glassgpt[data]'") from error
    except Exception as error:
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise UserError(
            f"cannot read dataset '{id}' from the Hugging Face hub ({reason}): check its id and the network, then "
            "run the same command again, which resumes where it stopped"
        ) from error
