"""Packed examples: each once an epoch, whole, with its mask, whatever the ranks; and trained as if each were alone."""

from __future__ import annotations

import tempfile
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from glassgpt.data.example_loader import PADDING, ExampleLoader, ExampleRows, pack_rows
from glassgpt.data.examples import Examples, open_examples, write_examples
from glassgpt.errors import UserError
from glassgpt.models.context import Documents
from glassgpt.models.gpt2 import GPT2, GPT2Config
from glassgpt.runtime.device import build_runtime
from glassgpt.training.fit import train_step
from glassgpt.training.losses import Loss, sum_token_losses

VOCAB = 30
FIELDS = ("inputs", "targets", "mask", "examples", "starts")


def make_examples(folder: Path, lengths: list[int], seed: int = 0) -> Examples:
    """Examples of random ids and masks, in which at least the last id is trained on."""
    numbers = np.random.default_rng(seed)

    def draw(length: int) -> tuple[np.ndarray, np.ndarray]:
        mask = numbers.integers(0, 2, length)
        mask[-1] = 1
        return numbers.integers(0, VOCAB, length), mask

    write_examples(folder, [draw(length) for length in lengths], VOCAB)
    return open_examples(folder)


@st.composite
def loaders(draw: st.DrawFn, truncate: bool = False) -> ExampleLoader:
    block_size = draw(st.integers(1, 12))
    longest = 2 * block_size + 2 if truncate else block_size + 1
    lengths = draw(st.lists(st.integers(2, max(2, longest)), min_size=1, max_size=20))
    with tempfile.TemporaryDirectory() as name:  # the mapped files outlive their names
        examples = make_examples(Path(name, "examples"), lengths, draw(st.integers(0, 99)))
    rows, seed = draw(st.integers(1, 5)), draw(st.integers(0, 2**64))
    return ExampleLoader(examples, block_size, rows, seed, truncate=truncate)


def packed_examples(rows: ExampleRows) -> list[list[tuple[int, list[int], list[int], list[int]]]]:
    """For each row its examples in order: number, inputs, targets and mask, read off the tensors."""
    found = []
    for row in range(len(rows.inputs)):
        bounds = [*torch.nonzero(rows.starts[row]).flatten().tolist(), rows.inputs.size(1)]
        parts = []
        for begin, end in pairwise(bounds):
            (number,) = set(rows.examples[row, begin:end].tolist())
            tensors = (rows.inputs, rows.targets, rows.mask)
            parts.append((number, *(tensor[row, begin:end].tolist() for tensor in tensors)))
        found.append(parts)
    return found


def first_rows(loader: ExampleLoader, n_steps: int) -> list[list[tuple[int, list[int], list[int], list[int]]]]:
    return [row for step in range(n_steps) for row in packed_examples(loader.rows(step))]


@settings(max_examples=60, deadline=None)
@given(st.booleans().flatmap(loaders))
def test_every_epoch_has_every_example_once_and_whole_with_its_mask(loader: ExampleLoader) -> None:
    n, examples, size = len(loader.examples), loader.examples, loader.block_size
    parts = [part for row in first_rows(loader, n_steps=3 * n) for part in row if part[0] != PADDING]
    assert len(parts) >= 3 * n
    for epoch in range(3):
        assert sorted(part[0] for part in parts[epoch * n : (epoch + 1) * n]) == list(range(n))
    for number, inputs, targets, mask in parts:
        ids, trained_on = examples.ids(number)[: size + 1], examples.mask(number)[: size + 1]
        assert inputs == ids[:-1].tolist()
        assert targets == ids[1:].tolist()
        assert mask == trained_on[1:].tolist()


@settings(max_examples=60, deadline=None)
@given(loaders())
def test_padding_is_at_the_end_of_a_row_and_is_not_trained_on(loader: ExampleLoader) -> None:
    for row in first_rows(loader, n_steps=4):
        numbers = [part[0] for part in row]
        assert PADDING not in numbers[:-1]
        if numbers[-1] == PADDING:
            _, inputs, targets, mask = row[-1]
            assert not any(inputs) and not any(targets) and not any(mask)


@settings(max_examples=60, deadline=None)
@given(loaders(), st.integers(0, 200), st.data())
def test_any_split_into_ranges_gives_the_same_batch(loader: ExampleLoader, step: int, data: st.DataObject) -> None:
    whole = loader.rows(step)
    cuts = [0, *sorted(data.draw(st.lists(st.integers(0, loader.batch_rows), max_size=4))), loader.batch_rows]
    parts = []
    for start, stop in pairwise(cuts):  # each rank has a loader of its own, which may have been asked for anything
        other = ExampleLoader(loader.examples, loader.block_size, loader.batch_rows, loader.seed)
        other.rows(data.draw(st.integers(0, 50)))
        parts.append(other.rows(step, start, stop))
    for field in FIELDS:
        assert torch.equal(torch.cat([getattr(part, field) for part in parts]), getattr(whole, field))


@given(st.integers(1, 20).flatmap(lambda top: st.tuples(st.just(top), st.lists(st.integers(1, top), min_size=1))))
def test_rows_are_packed_greedily(case: tuple[int, list[int]]) -> None:
    capacity, sizes = case
    expected: list[list[int]] = []
    for number, size in enumerate(sizes):
        if not expected or sum(sizes[other] for other in expected[-1]) + size > capacity:
            expected.append([])
        expected[-1].append(number)
    starts = pack_rows(np.array(sizes), capacity).tolist()
    assert [list(range(*bounds)) for bounds in pairwise(starts)] == expected


