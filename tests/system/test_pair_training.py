"""An encoder-decoder from its recipe to written targets: it trains, goes on exactly, and says what it is not for."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import pytest
from command_line import Command, figures, glassgpt, settings, weights

import glassgpt as gg
from glassgpt.cli import train as verb
from glassgpt.generation.sampling import SamplingConfig

SUMMARY = {
    "run", "steps", "tokens_seen", "train_loss", "val_loss", "best_val_loss", "val_exact", "val_edit_distance",
    "seconds",
}  # fmt: skip
T5 = {"model__architecture": "t5", "model__head_size": 8, "model__n_hidden": 64}
KINDS = {"transformer": {}, "t5": T5}


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text of 240 different words of four letters."""
    path = tmp_path_factory.mktemp("words") / "words.txt"
    vowels, consonants = "aeiou", "bdlmnr"
    made = [a + b + c + d for a in consonants for b in vowels for c in consonants[:4] for d in vowels[:2]]
    path.write_text(" ".join(made), encoding="utf-8")
    return path


def begin(run: Path, words: Path, *options: object, **changes: object) -> list[object]:
    return ["train", "reverse-tiny", "--data", words, "--run", run, *options, *settings(**changes)]


def train(run: Path, words: Path, *options: object, **changes: object) -> None:
    result = glassgpt(*begin(run, words, *options, **changes))
    assert result.code == 0, result.err


