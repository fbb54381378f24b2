"""A text in a model, in pictures for a terminal and for a notebook.

look = run.look("O Romeo")
look.attention(2, 1)
look.lens()
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from glassgpt.errors import UserError, counted
from glassgpt.inspection.attention import head_scores, heads_of, sinks_of
from glassgpt.inspection.experts import expert_blocks, routes_of
from glassgpt.inspection.guesses import guesses_of, hidden_places, mask_id_of
from glassgpt.inspection.lens import logit_lens
from glassgpt.inspection.sight import sights_of, visible_of
from glassgpt.inspection.surprise import check_reads_forward, token_losses
from glassgpt.inspection.taps import ROUTING_STEPS, parts
from glassgpt.inspection.trace import attention_blocks, check_position, trace
from glassgpt.models import EncoderModel, Model
from glassgpt.report.look.attention import AttentionView
from glassgpt.report.look.experts import ExpertsView
from glassgpt.report.look.guesses import GuessesView
from glassgpt.report.look.heads import Heads
from glassgpt.report.look.lens import HiddenLensView, LensView
from glassgpt.report.look.loss import LossView
from glassgpt.report.look.tokens import TokensView
from glassgpt.tokenizers import Tokenizer
from glassgpt.tokenizers.pieces import tokens_of

TOP = 5  # predictions that the views name


@dataclass(frozen=True, repr=False, eq=False)
class Look:
    """A text of T tokens in a model. Each method is one question, and its answer shows itself.

    A text may be longer than `block_size` for `tokens` and `losses`. `source` names the model in sentences.
    """

    model: Model
    tokenizer: Tokenizer
    ids: Sequence[int]
    source: str

    def __post_init__(self) -> None:
        if not len(self.ids):
            raise UserError("the text is empty: it must have at least one token")

    @property
    def text(self) -> str:
        """The text of the ids."""
        return self.tokenizer.decode(self.ids)

    def __repr__(self) -> str:
        more = ".guesses()" if self.is_encoder else ".losses()"
        return f"{self.tokens()!r}\n\nMore: .attention(layer, head)  .lens(position)  {more}  .tokens()"

    def _repr_html_(self) -> str:
        return self.tokens()._repr_html_()

    @cached_property
    def _tokens(self) -> list[dict[str, Any]]:
        return tokens_of(self.tokenizer, self.ids)

    def tokens(self) -> TokensView:
        """The pieces of the text and their ids."""
        return TokensView(self.source, self._tokens, len(self.text.encode()))

    def attention(self, layer: int | None = None, head: int | None = None) -> AttentionView:
        """Whom each token hears in one head: the given one, or else the one that is most clearly of a kind.

        Raises UserError for a head that does not exist, for a model without attention, and for a text longer than
        `block_size`.
        """
        blocks = attention_blocks(self.model)
        if layer is not None and blocks and layer not in blocks:
            raise UserError(f"no block {layer} has attention; blocks that have it: {', '.join(map(str, blocks))}")
        heads = self.heads()
        n_heads = heads.n_head
        if head is not None and not 0 <= head < n_heads:
            raise UserError(f"there is no head {head}: a block has {counted(n_heads, 'head')}, counted from 0")
        return heads.view(*next(at for at in heads.clearest if layer in (None, at[0]) and head in (None, at[1])))

    def heads(self) -> Heads:
        """The patterns of all heads. They take L·H·T² numbers.

        Raises UserError for a model without attention, and for a text longer than `block_size`.
        """
        blocks = attention_blocks(self.model)
        if not blocks:
            raise UserError(f"{self.source} has no attention: look at its lens, its losses or its tokens")
        seen = trace(self.model, self.ids, [f"blocks.{block}.attn.pattern" for block in blocks])
        patterns = heads_of(seen)
        scores = head_scores(patterns, seen.ids, visible_of(self.model, seen.n_tokens))
        return Heads(self.source, self._tokens, blocks, patterns, scores, sights_of(self.model), sinks_of(seen))

    def experts(self, layer: int | None = None) -> ExpertsView:
        """Which experts each token chooses, in all blocks that have some or in the given one.

        Raises UserError for a model without experts, for a block without them, and for a text longer than
        `block_size`.
        """
        blocks = expert_blocks(self.model)
        if not blocks:
            raise UserError(f"{self.source} has no experts: its MLPs compute for all tokens; look at its attention")
        if layer is not None and layer not in blocks:
            raise UserError(f"no block {layer} has experts; blocks that have them: {', '.join(map(str, blocks))}")
        names = [f"blocks.{block}.mlp.{step}" for block in blocks for step in ROUTING_STEPS]
        routes = routes_of(trace(self.model, self.ids, names))
        if layer is not None:
            at = slice(blocks.index(layer), blocks.index(layer) + 1)
            routes = replace(routes, layers=(layer,), experts=routes.experts[at], weights=routes.weights[at])
        return ExpertsView(self.source, self._tokens, routes)

    @property
    def is_encoder(self) -> bool:
        """Whether the model sees all positions, and finds hidden tokens."""
        return isinstance(self.model, EncoderModel)

    def guesses(self, top: int = TOP) -> GuessesView:
        """What an encoder puts in the places of the mask token; without one in the text, in each place in turn.

        The places of other special tokens, such as [CLS], are left out: they are never hidden in training. Raises
        UserError for a model that is no encoder, and for a text longer than `block_size`.
        """
        mask_id, specials = mask_id_of(self.tokenizer), set(self.tokenizer.special_tokens.values())
        ordinary = [at for at, id in enumerate(self.ids) if id not in specials]
        positions = hidden_places(self.ids, mask_id) or ordinary or None
        found = guesses_of(self.model, self.ids, mask_id, positions, top)
        predictions = [tokens_of(self.tokenizer, ids) for ids in found.ids.tolist()]
        return GuessesView(self.source, self._tokens, found, predictions)

    def lens(self, position: int | None = None, top: int = TOP) -> LensView:
        """What each layer would say comes after the token at `position`, the last one if left out.

        For an encoder, it is what each layer would put in that place; the first one that the text hides if left out,
        or else the last one. A place that the text does not hide is hidden, if the tokenizer has a mask token.
        Raises UserError for a position that the text lacks, and for a text longer than `block_size`.
        """
        blocks = len(parts(self.model))
        names = ["embed", "final", *(f"blocks.{block}.resid" for block in range(blocks))] if blocks else ["final"]
        if self.is_encoder:
            return self._hidden_lens(names, position, top)
        seen = trace(self.model, self.ids, names)
        at = check_position(seen, seen.n_tokens - 1 if position is None else position)
        lens = logit_lens(seen, [at], top)
        following = self._tokens[at + 1] if at + 1 < seen.n_tokens else None
        return LensView(
            self.source,
            self._tokens,
            at,
            ["embedding", *(f"block {block}" for block in range(blocks))] if blocks else ["output"],
            [tokens_of(self.tokenizer, ids) for ids in lens.ids[:, 0].tolist()],
            lens.probabilities[:, 0],
            following,
            None if following is None else lens.target_probabilities[:, 0],
        )

    def _hidden_lens(self, names: list[str], position: int | None, top: int) -> HiddenLensView:
        mask_id, ids = mask_id_of(self.tokenizer), list(self.ids)
        places = hidden_places(ids, mask_id) or [len(ids) - 1]
        at = places[0] if position is None else position
        own = ids[at] if 0 <= at < len(ids) and ids[at] != mask_id else None
        if own is not None and mask_id is not None:
            ids[at] = mask_id
        seen = trace(self.model, ids, names)
        check_position(seen, at)
        lens = logit_lens(seen, [at], top, targets=None if own is None else [own])
        return HiddenLensView(
            self.source,
            self._tokens,
            at,
            ["embedding", *(f"block {block}" for block in range(len(names) - 2))],
            [tokens_of(self.tokenizer, row) for row in lens.ids[:, 0].tolist()],
            lens.probabilities[:, 0],
            None if own is None else self._tokens[at],
            None if own is None else lens.target_probabilities[:, 0],
        )

    def losses(self, top: int = TOP) -> LossView:
        """How much each token surprises the model.

        In a text longer than `block_size`, each token has at least half of `block_size` before it. Raises UserError for
        an encoder, which reads the token itself.
        """
        check_reads_forward(self.model)
        stride = self.model.config.block_size // 2 or None
        found = token_losses(self.model, self.ids, top, stride=stride)
        expected = [tokens_of(self.tokenizer, ids) for ids in found.expected_ids.tolist()]
        return LossView(self.source, self._tokens, found.losses, expected, found.expected_probabilities)