def test_rows_do_not_depend_on_the_batch_size_and_steps_may_come_in_any_order(tmp_path: Path) -> None:
    examples = make_examples(tmp_path / "examples", [2, 3, 9, 4, 4, 7, 5, 2, 6])
    one, six = ExampleLoader(examples, 10, batch_rows=1, seed=5), ExampleLoader(examples, 10, batch_rows=6, seed=5)
    assert first_rows(one, 120) == first_rows(six, 20)
    back = [packed_examples(six.rows(step)) for step in reversed(range(20))][::-1]
    assert [row for rows in back for row in rows] == first_rows(six, 20)


def test_other_seeds_and_epochs_have_other_orders(tmp_path: Path) -> None:
    examples = make_examples(tmp_path / "examples", [9] * 50)  # one in each row
    orders = Counter()
    for seed in range(4):
        rows = first_rows(ExampleLoader(examples, 8, batch_rows=50, seed=seed), 2)
        numbers = [row[0][0] for row in rows]
        orders.update([tuple(numbers[:50]), tuple(numbers[50:])])
    assert len(orders) == 8


def test_the_order_is_the_same_for_ever(tmp_path: Path) -> None:
    """A run made with an older version resumes on the same batches only while these figures hold."""
    examples = make_examples(tmp_path / "examples", [3, 5, 2, 8, 4, 6, 7, 2])
    rows = first_rows(ExampleLoader(examples, 10, batch_rows=2, seed=1337), 3)
    assert [[part[0] for part in row if part[0] != PADDING] for row in rows] == [
        [2, 4, 6], [0, 7, 5], [3], [1], [5], [3, 0],
    ]  # fmt: skip


def test_an_example_that_is_too_long_is_refused_or_cut(tmp_path: Path) -> None:
    examples = make_examples(tmp_path / "examples", [4, 12, 5, 30])
    with pytest.raises(UserError, match=r"2 of 4 .* example 1 with 12 ids, and block_size 10 holds 11"):
        ExampleLoader(examples, 10, batch_rows=1)
    cut = ExampleLoader(examples, 10, batch_rows=8, truncate=True)
    parts = {part[0]: part for row in packed_examples(cut.rows(0)) for part in row}
    assert parts[3][1] == examples.ids(3)[:10].tolist()
    assert parts[3][2] == examples.ids(3)[1:11].tolist()
    ExampleLoader(examples, 29, batch_rows=1)


def test_bad_sizes_and_rows_are_refused(tmp_path: Path) -> None:
    examples = make_examples(tmp_path / "examples", [4])
    for sizes in ((0, 1), (8, 0)):
        with pytest.raises(UserError, match="at least 1"):
            ExampleLoader(examples, *sizes)
    for bounds in ((-1, 0, 1), (0, 1, 0), (0, 0, 3)):
        with pytest.raises(IndexError):
            ExampleLoader(examples, 8, 2).rows(*bounds)


def packed_loss(model: nn.Module, rows: ExampleRows) -> Loss:
    """Cross-entropy of packed rows: the sum over trained-on targets, and their number."""
    logits = model(rows.inputs, context=Documents.from_starts(rows.starts))
    mask = rows.mask.flatten()
    total = sum_token_losses(logits.flatten(0, 1), rows.targets.flatten(), mask)
    return Loss(total, mask.sum(dtype=torch.float32))


def build_model() -> tuple[GPT2, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = GPT2(GPT2Config(vocab_size=VOCAB, block_size=24, n_layer=2, n_head=2, n_embd=16))
    # The gradient of a key's bias is 0 but for rounding, which Adam would otherwise blow up to whole steps.
    return model, torch.optim.AdamW(model.parameters(), lr=3e-3, eps=1e-5)


@pytest.mark.parametrize("micro_batch", [2, 4])
def test_a_packed_masked_run_equals_one_by_hand_with_each_example_alone(tmp_path: Path, micro_batch: int) -> None:
    """The reference is plain PyTorch: an example at a time, losses summed, divided by the number of trained-on ids."""
    lengths = np.random.default_rng(1).integers(2, 20, 60).tolist()
    loader = ExampleLoader(make_examples(tmp_path / "examples", lengths), block_size=24, batch_rows=4, seed=3)
    model, optimizer = build_model()
    runtime = build_runtime("cpu", "float32")
    parallel = runtime.wrap(model, packed_loss)
    losses, taken = [], []
    for step in range(20):
        parts = [loader.rows(step, start, start + micro_batch) for start in range(0, 4, micro_batch)]
        taken.append([int(n) for part in parts for n in part.examples[part.starts] if n != PADDING])
        update = train_step(
            parallel, optimizer, runtime.build_scaler(), parts, runtime,
            grad_clip=0.0, seed=3, step=step, expected_weight=4 * 24,
        )  # fmt: skip
        losses.append(update.loss)
    assert max(map(len, taken)) > 4  # several in a row

    reference, optimizer = build_model()
    expected = []
    for numbers in taken:
        optimizer.zero_grad()
        total, weight = torch.zeros(()), 0
        for number in numbers:
            ids, mask = (torch.from_numpy(part(number)) for part in (loader.examples.ids, loader.examples.mask))
            each = F.cross_entropy(reference(ids[None, :-1])[0], ids[1:], reduction="none")
            total = total + each[mask[1:]].sum()
            weight += int(mask[1:].sum())
        (total / weight).backward()
        optimizer.step()
        expected.append(float(total.detach() / weight))
    assert losses == pytest.approx(expected, abs=1e-5)
    for parameter, other in zip(model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(parameter, other, atol=1e-5, rtol=0)
    assert losses[-1] < losses[0]
