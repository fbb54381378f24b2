"""glassgpt train from beginning to end: what it leaves, how it goes on, what it refuses to replace."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import contents, figures, glassgpt, last_checkpoint, settings, weights

import glassgpt as gg
from glassgpt.runs import micro_batch
from glassgpt.runs.config import load_config
from glassgpt.runs.folder import find_run
from glassgpt.runs.session import Session
from glassgpt.training.checkpoint import list_checkpoints
from glassgpt.training.fit import TrainState
from glassgpt.training.metrics import Line
from glassgpt.training.prefetch import Prefetched

SUMMARY = {"run", "steps", "tokens_seen", "train_loss", "val_loss", "best_val_loss", "seconds"}


def test_a_run_folder_holds_everything_that_is_promised(trained: Path) -> None:
    files = set(contents(trained))
    assert files >= {
        "config.toml", "tokenizer.json", "data.json", "machine.json", "metrics.jsonl", "samples.jsonl", "report.html",
        "checkpoints/step-00000000/model.safetensors", "checkpoints/step-00000000/state.json",
        "checkpoints/step-00000040/model.safetensors", "checkpoints/step-00000040/optimizer.safetensors",
    }  # fmt: skip
    assert not [name for name in files if ".tmp" in name or name.endswith((".pt", ".pkl", ".bin"))]


def test_training_learns(trained: Path) -> None:
    losses = [line["val/loss"] for line in figures(trained) if "val/loss" in line]
    assert losses[0] > 3.0  # a fresh model knows nothing: about the logarithm of the alphabet's size
    assert losses[-1] < 2.9  # and 40 steps teach how often each character comes


def test_every_step_has_its_line_and_the_last_line_is_the_end(trained: Path) -> None:
    lines = figures(trained)
    assert [line["step"] for line in lines if "lr" in line] == list(range(1, 41))
    assert [line["step"] for line in lines if "val/loss" in line and "final" not in line] == [0, 10, 20, 30, 40]
    assert [line.get("final", False) for line in lines] == [False] * (len(lines) - 1) + [True]
    assert lines[-1]["tokens_seen"] == 40 * 256


def test_only_an_import_has_no_stage(text_file: Path, tmp_path: Path) -> None:
    options = ["--data", text_file, "--run", tmp_path / "run", *settings(run__stage="none")]
    assert "run.stage = none is for imported runs" in glassgpt("train", *options).error
    assert not (tmp_path / "run").exists()


def test_progress_goes_to_stderr_and_the_end_to_stdout(text_file: Path, tmp_path: Path) -> None:
    result = glassgpt(
        "train", "char-tiny", "--data", text_file, "--run", tmp_path / "run", *settings(training__max_steps=3)
    )
    assert result.code == 0
    for words in (
        "parameters",
        "tokens per step",
        "FLOPs per token",
        "float32",
        "AdamW",
        "step     3/3",
        "loss",
        "eta",
    ):
        assert words in result.err
    for words in ("run folder", "validation loss", "sample", str(tmp_path / "run" / "report.html")):
        assert words in result.out


def test_json_gives_exactly_one_object_on_stdout(text_file: Path, tmp_path: Path) -> None:
    options = ["--data", text_file, "--run", tmp_path / "run", *settings(training__max_steps=3), "--json"]
    summary = json.loads(glassgpt("train", *options).out)
    assert summary.keys() == SUMMARY
    assert (summary["run"], summary["steps"], summary["tokens_seen"]) == (str(tmp_path / "run"), 3, 3 * 256)
    assert 0.0 < summary["best_val_loss"] <= summary["val_loss"]
    assert all(isinstance(summary[name], float) for name in ("train_loss", "val_loss", "seconds"))


def test_the_same_command_gives_the_same_run(trained: Path, text_file: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    assert glassgpt("train", "char-tiny", "--data", text_file, "--run", again, *settings()).code == 0
    assert weights(again) == weights(trained)
    assert figures(again) == figures(trained)
    assert (again / "samples.jsonl").read_bytes() == (trained / "samples.jsonl").read_bytes()


def test_another_seed_gives_another_run(trained: Path, text_file: Path, tmp_path: Path) -> None:
    options = ["--run", tmp_path / "run", "--seed", 7, *settings(training__max_steps=1)]
    assert glassgpt("train", "char-tiny", "--data", text_file, *options).code == 0
    assert figures(tmp_path / "run")[0]["val/loss"] != figures(trained)[0]["val/loss"]


def test_a_run_made_longer_equals_one_never_stopped(trained: Path, text_file: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert glassgpt("train", "char-tiny", "--data", text_file, "--run", run, "--max-steps", 20, *settings()).code == 0
    assert last_checkpoint(run).name == "step-00000020"
    assert glassgpt("train", "--run", run, "--resume", "--max-steps", 40).code == 0
    assert weights(run) == weights(trained)
    assert figures(run) == figures(trained)
    assert (run / "samples.jsonl").read_bytes() == (trained / "samples.jsonl").read_bytes()


def test_a_run_with_muon_resumes_exactly(text_file: Path, tmp_path: Path) -> None:
    options = ["--data", text_file, *settings(optimizer__name="muon", optimizer__lr=0.01)]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    started = glassgpt("train", "--run", whole, *options)
    assert started.code == 0 and "Muon and fused AdamW" in started.err
    assert glassgpt("train", "--run", parts, "--max-steps", 20, *options).code == 0
    assert glassgpt("train", "--run", parts, "--resume", "--max-steps", 40).code == 0
    assert weights(parts) == weights(whole) and figures(parts) == figures(whole)
    refused = glassgpt("train", "--run", parts, "--resume", "--max-steps", 60, "--set", "optimizer.name=adamw")
    assert "optimizer.name was 'muon' and is now 'adamw'" in refused.error
    assert "needs whole matrices" in glassgpt("train", *options, "--parallel", "fsdp").error


class PowerCut(BaseException):
    """Ends a run as a kill does: nothing is saved after it."""


class CutAt(gg.Listener):
    """Cuts the power after a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def stepped(self, state: TrainState, line: Line) -> None:
        if state.step == self.step:
            raise PowerCut


