"""Every instrument of `glassgpt.inspection` beside a value that was computed without it; a table of 80 columns.

    python bench/instruments.py                # a tiny GPT-2, seconds
    python bench/instruments.py --size 124M    # the size of GPT-2, a quarter of an hour

The weights are random, so no hub is needed. The independent values come from the same GPT-2 in `transformers`, in
float64: from its outputs, from hooks on its modules, from finite differences, and from loops and numpy on what these
gave. One row is about the induction head that the tests build by hand.
"""

from __future__ import annotations

import argparse
import math
import runpy
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel
from transformers.utils import logging

import glassgpt as gg
from glassgpt.inspection.ablation import effect
from glassgpt.inspection.attention import head_scores, heads_of, score_terms
from glassgpt.inspection.attribution import attribute
from glassgpt.inspection.embeddings import embedding_map, neighbours
from glassgpt.inspection.influence import influence
from glassgpt.inspection.lens import logit_lens
from glassgpt.inspection.lens import streams as streams_of
from glassgpt.inspection.neurons import DEAD_BELOW, exciting_texts, neuron_summary
from glassgpt.inspection.norms import residual_norms
from glassgpt.inspection.surprise import token_losses
from glassgpt.inspection.trace import trace
from glassgpt.inspection.weights import singular_values
from glassgpt.interop.huggingface import load_hf
from glassgpt.models import Model

SIZES = {"tiny": (3, 3, 24, 97), "124M": (12, 12, 768, 50257)}  # n_layer, n_head, n_embd, vocab_size
T, POSITION, TOKEN = 20, 12, 5  # of the text; where a prediction is examined; a token whose logit is
LAYER, HEAD, NEURON = 1, 2, 7  # examined where one is enough
DEAD = (3, 11)  # neurons of block LAYER that are dead by construction
HAND_BUILT = Path(__file__).parents[1] / "tests" / "inspection" / "test_head_scores.py"
Values = Any  # a number, or an array or tensor of numbers


