"""A source and a target on their way through an encoder-decoder: whom each token hears, and what is written.

Shapes: S source tokens, T steps of the decoder, L blocks of a stack, H heads, V = vocab_size.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from glassgpt.data.pair_dataset import encode_source
from glassgpt.data.pairs import Ends
from glassgpt.errors import UserError
from glassgpt.generation.translate import write_target
from glassgpt.inspection.capture import capture_names, capture_pair
from glassgpt.inspection.ids import one_pass
from glassgpt.inspection.lens import Lens, read_out
from glassgpt.models import EncoderDecoderModel
from glassgpt.tokenizers import Tokenizer

Part = Literal["cross", "encoder", "decoder"]
TOP = 5  # tokens that the lens names in each layer
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
    lens: Lens  # what each layer of the decoder would write at each of the T steps, with its embedding as layer 0

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
    every = capture_names(model)
    names = [name for name in every if name.endswith(".pattern")]
    streams = [name for name in every if re.fullmatch(r"decoder\.(embed|blocks\.\d+\.resid)", name)]
    rows = one_pass(model, source), one_pass(model, inputs)
    logits, seen = capture_pair(model, *rows, [*names, *streams, "final"])

    def patterns(part: Part) -> Tensor:
        stack, kind = _STACKS[part]
        found = [seen[name] for name in names if name.startswith(stack) and name.endswith(f".{kind}.pattern")]
        return torch.cat(found).float().cpu()

    source_ids, input_ids = (row[0].tolist() for row in rows)
    outputs = [*input_ids[1:], stop_id]
    lens = _lens(model, [seen[name][0] for name in streams], seen["final"][0], outputs)
    return PairTrace(
        source_ids, input_ids, outputs, logits[0].float().cpu(),
        patterns("encoder"), patterns("decoder"), patterns("cross"), lens,
    )  # fmt: skip


def _lens(model: EncoderDecoderModel, streams: list[Tensor], final: Tensor, outputs: list[int]) -> Lens:
    """The logit lens of the decoder: its stream (T, C) after each block, read as if it were the last.

    `final` (T, C) is what the head reads. T5's decoder ends with a norm, and its tied head reads a fixed part of that.
    """
    norm = getattr(model.get_submodule("decoder"), "norm", nn.Identity())
    last = norm(streams[-1])
    scale = (final * last).sum() / (last * last).sum()
    features = torch.cat([*(scale * norm(stream) for stream in streams[:-1]), final])
    targets = torch.tensor(outputs, device=features.device).repeat(len(streams))
    found = (part.unflatten(0, (len(streams), len(outputs))).cpu() for part in read_out(model, features, targets, TOP))
    return Lens(*found)


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