def test_the_best_is_saved_without_the_optimizer_and_a_killed_run_loses_nothing_by_it(
    text_file: Path, tmp_path: Path
) -> None:
    options = settings(evaluation__every=5, checkpoint__every=20, checkpoint__snapshots=0)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert glassgpt("train", "char-tiny", "--data", text_file, "--run", whole, *options).code == 0
    with pytest.raises(PowerCut):
        gg.train("char-tiny", data=str(text_file), run=cut, listener=CutAt(33), overrides=options[1::2])
    found = {checkpoint.step: checkpoint.resumable for checkpoint in list_checkpoints(cut / "checkpoints")}
    assert found == {0: True, 15: False, 20: True, 30: False}  # 30 is the best, 15 was the best before 20
    assert gg.load(cut).step == 30
    resumed = glassgpt("train", "--run", cut, "--resume")
    assert f"resuming {cut} after step 20" in resumed.err
    assert figures(cut) == figures(whole)
    assert weights(cut) == weights(whole)
    assert [path.name for path in sorted((cut / "checkpoints").iterdir())] == [
        path.name for path in sorted((whole / "checkpoints").iterdir())
    ]


def test_looking_more_often_changes_nothing_in_training(trained: Path, text_file: Path, tmp_path: Path) -> None:
    changes = settings(evaluation__every=0, evaluation__sample_every=0, checkpoint__every=0, checkpoint__snapshots=0)
    assert glassgpt("train", "char-tiny", "--data", text_file, "--run", tmp_path / "run", *changes).code == 0
    assert weights(tmp_path / "run") == weights(trained)


