"""Runs all checks on a recipe or on a run."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from glassgpt.doctor.curve_checks import examine_curve, verdict
from glassgpt.doctor.data_checks import check_hidden, check_ids, check_loader, check_pairs, check_targets
from glassgpt.doctor.finding import Diagnosis, Finding
from glassgpt.doctor.learning_checks import check_one_batch, check_update_ratio
from glassgpt.doctor.model_checks import check_gradients, check_initial_loss, check_precision
from glassgpt.doctor.overlap import check_overlap, check_pair_overlap
from glassgpt.doctor.references import load_references
from glassgpt.doctor.sight_checks import check_both_sides, check_no_future, check_source, check_target_future
from glassgpt.doctor.subject import MaskedSubject, PairSubject, Subject, TextSubject, build_subject, check_stage
from glassgpt.errors import UserError, unknown
from glassgpt.files import dump_json, write_text
from glassgpt.report.diagnosis import DIAGNOSIS
from glassgpt.report.run_record import read_record
from glassgpt.runs.config import list_recipes, load_config, load_recipe
from glassgpt.runs.decision import Changes, once
from glassgpt.runs.folder import RUNS, check_trained, find_run, list_runs
from glassgpt.runs.micro_batch import out_of_memory_advice
from glassgpt.runs.reporting import report_run
from glassgpt.runs.stages import find_stage
from glassgpt.runtime.device import build_runtime
from glassgpt.tokenizers import load_tokenizer
from glassgpt.training.config_formats import current_settings

Check = Callable[[Any], Finding]  # of a subject
DEVICE_SETTINGS = {"machine.device", "machine.dtype"}
LEARNING: tuple[Check, ...] = (check_gradients, check_precision, check_update_ratio, check_one_batch)
CHECKS: Mapping[type[Subject], tuple[Check, ...]] = {
    TextSubject: (
        check_ids, check_targets, check_loader, check_overlap, check_initial_loss, check_no_future, *LEARNING,
    ),
    MaskedSubject: (
        check_ids, check_hidden, check_loader, check_overlap, check_initial_loss, check_both_sides, *LEARNING,
    ),
    PairSubject: (
        check_ids, check_pairs, check_loader, check_pair_overlap, check_initial_loss, check_target_future, check_source,
        *LEARNING,
    ),
}  # fmt: skip


def diagnose(
    target: str,
    *,
    overrides: Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
    note: Callable[[str], None] = lambda line: None,
    on_finding: Callable[[Finding], None] = lambda finding: None,
) -> Diagnosis:
    """Examines a recipe, as `train` would use it with the same arguments, or a run: first its parts, then its curves.

    If a recipe and a run have the same name, the recipe is meant. Findings on a run are saved in its doctor.json and
    shown in its report. Raises UserError as `train` does, and if settings are given for a run, which has its own.
    """
    settings = current_settings(settings or {}, note)
    if target in list_recipes() or target.endswith(".toml"):
        subject = from_recipe(target, overrides, settings, note)
        return Diagnosis(target, _collect(examine(subject), on_finding))
    folder = _find(target)
    if overrides or settings.keys() - DEVICE_SETTINGS:
        raise UserError(f"{folder} is a run, with its own settings and data: --set and --data work only with a recipe")
    check_trained(folder)
    check_stage(load_config(folder / "config.toml").run.stage)
    record = read_record(folder)
    subject = from_run(folder, settings, note)
    findings = _collect(examine(subject), on_finding)
    countable = findings[0].status == "passed"  # every id is in the vocabulary, so ids can be counted
    counts = subject.count() if countable else None
    curve = examine_curve(record, load_references(), counts)
    _collect(curve, on_finding)
    diagnosis = Diagnosis(str(folder), findings + curve, verdict(curve, findings), record.last_step)
    write_text(folder / DIAGNOSIS, dump_json(diagnosis.to_dict(), indent=1) + "\n")
    report_run(folder)
    return diagnosis


def _collect(findings: Iterable[Finding], on_finding: Callable[[Finding], None]) -> list[Finding]:
    """The findings as a list; calls `on_finding` with each one as soon as it is there."""
    collected = []
    for finding in findings:
        on_finding(finding)
        collected.append(finding)
    return collected


def _find(target: str) -> Path:
    """The folder of the run with this name or path. Raises UserError, with the nearest name, if there is none."""
    with contextlib.suppress(OSError):  # a name too long for the file system
        if Path(target).is_dir() or (RUNS / target).is_dir():
            return find_run(target)
    raise unknown("recipe or run", target, [*list_recipes(), *list_runs()])


def examine(subject: Subject) -> Iterator[Finding]:
    """Runs the checks one after the other. If an id has no row in the embedding, the remaining checks are not run.

    Raises UserError if the device runs out of memory.
    """
    for check in CHECKS[type(subject)]:
        with out_of_memory_advice(subject.config, subject.runtime):
            finding = check(subject)
        yield finding
        if check is check_ids and finding.status == "failed":
            return


def from_recipe(
    recipe: str, overrides: Sequence[str], settings: Mapping[str, Any], note: Callable[[str], None]
) -> Subject:
    """A recipe with its tokenised dataset and its device."""
    changes, note = Changes(overrides, settings), once(note)
    sections = load_recipe(recipe, note)
    config = changes.apply(sections, note=note)
    runtime = build_runtime(config.machine.device, config.machine.dtype)
    check_stage(config.run.stage)
    stage = find_stage(config.run.stage)
    description, tokenizer, remark = stage.prepare(config, None)
    for line in (*runtime.notes, remark):
        note(line)
    config = changes.apply(sections, tokenizer.vocab_size, note)
    return build_subject(config, stage.open_data(description, tokenizer), runtime)


def from_run(folder: Path, settings: Mapping[str, Any], note: Callable[[str], None]) -> Subject:
    """A run as it was before its first step, on the requested device."""
    config = load_config(folder / "config.toml")
    machine = replace(
        config.machine,
        device=settings.get("machine.device", "auto"),
        dtype=settings.get("machine.dtype", config.machine.dtype),
    )
    runtime = build_runtime(machine.device, machine.dtype)
    stage = find_stage(config.run.stage)
    dataset = stage.open_data(stage.find_again(folder, None), load_tokenizer(folder / "tokenizer.json"))
    for line in (*runtime.notes, dataset.note):
        note(line)
    return build_subject(replace(config, machine=machine), dataset, runtime)
