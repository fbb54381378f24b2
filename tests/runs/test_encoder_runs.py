"""A run of an encoder: it is imported and exported, and says in a sentence that it does not write."""

from __future__ import annotations

from html import escape
from pathlib import Path

import pytest
import torch

import glassgpt as gg
from glassgpt.errors import UserError
from glassgpt.inspection.capture import capture
from glassgpt.interop.huggingface_export import write_hf_folder
from glassgpt.models.bert import Bert, BertConfig
from glassgpt.tokenizers.bpe import BPETokenizer

TOKENIZER = BPETokenizer.train("to be or not to be, that is the question\n" * 3, 280, ["<|endoftext|>"])


def test_an_encoder_is_no_writer(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Bert(BertConfig(TOKENIZER.vocab_size, 16, n_layer=1, n_head=2, n_embd=8))
    (tmp_path / "saved").mkdir()
    write_hf_folder(tmp_path / "saved", model, TOKENIZER, "card")
    run = gg.import_hf(tmp_path / "saved", run=tmp_path / "run")
    ids = torch.tensor([TOKENIZER.encode("to be")])
    logits, seen = capture(run.model, ids, ["blocks.0.attn.pattern"])
    assert logits.shape == (1, ids.size(1), TOKENIZER.vocab_size)
    assert float(seen["blocks.0.attn.pattern"][0, 0, 0, -1]) > 0  # the first position attends to the last
    told = "architecture 'bert', which does not predict what comes next"
    for use in (lambda: run.generate("to be"), lambda: run.evaluate(text="to be or not")):
        with pytest.raises(UserError, match=told):
            use()
    view = run.look("to be").guesses()
    assert len(view.guesses.positions) == len(TOKENIZER.encode("to be")) and not view.guesses.hidden
    assert (gg.export_hf(run, tmp_path / "again") / "model.safetensors").read_bytes() == (
        tmp_path / "saved" / "model.safetensors"
    ).read_bytes()


def test_a_pair_in_a_run_of_an_encoder_decoder(text: str, tmp_path: Path) -> None:
    (source := tmp_path / "sentences.txt").write_text(text, encoding="utf-8")
    settings = {
        "model.n_layer": 1, "model.n_head": 2, "model.n_embd": 16, "model.block_size": 16, "schedule.warmup_steps": 1,
        "training.batch_tokens": 64, "training.max_steps": 2, "machine.device": "cpu", "evaluation.tokens": 100,
    }  # fmt: skip
    run = gg.train("reverse-tiny", data=source, run=tmp_path / "run", settings=settings, listener=gg.Listener())
    seen = run.look_pair("home", "emoh")
    assert seen.attention().pattern.shape == (5, 5) and len(seen.losses().losses) == 5
    said = seen.lens(2).answer
    assert said.startswith("At step 2 of the target, after “em”, in ") and "for the source “home”." in said
    assert seen.lens(0).answer.startswith("At step 0 of the target, in ")
    opened = run.look_pair()
    assert opened.source.isalpha()  # the word of the last sample, without what the model wrote
    assert opened.trace.inputs[1:] == run.tokenizer.encode(run.write_targets([opened.source], max_new_tokens=15)[0])
    with pytest.raises(UserError, match="holds an encoder-decoder, which reads a source: use `look_pair`"):
        run.look("home")
    page = (run.folder / "report.html").read_text(encoding="utf-8")
    assert "Where does it look to write each token?" in page and "Whom does each token hear?" not in page
    assert escape(opened.attention().answer) in page


def test_the_report_of_an_encoder_shows_its_attention(text: str, tmp_path: Path) -> None:
    (source := tmp_path / "sentences.txt").write_text(text, encoding="utf-8")
    settings = {
        "model.n_layer": 1, "model.n_head": 2, "model.n_embd": 16, "model.block_size": 32, "schedule.warmup_steps": 1,
        "training.batch_tokens": 64, "training.max_steps": 2, "machine.device": "cpu", "evaluation.tokens": 100,
    }  # fmt: skip
    run = gg.train("bert-tiny", data=source, run=tmp_path / "run", settings=settings, listener=gg.Listener())
    page = (run.folder / "report.html").read_text(encoding="utf-8")
    assert "Whom does each token hear?" in page and "A token sees all tokens, before and after." in page
    assert run.look().text == text[int(0.9 * len(text)) :][:32]  # the beginning of the validation split
    with pytest.raises(UserError, match="holds no encoder-decoder"):
        run.look_pair("home")
