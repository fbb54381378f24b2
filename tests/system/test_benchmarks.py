"""bench/benchmarks.py: the page and its pictures from stored figures, and the commands that take them."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
TIMED = {"seconds": 100.0, "val_loss": 1.9, "steps": 2000}
RESULTS: dict[str, dict[str, Any]] = {
    "speedrun": {
        "ratio": 0.05, "target": 1.8983, "ratio_nanogpt": None, "val_loss_at_control_time": 1.47,
        "rounds": [
            {"seed": seed, "control": TIMED, "fast": TIMED | {"seconds": 5.0 + seed, "curve": [[1.0, 2.0], [4.0, 1.9]]},
             "far": TIMED | {"val_loss": 1.47}, "open": TIMED | {"val_loss": 1.43}, "nanogpt": None}
            for seed in (1, 2, 3)
        ],
    },
    "generate": {
        "read_rate": 25e9, "read_rates": [24e9, 25e9, 26e9],
        "rows": [
            {"batch": batch, "weights": weights, "tokens_per_second": 40.0, "rounds": [39.0, 40.0, 41.0],
             "weight_bytes": 500_000_000, "share_of_roof": 0.8, "transformers": 20.0, "ratio_to_transformers": 2.0}
            for batch in (1, 16) for weights in ("float32", "int8")
        ],
    },
    "step": {
        "parameters": 124_000_000, "batch_rows": 2, "passes": 1, "block_size": 256, "matrix_rates": {"float32": 9e10},
        "times_transformers": 1.12, "times_nanogpt": None,
        "rows": [
            {"contender": name, "precision": "float32", "seconds": 2.0, "tokens_per_second": 256.0, "loss": 9.5,
             "share_of_matrix_rate": 0.8, "rounds": [1.9, 2.0, 2.1]}
            for name in ("glassgpt", "transformers")
        ],
    },
    "ablation": {
        "rows": [
            {"variant": name, "losses": [1.5 + worse, 1.51 + worse], "steps": [900, 900], "worse_by": worse}
            for name, worse in (("as it is", 0.0), ("no n-grams", 0.1))
        ],
    },
    "family": {
        "rows": [
            {"change": name, "model": model, "before": before, "parameters": 800_000, "losses": [1.9, 1.92],
             "steps": [900, 910], "differences": differences}
            for name, model, before, differences in (
                ("GPT-2", "GPT-2", None, []), ("experts", "GPT-oss", "sinks", [-0.01, 0.03]),
            )
        ],
    },
    "minutes": {
        "rows": [
            {"data": "shakespeare", "minutes": 1.0, "contender": name, "n_layer": 2, "n_embd": 128, "seconds": 60.5,
             "steps": 900, "val_loss": 1.49, "replanned": 1}
            for name in ("chosen", "half")
        ],
    },
}  # fmt: skip
PICTURES = ("speedrun", "generate", "step")


@pytest.fixture
def bench() -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmarks", ROOT / "bench" / "benchmarks.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["benchmarks"] = module  # its dataclasses look for it
    spec.loader.exec_module(module)
    return module


def run(bench: ModuleType, monkeypatch: pytest.MonkeyPatch, folder: Path, *options: object) -> str:
    """The page that the script writes with these options."""
    places = ["--docs", folder / "docs", "--figures", folder / "figures"]
    monkeypatch.setattr(sys, "argv", ["benchmarks.py", *map(str, [*places, *options])])
    bench.main()
    return (folder / "docs" / "benchmarks.md").read_text(encoding="utf-8")


def part_of(arguments: list[str]) -> str:
    """The part of the page that a command measures: `-P -m glassgpt bench step …`, or a script of bench/."""
    return Path(arguments[0]).stem if arguments[0].endswith(".py") else arguments[4]


def answer(monkeypatch: pytest.MonkeyPatch, bench: ModuleType) -> list[list[str]]:
    """Every command of the script answers with the canned figures; returns the commands as they come."""
    called: list[list[str]] = []

    def fake(arguments: list[str]) -> dict[str, Any]:
        called.append(arguments)
        return RESULTS[part_of(arguments)]

    monkeypatch.setattr(bench, "run_python", fake)
    return called


def test_a_page_has_every_figure_with_its_date_its_machine_and_its_command(
    bench: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    called = answer(monkeypatch, bench)
    page = run(bench, monkeypatch, tmp_path, "--nanogpt", "/elsewhere/nanoGPT")
    assert [part_of(command) for command in called] == ["speedrun", "minutes", "generate", "step"]
    assert called[0][5:] == ["--nanogpt", "/elsewhere/nanoGPT", "--json"] and "--nanogpt" not in called[1]
    flat = " ".join(page.split())
    assert "| speedrun | 7.0 (6.0 to 8.0) | 1.9000 |" in page
    assert "1/20.0 of the control's time" in flat
    assert "| 16 | int8 | 40.0 (39.0 to 41.0) | 80% | 2.00 |" in page
    assert "| glassgpt | float32 | 256 (244 to 269) | 80% | 9.500 |" in page
    assert "transformers takes 1.12 times as long" in flat
    assert "`glassgpt bench speedrun --nanogpt ../nanoGPT`" in flat and "/elsewhere" not in page
    assert "| chosen | 1.4900 | 60.5 | shakespeare | 1 | 2 × 128 | 900 |" in page
    assert "`python bench/minutes.py --data shakespeare --minutes 1 --seed 5`" in flat
    assert flat.count("Measured on 20") == 4 and "torch" in flat
    assert flat.count("*No figure yet.*") == 4  # what is not measured says so


def test_pictures_are_drawn_for_light_and_dark_and_for_a_phone(
    bench: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    answer(monkeypatch, bench)
    page = run(bench, monkeypatch, tmp_path)
    for name in PICTURES:
        assert f"(benchmarks/{name}.svg)" in page
        drawn = (tmp_path / "docs" / "benchmarks" / f"{name}.svg").read_text(encoding="utf-8")
        picture = ET.fromstring(drawn)
        assert float(picture.attrib["width"]) <= 400
        assert "prefers-color-scheme: dark" in drawn
        height = float(picture.attrib["height"])
        for part in picture.iter():
            assert 0 <= float(part.get("x", "0").rstrip("%")) <= 400
            assert 0 <= float(part.get("y", "0").rstrip("%")) <= height


def test_a_part_is_measured_alone_and_the_others_keep_their_figures(
    bench: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    called = answer(monkeypatch, bench)
    before = run(bench, monkeypatch, tmp_path)
    called.clear()
    assert run(bench, monkeypatch, tmp_path, "--only", "step") == before
    assert [part_of(command) for command in called] == ["step"]
    called.clear()
    assert run(bench, monkeypatch, tmp_path, "--draw") == before
    assert called == []


def test_a_long_part_is_measured_only_where_it_is_named(
    bench: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    called = answer(monkeypatch, bench)
    page = run(bench, monkeypatch, tmp_path, "--only", "ablation", "--only", "family", "--only", "minutes-longer")
    assert [part_of(command) for command in called] == ["minutes", "ablation", "family"]
    assert "--without-control" in called[0]
    assert "| no n-grams | +0.100 | 1.605 (1.600 to 1.610) | 900 |" in page
    assert "| GPT-2 | – | – | 1.910 (1.900 to 1.920) | 905 (900 to 910) | 800,000 |" in page
    assert "| experts = GPT-oss | sinks | +0.010 (-0.010 to +0.030) |" in page
    assert page.index("| no n-grams") < page.index("| as it is | +0.000 |")


def test_without_figures_every_section_says_so(
    bench: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    page = run(bench, monkeypatch, tmp_path, "--draw")
    assert page.count("*No figure yet.*") == page.count("\n## ") == 8


def test_a_command_that_fails_ends_the_run(bench: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    failed = subprocess.CompletedProcess[str]([], 2, "")
    monkeypatch.setattr(bench.subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(SystemExit, match="glassgpt bench speedrun --json failed with exit code 2"):
        run(bench, monkeypatch, tmp_path)
    assert not (tmp_path / "figures").exists()


def test_a_claim_that_the_rounds_do_not_support_is_not_made(bench: ModuleType) -> None:
    missed = RESULTS["speedrun"] | {"ratio": None, "val_loss_at_control_time": None}
    told = bench.speedrun_table(missed)
    assert "there is no ratio" in told and "took longer than its control" in told and "1/" not in told


def test_the_page_of_this_checkout_is_what_its_figures_give(
    bench: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    page = run(bench, monkeypatch, tmp_path, "--figures", ROOT / "bench" / "figures", "--draw")
    assert page == (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    for drawn in (tmp_path / "docs" / "benchmarks").iterdir():
        assert drawn.read_bytes() == (ROOT / "docs" / "benchmarks" / drawn.name).read_bytes()
