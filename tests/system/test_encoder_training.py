"""An encoder from its recipe to its figures: it trains, goes on exactly, and says what it is not for."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from command_line import Command, figures, glassgpt, settings, weights

import glassgpt as gg
from glassgpt.evaluation.masked import MaskedEvaluation

SUMMARY = {"run", "steps", "tokens_seen", "train_loss", "val_loss", "best_val_loss", "val_accuracy", "seconds"}


@pytest.fixture(scope="module")
def encoder(text_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of 40 steps with dropout. Not to be changed."""
    folder = tmp_path_factory.mktemp("runs") / "encoder"
    result = glassgpt("train", "bert-tiny", "--data", text_file, "--run", folder, *settings())
    assert result.code == 0, result.err
    return folder


def train(run: Path, text_file: Path, *options: object, **changes: object) -> None:
    result = glassgpt("train", "bert-tiny", "--data", text_file, "--run", run, *options, *settings(**changes))
    assert result.code == 0, result.err


def test_it_learns_and_its_figures_are_those_of_hidden_tokens(encoder: Path) -> None:
    lines = figures(encoder)
    losses = [line["val/loss"] for line in lines if "val/loss" in line]
    assert losses[0] > 3.0 and losses[-1] < 2.95  # 40 steps teach how often each character comes
    validations = [line for line in lines if "val/loss" in line and "final" not in line]
    assert [line["step"] for line in validations] == [0, 10, 20, 30, 40]
    assert all(line["val/hidden"] == 15 * 5 for line in validations)  # 5 of each 32 tokens, in 15 windows
    assert all(0 <= line["val/accuracy"] <= 1 for line in validations)
    assert all("train/accuracy" in line for line in lines if "lr" in line)
    assert "val/bits_per_byte" not in lines[-1] and lines[-1]["tokens_seen"] == 40 * 256


def test_what_it_prints_names_hidden_tokens(text_file: Path, tmp_path: Path) -> None:
    options = settings(training__max_steps=2, evaluation__every=1)
    result = glassgpt("train", "bert-tiny", "--data", text_file, "--run", tmp_path / "run", *options)
    assert result.code == 0
    assert "15% are hidden" in result.err and "whole validation split, 206 hidden tokens: loss" in result.err
    for start in ("validation loss ", "accuracy ", "run folder ", "report "):
        assert [line for line in result.out.splitlines() if line.startswith(start)]
    assert "nats per hidden token at the end" in result.out and "of the hidden tokens at the end" in result.out
    assert f"look inside      glassgpt look {tmp_path / 'run'}" in result.out and "sample" not in result.out


def test_json_of_train_and_eval(encoder: Path, text_file: Path, tmp_path: Path) -> None:
    changes = settings(training__max_steps=2)
    result = glassgpt("train", "bert-tiny", "--data", text_file, "--run", tmp_path / "run", *changes, "--json")
    assert json.loads(result.out).keys() == SUMMARY
    found = json.loads(glassgpt("eval", encoder, "--json").out)
    assert found.keys() == {"val_loss", "accuracy", "tokens", "most_frequent", "ngram"}
    final = figures(encoder)[-1]
    assert found["val_loss"] == pytest.approx(final["best/val/loss"], abs=1e-6) and found["tokens"] == 206
    assert found["accuracy"] == pytest.approx(final["val/accuracy"]) and found["ngram"] > found["most_frequent"]
    told = glassgpt("eval", encoder).out
    assert f"found          {found['accuracy']:.1%}\n" in told and "206 hidden tokens of the val split" in told
    assert json.loads(glassgpt("eval", encoder, "--data", text_file, "--json").out) == found
    assert "train_loss" in json.loads(glassgpt("eval", encoder, "--split", "train", "--json").out)


def test_a_run_as_an_object(encoder: Path) -> None:
    run = gg.load(encoder)
    result, counting = run.evaluate_masked()
    assert isinstance(result, MaskedEvaluation) and 0 < counting.most_frequent < 1
    assert run.evaluate_masked(text="The cat sat on a mat.\n" * 20)[0].tokens > 0
    with pytest.raises(gg.UserError, match="both data and text"):
        run.evaluate_masked("x", text="y")
    with pytest.raises(gg.UserError, match="holds no encoder-decoder"):
        run.write_targets(["cat"])


