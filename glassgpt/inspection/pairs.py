"""A source and a target on their way through an encoder-decoder: whom each token hears, and what is written.

Shapes: S source tokens, T steps of the decoder, L blocks of a stack, H heads, V = vocab_size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from glassgpt.data.pair_dataset import encode_source
from glassgpt.data.pairs import Ends
from glassgpt.errors import UserError
from glassgpt.generation.translate import write_target
from glassgpt.inspection.capture import capture_names, capture_pair
from glassgpt.inspection.ids import one_pass
from glassgpt.models import EncoderDecoderModel
from glassgpt.tokenizers import Tokenizer

Part = Literal["cross", "encoder", "decoder"]
MOST_WRITTEN = 128  # tokens: an untrained model does not stop by itself
PARTS: tuple[Part, ...] = get_args(Part)
_STACKS: dict[Part, tuple[str, str]] = {
    "cross": ("decoder", "cross"), "encoder": ("encoder", "attn"), "decoder": ("decoder", "attn"),
}  # fmt: skip


@dataclass(frozen=True)
class PairTrace:
    """A pass of an encoder-decoder. The tensors are on the CPU in float32.

    At step t the decoder reads `inputs[t]`, and its logits are for `outputs[t]`: the target, one token later.
    """

    source: list[int]  # S ids, the last one is the stop
    inputs: list[int]  # T ids: the start, then the target
    outputs: list[int]  # T ids: the target, then the stop
    logits: Tensor  # (T, V)
    encoder: Tensor  # (L, H, S, S) the patterns of attention within the source
    decoder: Tensor  # (L, H, T, T) within the target
    cross: Tensor  # (L, H, T, S) from the target to the source

    def patterns(self, part: Part) -> Tensor:
        """The patterns of one part."""
        return {"encoder": self.encoder, "decoder": self.decoder, "cross": self.cross}[part]

    def ids_of(self, part: Part) -> tuple[list[int], list[int]]:
        """The ids along both axes of a part's patterns: rows (queries), and columns (keys).

        A row of cross-attention is named after the token that it writes, since that is what it looks for.
        """
        if part == "cross":
            return self.outputs, self.source
        return (self.source, self.source) if part == "encoder" else (self.inputs, self.inputs)


@torch.no_grad()
def trace_pair(model: EncoderDecoderModel, source: Sequence[int], inputs: Sequence[int], stop_id: int) -> PairTrace:
    """Runs the model on a source and on a target, which are given as ids, and captures all attention patterns.

    `inputs` are the start and the target; `stop_id` is what follows. Raises UserError for ids outside the vocabulary,
    and for a source or a target that is empty or longer than `block_size`.
    """
    names = [name for name in capture_names(model) if name.endswith(".pattern")]
    rows = one_pass(model, source), one_pass(model, inputs)
    logits, seen = capture_pair(model, *rows, names)

    def patterns(part: Part) -> Tensor:
        stack, kind = _STACKS[part]
        found = [seen[name] for name in names if name.startswith(stack) and name.endswith(f".{kind}.pattern")]
        return torch.cat(found).float().cpu()

    source_ids, input_ids = (row[0].tolist() for row in rows)
    return PairTrace(
        source_ids, input_ids, [*input_ids[1:], stop_id], logits[0].float().cpu(),
        patterns("encoder"), patterns("decoder"), patterns("cross"),
    )  # fmt: skip


def look_at_pair(model: EncoderDecoderModel, tokenizer: Tokenizer, source: str, target: str | None = None) -> PairTrace:
    """The pass of a source and a target, given as texts. Without a target, it is what the model writes, greedily.

    What it writes is cut after MOST_WRITTEN tokens, or where one more would be longer than `block_size`. Raises
    UserError for a tokenizer without a token that ends a target, for a text that it cannot encode, and for one that is
    longer than `block_size` with the token that ends it.
    """
    ends = Ends.of(tokenizer)
    read = encode_source(tokenizer, ends, source).tolist()
    tokens = one_pass(model, read)
    if target is None:
        most = min(MOST_WRITTEN, model.config.block_size - 1)  # one step more reads the last token
        if most < 1:
            raise UserError("model.block_size is 1: there is no room for a target")
        (written,) = write_target(model, tokens, ends.start_id, ends.stop_id, most, vocab_size=tokenizer.vocab_size)
    else:
        written = tokenizer.encode(target)
    return trace_pair(model, read, [ends.start_id, *written], ends.stop_id)


def sharpness(patterns: Tensor) -> Tensor:
    """(L, H): the weight of the key that a query hears most, as a mean over the queries. Patterns are (L, H, T, S)."""
    return patterns.amax(dim=-1).mean(dim=-1)
