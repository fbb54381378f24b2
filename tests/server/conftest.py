"""Two small trained runs, and apps that serve them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="needs the packages of [serve]")

from app_client import PORT, Client

from glassgpt.server.app import build_app
from glassgpt.server.guard import Access
from glassgpt.server.library import Library
from glassgpt.server.workbench import Workbench

SETTINGS = {
    "model.n_layer": 1, "model.n_head": 2, "model.n_embd": 32, "model.block_size": 32, "schedule.warmup_steps": 1,
    "training.batch_tokens": 64, "training.max_steps": 4, "machine.device": "cpu", "evaluation.every": 4,
    "evaluation.tokens": 200, "evaluation.sample_every": 4, "evaluation.sample_tokens": 5, "checkpoint.every": 2,
    "checkpoint.snapshots": 3,
}  # fmt: skip


@pytest.fixture(scope="session")
def trained_runs(text: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two runs of 4 steps: `letters` of characters, and `pairs` of a BPE. Not to be changed."""
    import glassgpt as gg

    root = tmp_path_factory.mktemp("server") / "runs"
    root.mkdir()
    (source := root.parent / "sentences.txt").write_text(text, encoding="utf-8")
    kinds = {"letters": {"tokenizer.name": "char"}, "pairs": {"tokenizer.name": "bpe", "tokenizer.vocab_size": 290}}
    for name, tokenizer in kinds.items():
        gg.train("char-tiny", data=source, run=root / name, settings=SETTINGS | tokenizer, listener=gg.Listener())
    return root


@pytest.fixture
def serve() -> Callable[[Path], Client]:
    """`serve(folder)` is a client of an app over the runs of a folder."""
    return lambda root: Client(build_app(Library([], root), Workbench("cpu"), Access("127.0.0.1", PORT)))


@pytest.fixture
def client(trained_runs: Path, serve: Callable[[Path], Client]) -> Client:
    """A client of an app over the trained runs."""
    return serve(trained_runs)
