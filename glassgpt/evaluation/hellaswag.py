"""HellaSwag (Zellers et al. 2019): choose which of four endings follows a text. Chance is 0.25, humans reach 0.95."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from glassgpt.data.cache import cache_folder, writing
from glassgpt.data.download import DownloadError, fetch
from glassgpt.errors import UserError, option
from glassgpt.evaluation.scoring import ScoringProgress, encode_pair, score
from glassgpt.files import new_file, read_file
from glassgpt.models import Model
from glassgpt.runtime.device import Runtime
from glassgpt.tokenizers.base import Tokenizer

URL = "https://raw.githubusercontent.com/rowanz/hellaswag/master/data/hellaswag_val.jsonl"
SECONDS = 120.0  # for 12 MB
N_ITEMS = 10_042  # of the validation split

# Published accuracies of GPT-2 124M on the validation split, with their source.
REFERENCES = {
    "acc": (0.2892, "lm-eval"),
    "acc_norm": (0.3114, "lm-eval"),
    "acc_norm_tokens": (0.2945, "build-nanogpt, on texts without the activity"),
}


@dataclass(frozen=True)
class Item:
    """A text, its four endings, and the index of the correct one."""

    context: str
    endings: tuple[str, ...]
    label: int


@dataclass(frozen=True)
class Accuracies:
    """Three accuracies from the same log-likelihoods, which differ in how these are normalised.

    `acc` uses them unchanged. `acc_norm` divides by the number of characters of the ending, like lm-eval's metric of
    that name. `acc_norm_tokens` divides by its number of tokens, like build-nanogpt. The highest value wins.
    """

    acc: float
    acc_norm: float
    acc_norm_tokens: float
    items: int

    def standard_error(self, metric: str) -> float:
        """Standard error of an accuracy p over n > 1 items: sqrt(p (1 - p) / (n - 1)), as in lm-eval."""
        p: float = getattr(self, metric)
        return math.sqrt(p * (1.0 - p) / (self.items - 1))

    def figures(self) -> dict[str, float]:
        """All figures by name; standard errors only for more than one item."""
        figures: dict[str, float] = {metric: getattr(self, metric) for metric in REFERENCES}
        if self.items > 1:
            figures |= {f"{metric}_stderr": self.standard_error(metric) for metric in REFERENCES}
        return figures | {"items": self.items}


class HellaSwag:
    """Items encoded as ids once, for repeated evaluation."""

    def __init__(self, items: Sequence[Item], tokenizer: Tokenizer) -> None:
        """Raises UserError for a text that the tokenizer cannot encode."""
        self.pairs = [
            encode_pair(tokenizer, item.context, " " + ending) for item in items for ending in item.endings
        ]  # four pairs per item: its text, and a space with the ending
        self.labels = np.array([item.label for item in items])
        characters = np.array([[len(ending) for ending in item.endings] for item in items])
        tokens = np.array([len(pair.continuation) for pair in self.pairs]).reshape(-1, 4)
        self.lengths = {"acc": np.ones_like(tokens), "acc_norm": characters, "acc_norm_tokens": tokens}  # (n, 4) each

    def evaluate(self, model: Model, runtime: Runtime, *, progress: ScoringProgress | None = None) -> Accuracies:
        """How often the correct ending has the highest score; `progress` receives rows, four per item."""
        logprobs = score(model, self.pairs, runtime, progress=progress).logprobs.reshape(-1, 4)
        accuracies = {
            metric: float(((logprobs / length).argmax(axis=1) == self.labels).mean())
            for metric, length in self.lengths.items()
        }
        return Accuracies(**accuracies, items=len(self.labels))


def load_items(file: str | Path | None = None, limit: int | None = None) -> list[Item]:
    """The first `limit` items of `file`, or of the validation split, which is downloaded once into the cache.

    Raises UserError, with file and line number, for a line that is not an item, and for a file without items.
    """
    if limit is not None and limit < 1:
        raise UserError(f"limit {limit} is out of range: it must be at least 1")
    path = Path(file) if file else _validation_split()
    items = parse_items(read_file(path, "HellaSwag file"), path)
    if not items:
        raise UserError(f"{path} is empty: it contains no HellaSwag items")
    return items[:limit]


def parse_items(data: bytes, path: Path) -> list[Item]:
    """Parses JSON lines: published items (ctx_a, ctx_b, activity_label), or items with the full text in ctx."""
    items = []
    for number, line in enumerate(data.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            items.append(_parse_item(json.loads(line)))
        except (ValueError, RecursionError) as error:
            not_json = isinstance(error, json.JSONDecodeError | UnicodeDecodeError | RecursionError)
            reason = f"is not JSON ({error})" if not_json else f"is not a HellaSwag item: {error}"
            raise UserError(f"{path}, line {number} {reason}") from None
    return items


def _parse_item(item: Any) -> Item:
    """Raises ValueError with the reason if it is not an item."""
    if not isinstance(item, dict):
        raise ValueError("it is not an object with ctx, endings and label")
    published = "activity_label" in item and "ctx_a" in item
    for field in ("activity_label", "ctx_a", "ctx_b") if published else ("ctx",):
        if not isinstance(item.get(field), str):
            raise ValueError(f"{field} is not a string" if field in item else f"it has no {field}")
    endings = item.get("endings")
    if not isinstance(endings, list) or len(endings) != 4 or not all(isinstance(text, str) for text in endings):
        raise ValueError("endings is not a list of 4 strings" if "endings" in item else "it has no endings")
    label = str(item["label"]) if "label" in item and not isinstance(item["label"], bool) else None
    if label not in ("0", "1", "2", "3"):
        raise ValueError(f"label is {item['label']!r}, not 0, 1, 2 or 3" if "label" in item else "it has no label")
    if published:
        context = clean(f"{item['activity_label']}: {item['ctx_a']} {item['ctx_b'].capitalize()}")
        endings = [clean(ending) for ending in endings]
    else:
        context = item["ctx"]
    if not context.strip() or not all(endings):
        raise ValueError("its text or one of its endings is empty")
    return Item(context, tuple(endings), int(label))


def clean(text: str) -> str:
    """Removes WikiHow markup from a published text, exactly as lm-eval does."""
    text = re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". "))
    return text.replace("  ", " ")


def _validation_split() -> Path:
    path = cache_folder() / "hellaswag_val.jsonl"
    if path.exists():
        return path
    try:
        data = fetch(URL, SECONDS)
    except DownloadError as error:
        raise UserError(
            f"HellaSwag could not be downloaded from {URL}: {error}; try again, put the file at {path} yourself, or"
            f" name one with {option(file=None)}"
        ) from error
    if (found := len(parse_items(data, path))) != N_ITEMS:
        raise UserError(
            f"{URL} sent {found:,} items where {N_ITEMS:,} were expected: name a file with {option(file=None)}"
        )
    with writing(path), new_file(path) as file:
        file.write(data)
    return path