@pytest.fixture(scope="module", params=list(KINDS))
def pairs(request: pytest.FixtureRequest, words: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of 40 steps with dropout, of each architecture. Not to be changed."""
    folder = tmp_path_factory.mktemp("runs") / request.param
    train(folder, words, **KINDS[request.param])
    return folder


def changes_of(run: Path) -> dict[str, object]:
    return KINDS[run.name]


def test_it_learns_and_its_figures_are_those_of_targets(pairs: Path) -> None:
    lines = figures(pairs)
    losses = [line["val/loss"] for line in lines if "val/loss" in line]
    assert losses[-1] < losses[0] - 0.5
    validations = [line for line in lines if "val/loss" in line and "final" not in line]
    assert [line["step"] for line in validations] == [0, 10, 20, 30, 40]
    assert all(line["val/pairs"] == 500 // 32 for line in validations)
    final = lines[-1]
    assert final["val/pairs"] == 24 and 0 <= final["val/exact"] <= 1 and final["val/edit_distance"] >= 0
    assert final["tokens_seen"] == 40 * 8 * 5  # 8 rows of 32 positions: pairs of 4 letters and the stop, no padding


def test_json_of_train_eval_and_sample(pairs: Path, words: Path, tmp_path: Path) -> None:
    changes = changes_of(pairs) | {"training__max_steps": 1}
    result = glassgpt(*begin(tmp_path / "run", words, "--json", **changes))
    assert json.loads(result.out).keys() == SUMMARY
    final = figures(pairs)[-1]
    found = json.loads(glassgpt("eval", pairs, "--json").out)
    assert found.keys() == {"val_loss", "exact", "edit_distance", "pairs"} and found["pairs"] == 24
    assert found["val_loss"] == pytest.approx(final["best/val/loss"], abs=1e-5)
    assert json.loads(glassgpt("eval", pairs, "--data", words, "--json").out) == found
    told = glassgpt("eval", pairs).out
    assert "24 pairs of the val split" in told and f"exact          {found['exact']:.2%} of the targets" in told
    lines = glassgpt("sample", pairs, "--prompt", "bala", "--num-samples", 2, "--json").out.splitlines()
    assert [json.loads(line)["prompt"] for line in lines] == ["bala", "bala"]
    greedy = gg.load(pairs).write_targets(["bala"])
    assert [json.loads(line)["text"] for line in lines] == greedy * 2
    assert glassgpt("sample", pairs, "--prompt", "bala").out == greedy[0] + "\n"


def test_the_seed_decides_what_is_drawn(pairs: Path) -> None:
    run, sources, hot = gg.load(pairs), ["bala", "dolo", "mimi"] * 3, SamplingConfig(2.0)
    drawn = run.write_targets(sources, hot, seed=1)
    assert drawn == run.write_targets(sources, hot, seed=1) != run.write_targets(sources, hot, seed=2)
    assert all(len(text) <= 3 for text in run.write_targets(sources, hot, max_new_tokens=3, seed=1))
    options = ["sample", pairs, "--prompt", "bala", "--temperature", 2, "--seed", 5]
    assert glassgpt(*options).out == glassgpt(*options).out


def test_many_sources_are_written_as_each_alone(pairs: Path, tmp_path: Path) -> None:
    run, sources = gg.load(pairs), ["bala", "do", "m", "ballamanda", "ra"] * 20  # more than go through at once
    together = run.write_targets(sources)
    alone = [run.write_targets([source])[0] for source in sources[:5]]
    assert together == alone * 20  # greedy: padding changes no choice of these
    (tmp_path / "prompts.txt").write_text("bala\ndo\n")
    assert glassgpt("sample", pairs, "--prompts", tmp_path / "prompts.txt").out.splitlines() == together[:2]


def test_a_target_stands_in_the_line_of_its_source(pairs: Path, tmp_path: Path) -> None:
    (file := tmp_path / "sources.txt").write_text("bade\n\n  \nlime\n")
    written = glassgpt("sample", pairs, "--prompts", file, "--seed", 1).out.split("\n")
    alone = [glassgpt("sample", pairs, "--prompt", word, "--seed", 1).out for word in ("bade", "lime")]
    assert [written[0] + "\n", written[3] + "\n"] == alone and written[1] == written[2] == written[4] == ""
    file.write_text("\n \n")
    assert "has no prompt: write one a line" in glassgpt("sample", pairs, "--prompts", file).error
    file.write_text("")
    assert "is empty: there is no text in it" in glassgpt("sample", pairs, "--prompts", file).error


def test_a_run_made_longer_equals_one_never_stopped(pairs: Path, words: Path, tmp_path: Path) -> None:
    train(tmp_path / "run", words, "--max-steps", 20, **changes_of(pairs))
    assert glassgpt("train", "--run", tmp_path / "run", "--resume", "--max-steps", 40).code == 0
    assert weights(tmp_path / "run") == weights(pairs) and figures(tmp_path / "run") == figures(pairs)
    samples = [(run / "samples.jsonl").read_bytes() for run in (tmp_path / "run", pairs)]
    assert samples[0] == samples[1]


def test_a_killed_run_equals_one_never_killed(start: type[Command], pairs: Path, words: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = start(*begin(run, words, **changes_of(pairs)))
    command.wait_for("step    17/")
    command.process.kill()
    command.end()
    assert glassgpt("train", "--run", run, "--resume").code == 0
    assert weights(run) == weights(pairs) and figures(run) == figures(pairs)


@pytest.mark.parametrize("architecture", ["transformer", pytest.param("t5", marks=pytest.mark.heavy)])
def test_micro_batches_and_checkpointed_activations_change_only_the_rounding(
    words: Path, tmp_path: Path, architecture: str
) -> None:
    """Words of different lengths: micro-batches have other padding than the whole batch."""
    (tmp_path / "words.txt").write_text(words.read_text() + " " + " ".join("ab" * n + "c" for n in range(1, 14)))
    same = {**KINDS[architecture], "model__dropout": 0.0, "training__max_steps": 10, "evaluation__every": 5}
    ways = {
        "whole": {},
        "parts": {"training__micro_batch": 3},
        "recomputed": {"machine__activation_checkpointing": "true"},
    }
    for name, way in ways.items():
        train(tmp_path / name, tmp_path / "words.txt", **same, **way)
    expected = figures(tmp_path / "whole")
    for name in ("parts", "recomputed"):
        for line, other in zip(figures(tmp_path / name), expected, strict=True):
            assert line == pytest.approx(other, abs=1e-4)


@pytest.mark.parametrize("architecture", list(KINDS))
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_it_trains_in_16_bits(words: Path, tmp_path: Path, dtype: str, architecture: str) -> None:
    way = {"machine__dtype": dtype, "training__max_steps": 2, "evaluation__every": 0}
    train(tmp_path / "run", words, **KINDS[architecture], **way)
    assert all(line["train/loss"] < 6 for line in figures(tmp_path / "run") if "lr" in line)
    assert "skipped" not in figures(tmp_path / "run")[0]


@pytest.mark.parametrize("architecture", list(KINDS))
def test_one_batch_can_be_learned_by_heart(words: Path, tmp_path: Path, architecture: str) -> None:
    options = ["--overfit-batch", "--max-steps", 300, "--set", "optimizer.lr=0.01"]
    small = {**KINDS[architecture], "training__batch_tokens": 128, "model__n_layer": 1, "evaluation__log_every": 100}
    nothing_else = {
        "model__dropout": 0.0,
        "evaluation__every": 0,
        "evaluation__sample_every": 0,
        "checkpoint__every": 0,
    }
    result = glassgpt(*begin(tmp_path / "run", words, *options, **small, **nothing_else))
    assert result.code == 0 and "one batch overfitted: loss" in result.err, result.err[-400:]


@pytest.mark.parametrize("rule", ["tab", "vowels"])
def test_other_rules_train_too(text: str, tmp_path: Path, rule: str) -> None:
    lines = [line for line in text.splitlines() if len(line) < 30][:80]
    (tmp_path / "text.txt").write_text(
        "\n".join(f"{line[:9]}\t{line[9:]}" if rule == "tab" else line for line in lines)
    )
    train(tmp_path / "run", tmp_path / "text.txt", training__max_steps=1, data__pairs=rule)
    assert figures(tmp_path / "run")[-1]["val/pairs"] == 8
    assert gg.load(tmp_path / "run").manifest.pairs == rule


def test_a_bpe_of_its_own_and_text_from_stdin(words: Path, tmp_path: Path, elsewhere: Path) -> None:
    changes = settings(training__max_steps=1, tokenizer__name="bpe", tokenizer__vocab_size=280)
    options = ["train", "reverse-tiny", "--data", "-", "--run", "piped", *changes]
    result = glassgpt(*options, stdin=words.read_bytes())
    assert result.code == 0, result.err
    assert glassgpt("sample", "piped", "--prompt", "bala").code == 0
    assert json.loads(glassgpt("eval", "piped", "--json").out)["pairs"] == 24  # from the cache
    assert glassgpt("train", "--run", "piped", "--resume", "--max-steps", 2).code == 0


def test_another_run_begins_from_its_weights(pairs: Path, words: Path, tmp_path: Path) -> None:
    small = ["--max-steps", 1, "--set", "training.batch_tokens=256", "--set", "evaluation.tokens=500"]
    result = glassgpt("train", "reverse-tiny", "--init-from", pairs, "--data", words, "--run", tmp_path / "run", *small)
    assert result.code == 0, result.err
    before = next(line["val/loss"] for line in figures(tmp_path / "run") if line["step"] == 0)
    assert before == pytest.approx(figures(pairs)[-2]["val/loss"], abs=1e-5)


def test_what_is_not_for_an_encoder_decoder_says_so_in_a_sentence(
    pairs: Path, words: Path, tmp_path: Path, elsewhere: Path
) -> None:
    for options, told in [
        (
            ["run.stage=pretrain"],
            "and 'transformer' is of the kind 'encoder-decoder': train it with --set run.stage=se",
        ),
        (["run.stage=mlm"], "and 'transformer' is of the kind 'encoder-decoder'"),
        (["model.architecture=gpt2"], "of the kind 'encoder-decoder', and 'gpt2' is of the kind 'decoder'"),
        (["tokenizer.special_tokens=[]"], "has no token that ends a target"),
        (["data.pairs=none"], "data.pairs is not set"),
        (["data.pairs=revers"], "unknown data.pairs 'revers': did you mean 'reverse'?"),
        (["data.pairs=tab"], "line 1 of the text is not a pair"),
        (["data.val_fraction=0.999"], "pairs cannot be split into training and validation"),
        (["model.block_size=4"], "the longest source or target has 5 tokens, and model.block_size is 4"),
        (["training.loss_chunk=10"], "training.loss_chunk needs a model that predicts the next token"),
        (["data.document_mask=true"], "data.document_mask needs a model that predicts the next token"),
        (['evaluation.suites=["hellaswag"]'], "evaluation.suites needs a model that predicts the next token"),
    ]:
        chosen = [part for option in options for part in ("--set", option)]
        assert told in glassgpt(*begin(tmp_path / "new", words), *chosen).error
    assert not (tmp_path / "new").exists()
    for arguments, told in [
        (["sample", pairs], "needs a source: give it with --prompt"),
        (
            ["sample", pairs, "--prompt", "ba" * 20],
            "has 41 tokens with the one that ends it, and the model reads 32 at",
        ),
        (["sample", pairs, "--prompt", "bÄ"], "is not in the alphabet"),
        (["sample", pairs, "--prompt", "ba", "--max-new-tokens", 0], "--max-new-tokens 0 is out of range"),
        (["sample", pairs, "--prompt", "ba", "--seed", -1], "seed -1 is out of range"),
        (["sample", pairs, "--prompt", "ba", "--weights", "int8"], "--weights and --draft are for a decoder"),
        (["eval", pairs, "--counting", 0.5], "--stride and --counting need a decoder"),
        (["eval", pairs, "--suite", "hellaswag"], "which writes a target for a source"),
        (["train", "--init-from", pairs, "--data", words, "--run", "x"], "such as reverse-tiny, and --init-from"),
        (["train", "char-tiny", "--init-from", pairs, "--data", words, "--run", "x"], "--set run.stage=seq2seq"),
        (["sample", pairs, "--prompt", "bÄ"], "the source 'bÄ': character"),
    ]:
        assert told in glassgpt(*arguments).error


def test_going_on_checks_what_may_change(pairs: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(pairs, tmp_path / pairs.name))
    more = ["train", "--run", run, "--resume", "--max-steps", 41, "--set"]
    assert "data.pairs was 'reverse' and is now 'vowels'" in glassgpt(*more, "data.pairs=vowels").error
    assert "training.loss_chunk needs a model" in glassgpt(*more, "training.loss_chunk=5").error
    assert figures(run) == figures(pairs)


def test_the_report_the_samples_and_the_table_of_runs(pairs: Path) -> None:
    page = (pairs / "report.html").read_text(encoding="utf-8")
    assert "on 24 pairs" in page and "Exact targets" in page and "Edits per character" in page
    assert "val/pairs" not in page  # a number of pairs is no curve
    samples = [json.loads(line) for line in (pairs / "samples.jsonl").read_text().splitlines()]
    assert [sample["step"] for sample in samples] == [0, 20, 40]
    assert all(len(sample["prompt"].removesuffix(" → ")) == 4 for sample in samples)
    assert len({sample["prompt"] for sample in samples}) == 3  # another source each time
    lines = glassgpt("runs", pairs.parent).out.splitlines()
    assert f"{figures(pairs)[-1]['val/loss']:.4f}" in next(line for line in lines if line.startswith(pairs.name))


def test_the_doctor_examines_it(pairs: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(pairs, tmp_path / pairs.name))
    result = glassgpt("doctor", run, "--json")
    diagnosis = json.loads(result.out)
    findings = {finding["name"]: finding for finding in diagnosis["findings"]}
    checks = ["targets", "overlap", "no view of the future", "sees its source", "gradients", "one batch by heart"]
    assert [findings[name]["status"] for name in checks] == ["passed"] * len(checks)
    assert "beyond counting" in findings
    assert "<h2>Is this normal?</h2>" in (run / "report.html").read_text(encoding="utf-8")


def test_its_pairs_are_listed_described_and_verified(pairs: Path) -> None:
    manifest = gg.load(pairs).manifest
    listed = glassgpt("data", "list").out
    assert any(line.startswith(manifest.key[:8]) and "words.txt" in line for line in listed.splitlines())
    described = json.loads(glassgpt("data", "info", manifest.key, "--json").out)
    assert (described["pairs"], described["train"]["documents"], described["val"]["documents"]) == ("reverse", 216, 24)
    verified = glassgpt("data", "verify", manifest.key)
    assert verified.code == 0 and "whole" in verified.out


def test_a_run_as_an_object(pairs: Path, words: Path) -> None:
    run = gg.load(pairs)
    assert run.evaluate_pairs(split="train").pairs == 216
    assert run.evaluate_pairs(str(words)) == run.evaluate_pairs()
    for use in (lambda: run.generate("bala"), lambda: run.evaluate(), lambda: run.evaluate_masked(), lambda: run.model):
        with pytest.raises(gg.UserError):
            use()
    assert "reverse" not in repr(run) and "parameters" in repr(run)


def test_minutes_are_kept_with_its_recipe(words: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The size is that of the recipe; nothing is said of counting, which predicts no targets."""
    monkeypatch.setattr(verb, "STARTED", time.monotonic())  # not that of the process that runs all tests
    sizes = ["--set", "model.n_embd=16", "--set", "model.n_head=2", "--set", "model.n_layer=1"]
    options = ["train", "reverse-tiny", "--data", words, "--minutes", 0.1, "--run", tmp_path / "run", *sizes]
    result = glassgpt(*options)
    assert result.code == 0, result.err
    assert "plan for 0.1 min: 1 block of 16 channels" in result.err and "counting rows" not in result.err
