"""The losses that a curve is compared with: of a model that knows nothing, and of models that only count."""

from __future__ import annotations

import math
import threading
from dataclasses import asdict, dataclass
from pathlib import Path

from glassgpt.data.dataset_cache import dataset_at_hand
from glassgpt.data.manifest import load_manifest
from glassgpt.errors import UserError
from glassgpt.evaluation.counting import CountingLosses, counting_losses
from glassgpt.report.counting import read_counting
from glassgpt.server.library import Card
from glassgpt.tokenizers import load_tokenizer


@dataclass(frozen=True)
class References:
    """Losses in nats per token on the validation split; None: not known, and `problem` says why."""

    uniform: float | None = None  # all tokens equally likely: ln V
    unigram: float | None = None  # by how often each token occurs in the training split
    bigram: float | None = None  # by how often each pair does
    ngram: float | None = None  # by how often each row of up to `order` tokens does
    order: int | None = None
    problem: str | None = None


class ReferenceBook:
    """The references of runs. Counting takes a moment, so it is done once for each text and tokenizer."""

    def __init__(self) -> None:
        self._counted: dict[tuple[str, str], CountingLosses] = {}
        self._turn = threading.Lock()

    def find(self, card: Card, folder: Path) -> References:
        """The references of a run. Nothing is downloaded or tokenised for them."""
        if not card.vocab_size:
            return References(problem="the size of the vocabulary is not known")
        uniform = math.log(card.vocab_size)
        if card.state == "imported":
            return References(uniform, problem="an imported run has no text to count in")
        if card.stage != "pretrain":
            return References(problem="lines to compare with are drawn for pretraining only")
        try:
            return References(uniform, **asdict(self._count(folder)))
        except (UserError, OSError) as error:
            return References(uniform, problem=str(error))

    def _count(self, folder: Path) -> CountingLosses:
        if (known := read_counting(folder)) is not None:
            return known
        manifest = load_manifest(folder / "data.json")
        key = manifest.key, manifest.tokenizer.sha256
        with self._turn:
            if key not in self._counted:
                tokenizer = load_tokenizer(folder / "tokenizer.json")
                dataset = dataset_at_hand(manifest, tokenizer)
                if dataset is None:
                    raise UserError("the tokens of its text are no longer in the cache, so they cannot be counted")
                self._counted[key] = counting_losses(dataset.train, dataset.val, tokenizer.vocab_size)
            return self._counted[key]
