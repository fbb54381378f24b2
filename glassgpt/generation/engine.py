"""Generates many texts at once: requests come and go while the model runs.

Each step of the `Engine` has three parts. *Schedule*: cancelled requests leave, and waiting ones take free slots.
*Run*: a pass with one new position for every text in progress, and passes over the prompts of new ones. *Hand out*:
choose a token for each text, and end the texts that are complete.

A pass reads all weights of the model, for one row as for many, and on most machines this takes most of its time. So
many texts together take little longer than one. A slot is used again as soon as its text ends (continuous batching, Yu
et al. 2022, "Orca").

Shapes: N rows in progress, T positions of a pass, C channels, V vocabulary.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from glassgpt.errors import UserError
from glassgpt.generation.sampling import SamplingConfig, choose
from glassgpt.generation.stopping import TextUntil
from glassgpt.models import ContextModel, Model, evaluating
from glassgpt.models.context import KVCache
from glassgpt.runtime.device import one_thread_for_small
from glassgpt.tokenizers.base import Tokenizer

SLOTS = 16
GREEDY = SamplingConfig(temperature=0.0)
FinishReason = Literal["length", "stop", "cancelled", "context"]


@dataclass(frozen=True)
class Request:
    """A prompt, and how to continue it. Raises UserError for an empty prompt, and for less than one new token.

    All draws come from `generator`, so the text does not depend on the other requests. Without one, a request gets a
    generator with a random seed. The text ends with an id of `stop_ids`, or before one of the `stop_strings`, which
    need an engine with a tokenizer.
    """

    prompt: Sequence[int]
    sampling: SamplingConfig
    max_new_tokens: int
    stop_ids: frozenset[int] = frozenset()
    stop_strings: tuple[str, ...] = ()
    generator: torch.Generator | None = None

    def __post_init__(self) -> None:
        if not self.prompt:
            raise UserError("the prompt is empty: give at least one token to continue from")
        if self.max_new_tokens < 1:
            raise UserError(f"max_new_tokens {self.max_new_tokens} is out of range: it must be at least 1")


@dataclass(frozen=True)
class Piece:
    """What a step adds to the text of a request.

    `id` is None if the step chose no token: the request was cancelled, or its window was full. `logprob` is the
    logarithm of the probability that the model gives the token, before temperature, top-k and top-p. `text` is what has
    become certain, see `TextUntil`; it is empty if the engine has no tokenizer. The last piece of a request has its
    `finish`: "length" (max_new_tokens), "stop" (a stop id or string), "cancelled" or "context" (the window is full).
    """

    request: int
    id: int | None = None
    logprob: float = 0.0
    text: str = ""
    finish: FinishReason | None = None


@dataclass(frozen=True)
class Completion:
    """A finished request: the ids that were chosen, with a stop id or the ids of a stop string, and their logprobs.

    The `text` is without a stop id or string. It is empty if there is no tokenizer.
    """

    ids: list[int]
    logprobs: list[float]
    text: str
    finish: FinishReason


@dataclass(eq=False)
class _Row:
    """A request that is not finished."""

    number: int
    request: Request
    generator: torch.Generator
    text: TextUntil | None
    ids: list[int]  # the prompt and all ids chosen since

    @property
    def n_chosen(self) -> int:
        return len(self.ids) - len(self.request.prompt)


class Engine:
    """Continues the prompts of requests, at most `slots` at a time.

    `submit` takes a request and returns its number, and `cancel` ends one. `step` runs the model once and returns the
    new pieces. While `busy`, there is something to do. `run` steps until all requests are finished.

    A text longer than the window sees its last `block_size` tokens. With learned positions all of them then have a new
    position for each new token, so no key or value can be kept, and a token costs a pass over the whole window. With
    `relative_positions` the cache rolls: a new token takes the place of the oldest, and costs a pass over one position.
    What a kept key or value has learned from earlier tokens stays in it, so the logits are those of one pass over the
    whole text in which each position attends to the last `block_size`. With `past_window=False` a text ends with its
    window, with the reason "context". A model that takes no context (`Model`, not `ContextModel`) reads the whole text
    for each token.

    Only the first `vocab_size` logits are used: an imported model may have more ids than its tokenizer, whose size is
    the default.
    """

    def __init__(
        self,
        model: Model,
        tokenizer: Tokenizer | None = None,
        *,
        slots: int = SLOTS,
        vocab_size: int | None = None,
        past_window: bool = True,
    ) -> None:
        if slots < 1:
            raise UserError(f"slots {slots} is out of range: it must be at least 1")
        self.model = model
        self.tokenizer = tokenizer
        self.slots = slots
        self.past_window = past_window
        self._vocab_size = tokenizer.vocab_size if vocab_size is None and tokenizer is not None else vocab_size
        self._cache: KVCache | None = None
        if isinstance(model, ContextModel):
            self._cache = KVCache(model.config.block_size, slots, rolling=model.relative_positions)
        self._n_requests = 0
        self._cancelled: set[int] = set()
        self._waiting: deque[_Row] = deque()
        self._cached: list[_Row] = []  # row i is row i of the cache
        self._whole: list[_Row] = []  # rows that read their whole window for each token

    # Requests

    def submit(self, request: Request) -> int:
        """Takes a request, which waits for a free slot. Returns its number, which `Piece.request` names.

        Raises UserError for an id that the model does not have, and for stop strings without a tokenizer.
        """
        vocab_size = self.model.config.vocab_size
        if wrong := [id for id in request.prompt if not 0 <= id < vocab_size]:
            raise UserError(f"the prompt has the id {wrong[0]}, and the model has the ids 0 to {vocab_size - 1}")
        if request.stop_strings and self.tokenizer is None:
            raise UserError("stop strings need a tokenizer: give the engine one, or use stop_ids")
        generator = request.generator
        if generator is None:
            generator = torch.Generator()
            generator.seed()
        text = TextUntil(self.tokenizer, request.stop_strings) if self.tokenizer is not None else None
        self._waiting.append(_Row(self._n_requests, request, generator, text, list(request.prompt)))
        self._n_requests += 1
        return self._n_requests - 1

    def cancel(self, number: int) -> None:
        """Ends a request: the next step returns its last piece. Does nothing if the request has ended already."""
        if any(row.number == number for row in self._rows):
            self._cancelled.add(number)

    @property
    def busy(self) -> bool:
        """Whether any request is not finished."""
        return self.n_unfinished > 0

    @property
    def n_unfinished(self) -> int:
        """The number of requests that wait or are in progress."""
        return len(self._rows)

    @property
    def _rows(self) -> list[_Row]:
        return [*self._waiting, *self._cached, *self._whole]

    def run(self) -> Iterator[Piece]:
        """Yields the pieces of all requests until none is left. Others may be submitted or cancelled meanwhile."""
        with evaluating(self.model):
            while self.busy:
                yield from self._step()

    def step(self) -> list[Piece]:
        """Runs the model once for every text in progress. Returns one piece for each, and one for each that ends.

        Raises UserError if the model's logits are not finite.
        """
        with evaluating(self.model):
            return self._step()

    # One step

    @torch.no_grad()
    def _step(self) -> list[Piece]:
        with one_thread_for_small(self.model):
            pieces, prompts = self._schedule()
            if prompts or self._cached or self._whole:
                logits = self.model.head(self._run(prompts))[:, : self._vocab_size]  # (N, V)
                pieces += self._hand_out([*self._cached, *self._whole], logits)
        return pieces

    def _schedule(self) -> tuple[list[Piece], list[_Row]]:
        """Ends rows, and gives free slots to waiting requests. Returns the last pieces, and the rows to prefill."""
        block_size = self.model.config.block_size
        pieces: list[Piece] = []
        for row in self._rows:
            if row.number in self._cancelled:
                pieces.append(Piece(row.number, text=_rest(row), finish="cancelled"))
                self._leave(row)
            elif len(row.ids) > block_size and not self.past_window:
                pieces.append(Piece(row.number, text=_rest(row), finish="context"))
                self._leave(row)
            elif len(row.ids) > block_size and row in self._cached and not self._rolls:
                self._leave(row)
                self._whole.append(row)
        self._cancelled.clear()
        prompts: list[_Row] = []
        while self._waiting and len(self._cached) + len(self._whole) + len(prompts) < self.slots:
            row = self._waiting.popleft()
            fits = self._cache is not None and (self._rolls or len(row.ids) <= block_size)
            (prompts if fits else self._whole).append(row)
        return pieces, prompts

    @property
    def _rolls(self) -> bool:
        """Whether rows stay in the cache past the window."""
        return self._cache is not None and self._cache.rolling

    def _run(self, prompts: list[_Row]) -> Tensor:
        """Passes for all rows in progress. Returns the features of the last position of each, (N, C)."""
        features = []
        if self._cached:
            features.append(self._features([row.ids[-1:] for row in self._cached], self._cache))
        for group in _passes(prompts):
            features.append(self._prefill(group))
        if self._whole:
            features.append(self._features([row.ids[-self.model.config.block_size :] for row in self._whole]))
        return torch.cat(features)

    def _prefill(self, rows: list[_Row]) -> Tensor:
        """One pass over prompts, whose keys and values join the cache. Returns features (n, C)."""
        assert self._cache is not None
        ids = [row.ids[-self.model.config.block_size :] for row in rows]
        lengths = [len(each) for each in ids]
        prompts = KVCache(max(lengths))
        features = self._features(ids, prompts)
        prompts.truncate(torch.tensor(lengths, device=features.device))
        self._cache.join(prompts)
        self._cached += rows
        return features

    def _features(self, ids: list[list[int]], cache: KVCache | None = None) -> Tensor:
        """The features of the last position of each row, (N, C). Shorter rows are padded on the right."""
        device = next(self.model.parameters()).device
        longest = max(map(len, ids))
        tokens = torch.tensor([row + [0] * (longest - len(row)) for row in ids], device=device)
        if isinstance(self.model, ContextModel):
            features = self.model.features(tokens, context=cache)
        else:
            features = self.model.features(tokens)
        last = torch.tensor([len(row) - 1 for row in ids], device=device)
        return features[torch.arange(len(ids), device=device), last]

    def _hand_out(self, rows: list[_Row], logits: Tensor) -> list[Piece]:
        """Chooses a token for each row, from its logits (N, V), and ends the rows that are complete."""
        if all(row.request.sampling.temperature == 0.0 for row in rows):
            chosen = choose(logits, GREEDY, None)
        else:
            chosen = torch.cat(
                [choose(logits[i : i + 1], row.request.sampling, row.generator) for i, row in enumerate(rows)]
            )
        logprobs = logits.float().log_softmax(dim=1).gather(1, chosen).squeeze(1)
        pieces = []
        for row, id, logprob in zip(rows, chosen.squeeze(1).tolist(), logprobs.tolist(), strict=True):
            piece = self._add(row, id, logprob)
            pieces.append(piece)
            if piece.finish is not None:
                self._leave(row)
        return pieces

    def _add(self, row: _Row, id: int, logprob: float) -> Piece:
        row.ids.append(id)
        stopped = id in row.request.stop_ids
        text = ""
        if row.text is not None and not stopped:
            text = row.text.feed(id)
            stopped = row.text.stopped
        finish: FinishReason | None = "stop" if stopped else None
        if finish is None and row.n_chosen == row.request.max_new_tokens:
            finish = "length"
        return Piece(row.number, id, logprob, text + (_rest(row) if finish is not None else ""), finish)

    def _leave(self, row: _Row) -> None:
        """Frees the slot of a row. In the cache, and so in the list, the last row takes its place."""
        if row in self._cached and self._cache is not None:
            place = self._cached.index(row)
            self._cache.remove(place)
            self._cached[place] = self._cached[-1]
            self._cached.pop()
        elif row in self._whole:
            self._whole.remove(row)
        else:
            self._waiting.remove(row)


def _rest(row: _Row) -> str:
    """The text of a row that has been held back until its end."""
    return "" if row.text is None else row.text.flush()


def _passes(rows: list[_Row]) -> list[list[_Row]]:
    """Splits prompts into passes, of which at most half is padding: (number of rows) x (longest) positions each."""
    passes: list[list[_Row]] = []
    for row in sorted(rows, key=lambda row: len(row.ids)):
        group = [*passes[-1], row] if passes else [row]
        if passes and len(group) * len(row.ids) <= 2 * sum(len(row.ids) for row in group):
            passes[-1] = group
        else:
            passes.append([row])
    return passes


def generate_batch(
    model: Model,
    requests: Sequence[Request],
    tokenizer: Tokenizer | None = None,
    *,
    slots: int = SLOTS,
    vocab_size: int | None = None,
    past_window: bool = True,
) -> list[Completion]:
    """Continues all prompts, and returns their completions in the order of the requests. See `Engine`."""
    engine = Engine(model, tokenizer, slots=slots, vocab_size=vocab_size, past_window=past_window)
    pieces: dict[int, list[Piece]] = {engine.submit(request): [] for request in requests}
    for piece in engine.run():
        pieces[piece.request].append(piece)
    return [_join(own) for own in pieces.values()]


def _join(pieces: list[Piece]) -> Completion:
    finish = pieces[-1].finish
    assert finish is not None
    chosen = [(piece.id, piece.logprob) for piece in pieces if piece.id is not None]
    ids, logprobs = [id for id, _ in chosen], [logprob for _, logprob in chosen]
    return Completion(ids, logprobs, "".join(piece.text for piece in pieces), finish)


def generate(
    model: Model,
    prompt: Sequence[int],
    config: SamplingConfig,
    *,
    max_new_tokens: int,
    vocab_size: int | None = None,
    generator: torch.Generator | None = None,
) -> Iterator[int]:
    """Yields up to `max_new_tokens` ids that follow `prompt` (at least one id), each as soon as it is chosen.

    One request in an `Engine`; without a generator, it draws from torch's own. Raises UserError for an empty prompt.
    """
    if max_new_tokens == 0:
        return
    engine = Engine(model, slots=1, vocab_size=vocab_size)
    engine.submit(Request(prompt, config, max_new_tokens, generator=generator or torch.default_generator))
    for piece in engine.run():
        assert piece.id is not None  # nobody cancels it, and the window moves on
        yield piece.id
