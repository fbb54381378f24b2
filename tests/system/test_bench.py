"""The benchmark for a GPU runs where there is none, at a tiny size, so that it works when there is one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.heavy
def test_every_item_of_the_gpu_benchmark_runs() -> None:
    options = ["--tiny", "--device", "cpu", "--no-compile", "--micro-batch", "1", "--rounds", "1", "--item", "all"]
    done = subprocess.run(
        [sys.executable, ROOT / "bench" / "gpu_step.py", *options, "--json"],
        capture_output=True, text=True, timeout=300,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = {item.pop("item"): item for item in json.loads(done.stdout)["items"]}
    assert {name for name, item in found.items() if "skipped" in item} == {"documents", "bands"}
    assert all(item["times"] > 0 for item in found.values() if "times" in item)
