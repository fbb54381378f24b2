"""The one loop against plain loops and float64: gradients, clipping, what is skipped, and where it may stop."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from glassgpt.models.gpt2 import GPT2, GPT2Config
from glassgpt.runtime.device import Runtime
from glassgpt.runtime.parallel import ModelWithLoss
from glassgpt.training.fit import MAX_SKIPPED, OVERFLOW, Diverged, StepResult, TrainState, fit, train_step
from glassgpt.training.losses import Batch, Loss, LossFunction, next_token_loss

CPU = Runtime(torch.device("cpu"), "float32")
HALF = Runtime(torch.device("cpu"), "float16")
IDLE = torch.amp.GradScaler("cpu", enabled=False)
ROWS, BLOCK, VOCAB = 6, 8, 13


def build(dropout: float = 0.0) -> GPT2:
    torch.manual_seed(0)
    model = GPT2(GPT2Config(VOCAB, BLOCK, n_layer=2, n_head=2, n_embd=16, dropout=dropout))
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model


def draw_tokens(seed: int = 1) -> tuple[Tensor, Tensor]:
    """inputs and targets (ROWS, BLOCK)."""
    tokens = torch.randint(VOCAB, (ROWS, BLOCK + 1), generator=torch.Generator().manual_seed(seed))
    return tokens[:, :-1], tokens[:, 1:]


def draw_mask(seed: int) -> Tensor:
    """(ROWS, BLOCK): from row to row between no target and all; at least one in all."""
    draw = torch.Generator().manual_seed(seed)
    mask = torch.rand(ROWS, BLOCK, generator=draw) < torch.rand(ROWS, 1, generator=draw).round(decimals=1)
    mask[seed % ROWS] = False
    mask[(seed + 1) % ROWS, 0] = True
    return mask


def cut(inputs: Tensor, targets: Tensor, mask: Tensor | None, micro_batch: int) -> list[Batch]:
    pieces = [slice(start, start + micro_batch) for start in range(0, len(inputs), micro_batch)]
    return [Batch(inputs[rows], targets[rows], None if mask is None else mask[rows]) for rows in pieces]


def batches_of_step(step: int) -> list[Batch]:
    return cut(*draw_tokens(seed=step), None, micro_batch=2)


def step_once(
    model: nn.Module, micro_batches: Sequence[Batch], *, grad_clip: float = 0.0, **changes: Any
) -> tuple[float, float, str | None]:
    """One `train_step`; by default plain gradient descent with a rate of 1."""
    arguments: dict[str, Any] = {
        "optimizer": torch.optim.SGD(model.parameters(), lr=1.0),
        "scaler": IDLE,
        "runtime": CPU,
        "expected_weight": sum(batch.n_tokens for batch in micro_batches),
        "seed": 0,
    } | changes
    parallel = ModelWithLoss(model, arguments.pop("loss_function", next_token_loss))
    update = train_step(parallel, micro_batches=micro_batches, grad_clip=grad_clip, step=0, **arguments)
    return update.loss, update.grad_norm, update.skipped


def run(
    model: nn.Module, optimizer: torch.optim.Optimizer, max_steps: int, **changes: Any
) -> tuple[TrainState, list[tuple[TrainState, StepResult]]]:
    """`fit` with a constant rate; also everything that `on_step` saw."""
    seen: list[tuple[TrainState, StepResult]] = []
    arguments: dict[str, Any] = {
        "batches": batches_of_step,
        "expected_weight": ROWS * BLOCK,
        "lr_at": lambda step: 0.01,
        "runtime": CPU,
        "scaler": IDLE,
        "grad_clip": 1.0,
        "seed": 7,
        "state": TrainState(),
        "on_step": lambda state, result: seen.append((state, result)),
    } | changes
    parallel = ModelWithLoss(model, arguments.pop("loss_function", next_token_loss))
    return fit(parallel, optimizer, max_steps=max_steps, **arguments), seen


def adamw(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), fused=True)


def clone(model: nn.Module) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in model.parameters()]


def same(model: nn.Module, weights: list[Tensor]) -> bool:
    return all(torch.equal(p, expected) for p, expected in zip(model.parameters(), weights, strict=True))


# The gradient of one step


def reference(mask: Tensor | None, seed: int = 1) -> tuple[float, list[Tensor]]:
    """The mean loss over all trained-on targets and its gradient, in float64, in one pass."""
    model = build().double()
    inputs, targets = draw_tokens(seed)
    losses = F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten(), reduction="none")
    loss = losses.mean() if mask is None else losses[mask.flatten()].mean()
    loss.backward()
    return loss.item(), [p.grad for p in model.parameters() if p.grad is not None]


def assert_step_matches(mask: Tensor | None, micro_batch: int, seed: int) -> None:
    expected_loss, expected = reference(mask, seed)
    model = build()
    loss, norm, skipped = step_once(model, cut(*draw_tokens(seed), mask, micro_batch))
    assert skipped is None
    assert loss == pytest.approx(expected_loss, rel=1e-6)
    assert norm == pytest.approx(math.sqrt(sum(float(g.square().sum()) for g in expected)), rel=1e-5)
    for parameter, gradient in zip(model.parameters(), expected, strict=True):
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad.double(), gradient, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("micro_batch", [1, 3, 4, ROWS])
def test_the_gradient_does_not_depend_on_how_the_batch_is_cut(micro_batch: int) -> None:
    assert_step_matches(None, micro_batch, seed=1)


@given(st.integers(0, 1000), st.integers(1, ROWS))
@settings(max_examples=15)
def test_uneven_masks_change_nothing(seed: int, micro_batch: int) -> None:
    """Micro-batches of very different weight, one of them of none: a mean of means would be far off."""
    assert_step_matches(draw_mask(seed), micro_batch, seed)


@pytest.mark.parametrize("part_of_norm", [0.0, 0.01, 0.9, 1.1])
def test_clipping_equals_torch(part_of_norm: float) -> None:
    """0 is not to clip."""
    model, other = build(), build()
    inputs, targets = draw_tokens()
    grad_clip = part_of_norm * math.sqrt(sum(float(g.square().sum()) for g in reference(None)[1]))
    _, norm, _ = step_once(model, cut(inputs, targets, None, ROWS), grad_clip=grad_clip)

    F.cross_entropy(other(inputs).flatten(0, 1), targets.flatten()).backward()
    total = torch.nn.utils.clip_grad_norm_(other.parameters(), grad_clip or math.inf)
    torch.optim.SGD(other.parameters(), lr=1.0).step()
    assert norm == pytest.approx(float(total), rel=1e-5)  # before clipping
    for ours, theirs in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_fit_equals_a_plain_loop() -> None:
    def rate(step: int) -> float:
        return 0.02 / (step + 1)

    model, other = build(), build()
    eps = 1e-3  # so large that it hides the sign of rounding errors, all the gradient there is on the keys' biases
    _, seen = run(model, torch.optim.AdamW(model.parameters(), eps=eps, fused=True), 6, lr_at=rate, grad_clip=0.7)

    theirs = torch.optim.AdamW(other.parameters(), eps=eps, fused=False, foreach=False)
    for step in range(6):
        inputs, targets = draw_tokens(seed=step)
        loss = F.cross_entropy(other(inputs).flatten(0, 1), targets.flatten())
        theirs.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(other.parameters(), 0.7)
        theirs.param_groups[0]["lr"] = rate(step)
        theirs.step()
        state, result = seen[step]
        assert result.loss == pytest.approx(loss.item(), rel=1e-5)
        assert result.grad_norm == pytest.approx(norm.item(), rel=1e-4)
        assert (result.lr, result.tokens, result.skipped) == (rate(step), ROWS * BLOCK, None)
        assert state == TrainState(step + 1, (step + 1) * ROWS * BLOCK, 0)
    for ours, expected in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)


# What the host waits for, and what is left alone


class Reads(TorchDispatchMode):
    """Counts how often a number is read from a tensor: each time, the host waits for the device."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("mask", [None, draw_mask(1)])
