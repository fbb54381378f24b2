"""All checks on a recipe, or on a run, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from glassgpt.data.prepare import prepare
from glassgpt.doctor.data_checks import check_ids, check_loader, check_targets
from glassgpt.doctor.finding import Diagnosis, Finding
from glassgpt.doctor.learning_checks import check_one_batch, check_update_ratio
from glassgpt.doctor.model_checks import check_gradients, check_initial_loss, check_no_future, check_precision
from glassgpt.doctor.overlap import check_overlap
from glassgpt.doctor.patient import Patient, patient_of
from glassgpt.pretraining import Changes
from glassgpt.runconfig import load_recipe
from glassgpt.runtime import build_runtime

Check = Callable[[Patient], Finding]
CHECKS: tuple[Check, ...] = (
    check_ids, check_targets, check_loader, check_overlap, check_initial_loss, check_no_future, check_gradients,
    check_precision, check_update_ratio, check_one_batch,
)  # fmt: skip


def diagnose(
    target: str,
    *,
    overrides: Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
    note: Callable[[str], None] = lambda line: None,
    on_finding: Callable[[Finding], None] = lambda finding: None,
) -> Diagnosis:
    """Examines what `train` would do with a recipe and the same arguments. Raises UserError as it does."""
    findings = []
    for finding in examine(admit(target, overrides, settings or {}, note)):
        findings.append(finding)
        on_finding(finding)
    return Diagnosis(target, findings)


def examine(patient: Patient) -> Iterator[Finding]:
    """One check after the other. Where an id has no row in the model, those that run it are left out."""
    for check in CHECKS:
        yield (finding := check(patient))
        if check is check_ids and finding.status == "failed":
            return


def admit(recipe: str, overrides: Sequence[str], settings: Mapping[str, Any], note: Callable[[str], None]) -> Patient:
    """A recipe with its text prepared and its device found."""
    changes = Changes(False, overrides, settings, None)
    sections = load_recipe(recipe)
    config = changes.apply(sections)
    runtime = build_runtime(config.training.device, config.training.dtype)
    prepared = prepare(config.data, config.tokenizer)
    for line in (*runtime.notes, prepared.note):
        note(line)
    sections.setdefault("model", {}).setdefault("vocab_size", prepared.tokenizer.vocab_size)
    return patient_of(changes.apply(sections), prepared, runtime)
