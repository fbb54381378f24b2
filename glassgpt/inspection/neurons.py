"""The hidden units of the MLPs ("neurons"): how often each is active, and the texts that excite one most.

Long texts are read in consecutive windows, of `block_size` tokens by default, so the first tokens of a window have a
short context.

Shapes: L blocks with an MLP, F hidden units in each (4C, or 8C/3 with a gate), T positions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from glassgpt.errors import UserError, counted
from glassgpt.inspection.ids import checked_ids, windows
from glassgpt.inspection.taps import parts, tapped
from glassgpt.models import Model, evaluating

# The activation of a neuron that counts as dead never exceeds this in size. ReLU gives 0 for every negative input. GELU
# only comes near to 0: it is below 0.001 for inputs below -3.4, where its slope is so small that the neuron learns
# hardly anything.
DEAD_BELOW = 1e-3

_TOKENS_PER_PASS = 4096  # about 50 MB for the widest layer of GPT-2 124M; small models need several windows to be fast


@dataclass(frozen=True)
class NeuronSummary:
    """What each neuron did on some texts. Row i is about block `layers[i]`. Tensors are on the CPU."""

    layers: tuple[int, ...]  # the L blocks that have an MLP, counted from 0
    dead: Tensor  # (L, F) bool: the activation was never larger than DEAD_BELOW, nor smaller than -DEAD_BELOW
    largest: Tensor  # (L, F) float32: the largest activation
    mean: Tensor  # (L, F) float32
    active: Tensor  # (L, F) float32: the share of the tokens on which the activation is above 0
    selectivity: Tensor  # (L, F) float32: 0 if it is equally active on all tokens, 1 if it is active on a single one
    tokens: int  # how many were read: on few tokens, a neuron that is only rarely active looks dead


@dataclass(frozen=True)
class Excitement:
    """A position where a neuron is active, and the part of the text around it: ids[start:stop]."""

    position: int  # in the text, counted from 0
    start: int
    stop: int
    values: Tensor  # (stop - start,) float32 on the CPU: the neuron's activation at each token of that part

    @property
    def value(self) -> float:
        """The activation at the position itself."""
        return float(self.values[self.position - self.start])


def neuron_summary(
    model: Model, texts: Iterable[Sequence[int] | Tensor], *, window: int | None = None
) -> NeuronSummary:
    """The activations of all neurons on the texts (ids), of any length; empty texts count nothing.

    `window` is the number of tokens that are read at a time, at most `block_size`; None: `block_size`.

    Selectivity is the lifetime sparseness of Vinje and Gallant (2000, "Sparse coding and decorrelation in primary
    visual cortex during natural vision"): (1 - mean(r)² / mean(r²)) / (1 - 1 / n) for the activations r on n tokens.
    Here r is 0 where the activation is negative, as GELU's may be. A neuron that is never active has selectivity 0.

    Raises UserError for a model without an MLP, no tokens at all, an id outside the vocabulary, or a window out of
    range.
    """
    widths = _widths(model)
    shape = (len(widths), max(widths.values()))
    largest, smallest = torch.full(shape, -torch.inf), torch.full(shape, torch.inf)
    total, active, positive, squares = (torch.zeros(shape, dtype=torch.double) for _ in range(4))

    def add(row: int, hidden: Tensor) -> None:
        flat = hidden.flatten(0, 1).float()
        largest[row] = torch.maximum(largest[row], flat.amax(dim=0).cpu())
        smallest[row] = torch.minimum(smallest[row], flat.amin(dim=0).cpu())
        total[row] += flat.sum(dim=0).cpu()
        active[row] += (flat > 0).sum(dim=0).cpu()
        flat = flat.clamp(min=0)
        positive[row] += flat.sum(dim=0).cpu()
        squares[row] += flat.square().sum(dim=0).cpu()

    see = {layer: partial(add, row) for row, layer in enumerate(widths)}
    n_tokens = 0
    for text in texts:
        tokens = checked_ids(model, text)
        _read(model, tokens, see, window)
        n_tokens += len(tokens)
    if n_tokens == 0:
        raise UserError("the texts are empty: they must have at least one token")
    dead = torch.maximum(largest, -smallest) <= DEAD_BELOW
    mean, active = (total / n_tokens).float(), (active / n_tokens).float()
    selectivity = _sparseness(positive, squares, n_tokens)
    return NeuronSummary(tuple(widths), dead, largest, mean, active, selectivity, n_tokens)


def _sparseness(total: Tensor, squares: Tensor, n: int) -> Tensor:
    """The lifetime sparseness, from the sums of n activations and of their squares."""
    if n == 1:
        return torch.zeros(total.shape)
    evenness = torch.where(squares > 0, total.square() / (n * squares), 1.0)  # 1 / n to 1
    return ((1 - evenness) / (1 - 1 / n)).clamp(min=0).float()


def exciting_texts(
    model: Model, ids: Sequence[int] | Tensor, layer: int, neuron: int, k: int = 10, *, reach: int = 10
) -> list[Excitement]:
    """The `k` positions of a text where a neuron's activation is largest, with `reach` tokens on each side.

    They are more than `reach` positions apart, so that one passage counts once: of two that are nearer, the one with
    the smaller activation is left out, or the later one if both are equal. The largest comes first.
    Raises UserError if the model has no such neuron, for an empty text, an id outside the vocabulary, or `k` below 1 or
    `reach` below 0.
    """
    check_neuron(model, layer, neuron)
    tokens = checked_ids(model, ids)
    if len(tokens) == 0:
        raise UserError("the text is empty: it must have at least one token")
    found: list[Tensor] = []
    _read(model, tokens, {layer: lambda hidden: found.append(hidden[..., neuron].flatten().float().cpu())})
    return strongest(torch.cat(found), k, reach=reach)


def check_neuron(model: Model, layer: int, neuron: int) -> None:
    """Raises UserError if the model has no such neuron."""
    width = _widths(model).get(layer)
    if width is None and 0 <= layer < len(parts(model)) and parts(model)[layer].mlp is not None:
        raise UserError(f"the MLP of block {layer} has no linear layer `down`, whose inputs are the neurons")
    if width is None:
        blocks = counted(len(parts(model)), "block")
        raise UserError(f"there is no MLP in block {layer}: this model has {blocks}, counted from 0")
    if not 0 <= neuron < width:
        raise UserError(
            f"there is no neuron {neuron} in block {layer}: it has {counted(width, 'neuron')}, counted from 0"
        )


def strongest(values: Tensor, k: int = 10, *, reach: int = 10) -> list[Excitement]:
    """As `exciting_texts`, from the activations (T,) of a neuron on a text."""
    if k < 1:
        raise UserError(f"k = {k} is out of range: it must be at least 1")
    if reach < 0:
        raise UserError(f"reach = {reach} is out of range: it must be at least 0")
    chosen: list[Excitement] = []
    free = torch.ones(len(values), dtype=torch.bool)
    for position in values.argsort(descending=True, stable=True).tolist():
        if free[position]:
            start, stop = max(0, position - reach), min(len(values), position + reach + 1)
            free[start:stop] = False
            chosen.append(Excitement(position, start, stop, values[start:stop].clone()))
        if len(chosen) == k:
            break
    return chosen


@torch.no_grad()
def _read(model: Model, tokens: Tensor, see: Mapping[int, Callable[[Tensor], None]], window: int | None = None) -> None:
    """Passes tokens (T,) through the model, and the hidden units of some layers (B, T, F) through functions.

    They are reduced as they appear, so that a long text takes no memory. The output head is not needed.
    """
    block_size = model.config.block_size
    length = block_size if window is None else window
    if not 1 <= length <= block_size:
        raise UserError(f"window = {window} is out of range: it must be from 1 to block_size = {block_size}")
    rows = max(1, _TOKENS_PER_PASS // length)
    taps = {f"blocks.{layer}.mlp.hidden": function for layer, function in see.items()}
    with evaluating(model), tapped(model, taps):
        for batch in windows(tokens, length, rows):
            model.features(batch)


def neuron_counts(model: Model) -> dict[int, int]:
    """The number of neurons F of each block that has an MLP, by the number of the block; empty if none has."""
    return {n: part.down.in_features for n, part in enumerate(parts(model)) if part.down is not None}


def _widths(model: Model) -> dict[int, int]:
    """As `neuron_counts`. Raises UserError if there are none."""
    if all(part.mlp is None for part in parts(model)):
        raise UserError("this model has no MLP, so it has no neurons")
    found = neuron_counts(model)
    if not found:
        raise UserError("the MLPs of this model have no linear layer `down`, whose inputs are the neurons")
    return found
