"""The model card of an export: its code must load and run the kind of model that it stands beside."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest

import glassgpt as gg

SETTINGS = {
    "model.n_layer": 1, "model.n_head": 2, "model.n_embd": 16, "model.block_size": 16, "schedule.warmup_steps": 1,
    "training.batch_tokens": 64, "training.max_steps": 1, "machine.device": "cpu", "evaluation.tokens": 100,
}  # fmt: skip


@pytest.mark.parametrize(
    ("recipe", "task"),
    [("char-tiny", "text-generation"), ("bert-tiny", "fill-mask"), ("reverse-tiny", "text2text-generation")],
)
def test_the_code_of_the_card_runs(recipe: str, task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers")
    monkeypatch.chdir(tmp_path)
    text = "a source and more words for a small model, " * 20
    run = gg.train(recipe, text=text, run=tmp_path / "run", settings=SETTINGS, listener=gg.Listener())
    gg.export_hf(run, Path("out"))
    card = Path("out/README.md").read_text(encoding="utf-8")
    assert f"pipeline_tag: {task}\n" in card
    code = re.search("```python\n(.*?)```", card, re.DOTALL)
    assert code
    told = io.StringIO()
    with contextlib.redirect_stdout(told):
        exec(code[1], {})
    if recipe == "reverse-tiny":  # over there, max_length counts the token with which a target starts
        written = told.getvalue().removesuffix("\n")
        assert written and run.write_targets(["source"])[0].startswith(written)
