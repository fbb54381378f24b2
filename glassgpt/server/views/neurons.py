"""Neurons: what each hidden unit of the MLPs does on a text, and what excites one of them."""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from glassgpt.costs.flops import estimate_flops_per_token
from glassgpt.data.dataset_cache import dataset_at_hand
from glassgpt.errors import UserError
from glassgpt.inspection.ablation import effect
from glassgpt.inspection.attribution import attribute_neuron
from glassgpt.inspection.capture import capture_names
from glassgpt.inspection.experts import expert_blocks
from glassgpt.inspection.neurons import NeuronSummary, check_neuron, neuron_counts, neuron_summary, strongest
from glassgpt.inspection.taps import tapped
from glassgpt.inspection.trace import LARGE, trace
from glassgpt.models import Model
from glassgpt.runs.run import Run
from glassgpt.server.views.inside import Question
from glassgpt.server.wire import pack
from glassgpt.server.workbench import Bench
from glassgpt.tokenizers.base import begin_with_bos
from glassgpt.tokenizers.pieces import tokens_of
from glassgpt.training.metrics import read_lines

READ_FLOPS = 2e11  # for one reading of the text: a few seconds on two cores
READ_TOKENS = 2_048, 8_192  # at least and at most: a rare neuron needs many tokens, and a film reads them often
WINDOW = 256  # tokens that are read at a time: a longer context would make the effect of a neuron slow
PASSAGES, REACH = 8, 16  # texts that are shown, and the tokens on each side of the one that excites most
TOP = 8  # tokens that a neuron makes likelier, and as many that it makes less likely
TOP_TOKENS = 5  # tokens on which, or after which, a neuron is active
FIGURES = ("largest", "mean", "active", "selectivity")
KEPT_BYTES = 256 << 20  # of activations of single blocks
KEPT_SUMMARIES = 64


@dataclass(frozen=True)
class Text:
    """The tokens on which the neurons of a run are measured."""

    ids: list[int]
    source: str  # "validation", "samples" or "own"
    whole: int  # how many tokens the whole text has

    def described(self) -> dict[str, object]:
        """What the page says of it."""
        return {"source": self.source, "tokens": len(self.ids), "whole": self.whole}


@dataclass(frozen=True)
class Activations:
    """Those of the neurons of one block on a text, (T, F)."""

    text: Text
    values: Tensor


class NeuronBook:
    """What is known of the neurons of runs. Reading a text takes seconds, so each reading is kept for a while.

    It serves one request at a time, as the workbench does.
    """

    def __init__(self) -> None:
        self._summaries: OrderedDict[object, tuple[Text, NeuronSummary]] = OrderedDict()
        self._activations: OrderedDict[object, Activations] = OrderedDict()

    def list_neurons(self, bench: Bench, question: Question) -> bytes:
        """All neurons of one block (F,): how often, how strongly and how selectively each is active on a text.

        Without a layer it is the first block with an MLP. A model without MLPs has no blocks in its answer, and neither
        has one whose MLPs are experts; `experts` tells which.
        """
        bench.check_decoder()
        counts = neuron_counts(bench.model)
        if not counts:
            return pack({"step": bench.run.step, "blocks": [], "experts": bool(expert_blocks(bench.model))}, {})
        layer = next(iter(counts)) if question.layer is None else question.layer
        check_neuron(bench.model, layer, 0)
        key = _key(bench, question)
        if key not in self._summaries:
            self._read(bench, question, layer)
        self._summaries.move_to_end(key)
        text, found = self._summaries[key]
        row, F = found.layers.index(layer), counts[layer]
        dead = [int(found.dead[n, : counts[block]].sum()) for n, block in enumerate(found.layers)]
        meta = {
            "step": bench.run.step,
            "layer": layer,
            "blocks": [{"layer": n, "neurons": counts[n], "dead": d} for n, d in zip(found.layers, dead, strict=True)],
            "text": text.described() | {"window": _window(bench.model)},
        }
        arrays = {name: getattr(found, name)[row, :F].numpy() for name in FIGURES}
        return pack(meta, arrays | {"dead": found.dead[row, :F].to(torch.uint8).numpy()})

    def look_at_neuron(self, bench: Bench, question: Question) -> bytes:
        """One neuron: the passages that excite it most with the activation of each token, and what it does.

        `on` and `after` are the tokens on which, and after which, it is active: the share of its activation that they
        have, and their own share of the text. `direct` is what it adds to the logits where it is most active: the most,
        then the least. `effect` is by how much the mean loss of the window around that place rises without it, and the
        loss of the token that follows there with it and without it; NaN where no token follows.
        """
        bench.check_decoder()
        layer, neuron = question.layer, question.neuron
        if layer is None or neuron is None:
            raise UserError("name a neuron: its layer and its number")
        check_neuron(bench.model, layer, neuron)
        key = (_key(bench, question), layer)
        if key not in self._activations:
            self._read(bench, question, layer)
        self._activations.move_to_end(key)
        found = self._activations[key]
        ids, values = found.text.ids, found.values[:, neuron]
        nearest = strongest(values, PASSAGES, reach=REACH)
        passages = [one for one in nearest if one.value > 0] or nearest[:1]  # a neuron may never be active
        arrays = {"values": torch.cat([one.values for one in passages]).numpy()}
        arrays["on_ids"], arrays["on_shares"] = _shares(ids, values)
        arrays["after_ids"], arrays["after_shares"] = _shares(ids[:-1], values[1:])
        peak = passages[0].position
        start = peak - peak % _window(bench.model)
        around, at = ids[start : start + _window(bench.model)], peak - start
        arrays["effect"] = _effect(bench.model, around, at, f"blocks.{layer}.neuron.{neuron}")
        problem = None
        try:
            arrays["direct_ids"], arrays["direct_logits"] = _direct(bench, around, at, layer, neuron)
        except UserError as error:  # a section of the ladder whose blocks do not add to the stream
            problem = str(error)
        used = {int(id) for name in arrays if name.endswith("_ids") for id in arrays[name]}
        meta: dict[str, Any] = {
            "step": bench.run.step,
            "layer": layer,
            "neuron": neuron,
            "passages": [
                {"tokens": tokens_of(bench.run.tokenizer, ids[one.start : one.stop]), "at": one.position - one.start}
                for one in passages
            ],
            "names": dict(zip(used, tokens_of(bench.run.tokenizer, list(used)), strict=True)),
            "around": len(around),
            "problem": problem,
        }
        return pack(meta, arrays)

    def _read(self, bench: Bench, question: Question, layer: int) -> None:
        """Reads the text once, and keeps the summary of all blocks and the activations of one."""
        text = _find_text(bench, question.text)
        found: list[Tensor] = []
        taps = {f"blocks.{layer}.mlp.hidden": lambda hidden: found.append(hidden.flatten(0, 1).float().cpu())}
        with tapped(bench.model, taps):
            summary = neuron_summary(bench.model, [text.ids], window=_window(bench.model))
        key = _key(bench, question)
        self._summaries[key] = text, summary
        while len(self._summaries) > KEPT_SUMMARIES:
            self._summaries.popitem(last=False)
        self._activations[key, layer] = Activations(text, torch.cat(found))
        sizes = [kept.values.nbytes for kept in self._activations.values()]
        while len(sizes) > 1 and sum(sizes) > KEPT_BYTES:
            self._activations.popitem(last=False)
            sizes.pop(0)


