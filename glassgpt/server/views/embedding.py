"""Embedding: which tokens are alike to one, and a map of them whose axes stay the same at every checkpoint."""

from __future__ import annotations

import torch

from glassgpt.errors import UserError
from glassgpt.inspection.embeddings import embedding_map, neighbours
from glassgpt.server.views.inside import Question, names_of
from glassgpt.server.wire import pack
from glassgpt.server.workbench import Bench

NEAREST = 10  # in the list
MOST_ON_MAP = 500  # a vocabulary of at most as many tokens is on the map as a whole
NEAREST_ON_MAP = 100  # of a larger one, the token and the nearest to it


def look_at_embedding(bench: Bench, question: Question) -> bytes:
    """The nearest tokens of one token (k,) with their cosine similarities, and n tokens on a map (n, 2).

    The axes of the map, and the tokens that are on it, are those of the checkpoint `question.axes`. So in a film of the
    checkpoints only the points move. `frame` (2, 2) has the lowest and the highest place of that checkpoint's points
    along each axis.
    Raises UserError for a model without a token embedding, and for an id that it lacks.
    """
    if question.id is None:
        raise UserError("name a token: its id")
    axes = bench.model if question.axes in (None, bench.run.step) else bench.open_step(question.axes).model
    near = neighbours(bench.model, question.id, NEAREST)
    vocabulary = bench.model.config.vocab_size
    whole = vocabulary <= MOST_ON_MAP
    ids = range(vocabulary) if whole else [question.id, *neighbours(axes, question.id, NEAREST_ON_MAP).ids.tolist()]
    found = embedding_map(bench.model, ids, axes_of=axes)
    arrays = {
        "near_ids": near.ids.to(torch.int32).numpy(),
        "similarities": near.similarities.numpy(),
        "ids": torch.tensor(ids, dtype=torch.int32).numpy(),
        "points": found.points.numpy(),
        "shares": found.shares.numpy(),
        "frame": torch.stack(embedding_map(axes, ids).points.aminmax(dim=0), dim=1).numpy(),
    }
    meta = {
        "id": question.id,
        "step": bench.run.step,
        "vocabulary": vocabulary,
        "names": names_of(bench, [question.id, *arrays["near_ids"], *ids]),
    }
    return pack(meta, arrays)