def test_the_host_waits_once_a_step(monkeypatch: pytest.MonkeyPatch, mask: Tensor | None) -> None:
    model, lists, read = build(), [], Tensor.tolist
    monkeypatch.setattr(Tensor, "tolist", lambda tensor: lists.append(tensor) or read(tensor))
    with Reads() as reads:
        step_once(model, cut(*draw_tokens(), mask, micro_batch=2), grad_clip=0.1, optimizer=adamw(model))
    assert len(lists) + reads.count == 1


def test_without_dropout_torch_is_not_seeded() -> None:
    batches, state = cut(*draw_tokens(), None, micro_batch=2), torch.get_rng_state()
    seeded = step_once(build(), batches)
    torch.set_rng_state(state)
    model = build()
    state = torch.get_rng_state()
    assert step_once(model, batches, seed=None) == seeded
    assert torch.equal(torch.get_rng_state(), state)


def test_after_a_batch_without_a_target_float16_goes_on() -> None:
    """Its gradients were unscaled for their norm, which a scaler does once a step."""
    inputs, targets = draw_tokens()
    model, scaler = build(), torch.amp.GradScaler("cpu", init_scale=8.0)
    nothing = cut(inputs, targets, torch.zeros(ROWS, BLOCK), micro_batch=2)
    *_, skipped = step_once(model, nothing, scaler=scaler, runtime=HALF, expected_weight=1.0)
    assert skipped == "batch without a trained-on target"
    *_, skipped = step_once(model, cut(inputs, targets, None, 2), scaler=scaler, runtime=HALF)
    assert skipped is None


