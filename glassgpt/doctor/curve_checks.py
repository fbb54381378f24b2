"""Checks whether the curves of a run are normal: against a reference curve if there is one, and by their shape."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from glassgpt.config import NONE
from glassgpt.doctor.finding import Finding, judge, skip
from glassgpt.doctor.references import Reference, differences, find_reference, train_loss
from glassgpt.errors import counted
from glassgpt.report.run_record import RunRecord
from glassgpt.training.fit import OVERFLOW
from glassgpt.training.metrics import Line

LEAST_STEPS = 50  # a shorter curve is too short to judge
BLOCKS = 20  # of a training curve; the median of a block ignores single outliers
SPREADS = 4.0  # standard deviations over seeds that still count as normal …
TOLERANCE = 0.03  # … plus this fraction of the loss, for other machines and precisions, and because there are few seeds
LEAST_MARGIN = 0.02  # nats: near zero, a loss differs by more than a few seeds show
TOO_GOOD = 0.15  # fraction of the loss below the reference; more than seeds explain
RISE = 0.05  # of the training loss, from its minimum to the end, as a fraction
OVERFITTING = 0.02  # rise of the validation loss from its best, as a fraction
PLATEAU = 0.005  # least fraction by which the training loss should fall in the second half of a run


@dataclass(frozen=True)
class Counted:
    """The validation loss of a model that knows only how often each token occurs, in nats per token.

    `best` says in words what the best counting reaches, if that is known.
    """

    frequencies: float
    best: str = ""


def check_reference(record: RunRecord, references: Sequence[Reference]) -> Finding:
    """Compares the newest loss with that of runs of the same sizes on the same text after the same number of tokens."""
    name, expected = "reference curve", "within the spread of the reference"
    reference = find_reference(record, references)
    if reference is None:
        known = ", ".join(f"{reference.recipe} on {reference.text}" for reference in references)
        return skip(name, f"references exist for {known or 'no recipe'}; this run has other sizes or another text",
                    expected=expected)  # fmt: skip
    found = newest(record)
    if found is None:
        return skip(name, f"the run has no loss from step {LEAST_STEPS} on yet", expected=expected)
    curve, tokens, loss = found
    mean, spread = reference.at(tokens, curve)
    margin = max(SPREADS * spread + TOLERANCE * mean, LEAST_MARGIN)
    other = "; ".join(differences(record, reference)) or "none"
    return judge(
        name,
        mean - max(TOO_GOOD * mean, LEAST_MARGIN) <= loss <= mean + margin,
        figure=f"{curve} loss {loss:.3f} after {tokens:,} tokens",
        expected=f"{mean:.3f} ± {margin:.3f} ({reference.recipe} on {reference.text}, {reference.seeds} seeds)",
        reason=f"the same sizes on the same text should reach the same loss; settings that differ: {other}",
        remedy="lower than any seed reached: check whether validation text is in the training text"
        if loss < mean
        else "restore the settings of the reference one by one, optimizer.lr and the schedule first",
    )


def newest(record: RunRecord) -> tuple[str, int, float] | None:
    """(curve, tokens, loss) of the last validation, or of the last training step if there is no validation."""
    measured = [
        line
        for line in ([record.final] if record.final else []) + record.validations  # measured on another part
        if line["step"] >= LEAST_STEPS and math.isfinite(line["val/loss"])
    ]
    if measured:
        step = measured[-1]["step"]
        return "val", tokens_at(record, step), measured[-1]["val/loss"]
    if record.train and record.train[-1]["step"] >= LEAST_STEPS:
        step = record.train[-1]["step"]
        return "train", tokens_at(record, step), train_loss(record.train, step)
    return None


def tokens_at(record: RunRecord, step: int) -> int:
    """Number of tokens seen after `step` steps."""
    return int(step * record.config["training"]["batch_tokens"])


def check_counting(record: RunRecord, counts: Counted) -> Finding:
    """Compares the loss with that of a unigram model, which knows only how often each token occurs.

    What the best counting reaches is said too. A small model may well stay above it.
    """
    name, expected = "beyond counting", f"below {counts.frequencies:.3f}"
    found = newest(record)
    if found is None:
        return skip(name, f"fewer than {LEAST_STEPS} steps are measured", expected=expected)
    curve, _, loss = found
    return judge(
        name,
        loss < counts.frequencies,
        figure="; ".join(part for part in (f"{curve} loss {loss:.3f}", counts.best) if part),
        expected=expected,
        reason="the cross-entropy of the token frequencies: to get below it, a model must use the other tokens",
        remedy="stuck at it: the blocks pass nothing on (no residual path, dead attention); above it: the learning"
        " rate is far too high or too low, or training has just begun",
    )


def check_divergence(record: RunRecord) -> Finding:
    """Checks that no step was skipped as non-finite and that the training loss does not rise and stay high."""
    name, expected = "no divergence", f"the end within {RISE:.0%} of the lowest, no step skipped"
    skipped = [line for line in record.skipped if line["skipped"] != OVERFLOW]
    blocks = smooth(record.train)
    if not skipped and not blocks:
        return skip(name, f"fewer than {LEAST_STEPS} steps are measured", expected=expected)
    lowest, end = min(blocks, default=math.nan), blocks[-1] if blocks else math.nan
    rise = end - lowest
    return judge(
        name,
        not skipped and rise <= max(RISE * lowest, 0.05),
        figure=f"{counted(len(skipped), 'step')} skipped ({skipped[0]['skipped']})"
        if skipped
        else f"training loss {end:.3f}, at its lowest {lowest:.3f}",
        expected=expected,
        reason="a spike of a few steps is normal and recovers; if the loss stays high, training has diverged",
        remedy="lower optimizer.lr or lengthen schedule.warmup_steps; training.grad_clip = 1.0; --dtype float32; then"
        " continue from the last good checkpoint",
    )


def check_overfitting(record: RunRecord) -> Finding:
    """Checks that the validation loss does not rise again while the training loss keeps falling.

    A model that memorises its text has a validation loss above its training loss. Below it, a rise is noise.
    """
    name, expected = "generalises", f"the last validation loss within {OVERFITTING:.0%} of the best, or below training"
    losses = [line["val/loss"] for line in record.validations if math.isfinite(line["val/loss"])]
    if len(losses) < 3 or record.validations[-1]["step"] < LEAST_STEPS:
        found = (
            f"{counted(len(losses), 'validation')}, the last at step {record.validations[-1]['step'] if losses else 0}"
        )
        return skip(name, f"{found}; it needs three, and {LEAST_STEPS} steps", expected=expected)
    best, last = min(losses), losses[-1]
    step = next(line["step"] for line in record.validations if line["val/loss"] == best)
    training = train_loss(record.train, record.validations[-1]["step"])
    return judge(
        name,
        last <= best * (1 + OVERFITTING) or last <= training,
        figure=f"best {best:.3f} at step {step:,}, last {last:.3f}; training {training:.3f}",
        expected=expected,
        reason="if validation loss rises while training loss falls, the model memorises its text (overfitting)",
        remedy=f"stop at step {step:,} (the best checkpoint is saved); more text, model.dropout or a smaller model",
    )


def check_plateau(record: RunRecord) -> Finding:
    """Checks that the training loss still falls in the second half of the run."""
    name, expected = "still learning", f"at least {PLATEAU:.1%} lower in the second half"
    blocks = smooth(record.train)
    if not blocks:
        return skip(name, f"fewer than {LEAST_STEPS} steps are measured", expected=expected)
    middle, end = blocks[len(blocks) // 2 - 1], min(blocks[len(blocks) // 2 :])
    gain = (middle - end) / middle
    return judge(
        name,
        gain >= PLATEAU or end < 0.1,  # already near zero
        figure=f"training loss {middle:.3f} at half, {end:.3f} at best after it ({-gain:+.1%})",
        expected=expected,
        reason="a loss that is flat for half of the run is either at the limit of this model, or stuck",
        remedy="let the rate decay (schedule.name, schedule.min_lr), or raise it if it is low; or use a larger model",
    )


def smooth(train: Sequence[Line]) -> list[float]:
    """The medians of up to BLOCKS blocks of at least ten steps each; empty for runs shorter than LEAST_STEPS."""
    losses = [line["train/loss"] for line in train if math.isfinite(line["train/loss"])]
    if len(losses) < LEAST_STEPS:
        return []
    return [statistics.median(block) for block in np.array_split(np.array(losses), min(BLOCKS, len(losses) // 10))]


def examine_curve(record: RunRecord, references: Sequence[Reference], counts: Counted | None) -> list[Finding]:
    """All curve checks that apply to this run. `counts` is None if the tokens could not be counted."""
    training = record.config["training"]
    if training.get("overfit_batch"):
        return [check_divergence(record)]
    found = [check_divergence(record), check_overfitting(record)]
    if counts is not None:
        found.append(check_counting(record, counts))
    if record.config.get("run", {}).get("init_from", NONE) == NONE:  # a fine-tuned model does not start from scratch
        found = [check_reference(record, references), *found, check_plateau(record)]
    return found


def verdict(curve: Sequence[Finding], others: Sequence[Finding] = ()) -> str:
    """Answers "is this normal?" in one sentence, from the findings on the curve and on the other parts of the run."""
    failed = [finding for finding in curve if finding.status == "failed"]
    reference = next((finding for finding in curve if finding.name == "reference curve"), None)
    if failed:
        worst = reference if reference is not None and reference in failed else failed[0]
        return f"Not normal: {worst.figure}; expected: {worst.expected}."
    if all(finding.status == "skipped" for finding in curve):
        answer = f"Too early to say whether this is normal: fewer than {LEAST_STEPS} steps are measured"
    elif reference is not None and reference.status == "passed":
        answer = f"This is normal: {reference.figure}; expected: {reference.expected}"
    else:
        answer = "Normal in its shape, as far as it was checked; there is no reference for this model and text"
    failed_checks = [finding.name for finding in others if finding.status == "failed"]
    return f"{answer}, but not all is well: {', '.join(failed_checks)}." if failed_checks else f"{answer}."
