"""A trick's row compares what differs in nothing else, and its explanation says what the figures say."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from glassgpt.data.shards import dtype_for, write_shard
from glassgpt.errors import UserError
from glassgpt.models.gpt2 import GPT2Config
from glassgpt.models.modern import ModernConfig
from glassgpt.models.sizes import embedding_rows
from glassgpt.report.bars_picture import PANELS, Bar, draw_bars
from glassgpt.training.optimizers import OptimizerConfig
from glassgpt.tricks import TRICKS, Measured, Results, Setup, TrickRow, explanation
from glassgpt.tricks import measure as module
from glassgpt.tricks.explanation import REASONS
from glassgpt.tricks.measure import measure_tricks, run_apart
from glassgpt.tricks.recipe import plain_setup
from glassgpt.tricks.variants import choose_tricks

SETUP = Setup("gpt2", GPT2Config(50, 16, 2, 2, 16), OptimizerConfig(), rows=4, device="cpu")
SVG = "{http://www.w3.org/2000/svg}"


class FakePrepared:
    """Of prepared data, what measuring needs: the paths of its training shards."""

    def __init__(self, folder: Path) -> None:
        path = folder / "train.shard"
        write_shard(path, np.random.default_rng(0).integers(50, size=2000), dtype_for(50))
        self.train = type("Shards", (), {"paths": (path,)})()


def measured(step: float = 1.0, peak: int = 100, loss: float = 3.0) -> Measured:
    return Measured(first_step=2 * step, step=step, tokens=64, peak_memory=peak, loss=loss)


def test_each_trick_differs_from_the_plain_setup_in_one_way() -> None:
    for trick in TRICKS:
        with_it, without = trick.with_it(SETUP), trick.without(SETUP)
        assert with_it != without, trick.name
        assert SETUP in (with_it, without), trick.name
        changed = [name for name in vars(SETUP) if getattr(with_it, name) != getattr(without, name)]
        assert len(changed) == 1, trick.name


def test_tricks_are_chosen_by_name() -> None:
    assert choose_tricks([]) == TRICKS
    assert [trick.name for trick in choose_tricks(["compile", "bfloat16", "compile"])] == ["bfloat16", "compile"]
    with pytest.raises(UserError, match="unknown trick 'bfloat': did you mean 'bfloat16'"):
        choose_tricks(["compile", "bfloat"])


def test_a_padded_vocabulary_is_the_next_multiple() -> None:
    padded = next(trick for trick in TRICKS if trick.name == "padded vocabulary")
    gpt2 = replace(SETUP, model=GPT2Config(vocab_size=50257))
    changed = padded.with_it(gpt2).model
    assert (changed.vocab_size, embedding_rows(changed)) == (50257, 50304)


def test_ratios_are_of_with_to_without_whichever_is_the_plain_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(setup: Setup, shards: object, steps: int) -> Measured | str:
        if setup.activation_checkpointing:
            return measured(step=2.0, peak=50)
        if not setup.fused:
            return measured(step=4.0)
        return "no memory" if setup.chunk else measured()

    monkeypatch.setattr(module, "run_apart", run)
    tricks = [trick for trick in TRICKS if trick.name in ("fused AdamW", "recomputed blocks", "chunked loss", "TF32")]
    results = measure_tricks(SETUP, FakePrepared(tmp_path), tricks=tricks)  # type: ignore[arg-type]
    rows = {row.trick.name: row for row in results.rows}
    assert (rows["fused AdamW"].speed, rows["fused AdamW"].memory) == (4.0, 1.0)
    assert (rows["recomputed blocks"].speed, rows["recomputed blocks"].memory) == (0.5, 0.5)
    assert rows["chunked loss"].missing == "no memory"
    assert "NVIDIA" in str(rows["TF32"].missing)
    assert results.noise == module.LEAST_NOISE
    assert "Faster: 4.00 times the speed." in explanation(rows["fused AdamW"], results)
    assert "Slower: 0.50 times the speed." in explanation(rows["recomputed blocks"], results)
    assert "Peak memory 0.50 times." in explanation(rows["recomputed blocks"], results)
    assert explanation(rows["chunked loss"], results) == "Not measured: no memory."


def test_a_recipe_that_cannot_run_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "run_apart", lambda *_: "not enough memory")
    with pytest.raises(UserError, match="does not run here: not enough memory; lower --rows"):
        measure_tricks(SETUP, FakePrepared(tmp_path), tricks=[])  # type: ignore[arg-type]
    with pytest.raises(UserError, match="are too few"):
        measure_tricks(SETUP, FakePrepared(tmp_path), steps=1)  # type: ignore[arg-type]


@pytest.mark.parametrize("trick", TRICKS, ids=lambda trick: trick.name)
@pytest.mark.parametrize("speed", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("device", ["cpu, 2 threads, float32", "NVIDIA A100, float32"])
def test_every_outcome_has_a_reading(trick: object, speed: float, device: str) -> None:
    row = TrickRow(trick, measured(), measured(), (speed,), 1.0)  # type: ignore[arg-type]
    said = explanation(row, Results(SETUP, device, 10_000, 0.05, [row]))
    assert speed != 1.0 or "in 1 round, where two equal steps differ by up to 5%." in said
    verdict = {
        0.5: "Slower",
        1.0: "Within noise: 1.00 to 1.00 times",
        2.0: "Faster",
    }[speed]
    assert said.startswith(verdict)
    assert len(said) > len(verdict) + 20


def test_what_changes_nothing_is_not_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "run_apart", lambda *_: measured())
    for size, rows, why in ((256, None, "256 ids are a multiple of 128 already"), (50, None, None), (50, 128, None)):
        setup = replace(SETUP, rows=1, model=replace(SETUP.model, vocab_size=size, padded_vocab_size=rows))
        results = measure_tricks(setup, FakePrepared(tmp_path), tricks=TRICKS)  # type: ignore[arg-type]
        missing = {row.trick.name: row.missing for row in results.rows}
        assert missing["padded vocabulary"] == why
        assert missing["accumulation"] == "it changes nothing in this setup"  # one row cannot be split


def test_an_architecture_without_a_padded_vocabulary_lacks_that_trick_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "run_apart", lambda *_: measured())
    setup = replace(SETUP, architecture="modern", model=ModernConfig(50, 16, 2, 2, 16))
    results = measure_tricks(setup, FakePrepared(tmp_path), tricks=TRICKS)  # type: ignore[arg-type]
    missing = {row.trick.name: row.missing for row in results.rows}
    assert missing["padded vocabulary"] == "modern does not support a padded vocabulary"
    assert missing["chunked loss"] is None


def test_a_trick_must_show_more_than_the_spread_of_the_rounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    times = {"plain": [1.0, 1.2, 1.0], "faster": [0.5, 0.5, 0.4], "mixed": [0.6, 1.5, 0.6], "little": [0.9, 1.1, 0.9]}
    turns = {name: iter(steps) for name, steps in times.items()} | {"again": iter([1.0, 1.0, 1.0])}
    order = iter(["plain", "again", "faster", "mixed", "little"] * 3)
    monkeypatch.setattr(module, "run_apart", lambda *_: measured(step=next(turns[next(order)])))
    tricks = [
        replace(trick, name=name, needs=lambda *_: None)
        for trick, name in zip((t for t in TRICKS if t.name in ("float16", "chunked loss", "batch × 4")),
                               ("faster", "mixed", "little"), strict=True)
    ]  # fmt: skip
    results = measure_tricks(SETUP, FakePrepared(tmp_path), tricks=tricks)  # type: ignore[arg-type]
    assert results.noise == pytest.approx(0.2)  # the largest difference of two equal steps
    rows = {row.trick.name: row for row in results.rows}
    assert rows["faster"].speeds == pytest.approx((2.0, 2.4, 2.5))
    within = {name: row.to_dict(results.noise)["within_noise"] for name, row in rows.items()}
    assert within == {"faster": False, "mixed": True, "little": True}  # mixed: 1.67 times in two rounds, 0.8 in one


@pytest.mark.heavy
@pytest.mark.slow
def test_the_same_training_in_a_process_of_its_own(tmp_path: Path) -> None:
    """Tricks that only change how it is computed end at the same loss."""
    shards = [str(path) for path in FakePrepared(tmp_path).train.paths]
    plain = run_apart(SETUP, shards, 5)
    assert isinstance(plain, Measured)
    assert plain.tokens == 64
    assert plain.peak_memory > 50 << 20  # Python and torch alone have more
    for changed in (replace(SETUP, flash=False), replace(SETUP, passes=4), replace(SETUP, chunk=10)):
        other = run_apart(changed, shards, 5)
        assert isinstance(other, Measured)
        assert other.loss == pytest.approx(plain.loss, rel=1e-5)


def test_what_fails_in_there_comes_back_in_words(tmp_path: Path) -> None:
    shards = [str(path) for path in FakePrepared(tmp_path).train.paths]
    outcome = run_apart(replace(SETUP, model=GPT2Config(50, 5000, 2, 2, 16)), shards, 5)
    assert "the text is too short" in str(outcome)


def test_the_picture_has_a_bar_for_each_ratio() -> None:
    bars = [Bar("one", 2.0, 0.5), Bar("two & more", 1.0, 1.0), Bar("three", missing="not here")]
    root = ElementTree.fromstring(draw_bars(bars, "title", noise=0.05))
    texts = [text.text for text in root.iter(f"{SVG}text")]
    assert {"one", "two & more", "three", "2.00", "0.50", "not measured"} <= set(texts)
    colours = [bar.attrib["fill"] for bar in root.iter(f"{SVG}rect")][2:]
    assert len(colours) == 4
    assert colours[0] == colours[1] != colours[2] == colours[3]


@pytest.mark.parametrize("noise", [0.05, 0.8, 1.0, 3.0])
def test_the_noise_of_a_busy_machine_stays_in_the_picture(noise: float) -> None:
    root = ElementTree.fromstring(draw_bars([Bar("one", 1.2, 1.0)], "title", noise))
    band = list(root.iter(f"{SVG}rect"))[1]
    start, width = float(band.attrib["x"]), float(band.attrib["width"])
    assert PANELS[0][0] <= start < start + width <= PANELS[0][1]


@pytest.mark.parametrize("rows", [0, -1, 10**15, 10**400])
def test_a_batch_has_a_countable_number_of_rows(rows: int) -> None:
    with pytest.raises(UserError, match=r"--rows .* is out of range: it must be from 1 to 17,179,869,184"):
        plain_setup("char-tiny", "python-manual", [], rows, "cpu")


def test_the_course_calls_every_trick_as_the_command_does() -> None:
    """The picture had "tf32" and "batch x 4", the table beside it "TF32" and "batch × 4"."""
    course = Path(__file__).resolve().parents[2] / "docs" / "course"
    names = [trick.name for trick in TRICKS]
    table = (course / "tricks.md").read_text(encoding="utf-8").split("| trick | speed |")[1].split("\n\n")[0]
    assert [row.split(" | ")[0].removeprefix("| ") for row in table.splitlines()[2:]] == names
    texts = [text.text for text in ElementTree.parse(course / "tricks.svg").iter(f"{SVG}text")]
    assert [text for text in texts if text in names] == names
    assert list(REASONS) == names
