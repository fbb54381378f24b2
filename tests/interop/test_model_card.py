"""The model card of an export: its code must load and run the kind of model that it stands beside."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path
from typing import Any

import pytest

import glassgpt as gg
from glassgpt.data.pair_dataset import encode_source
from glassgpt.data.pairs import Ends
from glassgpt.inspection.guesses import encode_for_encoder

SETTINGS = {
    "model.n_layer": 1, "model.n_head": 2, "model.n_embd": 16, "model.block_size": 16, "schedule.warmup_steps": 1,
    "training.batch_tokens": 64, "training.max_steps": 1, "machine.device": "cpu", "evaluation.tokens": 100,
}  # fmt: skip


def test_a_text_is_framed_over_there_as_in_training(tmp_path: Path) -> None:
    """A source ends with the stop, and BERT's rows have [CLS] and [SEP] around them."""
    transformers = pytest.importorskip("transformers")
    text, frame = "a source and more words, " * 20, {"tokenizer.special_tokens": ["[MASK]", "[CLS]", "[SEP]", "[PAD]"]}
    pairs = gg.train("reverse-tiny", text=text, run=tmp_path / "pairs", settings=SETTINGS, listener=gg.Listener())
    encoder = gg.train("bert-tiny", text=text, run=tmp_path / "bert", settings=SETTINGS | frame, listener=gg.Listener())
    expected = [
        (pairs, encode_source(pairs.tokenizer, Ends.of(pairs.tokenizer), "more").tolist()),
        (encoder, encode_for_encoder(encoder.tokenizer, "more")),
    ]
    for run, ids in expected:
        gg.export_hf(run, out := tmp_path / f"out-{run.folder.name}")
        theirs = transformers.AutoTokenizer.from_pretrained(out)
        assert theirs("more")["input_ids"] == ids
        padded = theirs(["more", "mo"], padding=True)
        assert padded["attention_mask"][1][-2:] == [0, 0]
    assert theirs.convert_tokens_to_ids("[MASK]") == theirs.mask_token_id
    assert theirs("mo[MASK]e")["input_ids"] == encode_for_encoder(encoder.tokenizer, "mo[MASK]e")


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
        exec(code[1], names := dict[str, Any]())
    if recipe == "bert-tiny":
        found = names["find"]("a sour[MASK]e and", top_k=3)
        hidden = run.look("a sour[MASK]e and").guesses(top=3)
        assert [guess["token_str"] for guess in found] == [token["text"] for token in hidden.predictions[0]]
        assert [guess["score"] for guess in found] == pytest.approx(hidden.guesses.probabilities[0].tolist(), rel=1e-4)
    if recipe == "reverse-tiny":  # over there, max_length counts the token with which a target starts
        written = told.getvalue().removesuffix("\n")
        assert written and run.write_targets(["source"])[0].startswith(written)