def _key(bench: Bench, question: Question) -> tuple[object, ...]:
    """The checkpoint as it is now, and the text."""
    path = bench.run.checkpoint.path
    return path.resolve(), path.stat().st_mtime, question.text


def _window(model: Model) -> int:
    return min(WINDOW, model.config.block_size)


def tokens_read(model: Model) -> int:
    """How many tokens are read of a long text: fewer for a large model."""
    forward = estimate_flops_per_token(model) / 3  # a backward pass costs twice as much
    least, most = READ_TOKENS
    return max(least, min(most, int(READ_FLOPS / forward) // _window(model) * _window(model)))


def _find_text(bench: Bench, own: str) -> Text:
    """The text of the request, or else of the run: the beginning of its validation split, or else its samples.

    Raises UserError if there is none at hand.
    """
    run, most = bench.run, tokens_read(bench.model)
    if own:
        ids = begin_with_bos(run.tokenizer, run.tokenizer.encode(own))
        return Text(ids[:most], "own", len(ids))
    if not run.imported:
        with contextlib.suppress(UserError, OSError):  # the samples are as good then
            if (dataset := dataset_at_hand(run.manifest, run.tokenizer)) is not None and len(dataset.val):
                return Text(dataset.val.slice(0, min(most, len(dataset.val))).tolist(), "validation", len(dataset.val))
        if ids := _sample_ids(run):
            return Text(ids[:most], "samples", len(ids))
    raise UserError("neither the validation text of this run nor a sample of it is at hand: choose your own text")


def _sample_ids(run: Run) -> list[int]:
    """The samples that the run wrote, the latest first."""
    lines = reversed(read_lines(run.folder / "samples.jsonl"))
    written = [f"{line.get('prompt') or ''}{line.get('text') or ''}" for line in lines]
    return [id for text in written for id in run.tokenizer.encode(text, allowed_special="all")]


def _shares(ids: list[int], values: Tensor) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """The tokens with the largest shares of the positive activation: their ids, and (n, 2) these shares and their own.

    Their own share is that of the text. A neuron that is never active has none.
    """
    weights = values.clamp(min=0).double().numpy()
    if not ids or not weights.sum() > 0:  # NaN, too, in a checkpoint of a run that diverged
        return np.empty(0, np.int32), np.empty((0, 2), np.float32)
    counts, sums = np.bincount(ids), np.bincount(ids, weights)
    order = np.argsort(-sums, kind="stable")[:TOP_TOKENS]
    order = order[sums[order] > 0]
    return order.astype(np.int32), np.stack([sums[order] / sums.sum(), counts[order] / len(ids)], 1).astype(np.float32)


def _effect(model: Model, ids: list[int], at: int, name: str) -> NDArray[np.float32]:
    if len(ids) < 2:
        return np.full(3, np.nan, np.float32)
    found = effect(model, ids, zero=[name])
    follows = at + 1 < len(ids)
    before, after = (float(losses[at]) if follows else np.nan for losses in (found.before, found.after))
    return np.array([found.change, before, after], np.float32)


def _direct(
    bench: Bench, ids: list[int], at: int, layer: int, neuron: int
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """The ids whose logits the neuron raises most at a place, then those that it lowers most, and by how much."""
    names = [name for name in capture_names(bench.model) if not name.endswith(LARGE)]
    seen = trace(bench.model, ids[: at + 1], [*names, f"blocks.{layer}.mlp.hidden"])
    logits = attribute_neuron(seen, layer, neuron, at)[: bench.run.tokenizer.vocab_size].numpy()
    order = np.argsort(-logits, kind="stable")
    chosen = np.concatenate([order[:TOP][logits[order[:TOP]] > 0], order[::-1][:TOP][logits[order[::-1][:TOP]] < 0]])
    return chosen.astype(np.int32), logits[chosen]
