"""Is this curve normal? What a run has measured, against reference curves, and where there are none, by its shape."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

import numpy as np

from glassgpt.config import NONE
from glassgpt.doctor.finding import Finding, judge, skip
from glassgpt.doctor.parts import iter_parts
from glassgpt.doctor.references import Reference, differences, find_reference, train_loss
from glassgpt.doctor.subject import Subject
from glassgpt.report.run_record import RunRecord
from glassgpt.training.fit import OVERFLOW
from glassgpt.training.metrics import Line

LEAST_STEPS = 50  # before them a curve has no shape yet
BLOCKS = 20  # of a training curve; the median of each is free of single steps
SPREADS = 4.0  # standard deviations over seeds that are still normal …
TOLERANCE = 0.03  # … and this share of the loss, for other machines, precisions and few seeds
TOO_GOOD = 0.15  # share of the loss below the reference that no seed explains
RISE = 0.05  # of the training loss above its lowest, at the end
OVERFITTING = 0.02  # rise of the validation loss from its best
PLATEAU = 0.005  # share of the training loss that the second half of a run should bring at least


def check_reference(record: RunRecord, references: Sequence[Reference]) -> Finding:
    """The newest loss against that of runs of the same sizes on the same text, after as many tokens."""
    name, expected = "reference curve", "as the reference, within its spread"
    reference = find_reference(record, references)
    if reference is None:
        known = ", ".join(f"{reference.recipe} on {reference.text}" for reference in references)
        return skip(name, f"there is one for {known or 'no recipe'}; this run has other sizes or another text",
                    expected=expected)  # fmt: skip
    found = newest(record)
    if found is None:
        return skip(name, f"the run has no figure after {LEAST_STEPS} steps yet", expected=expected)
    curve, tokens, loss = found
    mean, spread = reference.at(tokens, curve)
    margin = SPREADS * spread + TOLERANCE * mean
    other = "; ".join(differences(record, reference)) or "no setting that is compared"
    return judge(
        name,
        mean * (1 - TOO_GOOD) <= loss <= mean + margin,
        figure=f"{curve} loss {loss:.3f} after {tokens:,} tokens",
        expected=f"{mean:.3f} ± {margin:.3f} ({reference.recipe} on {reference.text}, {reference.seeds} seeds)",
        reason=f"the same sizes on the same text come to the same loss; other than there: {other}",
        remedy="lower than any seed: look whether validation text is in the training text"
        if loss < mean
        else "take the settings of the reference back, one by one, above all optimizer.lr and the schedule",
    )


def newest(record: RunRecord) -> tuple[str, int, float] | None:
    """The last validation, else the last training loss: which curve, after how many tokens, the loss."""
    measured = [
        line
        for line in ([record.final] if record.final else []) + record.validations  # the final one is on another part
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
    """What the run had read after `step` steps."""
    return int(step * record.config["training"]["batch_tokens"])


def check_unigram(record: RunRecord, entropy: float) -> Finding:
    """The loss against that of a model which knows only how often each token occurs."""
    name, expected = "beyond counting", f"below {entropy:.3f}"
    found = newest(record)
    if found is None:
        return skip(name, f"fewer than {LEAST_STEPS} steps are measured", expected=expected)
    curve, _, loss = found
    return judge(
        name,
        loss < entropy,
        figure=f"{curve} loss {loss:.3f}",
        expected=expected,
        reason="the cross-entropy of the token frequencies: to get below it, a model must use the tokens before",
        remedy="stuck at it: nothing comes through the blocks (no residual path, dead attention); above it: the"
        " learning rate is far too high or too low, or training has just begun",
    )


def unigram_entropy(subject: Subject) -> float:
    """The loss on validation text of the frequencies in the training text, each count one higher; nats per token."""
    size = subject.tokenizer.vocab_size
    train, val = (
        sum((np.bincount(ids, minlength=size) for ids in iter_parts(split)), np.zeros(size, np.int64))
        for split in (subject.train, subject.val)
    )
    probabilities = (train + 1) / (train.sum() + size)
    return float(-(val * np.log(probabilities)).sum() / val.sum())


def check_divergence(record: RunRecord) -> Finding:
    """No step without a finite loss, and no training loss that rises and stays up."""
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
        figure=f"{len(skipped)} steps skipped ({skipped[0]['skipped']})"
        if skipped
        else f"training loss {end:.3f}, at its lowest {lowest:.3f}",
        expected=expected,
        reason="a spike of some steps is normal and heals; a loss that stays up has lost what was learned",
        remedy="lower optimizer.lr or lengthen schedule.warmup_steps; training.grad_clip = 1.0; --dtype float32; then"
        " go on from the last good checkpoint",
    )


def check_overfitting(record: RunRecord) -> Finding:
    """The validation loss does not rise again while the training loss falls on."""
    name, expected = "generalises", f"the last validation loss within {OVERFITTING:.0%} of the best"
    losses = [line["val/loss"] for line in record.validations if math.isfinite(line["val/loss"])]
    if len(losses) < 3 or record.validations[-1]["step"] < LEAST_STEPS:
        return skip(name, f"fewer than three validations, or {LEAST_STEPS} steps", expected=expected)
    best, last = min(losses), losses[-1]
    step = next(line["step"] for line in record.validations if line["val/loss"] == best)
    training = train_loss(record.train, record.validations[-1]["step"])
    return judge(
        name,
        last <= best * (1 + OVERFITTING),
        figure=f"best {best:.3f} at step {step:,}, last {last:.3f}; training {training:.3f}",
        expected=expected,
        reason="when validation rises while training falls, the model learns its text by heart",
        remedy=f"stop at step {step:,} (the best checkpoint is kept); more text, more model.dropout or a smaller model",
    )


def check_plateau(record: RunRecord) -> Finding:
    """The second half of the run still brings something."""
    name, expected = "still learning", f"at least {PLATEAU:.1%} lower in the second half"
    blocks = smooth(record.train)
    if not blocks:
        return skip(name, f"fewer than {LEAST_STEPS} steps are measured", expected=expected)
    middle, end = blocks[len(blocks) // 2 - 1], min(blocks[len(blocks) // 2 :])
    gain = (middle - end) / middle
    return judge(
        name,
        gain >= PLATEAU or end < 0.1,  # nothing is left to learn
        figure=f"training loss {middle:.3f} at half, {end:.3f} at best after it ({-gain:+.1%})",
        expected=expected,
        reason="a loss that is flat for half of the run is either at what this model can reach, or stuck",
        remedy="let the rate decay (schedule.name, schedule.min_lr), or raise it if it is small; else a larger model",
    )


def smooth(train: Sequence[Line]) -> list[float]:
    """The medians of up to BLOCKS blocks of at least ten steps each; none of a run shorter than LEAST_STEPS."""
    losses = [line["train/loss"] for line in train if math.isfinite(line["train/loss"])]
    if len(losses) < LEAST_STEPS:
        return []
    return [statistics.median(block) for block in np.array_split(np.array(losses), min(BLOCKS, len(losses) // 10))]


def examine_curve(record: RunRecord, references: Sequence[Reference], entropy: float | None) -> list[Finding]:
    """All checks of a curve that mean something for this run. `entropy` is that of single tokens, where it is known."""
    training = record.config["training"]
    if training.get("overfit_batch"):
        return [check_divergence(record)]
    found = [check_divergence(record), check_overfitting(record)]
    if entropy is not None:
        found.append(check_unigram(record, entropy))
    if record.config.get("run", {}).get("init_from", NONE) == NONE:  # a fine-tuned model has learned most before
        found = [check_reference(record, references), *found, check_plateau(record)]
    return found


def verdict(curve: Sequence[Finding], others: Sequence[Finding] = ()) -> str:
    """Is this normal? One sentence, from the findings on the curve, with those on the parts of the run."""
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
    ill = [finding.name for finding in others if finding.status == "failed"]
    return f"{answer}, but not all is well: {', '.join(ill)}." if ill else f"{answer}."
