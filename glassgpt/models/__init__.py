"""Model architectures (token ids → logits), registered under the names that configs use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from glassgpt.errors import UserError, unknown
from glassgpt.models.bert import Bert, BertConfig
from glassgpt.models.gpt2 import GPT2, GPT2Config
from glassgpt.models.gpt3 import GPT3, GPT3Config
from glassgpt.models.gpt_oss import GPTOss, GPTOssConfig
from glassgpt.models.ladder import SECTIONS, LadderConfig
from glassgpt.models.llama import Llama, LlamaConfig
from glassgpt.models.model import ContextModel, EncoderDecoderModel, EncoderModel, Model, evaluating, is_tied
from glassgpt.models.modern import Modern, ModernConfig
from glassgpt.models.qwen3 import Qwen3, Qwen3Config
from glassgpt.models.sizes import ModelConfig
from glassgpt.models.t5 import T5, T5Config
from glassgpt.models.transformer import Transformer, TransformerConfig

Kind = Literal["decoder", "encoder", "encoder-decoder"]


@dataclass(frozen=True)
class Architecture:
    """A model class and its config dataclass."""

    config: type[Any]
    model: Callable[[Any], Model | EncoderDecoderModel]

    @property
    def kind(self) -> Kind:
        """What a position sees: those before it, all of them, or those before it and the memory of a source."""
        if isinstance(self.model, type) and issubclass(self.model, EncoderDecoderModel):
            return "encoder-decoder"
        return "encoder" if isinstance(self.model, type) and issubclass(self.model, EncoderModel) else "decoder"

    @property
    def takes_context(self) -> bool:
        """Whether a pass can have a KV cache, or a mask between the documents of a row."""
        return isinstance(self.model, type) and issubclass(self.model, ContextModel)

    @property
    def pads(self) -> bool:
        """Whether the config has `padded_vocab_size`: an embedding with more rows than there are ids."""
        return "padded_vocab_size" in self.config.__dataclass_fields__


AnyModel = Model | EncoderDecoderModel  # a model of one text, or of a source and a target

ARCHITECTURES = {
    "gpt2": Architecture(GPT2Config, GPT2),
    "gpt3": Architecture(GPT3Config, GPT3),
    "modern": Architecture(ModernConfig, Modern),
    "llama": Architecture(LlamaConfig, Llama),
    "qwen3": Architecture(Qwen3Config, Qwen3),
    "bert": Architecture(BertConfig, Bert),
    "gpt_oss": Architecture(GPTOssConfig, GPTOss),
    "transformer": Architecture(TransformerConfig, Transformer),
    "t5": Architecture(T5Config, T5),
} | {section.name: Architecture(LadderConfig, section.model) for section in SECTIONS}


def find_architecture(name: str) -> Architecture:
    """The architecture with this name. Raises UserError if there is none."""
    if name not in ARCHITECTURES:
        raise unknown("architecture", name, ARCHITECTURES)
    return ARCHITECTURES[name]


def build_model(architecture: str, config: ModelConfig) -> Model:
    """A model of one text, with freshly initialised weights, drawn from torch's default generator.

    Raises UserError for an encoder-decoder, which needs a source beside the text: `find_architecture(…).model(config)`
    builds any kind.
    """
    found = find_architecture(architecture)
    if found.kind == "encoder-decoder":
        raise UserError(
            f"the architecture '{architecture}' is an encoder-decoder, which reads a source beside its text:"
            " this needs a model of one text"
        )
    model = found.model(config)
    assert not isinstance(model, EncoderDecoderModel)
    return model


__all__ = [
    "ARCHITECTURES",
    "AnyModel",
    "Architecture",
    "ContextModel",
    "EncoderDecoderModel",
    "EncoderModel",
    "Kind",
    "Model",
    "ModelConfig",
    "build_model",
    "evaluating",
    "find_architecture",
    "is_tied",
]
