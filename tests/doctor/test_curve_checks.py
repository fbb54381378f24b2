"""Is this curve normal? Curves in good health, and one for each way in which a curve goes wrong."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from glassgpt.doctor.curve_checks import (
    Counted,
    check_counting,
    check_divergence,
    check_overfitting,
    check_plateau,
    check_reference,
    examine_curve,
    verdict,
)
from glassgpt.doctor.finding import Finding
from glassgpt.doctor.references import (
    Point,
    Reference,
    build_reference,
    differences,
    identity_of,
    load_references,
    parse_reference,
    settings_of,
)
from glassgpt.report.run_record import RunRecord
from glassgpt.runs.config import config_sections, load_recipe, parse_run_config
from glassgpt.training.fit import OVERFLOW

BATCH = 768
COUNTS = Counted(3.3, "counting rows of up to 6 tokens reaches 1.500")


def falling(step: int) -> float:
    return 1.5 + 2.7 * math.exp(-step / 300) + 0.05 * math.sin(step)


def run(
    train: Callable[[int], float] = falling,
    val: Callable[[int], float] | None = None,
    steps: int = 1000,
    lr: float = 1e-3,
    init_from: str = "none",
    **training: Any,
) -> RunRecord:
    val = val or train
    return RunRecord(
        name="run",
        config={
            "model": {"architecture": "gpt2", "block_size": 64, "n_layer": 4, "n_head": 4, "n_embd": 128},
            "optimizer": {"lr": lr},
            "run": {"stage": "pretrain", "init_from": init_from},
            "training": {"batch_tokens": BATCH, "overfit_batch": False} | training,
        },
        machine={},
        data={"text_sha256": "ab12", "val_fraction": 0.1, "tokenizer": {"name": "char", "vocab_size": 65}},
        train=[{"step": step, "train/loss": train(step)} for step in range(1, steps + 1)],
        validations=[{"step": step, "val/loss": val(step)} for step in range(0, steps + 1, 100)],
        skipped=[],
        final=None,
        samples=[],
    )


@pytest.fixture(scope="module")
def reference() -> Reference:
    return build_reference(
        [run(), run(val=lambda step: falling(step) + 0.02)], recipe="tiny", text="a text", command="", machine=""
    )


def test_a_healthy_curve_is_normal(reference: Reference) -> None:
    findings = examine_curve(run(), [reference], COUNTS)
    assert [finding.status for finding in findings] == ["passed"] * 5
    assert verdict(findings).startswith("This is normal: val loss 1.6")
    unknown = examine_curve(run(), [], COUNTS)
    assert [finding.status for finding in unknown] == ["skipped"] + ["passed"] * 4
    assert verdict(unknown).startswith("Normal in its shape")
    ill = Finding("update ratio", "failed", "", "", "")
    assert verdict(unknown, [ill]).endswith("but not all is well: update ratio.")


def test_a_reference_is_mean_and_spread_by_tokens(reference: Reference) -> None:
    assert [point.tokens for point in reference.points] == [step * BATCH for step in range(100, 1001, 100)]
    first = reference.points[0]
    assert first.val == pytest.approx(falling(100) + 0.01, abs=1e-4)
    assert first.val_spread == pytest.approx(0.02 / math.sqrt(2), abs=1e-4)
    assert first.train == pytest.approx(sum(map(falling, range(51, 101))) / 50, abs=1e-4)
    assert reference.at(first.tokens, "val") == (first.val, first.val_spread)
    between, _ = reference.at(150 * BATCH, "val")
    assert reference.points[1].val < between < first.val
    assert reference.at(10**9, "val")[0] == reference.points[-1].val
    assert parse_reference(json.loads(json.dumps(reference.to_dict()))) == reference


def test_a_curve_far_above_its_reference_names_what_is_different(reference: Reference) -> None:
    slow = run(lambda step: falling(step // 10), lr=1e-5)
    finding = check_reference(slow, [reference])
    assert finding.status == "failed"
    assert "optimizer.lr 1e-05 (reference: 0.001)" in finding.reason
    assert verdict(examine_curve(slow, [reference], COUNTS)).startswith("Not normal: val loss 3.4")


def test_a_curve_too_good_to_be_true(reference: Reference) -> None:
    finding = check_reference(run(val=lambda step: 0.5 * falling(step)), [reference])
    assert finding.status == "failed"
    assert "validation text is in the training text" in finding.remedy


def test_a_reference_is_of_the_same_model_tokenizer_and_text(reference: Reference) -> None:
    other = run()
    other.data["text_sha256"] = "cd34"
    finding = check_reference(other, [reference])
    assert finding.status == "skipped"
    assert "tiny on a text" in finding.reason


def modern(ngram: int = 5, rate: float = 0.02) -> RunRecord:
    record = run()
    record.config["model"] |= {"architecture": "modern", "ngram": ngram, "ngram_rows": 64, "ngram_dropout": 0.3}
    record.config["optimizer"] |= {"name": "muon", "momentum": 0.95, "embedding_lr": rate}
    return record


def test_a_model_with_ngrams_is_compared_with_one_of_the_same_ngrams() -> None:
    of_four = build_reference([modern(4, 0.02)], recipe="modern", text="a text", command="", machine="")
    assert check_reference(modern(4, 0.02), [of_four]).status == "passed"
    assert check_reference(modern(1, 0.02), [of_four]).status == "skipped"
    assert differences(modern(4, 0.5), of_four) == ["optimizer.embedding_lr 0.5 (reference: 0.02)"]


def test_more_tokens_a_step_are_compared_by_tokens(reference: Reference) -> None:
    twice = run(lambda step: falling(2 * step), steps=500, batch_tokens=2 * BATCH)
    finding = check_reference(twice, [reference])
    assert finding.status == "passed"
    assert f"{1000 * BATCH:,} tokens" in finding.figure


def test_a_loss_that_rises_and_stays_up() -> None:
    assert check_divergence(run(lambda step: falling(step) + (2.0 if step > 700 else 0.0))).status == "failed"


def test_a_spike_that_heals_is_normal() -> None:
    assert check_divergence(run(lambda step: falling(step) + (5.0 if 500 < step < 520 else 0.0))).status == "passed"


def test_steps_without_a_finite_loss() -> None:
    record = run()
    record.skipped.append({"step": 7, "skipped": OVERFLOW, "train/loss": 2.0})
    assert check_divergence(record).status == "passed"  # how float16 finds its scale
    record.skipped.append({"step": 8, "skipped": "non-finite loss", "train/loss": math.nan})
    assert check_divergence(record).status == "failed"


def test_a_model_that_only_counts() -> None:
    stuck = run(lambda step: 3.35 + math.exp(-step / 20))
    assert check_counting(stuck, COUNTS).status == "failed"
    assert check_plateau(stuck).status == "failed"
    assert check_counting(run(), COUNTS).status == "passed"
    assert "counting rows of up to 6 tokens reaches 1.500" in check_counting(run(), COUNTS).figure


def test_a_model_that_learns_its_text_by_heart() -> None:
    finding = check_overfitting(run(val=lambda step: 2.0 + ((step - 400) / 400) ** 2))
    assert finding.status == "failed"
    assert "stop at step 400" in finding.remedy


def test_a_rise_below_the_training_loss_is_noise() -> None:
    """A short run validates every few steps, and its steepest part is noisy: 0.742, then 0.914 with 1.5 in training."""
    finding = check_overfitting(run(train=lambda step: 3.0, val=lambda step: 2.0 + (step % 200 == 0) * 0.1))
    assert finding.status == "passed", finding


def test_a_batch_learned_by_heart_is_no_plateau() -> None:
    assert check_plateau(run(lambda step: 4.0 * math.exp(-step / 20))).status == "passed"


def test_a_run_that_has_just_begun() -> None:
    findings = examine_curve(run(steps=20), [], COUNTS)
    assert {finding.status for finding in findings} == {"skipped"}
    assert verdict(findings).startswith("Too early")


def test_one_batch_and_a_fine_tuned_model_are_asked_less(reference: Reference) -> None:
    batch = examine_curve(run(overfit_batch=True), [reference], COUNTS)
    assert [finding.name for finding in batch] == ["no divergence"]
    assert verdict(batch).startswith("Normal in its shape")
    tuned = examine_curve(run(init_from="gpt2"), [reference], COUNTS)
    assert "reference curve" not in [finding.name for finding in tuned]


def test_the_references_of_the_package_are_whole() -> None:
    references = load_references()
    for reference in references:
        config = config_sections(parse_run_config(load_recipe(reference.recipe)))
        same = replace(run(), config=config)  # whatever its text, the recipe's own sizes are the reference's
        of_text = ("ids", "text_sha256", "tokenizer")
        assert {name: value for name, value in reference.identity.items() if name not in of_text} == {
            name: value for name, value in identity_of(same).items() if name not in of_text
        }
        assert reference.settings == settings_of(same)
        assert len(reference.points) >= 10
        assert all(0 < point.val < 10 and isinstance(point, Point) for point in reference.points)
        assert [point.tokens for point in reference.points] == sorted({point.tokens for point in reference.points})


def with_config(record: RunRecord, **sections: dict[str, Any]) -> RunRecord:
    config = {**record.config, **{name: record.config.get(name, {}) | fields for name, fields in sections.items()}}
    return replace(record, config=config)


@pytest.mark.parametrize(
    "sections",
    [
        {"model": {"n_expert": 4}},
        {"model": {"n_kv_head": 1}},
        {"run": {"stage": "mlm"}, "data": {"mask_fraction": 0.3}},
        {"run": {"stage": "seq2seq"}, "data": {"pairs": "vowels"}},
    ],
)
def test_a_reference_is_for_the_same_sizes_and_the_same_task(sections: dict[str, dict[str, Any]]) -> None:
    model = {"architecture": "gpt_oss", "n_expert": 8, "n_active": 2, "n_kv_head": 2}
    of_stage = {"mlm": {"mask_fraction": 0.15}, "seq2seq": {"pairs": "reverse"}}
    stage = sections.get("run", {}).get("stage", "pretrain")
    one = with_config(run(), model=model, run={"stage": stage}, data=of_stage.get(stage, {}))
    assert identity_of(one) == identity_of(with_config(one, optimizer={"lr": 0.1}))
    assert identity_of(one) != identity_of(with_config(one, **sections))
    assert identity_of(one) != identity_of(
        with_config(one, run={"stage": "pretrain" if stage != "pretrain" else "mlm"})
    )


@pytest.mark.parametrize(("loss", "status"), [(0.0002, "passed"), (0.018, "passed"), (0.05, "failed")])
def test_near_zero_a_loss_may_differ_by_a_fixed_amount(loss: float, status: str) -> None:
    """Three seeds that learn a task completely end within a thousandth of a nat of each other."""
    zero = build_reference([run(val=lambda step: 0.001)] * 3, recipe="tiny", text="a text", command="", machine="")
    assert check_reference(run(val=lambda step: loss), [zero]).status == status