def test_micro_batches_change_no_more_than_rounding(trained: Path, text_file: Path, tmp_path: Path) -> None:
    plain = settings(model__dropout=0.0, training__max_steps=5)
    cut = settings(model__dropout=0.0, training__max_steps=5, training__micro_batch=3)  # 8 rows: 3, 3 and 2
    losses = []
    for name, options in (("plain", plain), ("cut", cut)):
        assert glassgpt("train", "char-tiny", "--data", text_file, "--run", tmp_path / name, *options).code == 0
        losses.append([line["train/loss"] for line in figures(tmp_path / name) if "lr" in line])
    assert losses[1] == pytest.approx(losses[0], abs=1e-4)


def test_resuming_a_finished_run_says_so_and_changes_no_figure(run: Path) -> None:
    before = contents(run)
    result = glassgpt("train", "--run", run, "--resume", "--json")
    assert result.code == 0
    assert json.loads(result.out).keys() == SUMMARY
    assert "finished at step 40" in result.err
    assert contents(run) == before


def test_what_only_the_end_of_a_shorter_run_measured_is_forgotten(
    text_file: Path, tmp_path: Path, trained: Path
) -> None:
    run = tmp_path / "run"
    assert glassgpt("train", "char-tiny", "--data", text_file, "--run", run, *settings(), "--max-steps", 35).code == 0
    state = last_checkpoint(run) / "state.json"
    assert json.loads(state.read_text())["score"] is not None
    assert samples(run)[-1].items() >= {"step": 35, "at_end": True}.items()
    assert glassgpt("train", "--run", run, "--resume", "--max-steps", 40).code == 0
    assert json.loads(state.read_text())["score"] is None
    assert weights(run) == weights(trained)
    assert figures(run) == figures(trained)
    assert samples(run) == samples(trained)


def test_a_continued_run_keeps_the_checkpoints_of_one_that_never_ended(text_file: Path, tmp_path: Path) -> None:
    """Ended at 6, which has a score only for that reason, and stopped again in step 7."""
    sizes = {"evaluation__every": 4, "checkpoint__every": 3, "checkpoint__keep_last": 1, "checkpoint__snapshots": 0}
    kept = []
    for run, lengths in ((tmp_path / "ended", (6, 7)), (tmp_path / "whole", (7,))):
        for length in lengths:
            options = settings(**sizes)
            more = ["--resume"] if run.exists() else ["--data", text_file, *options]
            assert glassgpt("train", "--run", run, "--max-steps", length, *more).code == 0
        kept.append({found.step: found.score for found in list_checkpoints(run / "checkpoints")})
    assert kept[0] == kept[1]
    assert 4 in kept[0]


def samples(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "samples.jsonl").read_text(encoding="utf-8").splitlines()]


def test_a_sample_has_the_loss_of_each_of_its_tokens(trained: Path) -> None:
    run, last = gg.load(trained, checkpoint="last"), samples(trained)[-1]
    assert "".join(piece["text"] for piece in last["pieces"]) == last["text"]
    ids = run.tokenizer.encode(last["prompt"] + last["text"])
    losses = []
    for t in range(len(run.tokenizer.encode(last["prompt"])), len(ids)):
        block = run.model.config.block_size
        start = (t - 1) // block * block  # of the window that predicts it
        with torch.no_grad():
            logits = run.model(torch.tensor([ids[start:t]]))[0, -1]
        losses.append(torch.nn.functional.cross_entropy(logits, torch.tensor(ids[t])).item())
    assert [piece["loss"] for piece in last["pieces"]] == pytest.approx(losses, abs=0.006)  # two decimals
    assert "How sure it was of each token" in (trained / "report.html").read_text(encoding="utf-8")