def test_a_run_made_longer_equals_one_never_stopped(encoder: Path, text_file: Path, tmp_path: Path) -> None:
    train(tmp_path / "run", text_file, "--max-steps", 20)
    assert glassgpt("train", "--run", tmp_path / "run", "--resume", "--max-steps", 40).code == 0
    assert weights(tmp_path / "run") == weights(encoder) and figures(tmp_path / "run") == figures(encoder)
    samples = [(run / "samples.jsonl").read_bytes() for run in (tmp_path / "run", encoder)]
    assert samples[0] == samples[1]


def test_a_killed_run_equals_one_never_killed(
    start: type[Command], encoder: Path, text_file: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    command = start("train", "bert-tiny", "--data", text_file, "--run", run, *settings())
    command.wait_for("step    17/")
    command.process.kill()
    command.end()
    assert glassgpt("train", "--run", run, "--resume").code == 0
    assert weights(run) == weights(encoder) and figures(run) == figures(encoder)


def test_micro_batches_and_checkpointed_activations_change_only_the_rounding(text_file: Path, tmp_path: Path) -> None:
    same = {"model__dropout": 0.0, "training__max_steps": 10}
    train(tmp_path / "whole", text_file, **same)
    train(tmp_path / "parts", text_file, training__micro_batch=3, **same)
    train(tmp_path / "recomputed", text_file, machine__activation_checkpointing="true", **same)
    expected = figures(tmp_path / "whole")
    for run in ("parts", "recomputed"):
        for line, other in zip(figures(tmp_path / run), expected, strict=True):
            assert line == pytest.approx(other, abs=1e-4)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_it_trains_in_16_bits(text_file: Path, tmp_path: Path, dtype: str) -> None:
    train(tmp_path / "run", text_file, machine__dtype=dtype, training__max_steps=3)
    assert all(line["train/loss"] < 4 for line in figures(tmp_path / "run") if "lr" in line)


def test_the_largest_micro_batch_is_found_for_it(text_file: Path, tmp_path: Path) -> None:
    train(tmp_path / "run", text_file, training__micro_batch="auto", training__max_steps=1)
    assert gg.load(tmp_path / "run").config.training.micro_batch == 8  # all rows of a step fit


def test_one_batch_can_be_learned_by_heart(text_file: Path, tmp_path: Path) -> None:
    options = ["--overfit-batch", "--max-steps", 300, "--set", "optimizer.lr=0.01", "--set", "data.mask_fraction=0.3"]
    sizes = ["--set", "model.n_layer=1", "--set", "model.n_embd=32", "--set", "model.block_size=16"]
    small = ["--set", "training.batch_tokens=64"]
    result = glassgpt("train", "bert-tiny", "--data", text_file, "--run", tmp_path / "run", *options, *sizes, *small)
    assert result.code == 0 and "one batch overfitted: loss" in result.err, result.err[-400:]


def test_another_run_begins_from_its_weights(encoder: Path, text_file: Path, tmp_path: Path) -> None:
    options = ["--init-from", encoder, "--data", text_file, "--run", tmp_path / "run", "--max-steps", 1]
    small = ["--set", "training.batch_tokens=256", "--set", "evaluation.tokens=500"]
    result = glassgpt("train", "bert-tiny", *options, *small)
    assert result.code == 0, result.err
    before = next(line["val/loss"] for line in figures(tmp_path / "run") if line["step"] == 0)
    assert before == pytest.approx(figures(encoder)[-2]["val/loss"], abs=0.1) and before < 3.0


def test_what_is_not_for_an_encoder_says_so_in_a_sentence(
    encoder: Path, text_file: Path, tmp_path: Path, elsewhere: Path
) -> None:
    begin = ["train", "bert-tiny", "--data", text_file, "--run", tmp_path / "new", *settings()]
    for options, told in [
        (["run.stage=pretrain"], "trains a model of the kind 'decoder', and 'bert' is of the kind 'encoder'"),
        (
            ["run.stage=seq2seq", "data.pairs=reverse"],
            "and 'bert' is of the kind 'encoder': train it with --set run.st",
        ),
        (["model.architecture=gpt2"], "of the kind 'encoder', and 'gpt2' is of the kind 'decoder'"),
        (["tokenizer.special_tokens=[]"], "has no mask token"),
        (["data.mask_fraction=1.0"], "data.mask_fraction must lie between 0 and 1"),
        (["training.loss_chunk=10"], "training.loss_chunk needs a model that predicts the next token"),
        (["data.document_mask=true"], "data.document_mask needs a model that predicts the next token"),
        (['evaluation.suites=["hellaswag"]'], "evaluation.suites needs a model that predicts the next token"),
    ]:
        assert told in glassgpt(*begin, *(part for option in options for part in ("--set", option))).error
    assert not (tmp_path / "new").exists()
    for arguments, told in [
        (["sample", encoder], f"to see what it finds, use glassgpt look {encoder} --show guesses"),
        (["eval", encoder, "--stride", 4], "--stride and --counting need a decoder"),
        (["eval", encoder, "--suite", "hellaswag"], "does not predict what comes next"),
        (["train", "--init-from", encoder, "--data", text_file, "--run", "x"], "such as bert-tiny, and --init-from"),
        (["train", "char-tiny", "--init-from", encoder, "--data", text_file, "--run", "x"], "--set run.stage=mlm"),
        (
            ["train", "bert-tiny", "--data", text_file, "--run", "x", "--set", "data.pairs=reverse"],
            "data.pairs is for the stage seq2seq, and this is mlm",
        ),
    ]:
        assert told in glassgpt(*arguments).error


def test_going_on_checks_what_may_change(encoder: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(encoder, tmp_path / "run"))
    more = ["train", "--run", run, "--resume", "--max-steps", 41, "--set"]
    assert "data.mask_fraction was 0.15 and is now 0.5" in glassgpt(*more, "data.mask_fraction=0.5").error
    assert "training.loss_chunk needs a model" in glassgpt(*more, "training.loss_chunk=5").error
    assert "evaluation.suites needs a model" in glassgpt(*more, 'evaluation.suites=["hellaswag"]').error
    assert figures(run) == figures(encoder)


def test_the_report_and_the_table_of_runs(encoder: Path, tmp_path: Path) -> None:
    page = (encoder / "report.html").read_text(encoding="utf-8")
    assert "on 206 hidden tokens" in page and "Validation accuracy" in page and "▢" in page
    assert "val/hidden" not in page  # a number of tokens is no curve
    assert "How sure it was of each token" not in page  # the loss of a hidden token is not that of what was written
    (line,) = [line for line in glassgpt("runs", encoder.parent).out.splitlines() if line.startswith("encoder")]
    assert f"{figures(encoder)[-1]['val/loss']:.4f}" in line


def test_the_doctor_examines_it(encoder: Path, text_file: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(encoder, tmp_path / "run"))
    result = glassgpt("doctor", run, "--json")
    diagnosis = json.loads(result.out)
    findings = {finding["name"]: finding for finding in diagnosis["findings"]}
    assert {"hidden targets", "sees both sides", "one batch by heart", "beyond counting"} <= findings.keys()
    assert "no view of the future" not in findings
    assert findings["hidden targets"]["status"] == findings["sees both sides"]["status"] == "passed"
    assert "<h2>Is this normal?</h2>" in (run / "report.html").read_text(encoding="utf-8")
    decoder = glassgpt("doctor", "bert-tiny", "--data", text_file, "--set", "model.architecture=gpt2")
    assert "'gpt2' is of the kind 'decoder'" in decoder.error


def test_samples_show_what_was_hidden_and_what_was_found(encoder: Path) -> None:
    samples = [json.loads(line) for line in (encoder / "samples.jsonl").read_text().splitlines()]
    assert [sample["step"] for sample in samples] == [0, 20, 40]
    for sample in samples:
        asked = sample["prompt"].removesuffix("\n→\n")
        assert len(asked) == len(sample["text"]) == 32 and asked.count("▢") == 5
        assert all(a in ("▢", b) for a, b in zip(asked, sample["text"], strict=True))


def test_bert_reads_its_frame_around_each_row(text_file: Path, tmp_path: Path) -> None:
    names = '["[CLS]", "[SEP]", "[MASK]"]'
    train(tmp_path / "run", text_file, "--set", f"tokenizer.special_tokens={names}", training__max_steps=2)
    run = gg.load(tmp_path / "run")
    last = figures(tmp_path / "run")[-1]
    assert last["tokens_seen"] == 2 * 256  # what the model reads, the frame included
    windows, rest = divmod(1321, 30)
    assert last["val/hidden"] == windows * round(0.15 * 30) + max(1, round(0.15 * rest))
    assert torch.isfinite(torch.tensor(run.evaluate_masked()[0].loss))


def test_look_asks_about_the_text_and_not_about_what_the_model_found(encoder: Path, text_file: Path) -> None:
    text = text_file.read_text(encoding="utf-8")
    seen = gg.load(encoder).look().text
    assert len(seen) == 32 and seen in text[int(0.9 * len(text)) - 1 :]