# Where it may stop, and how it goes on


def test_a_run_in_parts_equals_one_in_one_go_bit_for_bit() -> None:
    """With dropout, and with random numbers drawn by others in between."""
    whole = build(dropout=0.3)
    expected, _ = run(whole, adamw(whole), 7)

    parts = build(dropout=0.3)
    optimizer = adamw(parts)
    state = TrainState()
    for stop in (2, 3, 7):
        torch.rand(stop)
        state, _ = run(parts, optimizer, stop, state=state)
    assert state == expected
    assert same(parts, clone(whole))


def test_dropout_differs_between_steps_and_micro_steps() -> None:
    """The same rows again and again, with a rate of zero: only dropout can change the loss."""
    model = build(dropout=0.5)
    one_row = [Batch(*(tokens[:1] for tokens in draw_tokens()))]
    losses = []
    for micro_batches in (one_row, one_row * 2):
        _, seen = run(model, adamw(model), 3, batches=lambda step, rows=micro_batches: rows, lr_at=lambda step: 0.0)
        losses += [result.loss for _, result in seen]
    assert len(set(losses)) == 6
    _, again = run(model, adamw(model), 1, batches=lambda step: one_row, lr_at=lambda step: 0.0)
    assert again[0][1].loss == losses[0]


def test_it_stops_when_told_after_a_whole_step() -> None:
    model = build()
    asked = iter([False, False, True])
    state, seen = run(model, adamw(model), 100, should_stop=lambda: next(asked))
    assert state.step == len(seen) == 2


def test_at_its_end_it_does_nothing() -> None:
    model = build()
    before = clone(model)
    state, seen = run(model, adamw(model), 5, state=TrainState(step=5, tokens_seen=240))
    assert state == TrainState(step=5, tokens_seen=240)
    assert seen == []
    assert same(model, before)


