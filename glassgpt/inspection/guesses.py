"""What an encoder puts in the place of hidden tokens (masked language modelling, Devlin et al. 2018, section 3.1).

Shapes: T positions of a text, P of them that are guessed, k guesses for each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from glassgpt.data.masking import EDGES, MASK_TOKENS
from glassgpt.errors import UserError
from glassgpt.inspection.ids import one_pass
from glassgpt.models import EncoderModel, Model, evaluating
from glassgpt.tokenizers import Tokenizer

ROWS = 16  # texts of a pass


@dataclass(frozen=True)
class Guesses:
    """The most likely tokens at P positions. The tensors are on the CPU.

    Ids are those of the model, so a tokenizer that is smaller than the model may have no text for them.
    """

    positions: tuple[int, ...]  # P of them
    hidden: bool  # whether the mask token stood at each position, alone or with others that the text hides
    ids: Tensor  # (P, k) int64, the most likely one first
    probabilities: Tensor  # (P, k) float32
    own_probabilities: Tensor  # (P,) of the token that the text has there; NaN where the text itself hides it


def mask_id_of(tokenizer: Tokenizer) -> int | None:
    """The id of the mask token, which stands for a hidden token; None for a tokenizer without one."""
    return next((tokenizer.special_tokens[name] for name in MASK_TOKENS if name in tokenizer.special_tokens), None)


def encode_for_encoder(tokenizer: Tokenizer, text: str) -> list[int]:
    """The ids of a text as an encoder reads it, (T,).

    The name of the mask token in the text, such as [MASK], is the token. [CLS] and [SEP] are put around the text if the
    tokenizer has both and the text does not have them: in training they were around each row. An empty text has no ids.
    """
    known = {name: id for name, id in tokenizer.special_tokens.items() if name in (*MASK_TOKENS, *EDGES)}
    ids = tokenizer.encode(text, allowed_special=known.keys())
    if not ids or not known.keys() >= set(EDGES):
        return ids
    first, last = (known[edge] for edge in EDGES)
    return [*([] if ids[0] == first else [first]), *ids, *([] if ids[-1] == last else [last])]


def hidden_places(ids: Sequence[int], mask_id: int | None) -> list[int]:
    """The positions at which the text itself has the mask token."""
    return [at for at, id in enumerate(ids) if id == mask_id]


@torch.no_grad()
def guesses_of(
    model: Model, ids: Sequence[int], mask_id: int | None, positions: Sequence[int] | None = None, top: int = 5
) -> Guesses:
    """What an encoder finds most likely at positions of a text, by default where the text has the mask token.

    Without a mask token in the text, the default is all positions. Each position at which the text has another token is
    hidden for its own guess, one after another, so that the model cannot read the answer: a row of a pass for each.
    With `mask_id` None the text is left as it is.

    Raises UserError for a model that is no encoder, for a position that the text lacks, and for a text that `one_pass`
    refuses.
    """
    check_encoder(model)
    tokens = one_pass(model, ids)
    chosen = list(positions if positions is not None else hidden_places(ids, mask_id) or range(len(ids)))
    for place in chosen:
        if not 0 <= place < len(ids):
            raise UserError(f"there is no position {place}: the text has positions 0 to {len(ids) - 1}")
    at = torch.tensor(chosen, dtype=torch.long, device=tokens.device)
    own = tokens[0, at]
    with evaluating(model):
        if mask_id is None or bool((own == mask_id).all()):  # one reading answers for all
            logits = model.head(model.features(tokens)[0, at])
        else:
            rows = tokens.repeat(len(chosen), 1).scatter(1, at[:, None], mask_id)
            parts = zip(rows.split(ROWS), at.split(ROWS), strict=True)
            logits = model.head(torch.cat([model.features(row)[range(len(row)), places] for row, places in parts]))
    probabilities = logits.float().softmax(dim=-1)
    best = probabilities.topk(min(top, probabilities.size(-1)), dim=-1)
    of_own = probabilities.gather(-1, own[:, None])[:, 0]
    if mask_id is not None:
        of_own[own == mask_id] = torch.nan
    return Guesses(tuple(chosen), mask_id is not None, best.indices.cpu(), best.values.cpu(), of_own.cpu())


def check_encoder(model: Model) -> None:
    """Raises UserError for a model that predicts what comes next, and no hidden tokens."""
    if not isinstance(model, EncoderModel):
        raise UserError("this model predicts what comes next, and no hidden tokens: look at its lens or its losses")
