"""A plan: its figures by hand, what it assumes, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from glassgpt.cli.plan_table import print_plan
from glassgpt.costs.hardware import Hardware, find_hardware
from glassgpt.errors import UserError
from glassgpt.models.sizes import embedding_rows
from glassgpt.planning.plan import make_plan, planned_config
from glassgpt.runs import micro_batch as room
from glassgpt.runs.config import load_config
from glassgpt.runs.micro_batch import estimate_memory, out_of_memory_advice, with_micro_batch
from glassgpt.runtime.device import build_runtime
from tests.system.command_line import glassgpt, settings

TINY = ["model.n_layer=1", "model.n_head=1", "model.n_embd=8", "model.block_size=8", "training.batch_tokens=64"]


def test_gpt2_124m_by_hand() -> None:
    plan = make_plan("gpt2-124m", ["model.vocab_size=50257"], device="h100", price_per_hour=2.0, seconds=0)
    assert plan.n_parameters == sum(plan.parameters.values()) == 124_439_808
    assert plan.flops_per_token == 6 * (124_439_808 - 1024 * 768) + 12 * 12 * 768 * 1024
    assert plan.tokens == 19073 * 524288
    assert plan.seconds == pytest.approx(plan.flops_per_token * plan.tokens / (0.4 * 989e12))
    assert plan.cost == pytest.approx(2.0 * plan.seconds / 3600)
    assert plan.precision == "bfloat16"
    assert plan.largest_micro_batch == 64
    assert [row.rows for row in plan.micro_batches] == [1, 2, 4, 8, 16, 32, 64, 128]
    assert [row.fits for row in plan.micro_batches] == [True] * 7 + [False]


def test_gpt3_175b_is_planned_without_its_memory() -> None:
    """Table D.1 of the paper: 3.14e23 FLOPs, of products with weights alone."""
    plan = make_plan("gpt3-175b", device="h100", seconds=0)
    assert plan.flops == pytest.approx(3.14e23, rel=0.04)
    assert plan.largest_micro_batch is None and plan.own_micro_batch is None
    assert plan.micro_batches[0].total > 2.5e12


def test_a_model_that_needs_sharding_is_planned_on_many_devices() -> None:
    """Each of 64 holds 16 bytes a parameter divided by 64, and 4 rows of the 16 that a step has for it."""
    plan = make_plan("gpt3-6.7b", device="h100", devices=64, parallel="fsdp", price_per_hour=2.0, seconds=0)
    assert plan.largest_micro_batch == plan.own_micro_batch == 4
    parts = plan.micro_batches[0].parts
    assert parts["weights"] + parts["gradients"] + parts["optimizer"] == pytest.approx(
        16 * plan.n_parameters / 64, rel=0.01
    )
    one = make_plan("gpt3-6.7b", device="h100", price_per_hour=2.0, seconds=0)
    assert one.largest_micro_batch is None and one.micro_batches[0].total > 16 * one.n_parameters
    assert one.seconds is not None and plan.seconds == pytest.approx(one.seconds / 64)
    assert one.cost is not None and plan.cost == pytest.approx(one.cost)
    whole = make_plan("gpt3-6.7b", device="h100", devices=64, seconds=0)
    assert whole.parallel == "ddp" and whole.largest_micro_batch is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"devices": 0}, r"devices 0 is out of range: it must be from 1 to"),
        ({"devices": 10**9}, r"devices 1000000000 is out of range"),
        ({"devices": 5}, r"training\.batch_tokens = 768 is 12 rows .* 5 ranks cannot share evenly"),
        ({"devices": 2, "parallel": "none"}, r"there are 2 ranks, and --parallel none is for one: use ddp or fsdp"),
        ({"devices": 2, "parallel": "fdsp"}, r"unknown machine\.parallel 'fdsp': did you mean 'fsdp'\?"),
        ({"devices": 2, "parallel": "fsdp", "device": "t4"}, r"fsdp has no loss scaling for float16"),
    ],
)
def test_devices_that_cannot_be_planned(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_plan("char-tiny", seconds=0, **options)


def test_utilisation_divides_the_time() -> None:
    slow, fast = (make_plan("char-tiny", device="t4", utilisation=u, seconds=0).seconds for u in (0.25, 1.0))
    assert slow is not None and fast is not None
    assert slow == pytest.approx(4 * fast)


def test_float32_has_no_known_rate() -> None:
    plan = make_plan("char-tiny", ["machine.dtype=float32"], device="a100", price_per_hour=1.0, seconds=0)
    assert plan.seconds is None and plan.cost is None


def test_a_recipe_that_leaves_the_micro_batch_open() -> None:
    plan = make_plan("gpt2-124m", ["training.micro_batch=auto"], device="t4", seconds=0)
    assert plan.own_micro_batch == plan.largest_micro_batch
    assert plan.largest_micro_batch is not None and 512 % plan.largest_micro_batch == 0


def test_this_device_is_measured() -> None:
    plan = make_plan("char-tiny", TINY, device="cpu", price_per_hour=1.0, seconds=0.01)
    assert plan.measured is not None and plan.seconds is None
    assert plan.measured.seconds == pytest.approx(plan.tokens / plan.measured.tokens_per_second)
    assert plan.cost == pytest.approx(plan.measured.seconds / 3600)


def test_what_does_not_fit_is_not_measured_and_says_so() -> None:
    sizes = ["model.n_embd=65536", "model.n_head=64", "model.n_layer=4", "machine.device=cpu"]
    plan = make_plan("gpt2-124m", sizes, device="h100", seconds=10.0)
    assert plan.measured is None
    assert plan.largest_micro_batch is None
    assert any("not measured on this device: a single row needs" in note for note in plan.notes)


@pytest.mark.parametrize(
    ("recipe", "vocab_size", "rows"),
    [("char-tiny", 65, 65), ("gpt2-mini", 4000, 4096), ("gpt2-124m", 50257, 50304)],
)
def test_the_vocabulary_is_the_tokenizers_where_the_recipe_has_none(recipe: str, vocab_size: int, rows: int) -> None:
    config, notes = planned_config(recipe)
    assert config.model.vocab_size == vocab_size
    assert embedding_rows(config.model) == rows
    assert any("65 characters are assumed" in note for note in notes) == (recipe == "char-tiny")


@pytest.mark.parametrize("utilisation", [0.0, -0.1, 1.01, float("nan")])
def test_a_utilisation_that_cannot_be_is_refused(utilisation: float) -> None:
    with pytest.raises(UserError, match=r"utilisation .* is out of range: it must be above 0 and at most 1"):
        make_plan("char-tiny", utilisation=utilisation)


@pytest.mark.parametrize("price", [0.0, -1.0, float("inf"), float("nan")])
def test_a_price_that_cannot_be_is_refused(price: float) -> None:
    with pytest.raises(UserError, match=r"price-per-hour .* is out of range: it must be above 0"):
        make_plan("char-tiny", price_per_hour=price)


# A run that leaves its micro-batch open, and one that runs out of memory


@pytest.fixture
def text_file(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("All work and no play makes Jack a dull boy.\n" * 60, encoding="utf-8")
    return path


def test_auto_becomes_a_number_in_the_runs_config(text_file: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = ("train", "char-tiny", "--data", text_file, "--run", run, *settings(training__micro_batch="auto"))
    first = glassgpt(*command, "--max-steps", 2)
    assert first.code == 0, first.err
    assert "training.micro_batch = 8: by the estimate" in first.err  # 256 tokens are 8 rows of 32
    assert load_config(run / "config.toml").training.micro_batch == 8
    again = glassgpt(*command, "--max-steps", 4, "--resume")
    assert again.code == 0, again.err
    assert load_config(run / "config.toml").training.micro_batch == 8


def test_auto_divides_what_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    config, _ = planned_config("char-tiny", ["training.micro_batch=auto"])
    memory = estimate_memory(config, find_hardware("cpu"), precision="float32")
    space = memory.peak(5, accumulates=True)
    hardware = Hardware("small", int(space / 0.9) + 1, None, "cpu", "float32", memory.floor)
    monkeypatch.setattr(room, "local_hardware", lambda runtime: hardware)
    lines: list[str] = []
    assert with_micro_batch(config, build_runtime("cpu"), lines.append).training.micro_batch == 4  # of 12 rows
    assert len(lines) == 1


def test_a_model_with_no_room_at_all_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    config, _ = planned_config("char-tiny", ["training.micro_batch=auto"])
    monkeypatch.setattr(room, "local_hardware", lambda runtime: Hardware("small", 10, None, "cpu", "float32"))
    monkeypatch.setattr(room, "resident_bytes", lambda: 300 << 20)  # other tests may have left this process large
    with pytest.raises(UserError, match=r"this model does not fit on small: one row needs about 0\.[3-9] GiB"):
        with_micro_batch(config, build_runtime("cpu"), lambda line: None)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
    ],
)
def test_out_of_memory_names_a_micro_batch_that_fits(error: RuntimeError, monkeypatch: pytest.MonkeyPatch) -> None:
    config, _ = planned_config("char-tiny")
    memory = estimate_memory(config, find_hardware("cpu"), precision="float32").with_floor(0, on_heap=True)
    space = memory.peak(6, accumulates=True)
    hardware = Hardware("small", int(space / 0.9) + 1, None, "cpu", "float32", 0)
    monkeypatch.setattr(room, "local_hardware", lambda runtime: hardware)
    with (
        pytest.raises(
            UserError,
            match=r"go on with run='runs/x', resume=True, settings=\{'training\.micro_batch': 6\}: about",
        ),
        out_of_memory_advice(config, build_runtime("cpu"), Path("runs/x")),
    ):
        raise error


def test_an_allocation_that_fails_in_training_is_one_sentence(text_file: Path, tmp_path: Path) -> None:
    """A real one: no machine has room for these scores, the rows being too many."""
    sizes = settings(model__block_size=64, training__batch_tokens=64 * 2**33)
    result = glassgpt("train", "char-tiny", "--data", text_file, "--run", tmp_path / "run", *sizes)
    assert result.error.startswith("out of memory on cpu")
    assert f"--run {tmp_path / 'run'} --resume --set training.micro_batch=" in result.error


def test_another_error_passes() -> None:
    config, _ = planned_config("char-tiny")
    with pytest.raises(RuntimeError, match="shapes differ"), out_of_memory_advice(config, build_runtime("cpu")):
        raise RuntimeError("shapes differ")


# The command


def test_the_page_and_the_object_say_the_same() -> None:
    command = ("plan", "gpt2-124m", "--device", "h100", "--price-per-hour", "2", "--no-measure")
    page, plan = glassgpt(*command).out, json.loads(glassgpt(*command, "--json").out)
    assert f"{plan['parameters']['total']:,} parameters" in page
    assert "6·N + 12·L·C·T, N = 123,689,472, L = 12, C = 768, T = 1,024" in " ".join(page.split())
    assert f"{plan['cost']:,.2f} at 2 an hour" in page
    assert f"fits              {plan['largest_micro_batch']} rows of the 512" in page
    assert all(row["total"] == sum(v for k, v in row.items() if k not in ("micro_batch", "total", "fits"))
               for row in plan["memory"])  # fmt: skip


@pytest.mark.parametrize(("ngram", "without"), [(4, "appendix B; N without the n-gram tables)"), (1, "appendix B)")])
def test_tables_that_are_only_looked_up_are_not_counted(ngram: int, without: str) -> None:
    by_hand = 2 * 65 * 128 + 4 * (4 * 128**2 + 3 * 128 * 344 + 2 * 128 + 2 * 32) + 128
    settings = ["--set", "model.architecture=modern", "--set", f"model.ngram={ngram}"]
    page = " ".join(glassgpt("plan", "char-tiny", "--no-measure", *settings).out.split())
    assert f"N = {by_hand:,}, L = 4, C = 128, T = 64 (Chowdhery et al. 2022," in page
    assert without in page


@pytest.mark.parametrize(
    ("recipe", "options"),
    [
        ("gpt3-2.7b", {"device": "h100", "devices": 64, "parallel": "fsdp", "price_per_hour": 2.0}),
        ("gpt2-124m", {"device": "cpu", "devices": 2, "parallel": "fsdp", "overrides": ["machine.dtype=bfloat16"]}),
        ("char-tiny", {"device": "t4"}),
    ],
)
def test_a_plan_is_as_wide_as_the_terminal(
    recipe: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also in a file or a pipe, which COLUMNS tells. The words are the same at every width, and none is broken."""
    plan, pages = make_plan(recipe, seconds=0, **options), {}
    for columns in (40, 80, 1000):
        monkeypatch.setenv("COLUMNS", str(columns))
        print_plan(plan)
        pages[columns] = capsys.readouterr().out
        assert max(map(len, pages[columns].splitlines())) <= columns
    words = [" ".join(page.split()) for page in pages.values()]
    assert all("Each line shows the moment of a step that needs the most memory: the start" in page for page in words)
    after_table = {page.partition(" fits ")[2].partition(" activations ")[2] for page in words}
    before_table = {page.partition(" in a micro-batch ")[0] for page in words}
    assert len(before_table) == len(after_table) == 1


def test_the_object_has_the_memory_of_each_device() -> None:
    command = (
        "plan",
        "gpt2-124m",
        "--device",
        "h100",
        "--devices",
        "8",
        "--parallel",
        "fsdp",
        "--no-measure",
        "--json",
    )
    plan = json.loads(glassgpt(*command).out)
    assert (plan["devices"], plan["parallel"]) == (8, "fsdp")
    assert plan["memory"][0]["weights"] == pytest.approx(4 * plan["parameters"]["total"] / 8, rel=0.01)
    assert all(row["total"] == sum(v for k, v in row.items() if k not in ("micro_batch", "total", "fits"))
               for row in plan["memory"])  # fmt: skip


def test_an_unknown_device_is_refused_by_the_command() -> None:
    error = glassgpt("plan", "char-tiny", "--device", "h100s").error
    assert error.startswith("unknown device 'h100s': did you mean 'h100'? Known: 3090, 4090, 5090")


def test_an_unknown_recipe_is_refused_by_the_command() -> None:
    assert glassgpt("plan", "char-tinny").error.startswith("unknown recipe 'char-tinny': did you mean 'char-tiny'?")