def test_a_rank_that_is_interrupted_stops_after_the_step() -> None:
    model = build()
    asked = iter([False, False, True])
    state, seen = run(model, adamw(model), 100, interrupted=lambda: next(asked))
    assert state.step == len(seen) == 1


# What is not applied


def spoil(kind: str, bad_steps: Callable[[int], bool]) -> LossFunction:
    """A loss function whose loss, or only its gradient, is not finite in some calls, counted from 0."""
    calls = iter(range(1000))

    def loss_function(model: nn.Module, batch: Batch) -> Loss:
        loss = next_token_loss(model, batch)
        total = loss.sum
        if bad_steps(next(calls)):
            parameter = next(model.parameters())
            # √x at 0 has an infinite slope; times 0 that is NaN
            total = total * math.nan if kind == "loss" else total + (parameter * 0).clamp(min=0).sqrt().sum()
        return replace(loss, sum=total)

    return loss_function


def whole_batch(step: int) -> list[Batch]:
    return cut(*draw_tokens(seed=step), None, micro_batch=ROWS)


@pytest.mark.parametrize("kind", ["loss", "gradient"])
def test_what_is_not_finite_is_not_applied(kind: str) -> None:
    """The weights and the optimizer are those of a run that never saw the two bad batches."""
    model, other = build(), build()
    optimizer, theirs = adamw(model), adamw(other)
    _, seen = run(model, optimizer, 6, batches=whole_batch, loss_function=spoil(kind, lambda call: call in (2, 3)))
    good = [0, 1, 4, 5]
    run(other, theirs, 4, batches=lambda step: whole_batch(good[step]))

    assert [result.skipped for _, result in seen] == [None] * 2 + [f"non-finite {kind}"] * 2 + [None] * 2
    assert [state.skipped_in_row for state, _ in seen] == [0, 0, 1, 2, 0, 0]
    assert seen[-1][0].step == 6
    assert seen[-1][0].tokens_seen == 6 * ROWS * BLOCK
    assert same(model, clone(other))
    for ours, expected in zip(model.parameters(), other.parameters(), strict=True):
        for key, value in theirs.state[expected].items():
            assert torch.equal(optimizer.state[ours][key], value), key


def test_a_single_bad_micro_batch_spoils_its_step() -> None:
    model = build()
    before = clone(model)
    _, _, skipped = step_once(model, batches_of_step(0), loss_function=spoil("gradient", lambda call: call == 1))
    assert skipped == "non-finite gradient"
    assert same(model, before)


@pytest.mark.parametrize("kind", ["loss", "gradient"])
def test_five_in_a_row_stop_the_run(kind: str) -> None:
    model = build()
    seen: list[TrainState] = []
    with pytest.raises(Diverged, match=rf"step 8: 5 steps in a row had a non-finite {kind}.*optimizer\.lr"):
        run(
            model,
            adamw(model),
            100,
            batches=whole_batch,
            loss_function=spoil(kind, lambda call: call >= 3),
            on_step=lambda state, result: seen.append(state),
        )
    assert seen[-1].step == 8
    other = build()
    run(other, adamw(other), 3, batches=whole_batch)
    assert same(model, clone(other))


def test_a_good_step_forgives_and_a_resumed_run_remembers() -> None:
    model = build()
    four_bad_one_good = spoil("loss", lambda call: call % MAX_SKIPPED != MAX_SKIPPED - 1)
    run(model, adamw(model), 20, batches=whole_batch, loss_function=four_bad_one_good)
    with pytest.raises(Diverged, match="step 12:"):
        run(
            model,
            adamw(model),
            20,
            batches=whole_batch,
            loss_function=spoil("loss", lambda call: True),
            state=TrainState(step=10, skipped_in_row=3),
        )


def test_a_batch_without_a_trained_on_target_is_skipped() -> None:
    model = build()
    before = clone(model)
    inputs, targets = draw_tokens()
    nothing = torch.zeros(ROWS, BLOCK, dtype=torch.bool)
    _, _, skipped = step_once(model, cut(inputs, targets, nothing, 2))
    assert skipped == "batch without a trained-on target"
    assert same(model, before)


