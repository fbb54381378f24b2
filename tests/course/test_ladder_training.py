"""The trained ladder: one order of the data for all sections, figures that are those of the models, results on disk."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import glassgpt as gg
from glassgpt.course.climb import (
    Climb,
    LadderListener,
    LadderTraining,
    SectionRow,
    climb,
    climb_ladder,
    find_sections,
)
from glassgpt.course.results import choose_results_folder, read_results, save_results
from glassgpt.data.corpora import text_corpus
from glassgpt.data.dataset import Dataset
from glassgpt.data.dataset_cache import DataConfig, build_dataset
from glassgpt.data.loader import Loader
from glassgpt.errors import UserError
from glassgpt.evaluation.validation import bytes_per_token, evaluate
from glassgpt.models.ladder import SECTIONS, LadderConfig, Section
from glassgpt.runtime.device import build_runtime
from glassgpt.tokenizers import TokenizerConfig
from glassgpt.training.fit import StepResult, TrainState, fit

TINY = LadderTraining(steps=4, seeds=2, batch_rows=2, block_size=8, n_head=2, n_embd=8)
CPU = build_runtime("cpu", "float32")


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    text = "".join(f"{n} bottles of ink on the wall, take one down.\n" for n in range(200))
    return build_dataset(DataConfig("text"), TokenizerConfig("char"), corpus=text_corpus(text))


class Recorder(LadderListener):
    def __init__(self) -> None:
        self.steps: list[tuple[str, int, int]] = []
        self.rows: list[str] = []

    def stepped(self, section: Section, seed: int, step: int, val_loss: float) -> None:
        self.steps.append((section.name, seed, step))

    def reached(self, row: SectionRow) -> None:
        self.rows.append(row.section.name)


def test_all_ten_sections_climb_with_every_seed(dataset: Dataset) -> None:
    recorder = Recorder()
    rows = climb_ladder(dataset, SECTIONS, TINY, CPU, recorder)
    assert [row.section for row in rows] == list(SECTIONS)
    assert recorder.rows == [section.name for section in SECTIONS]
    assert recorder.steps[:4] == [("bigram", seed, step) for seed in (0, 1) for step in (0, 4)]
    for row in rows:
        assert len(row.climbs) == 2
        assert (
            min(climb.val_loss for climb in row.climbs) <= row.val_loss <= max(climb.val_loss for climb in row.climbs)
        )
        assert row.climbs[0].steps == [0, 4]
        assert row.seconds > 0 and row.sample and "\n" not in row.sample


def test_the_loss_of_a_row_is_that_of_its_model_on_the_whole_split(dataset: Dataset) -> None:
    model, result = climb(SECTIONS[3], 0, dataset, TINY, CPU, LadderListener())
    token_bytes = bytes_per_token(dataset.tokenizer)
    again = evaluate(model, dataset.val, token_bytes, CPU)
    assert again.loss == result.val_loss
    assert again.tokens == len(dataset.val) - 1
    assert result.losses[-1] < result.losses[0]


@pytest.mark.parametrize(
    ("steps", "every", "tokens"), [(1, 50, 10_000), (50, 50, 12_800), (1000, 50, 256_000), (3000, 150, 768_000)]
)
def test_validations_cost_little_beside_the_training(steps: int, every: int, tokens: int) -> None:
    """A validation takes as long as a few steps: after each of 20 steps, they would be most of the time."""
    training = LadderTraining(steps=steps)
    assert (training.curve_every, training.final_tokens(SECTIONS[8])) == (every, tokens)


def test_a_training_is_kept_as_a_run(dataset: Dataset, tmp_path: Path) -> None:
    run = tmp_path / "s04-head-seed1"
    model, result = gg.climb(4, 0, dataset, TINY, CPU, run=run)
    opened = gg.load(run, device="cpu")
    assert all(torch.equal(opened.model.state_dict()[name], tensor) for name, tensor in model.state_dict().items())
    assert opened.summary is not None and opened.summary["val_loss"] == result.val_loss
    assert opened.generate("1 ", max_new_tokens=5, seed=0)
    assert [line["step"] for line in opened.metrics if "lr" in line] == [1, 2, 3, 4]


def test_a_skipped_step_says_why_and_counts_in_no_mean(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fit_with_a_skipped_step(*args: Any, on_step: Callable[[TrainState, StepResult], None], **kwargs: Any) -> Any:
        def after(state: TrainState, result: StepResult) -> None:
            changed = dataclasses.replace(result, loss=float("nan"), skipped="the loss is not finite")
            on_step(state, changed if state.step == 4 else result)

        return fit(*args, on_step=after, **kwargs)

    monkeypatch.setattr("glassgpt.course.climb.fit", fit_with_a_skipped_step)
    run = tmp_path / "run"
    gg.climb(4, 0, dataset, TINY, CPU, run=run)
    lines = gg.load(run, device="cpu").metrics
    steps = [line for line in lines if "lr" in line]
    assert [line.get("skipped") for line in steps] == [None, None, None, "the loss is not finite"]
    assert lines[-1]["train/loss"] == steps[2]["train/loss"]


def test_an_earlier_run_is_never_replaced(dataset: Dataset, tmp_path: Path) -> None:
    in_the_way = tmp_path / "s04-head-seed1"
    in_the_way.mkdir()
    (in_the_way / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match="exists"):
        climb_ladder(dataset, SECTIONS[3:4], TINY, CPU, LadderListener(), runs=tmp_path)
    with pytest.raises(UserError, match="exists"):
        gg.climb(4, 1, dataset, TINY, CPU, run=in_the_way)
    assert [path.name for path in tmp_path.rglob("*")] == ["s04-head-seed1", "thesis.txt"]


def test_a_seed_decides_everything(dataset: Dataset) -> None:
    decoder = SECTIONS[9]
    training = LadderTraining(steps=3, batch_rows=2, block_size=8, n_head=2, n_embd=8, dropout=0.2)
    first, again, other = (climb(decoder, seed, dataset, training, CPU, LadderListener())[1] for seed in (0, 0, 1))
    assert first == again
    assert first.val_loss != other.val_loss


def test_all_sections_but_the_last_see_the_same_tokens_in_the_same_order(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, list[torch.Tensor]] = {}
    rows = Loader.rows

    def recording(self: Loader, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        batch = rows(self, step)
        seen.setdefault(section.name, []).append(batch[0])
        return batch

    monkeypatch.setattr(Loader, "rows", recording)
    for section in (SECTIONS[0], SECTIONS[8]):
        climb(section, 0, dataset, TINY, CPU, LadderListener())
    assert torch.equal(torch.stack(seen["bigram"]), torch.stack(seen["layernorm"]))


def test_only_the_depth_differs_and_in_the_last_section_the_size() -> None:
    sizes = [TINY.sizes(section, 30) for section in SECTIONS]
    assert [size.n_layer for size in sizes] == [1, 1, 1, 1, 1, 1, 3, 3, 3, 6]
    assert [size.n_embd for size in sizes] == [8] * 9 + [32]
    assert [size.block_size for size in sizes] == [8] * 9 + [64]
    assert len({(size.vocab_size, size.n_head, size.dropout) for size in sizes}) == 1
    assert [TINY.batch_tokens(section) for section in SECTIONS] == [16] * 9 + [64]


def test_only_the_table_of_the_first_section_has_another_rate() -> None:
    assert [LadderTraining(lr=0.5).rate(section) for section in SECTIONS] == [5.0] + [0.5] * 9


def test_mean_and_spread_are_over_the_seeds() -> None:
    row = SectionRow(
        SECTIONS[0],
        LadderConfig(),
        9,
        [Climb(0, 2.0, [0, 1], [4.0, 3.0]), Climb(1, 2.5, [0, 1], [4.0, 2.0])],
        1.0,
        "to be",
    )
    assert (row.val_loss, row.spread) == (2.25, 0.25)
    assert row.losses == [4.0, 2.5]
    assert row.to_dict().keys() >= {"section", "name", "n_params", "val_loss", "seconds"}


def test_sections_one_by_one_make_one_ladder(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def train(numbers: list[int], training: LadderTraining = TINY) -> str:
        sections = [SECTIONS[number - 1] for number in numbers]
        folder, earlier = choose_results_folder(None, sections, training, dataset)
        rows = climb_ladder(dataset, sections, training, CPU, LadderListener(), runs=folder)
        save_results(folder, rows, earlier)
        found = " ".join(str(row["section"]) for row in read_results(folder))
        return f"{folder.name}: {found}"

    assert train([4]) == "ladder: 4"
    first = (tmp_path / "runs" / "ladder" / "ladder.json").read_text()
    assert train([1]) == "ladder: 1 4"
    assert json.loads(first)[0] == json.loads((tmp_path / "runs" / "ladder" / "ladder.json").read_text())[1]
    assert "4 head" in (tmp_path / "runs" / "ladder" / "ladder.svg").read_text()
    assert train([4]) == "ladder-2: 4"  # again
    assert train([2], dataclasses.replace(TINY, lr=0.1)) == "ladder-3: 2"  # in another way
    assert train([2], dataclasses.replace(TINY, seeds=1)) == "ladder-4: 2"
    assert train([2, 3]) == "ladder: 1 2 3 4"
    (tmp_path / "runs" / "ladder" / "s05-multihead").mkdir()  # of a training that was stopped
    assert train([5]) == "ladder-2: 4 5"


def test_results_are_never_added_to_those_of_another_text(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (section,) = find_sections(1)
    rows = climb_ladder(dataset, [section], TINY, CPU, LadderListener(), runs=tmp_path)
    save_results(tmp_path, rows)
    other = SECTIONS[1:2]
    assert len(choose_results_folder(tmp_path, other, TINY, dataset)[1]) == 1
    assert choose_results_folder(tmp_path, other, TINY, dataset, overwrite=True) == (tmp_path, [])
    changed = dataclasses.replace(dataset, manifest=dataclasses.replace(dataset.manifest, key="another"))
    with pytest.raises(UserError, match=r"ladder\.json exists"):
        choose_results_folder(tmp_path, other, TINY, changed)
    with pytest.raises(UserError, match=r"ladder\.json exists"):
        choose_results_folder(tmp_path, [section], TINY, dataset)
    with pytest.raises(UserError, match=r"ladder\.svg is a file"):  # before minutes of training
        choose_results_folder(tmp_path / "ladder.svg", other, TINY, dataset)
    with pytest.raises(UserError, match="is a run"):
        choose_results_folder(tmp_path / "s01-bigram", other, TINY, dataset)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match=r"cannot write .*ladder\.json"):
        save_results(tmp_path / "file" / "results", [])


@pytest.mark.parametrize("number", [0, 11, -1])
def test_a_section_that_is_not_there_is_refused(number: int) -> None:
    with pytest.raises(UserError, match="sections 1 to 10"):
        find_sections(number)


@pytest.mark.parametrize("field", ["steps", "seeds"])
def test_a_training_of_nothing_is_refused(field: str) -> None:
    with pytest.raises(UserError, match=f"--{field} 0"):
        LadderTraining(**{field: 0})
