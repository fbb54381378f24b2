"""ids → logits. Every architecture by the name that a config gives it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from glassgpt.errors import unknown
from glassgpt.models.gpt2 import GPT2, GPT2Config
from glassgpt.models.gpt3 import GPT3, GPT3Config
from glassgpt.models.ladder import SECTIONS, LadderConfig
from glassgpt.models.model import Model, evaluating
from glassgpt.models.sizes import ModelConfig


@dataclass(frozen=True)
class Architecture:
    """A model class and the dataclass of its sizes; whether it can keep the documents of a row apart."""

    config: type[Any]
    model: Callable[[Any], Model]
    documents: bool = False

    @property
    def pads(self) -> bool:
        """Whether the embedding may have more rows than ids, `padded_vocab_size` of them."""
        return "padded_vocab_size" in self.config.__dataclass_fields__


ARCHITECTURES = {
    "gpt2": Architecture(GPT2Config, GPT2, documents=True),
    "gpt3": Architecture(GPT3Config, GPT3, documents=True),
} | {section.name: Architecture(LadderConfig, section.model) for section in SECTIONS}


def find_architecture(name: str) -> Architecture:
    """Raises UserError for a name that no architecture has."""
    if name not in ARCHITECTURES:
        raise unknown("architecture", name, ARCHITECTURES)
    return ARCHITECTURES[name]


def build_model(architecture: str, config: ModelConfig) -> Model:
    """A model with fresh weights, drawn from torch's generator."""
    return find_architecture(architecture).model(config)


__all__ = ["ARCHITECTURES", "Architecture", "Model", "ModelConfig", "build_model", "evaluating", "find_architecture"]
