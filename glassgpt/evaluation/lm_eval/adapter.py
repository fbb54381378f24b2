"""Adapter that lets lm-eval score and generate text with our models. Imported only if lm-eval is installed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import normalize_gen_kwargs
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from torch import Generator

from glassgpt.errors import UserError
from glassgpt.evaluation.scoring import Pair, score
from glassgpt.generation.engine import generate
from glassgpt.generation.sampling import SamplingConfig
from glassgpt.models import Model
from glassgpt.runtime.device import Runtime
from glassgpt.tokenizers.base import END_OF_TEXT, Tokenizer, begin_with_bos
from glassgpt.tokenizers.stream import StreamDecoder

MAX_NEW_TOKENS = 256  # for tasks that set no limit; lm-eval's own default
SEED = 1234  # for sampled texts: lm-eval expects the same text at every call


class GlassGPT(TemplateLM):
    """Our model as an lm-eval model. lm-eval splits texts into context and continuation, and into windows."""

    def __init__(self, model: Model, tokenizer: Tokenizer, runtime: Runtime, *, prefix_id: int) -> None:
        super().__init__()
        self.model, self.tokenizer, self.runtime = model, tokenizer, runtime
        self.block_size, self._prefix_id = model.config.block_size, prefix_id
        specials = tokenizer.special_tokens
        self._ends = {specials[name] for name in (END_OF_TEXT, tokenizer.bos_token) if name in specials}

    @property
    def eot_token_id(self) -> int:
        """The id that precedes a text without a context."""
        return self._prefix_id

    @property
    def tokenizer_name(self) -> str:
        return self.tokenizer.name

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        return self.tokenizer.encode(string)

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, list[int], list[int]]], **_: Any
    ) -> list[tuple[float, bool]]:
        """Every context begins with the tokenizer's `bos_token`, if it has one, as in `encode_pair`."""
        return self._score([Pair(begin_with_bos(self.tokenizer, context), rest) for _, context, rest in requests])

    def _score(self, pairs: Sequence[Pair]) -> list[tuple[float, bool]]:
        scores = score(self.model, pairs, self.runtime)
        return [(float(nats), bool(greedy)) for nats, greedy in zip(*scores, strict=True)]

    def loglikelihood_rolling(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[float]:
        """The log-likelihood of full texts, in windows that do not overlap, like lm-eval's own models."""
        totals = []
        for (text,) in (request.args for request in requests):
            windows = get_rolling_token_windows(self.tok_encode(text), self._prefix_id, self.block_size, 1)
            pairs = [Pair(*make_disjoint_window(window)) for window in windows]
            totals.append(math.fsum(nats for nats, _ in self._score(pairs)))
        return totals

    def generate_until(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[str]:
        """The text after each context, up to its end or the first of the task's stop strings."""
        return [self._generate(*request.args) for request in requests]

    def _generate(self, context: str, options: dict[str, Any]) -> str:
        options = normalize_gen_kwargs(options, MAX_NEW_TOKENS)
        limit = options["max_gen_toks"]
        if limit >= self.block_size:
            raise UserError(f"a task needs {limit} new tokens, but the model's block_size is only {self.block_size}")
        stops = [stop for stop in options["until"] if stop]
        prompt = begin_with_bos(self.tokenizer, self.tok_encode(context))
        ids = prompt[limit - self.block_size :] or [self._prefix_id]
        temperature = options.get("temperature", 1.0) if options["do_sample"] else 0.0
        sampling = SamplingConfig(temperature, options.get("top_k"), options.get("top_p"))
        decoder, text = StreamDecoder(self.tokenizer), ""
        for id in generate(
            self.model, ids, sampling,
            max_new_tokens=limit, vocab_size=self.tokenizer.vocab_size, generator=Generator().manual_seed(SEED),
        ):  # fmt: skip
            if id in self._ends:
                break
            text += decoder.feed(id)
            if any(stop in text for stop in stops):
                break
        text += decoder.flush()
        return text[: min((text.index(stop) for stop in stops if stop in text), default=len(text))]