@dataclass(frozen=True)
class Row:
    """One line of the table: all values of an instrument and the same ones computed independently."""

    instrument: str
    against: str
    ours: Values
    independent: Values

    @property
    def difference(self) -> float:
        """The largest of all differences."""
        ours, independent = (np.asarray(values, dtype=np.float64) for values in (self.ours, self.independent))
        if ours.shape != independent.shape:
            raise ValueError(f"{self.instrument}: shapes {ours.shape} and {independent.shape}")
        return float(np.abs(ours - independent).max())

    def line(self) -> str:
        """The table's line. Of many values it shows one that is in the middle of those that are not 0."""
        ours, independent = (np.asarray(values, dtype=np.float64).ravel() for values in (self.ours, self.independent))
        order = np.abs(independent).argsort(kind="stable")
        at = order[(np.count_nonzero(independent == 0) + len(order)) // 2 if len(order) > 1 else 0]
        return (
            f"{self.instrument:<24} {self.against:<23}{ours[at]:>11.6g}{independent[at]:>12.6g}{self.difference:>9.0e}"
        )


class Peer:
    """GPT-2 of `transformers` in float64 with what its modules computed on one text, and ours with the same weights."""

    def __init__(self, size: str, folder: Path) -> None:
        n_layer, self.n_head, self.width, vocab_size = SIZES[size]
        torch.manual_seed(0)
        config = GPT2Config(
            vocab_size=vocab_size, n_positions=T, n_layer=n_layer, n_head=self.n_head, n_embd=self.width,
            bos_token_id=0, eos_token_id=0, attn_implementation="eager",
        )  # fmt: skip
        self.theirs: Any = GPT2LMHeadModel(config).eval()
        std = 0.3 if size == "tiny" else 0.04  # far from the zeros of an initialisation, which would hide a mistake
        for name, parameter in self.theirs.named_parameters():
            nn.init.normal_(parameter, mean=1.0 if "ln_" in name and name.endswith("weight") else 0.0, std=std)
        self.blocks = self.theirs.transformer.h
        with torch.no_grad():
            for neuron in DEAD:
                self.blocks[LAYER].mlp.c_fc.bias[neuron] = -1e3
        self.theirs.save_pretrained(folder)
        ours = load_hf(folder).eval()
        assert isinstance(ours, Model)
        self.ours = ours
        self.theirs.double()
        half = torch.randperm(vocab_size, generator=torch.Generator().manual_seed(2))[: T // 2].tolist()
        self.ids = half + half[::-1][: T // 4] + half[: T // 4]  # tokens that stood before, with others after them
        self.seen: dict[str, Tensor] = {}
        with self._watched():
            self.output = self._run()
        self.losses = self._losses(self.output.logits)

    def _run(self) -> Any:
        with torch.no_grad():
            return self.theirs(torch.tensor([self.ids]), output_attentions=True, output_hidden_states=True)

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """Keeps what some modules compute, by a name and the number of the block."""
        handles = []
        for n, block in enumerate(self.blocks):
            handles.append(block.attn.c_attn.register_forward_hook(self._keep(f"qkv {n}", of_output=True)))
            handles.append(block.attn.c_proj.register_forward_hook(self._keep(f"heads {n}", of_output=False)))
            handles.append(block.mlp.act.register_forward_hook(self._keep(f"hidden {n}", of_output=True)))
            handles.append(block.mlp.register_forward_hook(self._keep(f"mlp {n}", of_output=True)))
            handles.append(block.register_forward_hook(self._keep(f"stream {n}", of_output=True)))
        yield
        for handle in handles:
            handle.remove()

    def _keep(self, name: str, *, of_output: bool) -> Callable[..., None]:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...], output: Any) -> None:
            value = output if of_output else inputs[0]
            self.seen[name] = (value[0] if isinstance(value, tuple) else value)[0].detach()

        return hook

    def _losses(self, logits: Tensor) -> Tensor:
        """The loss of each token after the first, (T - 1,)."""
        return -logits[0, :-1].log_softmax(dim=-1)[range(T - 1), self.ids[1:]]

    def of_head(self, values: Tensor) -> Tensor:
        """The part of head HEAD of values (T, C)."""
        return values.unflatten(-1, (self.n_head, -1))[:, HEAD]

    def changed(self, module: nn.Module, change: Callable[[Any], Any]) -> Any:
        """The output of the model where the output of one module is changed."""
        handle = module.register_forward_hook(lambda _, inputs, output: change(output))
        try:
            return self._run()
        finally:
            handle.remove()

    def mean_loss_without_head(self, layer: int, head: int) -> float:
        """The mean loss where a head has no weights into the stream."""
        weight = self.blocks[layer].attn.c_proj.weight  # (heads × head size, C)
        kept, size = weight.detach().clone(), self.width // self.n_head
        with torch.no_grad():
            weight[head * size : (head + 1) * size] = 0.0
            loss = float(self._losses(self._run().logits).mean())
            weight.copy_(kept)
        return loss

    def slope_norm(self, which: int, position: int) -> float:
        """By finite differences: the gradient of the loss at POSITION with respect to one q, k or v (0, 1, 2)."""
        size = self.width // self.n_head
        first = which * self.width + HEAD * size
        slopes = []
        for channel in range(first, first + size):

            def moved(by: float, channel: int = channel) -> float:
                step = torch.zeros(1, T, 3 * self.width, dtype=torch.float64)
                step[0, position, channel] = by
                logits = self.changed(self.blocks[0].attn.c_attn, lambda output: output + step).logits
                return float(self._losses(logits)[POSITION])

            slopes.append((moved(1e-5) - moved(-1e-5)) / 2e-5)
        return math.hypot(*slopes)


def attention_rows(peer: Peer) -> Iterator[Row]:
    """Patterns, scores of heads, and the terms of one score."""
    found = trace(peer.ours, peer.ids)
    patterns = heads_of(found)
    theirs = torch.cat(peer.output.attentions)
    yield Row("attention by head", "transformers", patterns, theirs)
    q, k = (peer.of_head(part) for part in peer.seen[f"qkv {LAYER}"].split(peer.width, dim=-1)[:2])
    terms = q[POSITION] * k[POSITION // 2] / math.sqrt(q.size(-1))
    ours = score_terms(found, LAYER, HEAD, POSITION, POSITION // 2)
    yield Row("q · k / √D, its terms", "transformers, c_attn", ours.terms, terms)
    scores = head_scores(patterns, peer.ids)
    tests = runpy.run_path(str(HAND_BUILT))
    slow = [[tests["slow_scores"](head.tolist(), peer.ids) for head in layer] for layer in theirs]
    for name, title in (
        ("entropy", "attention entropy"), ("previous", "previous-token score"), ("duplicate", "duplicate-token score"),
        ("induction", "induction score"),
    ):  # fmt: skip
        yield Row(title, "a loop over positions", getattr(scores, name), [[head[name] for head in row] for row in slow])
    built = tests["induction_model"]()
    ids = list(range(10)) * 2
    of_built = head_scores(heads_of(trace(built, ids)), ids)
    yield Row("  of a hand-built head", "1 by construction", of_built.induction[1, 0], 1.0)


def stream_rows(peer: Peer) -> Iterator[Row]:
    """The stream, and what is read from it."""
    found = trace(peer.ours, peer.ids)
    theirs, last = peer.theirs, len(peer.blocks) - 1
    streams = torch.stack([peer.output.hidden_states[0][0], *(peer.seen[f"stream {n}"] for n in range(last + 1))])
    ours = torch.stack([*(stream[0] for stream in streams_of(found)[:-1]), found["final"][0]])
    yield Row("residual stream", "their hidden states", ours, torch.cat(peer.output.hidden_states))
    yield Row("residual norms", "transformers, numpy", residual_norms(found.activations), streams.norm(dim=-1))
    with torch.no_grad():
        logits = theirs.lm_head(theirs.transformer.ln_f(streams))  # (L + 1, T, V)
    following = logits.softmax(dim=-1)[:, range(T - 1), peer.ids[1:]]
    yield Row("logit lens", "ln_f and lm_head", logit_lens(found).target_probabilities[:, :-1], following)
    parts = attribute(found, POSITION, TOKEN)
    values = np.array([value for _, value in parts.parts])
    yield Row("logit attribution", "numpy on c_proj, mlp", values, by_parts(peer, streams[-1, POSITION]))
    yield Row("  the sum of its parts", "transformers, logit", values.sum(), peer.output.logits[0, POSITION, TOKEN])
    yield Row("loss of every token", "transformers", token_losses(peer.ours, peer.ids).losses, peer.losses)


def by_parts(peer: Peer, stream: Tensor) -> list[float]:
    """What each part of GPT-2 gives to the logit of TOKEN at POSITION, in float64."""
    gpt = peer.theirs.transformer
    with torch.no_grad():
        reads = (peer.theirs.lm_head.weight[TOKEN] * gpt.ln_f.weight).numpy()
        scale = math.sqrt(float(stream.var(unbiased=False)) + gpt.ln_f.eps)

        def given(vector: Tensor) -> float:
            return float((vector.numpy() - float(vector.mean())) @ reads / scale)

        found = [given(gpt.wte.weight[peer.ids[POSITION]]), given(gpt.wpe.weight[POSITION])]
        size = peer.width // peer.n_head
        for n, block in enumerate(peer.blocks):
            for head in range(peer.n_head):
                rows = slice(head * size, (head + 1) * size)
                found.append(given(peer.seen[f"heads {n}"][POSITION, rows] @ block.attn.c_proj.weight[rows]))
            found += [given(block.attn.c_proj.bias), given(peer.seen[f"mlp {n}"][POSITION])]
        return [*found, float(gpt.ln_f.bias @ peer.theirs.lm_head.weight[TOKEN])]


def edit_rows(peer: Peer) -> Iterator[Row]:
    """Parts that are off, and gradients."""
    n_heads = peer.n_head if len(peer.blocks) == 3 else 1  # at 124M, one head of each block
    heads = [(layer, head) for layer in range(len(peer.blocks)) for head in range(n_heads)]
    before = float(peer.losses.mean())
    ours = [effect(peer.ours, peer.ids, zero=[f"blocks.{layer}.head.{head}"]).change for layer, head in heads]
    theirs = [peer.mean_loss_without_head(*at) - before for at in heads]
    yield Row("effect of a head off", "c_proj rows set to 0", ours, theirs)
    with gg.edit(peer.ours, zero=[f"blocks.{LAYER}.mlp"]), torch.no_grad():
        logits = peer.ours(torch.tensor([peer.ids]))
    expected = peer.changed(peer.blocks[LAYER].mlp, torch.zeros_like).logits
    yield Row("edit: an MLP is off", "a hook in transformers", logits, expected)
    found = influence(peer.ours, peer.ids, POSITION)
    for which, name in enumerate("qkv"):
        position = 4
        slope = peer.slope_norm(which, position)
        yield Row(
            f"loss by {name} of token {position}", "finite differences", getattr(found, name)[0, HEAD, position], slope
        )


def weight_rows(peer: Peer) -> Iterator[Row]:
    """Weights of heads and of the embedding."""
    attn, size = peer.blocks[LAYER].attn, peer.width // peer.n_head
    rows = slice(HEAD * size, (HEAD + 1) * size)
    q, k, v = (part[:, rows].detach().numpy() for part in attn.c_attn.weight.split(peer.width, dim=-1))
    found = singular_values(peer.ours, LAYER, HEAD)
    for title, ours, product in (
        ("singular values, QK", found.qk, q @ k.T),
        ("singular values, OV", found.ov, v @ attn.c_proj.weight[rows].detach().numpy()),
    ):
        yield Row(title, "numpy.linalg.svd of C×C", ours, np.linalg.svd(product, compute_uv=False)[:size])
    rows_of = peer.theirs.transformer.wte.weight.detach().numpy()
    unit = rows_of / np.linalg.norm(rows_of, axis=1, keepdims=True)
    cosines = unit @ unit[TOKEN]
    cosines[TOKEN] = -np.inf
    yield Row(
        "embedding neighbours", "numpy, all cosines", neighbours(peer.ours, TOKEN).similarities,
        np.sort(cosines)[::-1][:10],
    )  # fmt: skip
    some = rows_of[:97] - rows_of[:97].mean(axis=0)
    axes = np.linalg.svd(some, full_matrices=False)[2][:2]
    points = some @ axes.T
    points *= np.sign(points[np.abs(points).argmax(axis=0), range(2)])
    yield Row("embedding, 2-D map", "numpy.linalg.svd", embedding_map(peer.ours, range(97)).points, points)


def neuron_rows(peer: Peer) -> Iterator[Row]:
    """What neurons do on the text."""
    hidden = np.stack([peer.seen[f"hidden {n}"].numpy() for n in range(len(peer.blocks))])  # (L, T, F)
    found = neuron_summary(peer.ours, [peer.ids])
    dead = (np.abs(hidden) <= DEAD_BELOW).all(axis=1)
    assert dead[LAYER, DEAD].all()
    yield Row("dead neurons, each", "a hook on mlp.act", found.dead, dead)
    yield Row("  their number", "the same, counted", found.dead.sum(), dead.sum())
    yield Row("largest activation", "a hook on mlp.act", found.largest, hidden.max(axis=1))
    values = hidden[LAYER, :, NEURON]
    chosen: list[int] = []
    while free := [t for t in range(T) if all(abs(t - other) > 3 for other in chosen)]:
        chosen.append(max(free, key=values.__getitem__))
    texts = exciting_texts(peer.ours, peer.ids, LAYER, NEURON, k=T, reach=3)
    yield Row("texts that excite one", "a search, positions", [text.position for text in texts], chosen)
    yield Row("  its activation there", "a hook on mlp.act", [text.value for text in texts], values[chosen])


def rows(size: str) -> Iterator[Row]:
    """All rows of the table."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder:
        peer = Peer(size, Path(folder))
    for part in (attention_rows, stream_rows, edit_rows, weight_rows, neuron_rows):
        yield from part(peer)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="tiny")
    print(f"{'instrument':<24} {'compared with':<23}{'ours':>11}{'independent':>12}{'largest':>9}")
    print(f"{'':<24} {'':<23}{'':>11}{'':>12}{'diff.':>9}")
    for row in rows(parser.parse_args().size):
        print(row.line(), flush=True)


if __name__ == "__main__":
    main()
