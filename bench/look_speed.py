"""How long the views of `glassgpt look` take beside a plain forward pass of the same text, and what a page weighs.

    python bench/look_speed.py RUN [RUN ...] [--tokens 128] [--rounds 5]

Each round measures the plain pass and every answer in turn, for a text that is new. The figure is the median of all.
"""

from __future__ import annotations

import argparse
import gzip
import statistics
import threading
import time
from collections.abc import Callable
from functools import partial

import torch

import glassgpt as gg
from glassgpt.server.pages import Pages
from glassgpt.server.views.embedding import look_at_embedding
from glassgpt.server.views.heads import list_heads
from glassgpt.server.views.inside import Question, look_ahead, look_at_head, look_inside, look_through_lens
from glassgpt.server.views.neurons import NeuronBook
from glassgpt.server.workbench import Bench, Passes

PAGE = {  # what Inside asks about a text, in this order: one pass serves all of it
    "inside (all heads, losses)": look_inside,
    "next (prediction)": look_ahead,
    "lens (grid)": look_through_lens,
    "embedding (neighbours, map)": look_at_embedding,
}
OTHERS = {"one head": look_at_head, "heads (scores)": list_heads}


def main() -> None:
    """Prints a table for each run, and the weight of the first page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+")
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    pages = Pages()
    files = [pages.index, *pages.assets.values()]
    whole, packed = (sum(map(size, files)) for size in (lambda f: len(f.data), lambda f: len(gzip.compress(f.data))))
    print(
        f"first page: {whole / 1e3:.0f} kB in {len(files)} files, all from this machine ({packed / 1e3:.0f} kB gzipped)"
    )
    for name in options.runs:
        measure(name, options.tokens, options.rounds)


def measure(name: str, n_tokens: int, rounds: int) -> None:
    """Prints the median times of a run."""
    run = gg.load(name)
    text = longest_text(run, n_tokens)
    ids = run.tokenizer.encode(text)
    tokens = torch.tensor([ids], device=run.runtime.device)
    question = Question(name, text, layer=0, head=0, id=ids[-1])

    def plain() -> None:
        with torch.inference_mode():
            run.model(tokens)

    book, neuron = NeuronBook(), Question(name, layer=0, neuron=0)  # on the run's own text, not on these tokens
    times: dict[str, list[float]] = {}
    for _ in range(rounds + 1):  # the first round is a warm-up
        bench = Bench(run, threading.Event(), Passes(), lambda step: run)
        works: dict[str, Callable[[], object]] = {"plain forward pass": plain}
        works |= {view: partial(work, bench, question) for view, work in (PAGE | OTHERS).items()}
        works["neurons (reads the text)"] = partial(NeuronBook().list_neurons, bench, neuron)
        works["one neuron, text read"] = partial(book.look_at_neuron, bench, neuron)
        for view, work in works.items():
            began = time.perf_counter()
            work()
            times.setdefault(view, []).append(time.perf_counter() - began)
    times[f"the whole page, {len(PAGE)} answers"] = [
        sum(seconds) for seconds in zip(*(times[view] for view in PAGE), strict=True)
    ]
    medians = {view: statistics.median(seconds[1:]) for view, seconds in times.items()}
    n_parameters = sum(parameter.numel() for parameter in run.model.parameters())
    print(f"\n{name}: {n_parameters / 1e6:.1f}M parameters, {len(ids)} tokens, {torch.get_num_threads()} threads")
    for view, seconds in medians.items():
        print(f"  {view:28} {1e3 * seconds:8.1f} ms  {seconds / medians['plain forward pass']:5.2f} passes")


def longest_text(run: gg.Run, n_tokens: int) -> str:
    """The beginning of what the run writes, of about `n_tokens` tokens."""
    text = run.generate(max_new_tokens=n_tokens, temperature=1.0, seed=0)
    while len(run.tokenizer.encode(text)) > min(n_tokens, run.config.model.block_size):
        text = text[:-1]
    return text


if __name__ == "__main__":
    main()
