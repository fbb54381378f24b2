"""How `transformers` stores our architectures: one file with a table for each."""

from __future__ import annotations

from glassgpt.errors import UserError, option
from glassgpt.interop.layout import Layout
from glassgpt.interop.layouts import bert, gpt2, gpt_oss, llama, marian, modern, qwen3, t5
from glassgpt.models import EncoderDecoderModel, Model, find_architecture

LAYOUTS = (
    gpt2.LAYOUT, modern.LAYOUT, qwen3.LAYOUT, llama.LAYOUT, bert.LAYOUT, gpt_oss.LAYOUT, marian.LAYOUT, t5.LAYOUT,
)  # fmt: skip


def layout_of(model: Model | EncoderDecoderModel) -> Layout:
    """The layout of a model's architecture.

    Raises UserError if `transformers` has no equivalent of the architecture, or of one of the model's settings.
    """
    for layout in LAYOUTS:
        if isinstance(model.config, find_architecture(layout.architecture).config):
            for name, value in layout.fixed.items():
                if (had := getattr(model.config, name)) != value:
                    raise UserError(
                        f"a run with model.{name} = {had} cannot be exported, because no other program has a place for"
                        f" that: train one with {option(**{f'model.{name}': value})}, which is exported as"
                        f" {layout.family} ({layout.fixed_costs})"
                    )
            return layout
    known = ", ".join(layout.architecture for layout in LAYOUTS)
    raise UserError(f"only the architectures {known} can be exported: transformers has no equivalent of the others")
