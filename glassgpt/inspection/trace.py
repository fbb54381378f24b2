"""One text on its way through one model: what the instruments read.

trace = gg.trace(run.model, run.tokenizer.encode("O Romeo"))
lens = logit_lens(trace)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch import Tensor

from glassgpt.errors import UserError, counted
from glassgpt.inspection.capture import capture, capture_names
from glassgpt.inspection.ids import one_pass
from glassgpt.inspection.taps import checked_names, parts
from glassgpt.models import Model

LARGE = (".attn.scores", ".attn.result", ".mlp.hidden")  # no instrument of one trace needs them


@dataclass(frozen=True)
class Trace:
    """A forward pass: the model, tokens (1, T), logits (1, T, V), and captured activations by name.

    The names and shapes are those of `glassgpt.inspection.taps`. The tensors are on the model's device.
    """

    model: Model
    tokens: Tensor
    logits: Tensor
    activations: dict[str, Tensor]

    @property
    def ids(self) -> list[int]:
        """The T token ids."""
        return self.tokens[0].tolist()

    @property
    def n_tokens(self) -> int:
        """T, the length of the text in tokens."""
        return self.tokens.size(1)

    def __getitem__(self, name: str) -> Tensor:
        """A captured activation. Raises UserError for a name that was not captured."""
        checked_names([name], list(self.activations))
        return self.activations[name]


def trace(model: Model, ids: Sequence[int], names: Iterable[str] | None = None) -> Trace:
    """Runs the model on one text, given as token ids, and captures the named activations.

    By default it captures what the instruments read: everything except the scores, the results of the heads in the
    residual stream and the hidden units of the MLPs. Raises UserError for a text that `one_pass` refuses, and for a
    name that this model lacks.
    """
    if names is None:
        names = [name for name in capture_names(model) if not name.endswith(LARGE)]
    tokens = one_pass(model, ids)
    return Trace(model, tokens, *capture(model, tokens, names))


def check_position(trace: Trace, position: int, what: str = "position") -> int:
    """The position itself. Raises UserError if the text has no such position."""
    if not 0 <= position < trace.n_tokens:
        raise UserError(
            f"there is no {what} {position}: the text has {counted(trace.n_tokens, 'token')}, counted from 0"
        )
    return position


def attention_blocks(model: Model) -> list[int]:
    """The numbers of the blocks that have attention, in order: the L of an instrument's (L, H) is an index into it."""
    return [n for n, part in enumerate(parts(model)) if part.inner is not None]