# float16


def test_float16_gradients_are_those_of_float32() -> None:
    model, other = build(), build()
    batches = cut(*draw_tokens(), draw_mask(3), micro_batch=2)
    step_once(model, batches, runtime=HALF, scaler=HALF.build_scaler())
    step_once(other, batches)
    for ours, expected in zip(model.parameters(), other.parameters(), strict=True):
        assert ours.grad is not None
        assert expected.grad is not None
        torch.testing.assert_close(ours.grad, expected.grad, rtol=0.02, atol=2e-4)


def test_an_overflow_halves_the_scale_until_it_fits_and_does_not_count() -> None:
    model = build()
    before = clone(model)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**30)
    _, seen = run(model, adamw(model), 16, runtime=HALF, scaler=scaler)
    skipped = [result.skipped for _, result in seen]
    assert skipped[: MAX_SKIPPED + 1] == [OVERFLOW] * (MAX_SKIPPED + 1)
    assert set(skipped) == {OVERFLOW, None}
    assert scaler.get_scale() == 2.0 ** (30 - skipped.count(OVERFLOW))
    assert {state.skipped_in_row for state, _ in seen} == {0}
    assert not same(model, before)


def test_an_overflow_that_no_scale_mends_stops_the_run() -> None:
    model = build()
    before = clone(model)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    with pytest.raises(Diverged, match="step 7: 5 steps in a row had a non-finite gradient"):
        run(
            model,
            adamw(model),
            100,
            batches=whole_batch,
            runtime=HALF,
            scaler=scaler,
            loss_function=spoil("gradient", lambda call: True),
        )
    assert same(model, before)


# Parameter groups, and figures of a loss


def test_each_parameter_group_has_a_factor_of_the_learning_rate() -> None:
    model = build()
    matrices = [parameter for parameter in model.parameters() if parameter.dim() == 2]
    others = [parameter for parameter in model.parameters() if parameter.dim() != 2]
    optimizer = torch.optim.SGD([{"params": matrices, "lr_factor": 0.5}, {"params": others}], lr=1.0)
    _, seen = run(model, optimizer, 3, lr_at=lambda step: 0.1 * (step + 1), grad_clip=0.0)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.15, 0.3])
    assert [result.lr for _, result in seen] == pytest.approx([0.1, 0.2, 0.3])


def test_figures_are_means_over_the_whole_batch() -> None:
    """Of micro-batches of 4 and 2 rows, by their weights; the loss and its gradient do not depend on them."""

    def with_figures(model: nn.Module, batch: Batch) -> Loss:
        loss = next_token_loss(model, batch)
        rows = torch.arange(len(batch.inputs)).float()
        return replace(loss, figures={"rows": (rows.sum(), float(len(rows))), "none": (0.0, 0.0)})

    inputs, targets = draw_tokens()
    model, other = build(), build()
    _, seen = run(
        model, adamw(model), 1, batches=lambda step: cut(inputs, targets, None, 4), loss_function=with_figures
    )
    run(other, adamw(other), 1, batches=lambda step: cut(inputs, targets, None, 4))
    figures = seen[0][1].figures
    assert figures["rows"] == pytest.approx((0 + 1 + 2 + 3 + 0 + 1) / 6)
    assert math.isnan(figures["none"])
    assert same(model, clone(other))


@given(st.floats(0.01, 1e4))
@settings(max_examples=10)
def test_the_expected_weight_changes_nothing_but_rounding(expected_weight: float) -> None:
    losses = []
    for weight in (ROWS * BLOCK, expected_weight):
        model = build()
        _, seen = run(model, adamw(model), 3, expected_weight=weight)
        losses.append([result.loss for _, result in seen])
    assert losses[1] == pytest.approx(losses[0], abs=1e-5)
