"""Reference curves: the losses that built-in recipes reach on a known text, with their spread over seeds.

They are JSON files in references/, made by bench/reference_curves.py. A reference applies to a run with the same model
sizes, tokenizer and text. All other settings may differ; the finding lists those that do.
"""

from __future__ import annotations

import json
import math
import statistics
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from typing import Any

from glassgpt.report.run_record import RunRecord
from glassgpt.runs.config import DATA_OF_STAGE
from glassgpt.training.metrics import Line

SIZES = ("architecture", "block_size", "n_layer", "n_head", "n_embd")
OTHER_SIZES = (  # of architectures that have them
    "ngram", "ngram_rows", "n_kv_head", "head_size", "n_hidden", "n_expert", "n_active", "band_width",
    "n_encoder_layer", "n_decoder_layer", "activation", "gated", "tied",
)  # fmt: skip
SETTINGS: Mapping[str, tuple[str, ...]] = {
    "model": ("dropout",),
    "optimizer": ("name", "lr", "beta1", "beta2", "weight_decay"),
    "schedule": ("name", "warmup_steps", "decay_steps", "min_lr"),
    "training": ("batch_tokens", "grad_clip"),
}
NGRAM_SETTINGS: Mapping[str, tuple[str, ...]] = {"model": ("ngram_dropout",)}
MUON_SETTINGS: Mapping[str, tuple[str, ...]] = {"optimizer": ("momentum", "embedding_lr")}
WINDOW = 50  # steps over which the training loss is averaged for one point


@dataclass(frozen=True)
class Point:
    """Mean and standard deviation of the losses over the seeds, after `tokens` tokens."""

    tokens: int
    val: float
    val_spread: float
    train: float
    train_spread: float


@dataclass(frozen=True)
class Reference:
    """The curve of a recipe on a text. A run is compared if its `identity` is the same; its `settings` may differ."""

    recipe: str
    text: str
    identity: dict[str, Any]
    settings: dict[str, Any]
    seeds: int
    command: str
    machine: str
    points: tuple[Point, ...]

    def at(self, tokens: int, curve: str) -> tuple[float, float]:
        """The loss ("val" or "train") after `tokens` tokens and its spread, interpolated over log tokens."""
        i = bisect_left([point.tokens for point in self.points], tokens)
        if i in (0, len(self.points)):
            point = self.points[min(i, len(self.points) - 1)]
            return getattr(point, curve), getattr(point, f"{curve}_spread")
        before, after = self.points[i - 1], self.points[i]
        part = math.log(tokens / before.tokens) / math.log(after.tokens / before.tokens)
        mean, spread = (
            getattr(before, name) + part * (getattr(after, name) - getattr(before, name))
            for name in (curve, f"{curve}_spread")
        )
        return mean, spread

    def to_dict(self) -> dict[str, Any]:
        """The reference as stored in its file."""
        return asdict(self)


def load_references() -> list[Reference]:
    """All reference curves of the package."""
    folder = resources.files("glassgpt.doctor") / "references"
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".json")), key=lambda file: file.name)
    return [parse_reference(json.loads(file.read_text(encoding="utf-8"))) for file in files]


def parse_reference(fields: dict[str, Any]) -> Reference:
    """The inverse of `Reference.to_dict`."""
    return Reference(**fields | {"points": tuple(Point(**point) for point in fields["points"])})


def find_reference(record: RunRecord, references: Sequence[Reference]) -> Reference | None:
    """The reference with the same model, tokenizer and text as the run; None if there is none."""
    return next((reference for reference in references if reference.identity == identity_of(record)), None)


def identity_of(record: RunRecord) -> dict[str, Any]:
    """The properties that a run must share with its reference: model sizes, tokenizer, text."""
    model, tokenizer = record.config.get("model", {}), record.data.get("tokenizer", {})
    return {
        **{field: model.get(field) for field in SIZES},
        **{field: model[field] for field in OTHER_SIZES if field in model},
        **_stage_of(record),
        "tokenizer": tokenizer.get("name"),
        "ids": tokenizer.get("vocab_size"),
        "text_sha256": record.data.get("text_sha256"),
        "val_fraction": record.data.get("val_fraction"),
    }


def _stage_of(record: RunRecord) -> dict[str, Any]:
    """The stage of another kind than pretraining, and what it asks of the model."""
    if record.stage not in DATA_OF_STAGE:
        return {}
    asked = DATA_OF_STAGE[record.stage]
    return {"stage": record.stage, asked: record.config.get("data", {}).get(asked)}


def settings_of(record: RunRecord) -> dict[str, Any]:
    """The settings that may differ between a run and its reference."""
    groups = [SETTINGS]
    if "ngram" in record.config.get("model", {}):
        groups.append(NGRAM_SETTINGS)
    if record.config.get("optimizer", {}).get("name") == "muon":
        groups.append(MUON_SETTINGS)
    return {
        f"{section}.{field}": record.config.get(section, {}).get(field)
        for group in groups
        for section, fields in group.items()
        for field in fields
    }


def differences(record: RunRecord, reference: Reference) -> list[str]:
    """The settings in which a run differs from its reference, in words."""
    return [
        f"{name} {value} (reference: {reference.settings.get(name)})"
        for name, value in settings_of(record).items()
        if value != reference.settings.get(name)
    ]


def build_reference(records: Sequence[RunRecord], *, recipe: str, text: str, command: str, machine: str) -> Reference:
    """The curve of several seeds of a recipe: a point at each validation after step 0."""
    points = []
    for column in zip(*([line for line in record.validations if line["step"] > 0] for record in records), strict=True):
        vals = [line["val/loss"] for line in column]
        trains = [train_loss(record.train, line["step"]) for record, line in zip(records, column, strict=True)]
        tokens = column[0]["step"] * records[0].config["training"]["batch_tokens"]
        points.append(Point(tokens, *_mean_and_spread(vals), *_mean_and_spread(trains)))
    first = records[0]
    return Reference(
        recipe, text, identity_of(first), settings_of(first), len(records), command, machine, tuple(points)
    )


def train_loss(lines: Sequence[Line], step: int) -> float:
    """The mean loss of the WINDOW steps up to `step`."""
    losses = [line["train/loss"] for line in lines if step - WINDOW < line["step"] <= step]
    return statistics.fmean(losses) if losses else math.nan


def _mean_and_spread(values: Sequence[float]) -> tuple[float, float]:
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return round(statistics.fmean(values), 4), round(spread, 4)
