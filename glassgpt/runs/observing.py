"""What is asked of a model between its steps: its loss on held-out text, the tests it is put to, what it writes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping

import torch

from glassgpt.data.dataset import Dataset
from glassgpt.evaluation.hellaswag import HellaSwag
from glassgpt.evaluation.suites import open_suite
from glassgpt.evaluation.validation import Evaluation, bytes_per_token, evaluate
from glassgpt.generation.sampling import SamplingConfig
from glassgpt.generation.text import start_of_text, write
from glassgpt.models import Model
from glassgpt.runs.config import RunConfig, document_eot_id
from glassgpt.runtime.device import Runtime


class Observer:
    """Looks at the raw model, and changes nothing in it. Every rank must call every method, and has the same answer.

    `seconds` is how long it has looked in all, samples not counted.
    """

    def __init__(self, model: Model, config: RunConfig, prepared: Dataset, runtime: Runtime) -> None:
        self._model, self._config, self._prepared, self._runtime = model, config, prepared, runtime
        self._tokenizer = prepared.tokenizer
        self._token_bytes = bytes_per_token(self._tokenizer)
        self._separator = document_eot_id(config, self._tokenizer)
        self._suites = {name: self._open_suite(name) for name in config.training.eval_suites}
        self.seconds = 0.0

    def _open_suite(self, name: str) -> HellaSwag:
        file, limit = self._config.training.eval_suite_file or None, self._config.training.eval_suite_limit or None
        # One rank of a node may have to download it for all.
        return self._runtime.ranks.first_of_node_first(
            lambda: open_suite(name, self._tokenizer, file=file, limit=limit)
        )

    def validate(self, max_tokens: int | None) -> tuple[Evaluation, float]:
        """The loss on the validation split, on all of it or about `max_tokens` of it, and the seconds it took."""
        with self._clock() as started:
            evaluation = evaluate(
                self._model,
                self._prepared.val,
                self._token_bytes,
                self._runtime,
                max_tokens=max_tokens,
                eot_id=self._separator,
            )
            return evaluation, time.perf_counter() - started

    def run_suites(self) -> Iterator[tuple[str, Mapping[str, float], float]]:
        """The name of each of `training.eval_suites`, its figures, and the seconds it took."""
        for name, suite in self._suites.items():
            with self._clock() as started:
                figures = suite.evaluate(self._model, self._runtime).figures()
                seconds = time.perf_counter() - started
            yield name, figures, seconds

    def sample(self, step: int) -> tuple[str, str]:
        """A prompt and what the model writes after it, drawn by a generator of its own: looking changes no training.

        Raises UserError where the weights have diverged.
        """
        generator = torch.Generator().manual_seed(self._config.training.seed + step)
        ids = start_of_text(self._tokenizer)
        pieces = write(
            self._model, self._tokenizer, ids, SamplingConfig(temperature=0.8, top_k=200),
            self._config.training.sample_tokens, generator,
        )  # fmt: skip
        return self._tokenizer.decode(ids), "".join(pieces)

    @contextlib.contextmanager
    def _clock(self) -> Iterator[float]:
        started = time.perf_counter()
        yield started
        self.seconds += time.perf_counter() - started