def test_a_run_killed_before_its_last_line_ends_with_the_same_sample(text_file: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert glassgpt("train", "char-tiny", "--data", text_file, "--run", run, *settings(training__max_steps=5)).code == 0
    whole = figures(run), samples(run)
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (run / "metrics.jsonl").write_text("".join(lines[:-1]), encoding="utf-8")
    assert glassgpt("train", "--run", run, "--resume").code == 0
    assert (figures(run), samples(run)) == whole
    assert [line["step"] for line in samples(run)] == [0, 5]


def test_a_figure_is_the_same_wherever_it_is_shown(text_file: Path, tmp_path: Path) -> None:
    """Short runs measure on a part of the validation split while they train, and on the whole of it at the end."""
    options = settings(training__max_steps=12, evaluation__tokens=64)
    told = glassgpt("train", "char-tiny", "--data", text_file, "--run", tmp_path / "run", *options)
    summary = json.loads(glassgpt("train", "--run", tmp_path / "run", "--resume", "--json").out)
    (listed,) = json.loads(glassgpt("runs", tmp_path, "--json").out)["runs"]
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    for name in ("val_loss", "best_val_loss", "train_loss"):
        assert listed[name] == summary[name]
    for label, name in (("Validation loss", "val_loss"), ("Best checkpoint", "best_val_loss")):
        assert f"<dt>{label}</dt><dd>{summary[name]:.4f}<" in page
        assert f"{summary[name]:.4f}" in told.out
    assert f"<b>step 12</b><span>validation loss {summary['val_loss']:.3f}</span>" in page


def test_every_session_of_a_run_is_kept(run: Path) -> None:
    first = json.loads((run / "machine.json").read_text())
    for steps in (41, 42):
        assert glassgpt("train", "--run", run, "--resume", "--max-steps", steps).code == 0
    machine = json.loads((run / "machine.json").read_text())
    assert [session["after_step"] for session in machine.pop("later")] == [40, 41]
    assert machine == first
    assert "after step 41" in (run / "report.html").read_text(encoding="utf-8")


def test_resume_begins_a_run_that_is_not_there_yet(text_file: Path, tmp_path: Path) -> None:
    options = ["--data", text_file, "--run", tmp_path / "new", "--resume", *settings(training__max_steps=2)]
    result = glassgpt("train", *options)
    assert result.code == 0
    assert "beginning it" in result.err


def test_batches_prepared_ahead_change_nothing(
    trained: Path, text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU, and with an interruption."""
    monkeypatch.setattr(Session, "_open_batches", lambda session: Prefetched(session.stage.batches))
    run = tmp_path / "run"
    assert glassgpt("train", "char-tiny", "--data", text_file, "--run", run, "--max-steps", 17, *settings()).code == 0
    assert glassgpt("train", "--run", run, "--resume", "--max-steps", 40).code == 0
    assert weights(run) == weights(trained)
    assert figures(run) == figures(trained)


def test_a_recipe_that_has_gained_padding_resumes_a_run_made_without(text_file: Path, tmp_path: Path) -> None:
    """As the recipes of GPT-3 have: the rows of the embedding are those of the run."""
    recipe, run = tmp_path / "recipe.toml", tmp_path / "run"
    fields = {"architecture": '"gpt3"', "n_layer": 2, "n_head": 2, "n_embd": 16, "block_size": 16}
    training = "[training]\nbatch_tokens = 32\nmax_steps = 1\n[evaluation]\ntokens = 50\nsample_tokens = 2\n"

    def write(**model: object) -> None:
        lines = [f"{name} = {value}\n" for name, value in (fields | model).items()]
        recipe.write_text(f"[model]\n{''.join(lines)}{training}", encoding="utf-8")

    write()
    assert glassgpt("train", recipe, "--data", text_file, "--run", run).code == 0
    write(padded_vocab_size=128)
    assert glassgpt("train", recipe, "--run", run, "--resume", "--max-steps", 2).code == 0
    assert gg.load(run).model.token_embedding.weight.size(0) == gg.load(run).config.model.vocab_size
    refused = glassgpt("train", "--run", run, "--resume", "--max-steps", 3, "--set", "model.padded_vocab_size=128")
    assert "model.padded_vocab_size was 'none' and is now 128" in refused.error


def test_a_run_goes_on_with_smaller_passes(text_file: Path, tmp_path: Path) -> None:
    """As after running out of memory: within rounding what it would have been, which is said and recorded once."""
    run, plain = tmp_path / "run", settings(model__dropout=0.0)
    assert glassgpt("train", "char-tiny", "--data", text_file, "--run", run, *plain, "--max-steps", 20).code == 0
    less = ["--set", "training.micro_batch=3", "--set", "training.loss_chunk=40"]
    result = glassgpt("train", "--run", run, "--resume", "--max-steps", 30, *less)
    assert result.code == 0, result.err
    rest = "changes from none to {} after step 20: from there the run equals one that kept none only within rounding"
    assert f"training.micro_batch {rest.format(3)}, not bit for bit" in result.err
    assert f"training.loss_chunk {rest.format(40)}, not bit for bit" in result.err
    config = load_config(run / "config.toml").training
    assert (config.micro_batch, config.loss_chunk) == (3, 40)
    (later,) = json.loads((run / "machine.json").read_text())["later"]
    assert later["training.micro_batch"] == ["none", 3] and later["after_step"] == 20
    # A recipe, or the whole first command without the two settings, leaves them as they are now.
    result = glassgpt("train", "char-tiny", "--data", text_file, "--run", run, "--resume", *plain, "--max-steps", 40)
    assert result.code == 0, result.err
    assert "within rounding" not in result.err
    assert load_config(run / "config.toml").training.micro_batch == 3
    whole = tmp_path / "whole"
    assert glassgpt("train", "char-tiny", "--data", text_file, "--run", whole, *plain).code == 0
    for name in ("train/loss", "val/loss"):
        ours, theirs = ([line[name] for line in figures(folder) if name in line] for folder in (run, whole))
        assert ours == pytest.approx(theirs, abs=1e-4)


def test_resume_chooses_the_micro_batch_that_fits_now(
    text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was ignored. The first command, given again, keeps what it chose: the run stays the same bit for bit."""
    run = tmp_path / "run"
    begin = ["char-tiny", "--data", text_file, "--run", run, *settings(training__micro_batch="auto")]
    assert glassgpt("train", *begin, "--max-steps", 2).code == 0
    assert load_config(run / "config.toml").training.micro_batch == 8
    monkeypatch.setattr(micro_batch, "largest_micro_batch", lambda *_: 3)  # of less memory
    assert glassgpt("train", *begin, "--resume", "--max-steps", 3).code == 0
    assert load_config(run / "config.toml").training.micro_batch == 8
    less = ["--resume", "--set", "training.micro_batch=auto"]
    result = glassgpt("train", "--run", run, *less, "--max-steps", 4)
    assert "training.micro_batch changes from 8 to 3 after step 3" in result.err
    assert load_config(run / "config.toml").training.micro_batch == 3
    assert "changes from" not in glassgpt("train", "--run", run, *less, "--max-steps", 4).err  # finished


def test_a_path_is_not_the_name_of_another_run(run: Path, elsewhere: Path) -> None:
    """`--run ./x` locked ./x and trained runs/x."""
    shutil.copytree(run, elsewhere / "x")
    shutil.copytree(run, elsewhere / "runs" / "x")
    shutil.copytree(run, elsewhere / "runs" / "ladder" / "s04")
    before = contents(elsewhere / "runs")
    assert glassgpt("train", "--run", "./x", "--resume", "--max-steps", 41).code == 0
    assert contents(elsewhere / "runs") == before
    assert figures(elsewhere / "x")[-1]["step"] == 41
    found = {"x": "runs/x", "./x": "x", "../elsewhere/x": "../elsewhere/x", "runs/x": "runs/x"}
    assert {name: str(find_run(name)) for name in found} == found
    assert find_run("ladder/s04") == Path("runs/ladder/s04")  # there is no such path
    assert glassgpt("train", "--run", "ladder/s04", "--resume", "--max-steps", 41).code == 0
    assert figures(elsewhere / "runs" / "ladder" / "s04")[-1]["step"] == 41
    assert not (elsewhere / "ladder").exists()


def test_resume_may_change_how_the_run_is_watched(run: Path) -> None:
    result = glassgpt(
        "train", "--run", run, "--resume", "--max-steps", 44, "--device", "cpu",
        "--set", "evaluation.every=2", "--set", "evaluation.log_every=2",
    )  # fmt: skip
    assert result.code == 0, result.err
    assert [line["step"] for line in figures(run) if "val/loss" in line and line["step"] > 40] == [42, 44, 44]


def test_a_recipe_does_not_change_when_a_resumed_run_validates(run: Path) -> None:
    """A recipe that leaves it open would have validated an older run at other steps than those it began with."""
    begin = ["char-tiny", *settings(training__max_steps=44)]
    open_again = [*begin[: begin.index("evaluation.every=10") - 1], *begin[begin.index("evaluation.every=10") + 1 :]]
    assert glassgpt("train", *open_again, "--run", run, "--resume").code == 0
    assert load_config(run / "config.toml").evaluation.every == 10


@pytest.mark.parametrize(
    ("change", "before", "now"),
    [
        (["--set", "model.n_embd=64"], "32", "64"),
        (["--set", "optimizer.lr=0.5"], "0.001", "0.5"),
        (["--set", "schedule.name=constant"], "cosine", "constant"),
        (["--set", "training.batch_tokens=512"], "256", "512"),
        (["--set", "data.val_fraction=0.2"], "0.1", "0.2"),
        (["--set", "tokenizer.name=bpe"], "char", "bpe"),
        (["--set", "model.architecture=bigram"], "gpt2", "bigram"),
        (["--data", "python-manual"], "sentences.txt", "python-manual"),
        (["--seed", "8"], "1337", "8"),
        (["--dtype", "bfloat16"], "float32", "bfloat16"),
        (["--overfit-batch"], "False", "True"),
    ],
)
def test_resume_refuses_any_other_change_and_shows_both_values(
    run: Path, change: list[str], before: str, now: str
) -> None:
    untouched = contents(run)
    error = glassgpt("train", "--run", run, "--resume", "--max-steps", 50, *change).error
    assert before in error
    assert now in error
    assert contents(run) == untouched


def test_an_existing_run_is_never_replaced_unasked(run: Path, text_file: Path) -> None:
    before = contents(run)
    error = glassgpt("train", "char-tiny", "--data", text_file, "--run", run, *settings()).error
    assert str(run) in error
    assert "--resume" in error
    assert "--overwrite" in error
    assert contents(run) == before


def test_overwrite_replaces_a_run_and_leaves_nothing_beside_it(run: Path, text_file: Path) -> None:
    options = ["--data", text_file, "--run", run, "--overwrite", *settings(training__max_steps=2)]
    assert glassgpt("train", *options).code == 0
    assert last_checkpoint(run).name == "step-00000002"
    assert figures(run)[-1]["step"] == 2
    assert [path.name for path in run.parent.iterdir()] == ["run"]


def test_overwrite_with_a_mistake_keeps_the_old_run(run: Path, tmp_path: Path) -> None:
    before = contents(run)
    short = tmp_path / "short.txt"
    short.write_text("too short to learn from")
    assert (
        "too short" in glassgpt("train", "char-tiny", "--data", short, "--run", run, "--overwrite", *settings()).error
    )
    assert contents(run) == before


def test_without_a_name_runs_are_named_after_the_recipe(elsewhere: Path, text_file: Path) -> None:
    for _ in range(2):
        assert glassgpt("train", "char-tiny", "--data", text_file, *settings(training__max_steps=1)).code == 0
    assert sorted(path.name for path in Path("runs").iterdir()) == ["char-tiny", "char-tiny-2"]


def test_a_recipe_may_be_a_file_of_ones_own(elsewhere: Path, text_file: Path) -> None:
    recipe = Path("mine.toml")
    shutil.copy(Path(str(glassgpt_recipes())) / "char-tiny.toml", recipe)
    assert glassgpt("train", recipe, "--data", text_file, *settings(training__max_steps=1)).code == 0
    assert Path("runs/mine/config.toml").is_file()


def glassgpt_recipes() -> Path:
    import glassgpt as package

    return Path(package.__file__).parent / "recipes"


def test_text_may_come_from_stdin(text: str, tmp_path: Path, trained: Path) -> None:
    options = ["char-tiny", "--data", "-", "--run", tmp_path / "run", *settings(training__max_steps=2)]
    assert glassgpt("train", *options, stdin=text.encode()).code == 0
    assert figures(tmp_path / "run")[0] == figures(trained)[0]  # the same text, so the same first figure


def test_a_run_from_stdin_resumes_without_it(text: str, tmp_path: Path) -> None:
    options = ["--data", "-", "--run", tmp_path / "run", *settings(training__max_steps=2)]
    assert glassgpt("train", *options, stdin=text.encode()).code == 0
    assert glassgpt("train", "--run", tmp_path / "run", "--resume", "--max-steps", 3).code == 0
    assert last_checkpoint(tmp_path / "run").name == "step-00000003"


def test_a_batch_learned_by_heart_needs_no_further_step(text_file: Path, elsewhere: Path) -> None:
    """Killed between its last step and its last figures."""
    small = settings(model__dropout=0.0, training__batch_tokens=64, model__n_embd=64)
    run = Path("runs/heart")
    options = ["char-tiny", "--data", text_file, "--overfit-batch", *small, "--set", "training.max_steps=1000"]
    assert glassgpt("train", "--run", "heart", *options, "--set", "optimizer.lr=0.01").code == 0
    expected = figures(run)
    assert expected[-1]["step"] < 1000
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (run / "metrics.jsonl").write_text("".join(lines[:-1]), encoding="utf-8")
    assert glassgpt("train", "--run", "heart", "--resume").code == 0
    assert figures(run)[-1] == expected[-1]


def test_overfit_batch_learns_its_batch_by_heart(text_file: Path, elsewhere: Path) -> None:
    small = [
        part for name in ("n_layer=2", "n_head=2", "n_embd=64", "block_size=16") for part in ("--set", f"model.{name}")
    ]
    options = ["char-tiny", "--data", text_file, "--overfit-batch", *small, "--set", "training.batch_tokens=64"]
    result = glassgpt("train", *options, "--set", "optimizer.lr=0.01", "--json")
    assert result.code == 0, result.err
    run = Path("runs/char-tiny-overfit")
    losses = [line["train/loss"] for line in figures(run) if "lr" in line]
    assert losses[-1] < 0.02 < losses[0]
    assert json.loads(result.out)["steps"] == len(losses) < 1000
    assert (run / "report.html").is_file()


def test_an_old_name_is_noted_once_at_the_start_and_on_resume(text_file: Path, tmp_path: Path) -> None:
    run, note = tmp_path / "run", "training.eval_every is now evaluation.every"
    old = ["--set", "training.eval_every=2"]
    begun = glassgpt("train", "char-tiny", "--data", text_file, "--run", run, *settings(training__max_steps=4), *old)
    resumed = glassgpt("train", "--run", run, "--resume", "--max-steps", 6, *old)
    for result in (begun, resumed):
        assert result.code == 0, result.err
        assert result.err.count(note) == 1
    assert [line["step"] for line in figures(run) if "val/loss" in line and "final" not in line] == [0, 2, 4, 6]
