"""A source and a target in an encoder-decoder, in pictures for a terminal and for a notebook.

look = run.look_pair("romeo")
look.attention("cross", 1, 0)
look.lens()
look.losses()
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from glassgpt.errors import UserError, counted, unknown
from glassgpt.inspection.attention import head_scores
from glassgpt.inspection.pairs import PARTS, PairTrace, Part, look_at_pair, sharpness
from glassgpt.inspection.sight import Sight
from glassgpt.inspection.surprise import losses_of
from glassgpt.models import EncoderDecoderModel
from glassgpt.report.look.attention import AttentionView, CrossAttentionView
from glassgpt.report.look.drawing import columns, fit, labels_of, quoted
from glassgpt.report.look.heads import Heads
from glassgpt.report.look.lens import TargetLensView
from glassgpt.report.look.loss import LossView
from glassgpt.tokenizers import Tokenizer
from glassgpt.tokenizers.pieces import tokens_of

TOP = 5  # tokens that were expected
READ = 40  # columns of a source in a sentence
NAMES: dict[Part, str] = {"cross": "the cross-attention", "encoder": "the encoder", "decoder": "the decoder"}


@dataclass(frozen=True, repr=False, eq=False)
class PairLook:
    """A source and a target in a model; without a target, the model writes it greedily.

    `name` names the model in sentences.
    """

    model: EncoderDecoderModel
    tokenizer: Tokenizer
    source: str
    target: str | None
    name: str

    @cached_property
    def trace(self) -> PairTrace:
        """The pass of the pair. Raises UserError as `look_at_pair` does."""
        return look_at_pair(self.model, self.tokenizer, self.source, self.target)

    def __repr__(self) -> str:
        return f"{self.attention()!r}\n\nMore: .attention(part, layer, head)  .lens(step)  .losses()"

    def _repr_html_(self) -> str:
        return self.attention()._repr_html_()

    def attention(self, part: Part = "cross", layer: int | None = None, head: int | None = None) -> AttentionView:
        """Whom each token hears in one head of a part: "cross", "encoder" or "decoder".

        By default it is the head of cross-attention that is most decided, or the one that is most clearly of a kind.
        Raises UserError for an unknown part, and for a head that does not exist.
        """
        if part not in PARTS:
            raise unknown("the part", part, PARTS)
        patterns = self.trace.patterns(part)
        n_blocks, n_heads, *_ = patterns.shape
        if layer is not None and not 0 <= layer < n_blocks:
            raise UserError(f"there is no block {layer}: {NAMES[part]} has {counted(n_blocks, 'block')}, from 0")
        if head is not None and not 0 <= head < n_heads:
            raise UserError(f"there is no head {head}: a block has {counted(n_heads, 'head')}, counted from 0")
        rows, columns = self.trace.ids_of(part)
        if part == "cross":
            sharp = sharpness(patterns)
            order = sharp.flatten().argsort(descending=True, stable=True).tolist()
            row, number = next(divmod(n, n_heads) for n in order if self._fits(divmod(n, n_heads), layer, head))
            return CrossAttentionView(
                self.name, self._tokens(rows), self._tokens(columns), row, number, patterns[row, number],
                list(range(n_blocks)), [[None] * n_heads] * n_blocks, [Sight(causal=False)] * n_blocks, None,
                sharp.tolist(),
            )  # fmt: skip
        sight = Sight(causal=part == "decoder")
        scores = head_scores(patterns, rows, sight.visible(len(rows), len(rows)))
        source, blocks = f"{NAMES[part]} of {self.name}", list(range(n_blocks))
        heads = Heads(source, self._tokens(rows), blocks, patterns, scores, [sight] * n_blocks, None)
        return heads.view(*next(at for at in heads.clearest if self._fits(at, layer, head)))

    @staticmethod
    def _fits(at: tuple[int, int], layer: int | None, head: int | None) -> bool:
        return layer in (None, at[0]) and head in (None, at[1])

    def lens(self, step: int | None = None) -> TargetLensView:
        """What each layer of the decoder would write at a step of the target; by default at its last token.

        The step after the last token writes the one that ends the target. Raises UserError for a step that the target
        lacks.
        """
        n_steps = len(self.trace.outputs)
        at = max(0, n_steps - 2) if step is None else step
        if not 0 <= at < n_steps:
            raise UserError(f"there is no step {at}: the target is written in steps 0 to {n_steps - 1}")
        found = self.trace.lens
        source = "".join(labels_of(self._tokens(self.trace.source[:-1])))  # without its stop
        read = fit(source, min(columns(source), READ))
        return TargetLensView(
            f"{self.name}, for the source {quoted(read)}",
            self._tokens(self.trace.outputs),
            at,
            ["embedding", *(f"block {block}" for block in range(len(found.ids) - 1))],
            [self._tokens(ids) for ids in found.ids[:, at].tolist()],
            found.probabilities[:, at],
            self._tokens(self.trace.outputs)[at],
            found.target_probabilities[:, at],
        )

    def losses(self, top: int = TOP) -> LossView:
        """How much each token of the target surprises the model, with the token that ends it."""
        outputs = torch.tensor(self.trace.outputs)
        found = losses_of(self.trace.logits, outputs, top)
        expected = [self._tokens(ids) for ids in found.expected_ids.tolist()]
        tokens = self._tokens([self.trace.inputs[0], *self.trace.outputs])
        name = self.name if self.target is not None else f"{self.name}, for the target that it wrote itself"
        return LossView(name, tokens, found.losses, expected, found.expected_probabilities)

    def _tokens(self, ids: Sequence[int]) -> list[dict[str, Any]]:
        return tokens_of(self.tokenizer, ids)
