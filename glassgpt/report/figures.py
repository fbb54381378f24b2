"""The headline figures of a run, and the formatting of numbers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from glassgpt.report.run_record import RunRecord
from glassgpt.training.metrics import VALIDATED_ON, Line

TITLES = {  # of metrics that are not those of pretraining alone
    "val/loss": "Validation loss", "val/accuracy": "Validation accuracy", "train/accuracy": "Training accuracy",
    "val/exact": "Exact targets", "val/edit_distance": "Edits per character",
}  # fmt: skip
SHARES = ("val/accuracy", "val/exact")


class Figure(NamedTuple):
    """A figure as displayed; the note says what it was measured on."""

    label: str
    value: str
    note: str = ""


def summary(record: RunRecord) -> str:
    """The progress of the run in one sentence."""
    if record.last_step is None:
        return "This run has measured nothing yet."
    if record.final:
        return f"Finished after {count(record.last_step)} steps."
    planned = record.config.get("training", {}).get("max_steps")
    length = f" of {count(planned)}" if isinstance(planned, int) else ""
    return f"At step {count(record.last_step)}{length}; in progress, or stopped before its end."


def describe_progress(record: RunRecord) -> str:
    """The progress of the run and its losses in one line."""
    line = next(reversed(record.validated), None)
    if line is None:
        return summary(record)
    losses = f" Validation loss {four_decimals(line['val/loss'])}"
    if record.best is not None:
        losses += f", at the best checkpoint {four_decimals(record.best[1])} (step {count(record.best[0])})"
    return f"{summary(record)}{losses}."


def describe_model(sizes: Mapping[str, Any]) -> str:
    """Architecture, layers x width, and block size of a [model] section: "gpt2 4 x 128, block 64"."""
    shape = [str(sizes[name]) for name in ("n_layer", "n_embd") if name in sizes]
    block = f", block {sizes['block_size']}" if "block_size" in sizes else ""
    return f"{sizes.get('architecture', '')} {' x '.join(shape)}{block}".strip()


def headline(record: RunRecord) -> list[Figure]:
    """The headline figures. A figure that the run does not have yet is shown as a dash."""
    seconds, tokens, n_params = record.last("seconds"), record.last("tokens_seen"), parameters(record)
    figures = [
        *(_losses(record) if record.pretrained else _held_out(record)),
        Figure("Steps", "–" if record.last_step is None else count(record.last_step)),
        Figure("Tokens seen", "–" if tokens is None else count(tokens)),
        Figure("Time", "–" if seconds is None else duration(seconds)),
    ]
    return [*figures, Figure("Parameters", count(n_params))] if n_params else figures


def parameters(record: RunRecord) -> int | None:
    """Number of model parameters; None if not recorded."""
    found = record.machine.get("parameters")
    return found if isinstance(found, int) else None


def _losses(record: RunRecord) -> list[Figure]:
    return [
        Figure("Validation loss", *_validation(record)),
        Figure("Best checkpoint", *_best(record)),
        Figure("Bits per byte", four_decimals(_newest(record).get("val/bits_per_byte")), "validation"),
    ]


def _held_out(record: RunRecord) -> list[Figure]:
    """The newest value of each figure that a stage other than pretraining measures on held-out data."""
    measured = [line for line in record.lines if "val/seconds" in line]
    names = [name for name in (measured[-1] if measured else {}) if name not in ("step", "val/seconds", *VALIDATED_ON)]
    line = record.final or (measured[-1] if measured else {})
    note = "at the end" if record.final else f"at step {count(line['step'])}" if line else ""
    measured_on = ((line[name], word) for name, word in VALIDATED_ON.items() if name in line)
    note += "".join(f", on {count(number)} {word}{'s' * (number != 1)}" for number, word in measured_on)
    return [Figure(title_of(name), _in_words(name, line.get(name)), note) for name in names]


def title_of(name: str) -> str:
    """What a metric of a stage is called on a page; an unknown one keeps its name."""
    return TITLES.get(name, name.replace("_", " "))


def _in_words(name: str, value: Any) -> str:
    return f"{value:.1%}" if name in SHARES and is_finite(value) else four_decimals(value)


def _newest(record: RunRecord) -> Line:
    return next(reversed(record.validated), {})


def _validation(record: RunRecord) -> tuple[str, str]:
    line = _newest(record)
    if "val/loss" not in line:
        return "–", "not validated yet"
    tokens = line.get("val/tokens")
    on = f"{count(tokens)} tokens" if tokens else "nats per token"
    when = "final" if record.final else f"at step {count(line['step'])}"
    return four_decimals(line["val/loss"]), f"{when}, on {on}"


def _best(record: RunRecord) -> tuple[str, str]:
    if record.best is None:
        return "–", "no finite loss" if record.validated else "not validated yet"
    step, loss = record.best
    return four_decimals(loss), f"step {count(step)}"


def is_finite(value: Any) -> bool:
    """Whether a value is present and finite."""
    return value is not None and bool(np.isfinite(value))


def four_decimals(value: Any, missing: str = "–") -> str:
    """A loss or a similar figure to four decimals; `missing` if it is None or not finite."""
    return f"{value:.4f}" if is_finite(value) else missing


def comparability(records: Sequence[RunRecord]) -> str:
    """One sentence on what can be compared: losses per token are comparable only with the same tokenizer and text.

    Those of two stages never are: one is of the next token, another of a hidden one.
    """
    if len({record.stage for record in records}) > 1:
        return "They learned different things (run.stage): their losses are not comparable."
    if len({text_read(record) for record in records}) == 1:
        return "All read the same text with the same tokenizer."
    if len({tokenizer_used(record) for record in records}) == 1:
        return "They read different texts: their losses are not comparable."
    return "They use different tokenizers: compare bits per byte, not the loss per token."


def tokenizer_used(record: RunRecord) -> str:
    """Identifies the tokenizer: its entry in the manifest or, before there is one, its settings."""
    return json.dumps(record.data.get("tokenizer") or record.config.get("tokenizer"))


def text_read(record: RunRecord) -> str:
    """Identifies the tokens that a run was trained and validated on: losses are comparable where it is the same."""
    text = record.data.get("text_sha256") or record.config.get("data")
    return json.dumps([text, record.data.get("val_fraction"), tokenizer_used(record)])


def count(n: float) -> str:
    """12,345 in full; abbreviated from ten million on: 124.4 M."""
    if n < 10e6:
        return f"{n:,.0f}"
    size, letter = (1e9, "B") if n >= 1e9 else (1e6, "M")
    return f"{n / size:.4g} {letter}"


def duration(seconds: float) -> str:
    """A duration in its two largest units: 41.7 s, 2 min 27 s, 3 h 5 min, 4 d 2 h, 12 y 30 d."""
    if round(seconds, 1) < 60:
        return f"{seconds:.3g} s"
    seconds = round(seconds)
    units = (("y", 365 * 86400), ("d", 86400), ("h", 3600), ("min", 60), ("s", 1))
    for (name, unit), (part_name, part) in pairwise(units):
        if seconds >= unit:
            return f"{seconds // unit:,} {name} {seconds % unit // part} {part_name}"
    raise AssertionError("a minute or more has a unit")
