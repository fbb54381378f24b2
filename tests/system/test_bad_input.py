"""What people type, and the texts they give: every mistake is one clear sentence and exit code 2, and costs nothing."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from command_line import contents, glassgpt, settings

import glassgpt as gg
from glassgpt.files import LOCK
from glassgpt.runs.folder import lock_run

TRAIN = ["train", "--run", "runs/new", *settings(training__max_steps=2)]


@pytest.mark.parametrize(
    ("name", "data", "told"),
    [
        ("empty.txt", b"", ["empty.txt", "empty"]),
        ("latin.txt", "Grüße".encode("latin-1") * 200, ["latin.txt", "UTF-8", "0xfc", "offset 2"]),
        ("picture.png", b"\x89PNG\r\n\x1a\n" + bytes(range(256)), ["picture.png", "0x89", "offset 0"]),
        ("table.db", b"SQLite format 3\0" * 100, ["table.db", "binary", "offset 15"]),
        ("wide.txt", "a text".encode("utf-16") * 100, ["wide.txt", "UTF-16", "convert"]),
        ("cut.txt", "naïve".encode()[:3] + b"\n" + b"text " * 100, ["cut.txt", "UTF-8", "offset 2"]),
        ("one.txt", b"a", ["1 character", "longer text"]),
        ("short.txt", b"Too short for one window.\n", ["too short", "block_size", "32", "longer text"]),
    ],
)
def test_a_text_that_cannot_be_learned_from(elsewhere: Path, name: str, data: bytes, told: list[str]) -> None:
    Path(name).write_bytes(data)
    error = glassgpt(*TRAIN, "--data", name).error
    assert [words for words in told if words not in error] == [], error
    assert list(contents(elsewhere)) == [name]


def test_a_text_that_is_not_there(elsewhere: Path) -> None:
    error = glassgpt(*TRAIN, "--data", "books/missing.txt").error
    assert "no file or folder 'books/missing.txt'" in error
    assert contents(elsewhere) == {}


def test_a_misspelt_name_of_a_text(elsewhere: Path) -> None:
    assert "did you mean 'shakespeare'?" in glassgpt(*TRAIN, "--data", "shakespear").error


@pytest.mark.parametrize("data", [b"", b"\xff\xfe\x00", b"a"])
def test_stdin_that_cannot_be_learned_from(elsewhere: Path, data: bytes) -> None:
    assert glassgpt(*TRAIN, "--data", "-", stdin=data).error
    assert contents(elsewhere) == {}


def test_a_validation_text_of_one_token(elsewhere: Path, text_file: Path) -> None:
    error = glassgpt(*TRAIN, "--data", text_file, "--set", "data.val_fraction=0.00005").error
    assert "validation" in error
    assert "val_fraction" in error
    assert contents(elsewhere) == {}


def test_a_validation_text_shorter_than_one_window_is_enough(elsewhere: Path, text_file: Path) -> None:
    result = glassgpt(*TRAIN, "--data", text_file, "--set", "data.val_fraction=0.0005", "--json")
    assert result.code == 0, result.err
    assert '"val_loss"' in result.out


def test_a_folder_without_texts(elsewhere: Path) -> None:
    Path("texts").mkdir()
    Path("texts/picture.png").write_bytes(b"\x89PNG\0")
    error = glassgpt(*TRAIN, "--data", "texts").error
    assert "texts" in error
    assert "no text" in error


def test_a_named_pipe_nobody_writes_to(elsewhere: Path) -> None:
    os.mkfifo("pipe")
    error = glassgpt(*TRAIN, "--data", "pipe").error
    assert "pipe" in error


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/null"])
def test_a_device_is_no_text(elsewhere: Path, device: str) -> None:
    error = glassgpt(*TRAIN, "--data", device).error
    assert device in error
    assert contents(elsewhere) == {}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["char-tinny"], ["recipe", "char-tinny", "'char-tiny'"]),
        (["missing.toml"], ["missing.toml", "No such file"]),
        (["--set", "model.n_heads=4"], ["model.n_heads", "'model.n_head'"]),
        (["--set", "modle.n_head=4"], ["section", "modle", "'model'"]),
        (["--set", "n_head=4"], ["n_head=4", "section.field=value"]),
        (["--set", "model.n_head"], ["model.n_head", "section.field=value"]),
        (["--set", "="], ["section.field=value"]),
        (["--set", "model.n_head=four"], ["model.n_head", "four", "integer"]),
        (["--set", "model.n_head=2.5"], ["model.n_head", "2.5", "integer"]),
        (["--set", "model.n_head="], ["model.n_head", "integer"]),
        (["--set", "model.n_head=true"], ["model.n_head", "True", "integer"]),
        (["--set", "model.n_head=[1, 2]"], ["model.n_head", "integer"]),
        (["--set", "machine.compile=1"], ["machine.compile", "boolean"]),
        (["--set", "optimizer.lr=2020-01-01"], ["optimizer.lr"]),
        (["--set", "model.n_embd=30", "--set", "model.n_head=4"], ["n_embd", "30", "n_head", "4"]),
        (["--set", "model.n_head=0"], ["n_head", "0", "at least 1"]),
        (["--set", "model.n_layer=-1"], ["n_layer", "-1", "at least 1"]),
        (["--set", "model.block_size=0"], ["block_size", "0", "at least 1"]),
        (["--set", "model.dropout=1.5"], ["dropout", "1.5"]),
        (["--set", "model.dropout=nan"], ["dropout", "nan"]),
        (["--set", "model.vocab_size=3"], ["vocab_size", "3", "tokenizer"]),
        (["--set", "model.architecture=gpt9"], ["architecture", "gpt9", "Known: "]),
        (["--set", "optimizer.lr=nan"], ["optimizer.lr", "nan"]),
        (["--set", "optimizer.lr=inf"], ["optimizer.lr", "inf"]),
        (["--set", "optimizer.lr=-1"], ["optimizer.lr", "-1"]),
        (["--set", "optimizer.beta2=1.0"], ["optimizer.beta2", "1.0"]),
        (["--set", "optimizer.name=sgd"], ["optimizer.name", "sgd", "adamw"]),
        (["--set", "schedule.min_lr=nan"], ["schedule.min_lr", "nan"]),
        (["--set", "schedule.min_lr=1.0"], ["schedule.min_lr", "1.0", "optimizer.lr"]),
        (["--set", "schedule.name=straight"], ["schedule.name", "straight", "cosine"]),
        (["--set", "training.grad_clip=nan"], ["training.grad_clip", "nan"]),
        (["--set", "training.batch_tokens=33"], ["batch_tokens", "33", "block_size", "32"]),
        (["--set", "training.batch_tokens=8"], ["batch_tokens", "8", "block_size", "32"]),
        (["--set", "data.val_fraction=1.0"], ["val_fraction", "1.0"]),
        (["--set", "data.val_fraction=nan"], ["val_fraction", "nan"]),
        (["--set", "tokenizer.name=chars"], ["tokenizer", "chars", "'char'"]),
        (["--set", "tokenizer.name=missing.json"], ["missing.json"]),
        (["--device", "gpu"], ["device", "gpu", "cpu"]),
        (["--device", "cuda:99"], ["cuda:99"]),
        (["--device", "cuda:²"], ["device 'cuda:²'"]),
        (["--device", "cuda:" + "9" * 5000], ["device 'cuda:9"]),
        (["--dtype", "bfloat"], ["dtype", "bfloat", "'bfloat16'"]),
        (["--max-steps", "0"], ["max_steps", "0", "at least 1"]),
        (["--max-steps", "-5"], ["max_steps", "-5", "at least 1"]),
        (["--seed", "-1"], ["seed", "-1", "at least 0"]),
        (["--seed", str(2**70)], ["seed", str(2**70)]),
        (["--set", f"model.n_embd={2**50}"], ["memory", "n_embd"]),
        (["--resume", "--overwrite"], ["--resume", "--overwrite"]),
    ],
)
def test_train_options(elsewhere: Path, text_file: Path, arguments: list[str], told: list[str]) -> None:
    error = glassgpt(*TRAIN, "--data", text_file, *arguments).error
    assert [words for words in told if words not in error] == [], error
    assert contents(elsewhere) == {}


@pytest.mark.parametrize("option", ["--max-steps", "--seed"])
def test_train_options_that_are_no_numbers(elsewhere: Path, option: str) -> None:
    error = glassgpt(*TRAIN, option, "many").error
    assert option in error
    assert "integer" in error


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--temperature", "-1"], ["temperature", "-1", "at least 0"]),
        (["--temperature", "nan"], ["temperature", "nan"]),
        (["--temperature", "inf"], ["temperature", "inf"]),
        (["--top-k", "0"], ["top-k", "0", "at least 1"]),
        (["--top-p", "2"], ["top-p", "2", "at most 1"]),
        (["--top-p", "0"], ["top-p", "0", "above 0"]),
        (["--top-p", "nan"], ["top-p", "nan"]),
        (["--max-new-tokens", "0"], ["max-new-tokens", "0", "at least 1"]),
        (["--num-samples", "0"], ["num-samples", "0", "at least 1"]),
        (["--seed", "-1"], ["seed", "-1", "at least 0"]),
        (["--seed", str(2**70)], ["seed", str(2**70)]),
        (["--prompt", "ça va"], ["'ç'", "U+00E7", "position 0"]),
        (["--prompt", "the cat 🙂"], ["'🙂'", "U+1F642", "position 8"]),
        (["--prompt", "lone \udcff"], ["U+DCFF", "position 5"]),
        (["--checkpoint", "999"], ["999", "best, last, 0"]),
        (["--checkpoint", "-1"], ["-1", "best, last, 0"]),
        (["--checkpoint", "²"], ["²", "best, last, 0"]),
        (["--checkpoint", "9" * 5000], ["has no checkpoint", "best, last, 0"]),
        (["--checkpoint", "bset"], ["bset", "best, last, 0"]),
        (["--device", "gpu"], ["device", "gpu", "cpu"]),
    ],
)
def test_sample_options(trained: Path, arguments: list[str], told: list[str]) -> None:
    before = contents(trained)
    error = glassgpt("sample", trained, *arguments).error
    assert [words for words in told if words not in error] == [], error
    assert contents(trained) == before


@pytest.mark.parametrize(
    ("content", "name", "told"),
    [
        ("", "a.txt", "is empty"),
        (" \n\n", "a.txt", "has no prompt: write one a line"),
        ('{"prompt": "the"}\n[1]', "a.jsonl", "a.jsonl, line 2 is not a JSON object with a text"),
        ('{"text": "the"}', "a.jsonl", "a.jsonl, line 1 is not"),
        ('{"prompt": 3}', "a.jsonl", "a.jsonl, line 1 is not"),
        ("the\nça", "a.txt", "'ç'"),
        (None, "a.txt", "a.txt"),
    ],
)
def test_prompts_that_cannot_be_read(trained: Path, tmp_path: Path, content: str | None, name: str, told: str) -> None:
    if content is not None:
        (tmp_path / name).write_text(content, encoding="utf-8")
    assert told in glassgpt("sample", trained, "--prompts", tmp_path / name, "--max-new-tokens", 2).error


def test_prompts_from_stdin_and_beside_a_prompt(trained: Path) -> None:
    out = glassgpt("sample", trained, "--prompts", "-", "--json", "--max-new-tokens", 2, stdin=b"the\na\n").out
    assert [json.loads(line)["prompt"] for line in out.splitlines()] == ["the", "a"]
    assert "exclude each other" in glassgpt("sample", trained, "--prompts", "-", "--prompt", "a", stdin=b"a").error
    asked = ["--prompts", "-", "--num-samples", 1_000_000]
    assert "2 prompts x 1,000,000 samples are more than" in glassgpt("sample", trained, *asked, stdin=b"a\nthe").error


def test_a_draft_model_with_another_vocabulary(trained: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    (tmp_path / "digits.txt").write_text("0123456789" * 60, encoding="utf-8")
    made = glassgpt("train", "--data", tmp_path / "digits.txt", "--run", other, *settings(training__max_steps=1))
    assert made.code == 0, made.err
    assert "has another tokenizer than" in glassgpt("sample", trained, "--draft", other).error
    assert "no run 'nobody'" in glassgpt("sample", trained, "--draft", "nobody").error


def test_int8_weights_without_a_kernel(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("glassgpt.generation.packed._cpu_has_int8", lambda: False)
    error = glassgpt("sample", trained, "--weights", "int8").error
    assert error == "this processor has no products of int8 (VNNI or AMX): use float32 weights"


def test_the_coldest_temperature_is_greedy(trained: Path) -> None:
    greedy = glassgpt("sample", trained, "--temperature", 0, "--max-new-tokens", 20)
    assert glassgpt("sample", trained, "--temperature", 1e-45, "--max-new-tokens", 20).out == greedy.out


def test_python_users_get_the_same_sentences(trained: Path, text: str, elsewhere: Path) -> None:
    run = gg.load(trained)
    with pytest.raises(gg.UserError, match="top-k 0"):
        run.generate(top_k=0)
    with pytest.raises(gg.UserError, match="at least 1"):
        run.generate(max_new_tokens=0)
    with pytest.raises(gg.UserError, match="token id 999 is outside the vocabulary"):
        run.tokenizer.decode([999])
    with pytest.raises(gg.UserError, match="token id -1 is outside the vocabulary"):
        run.tokenizer.decode([-1])
    with pytest.raises(gg.UserError, match="empty"):
        gg.train(text="", run="new")
    with pytest.raises(gg.UserError, match=r"did you mean 'training\.seed'"):
        gg.train(text=text, run="new", settings={"training.sead": 1})
    with pytest.raises(gg.UserError, match="unknown section 'seed'"):
        gg.train(text=text, run="new", settings={"seed": 1})
    with pytest.raises(gg.UserError, match="text"):
        gg.train(text=text, data="python-manual", run="new")
    assert contents(elsewhere) == {}


@pytest.mark.parametrize("verb", ["sample", "eval", "report"])
@pytest.mark.parametrize("name", ["", "no-such-run", "a-file", "a-folder", "x" * 5000, "a-file/inside"])
def test_a_run_that_is_none(elsewhere: Path, verb: str, name: str) -> None:
    Path("a-file").write_text("no run")
    Path("a-folder").mkdir()
    assert name[:40] in glassgpt(verb, name).error


def test_a_misspelt_run_is_recognised(elsewhere: Path, text_file: Path) -> None:
    assert (
        glassgpt("train", "char-tiny", "--data", text_file, "--run", "romeo", *settings(training__max_steps=1)).code
        == 0
    )
    assert "did you mean 'romeo'" in glassgpt("sample", "romoe").error
    assert "did you mean 'romeo'" in glassgpt("train", "--run", "romoe", "--resume").error


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("train", "--max-steps", "x"), "'--max-steps': it should be a valid integer (see glassgpt train --help)"),
        (("sample", "a", "--temperature", "x"), "'--temperature': it should be a valid number (see"),
        (
            ("tokenizer", "train", "--data", "a", "--out", "b", "--type", "foo"),
            "'foo' is not one of 'bpe', 'char' (see",
        ),
        (("plan",), "Missing argument 'recipe' (see glassgpt plan --help)"),
    ],
)
def test_a_wrong_option_is_refused_without_words_of_a_library(command: tuple[str, ...], said: str) -> None:
    error = glassgpt(*command).error
    assert said in error
    assert "Value error" not in error and "unable to parse" not in error


def test_the_name_of_a_run_in_another_place_says_what_to_give(elsewhere: Path, trained: Path) -> None:
    shutil.copytree(trained, "runs/romeo")
    for name in ("romeo", "runs/romeo"):
        error = glassgpt("train", name).error
        assert error.startswith(f"'{name}' is a run, not a recipe: go on with --run {name} --resume, or begin")
    for verb in ("info", "verify"):
        assert glassgpt("data", verb, "romeo").error == "'romeo' is the name of a run: give its folder, runs/romeo"
    assert "unknown recipe 'rome'" in glassgpt("train", "rome").error


def test_the_data_of_a_run_that_left_the_cache(
    elsewhere: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GLASSGPT_CACHE", str(tmp_path / "empty"))
    for verb in ("info", "verify"):
        error = glassgpt("data", verb, trained).error
        assert error == f"the data of {trained} is no longer in the cache: `glassgpt eval {trained}` prepares it again"
    assert glassgpt("eval", trained).code == 0
    assert glassgpt("data", "info", trained).code == 0


@pytest.mark.parametrize("name", ["", ".", "..", "./", "../", "a-file", "./a-file", "a-file/inside", "x" * 300])
@pytest.mark.parametrize("option", [[], ["--overwrite"], ["--resume"]])
def test_a_place_where_no_run_can_be(elsewhere: Path, text_file: Path, name: str, option: list[str]) -> None:
    Path("a-file").write_text("precious")
    Path("runs").mkdir()
    Path("runs/a-file").write_text("precious too")
    before = contents(elsewhere)
    options = ["--data", text_file, "--run", name, *option, *settings(training__max_steps=1)]
    assert glassgpt("train", *options).error
    assert contents(elsewhere) == before


@pytest.mark.parametrize("name", ["", ".", "..", "./", "../"])
def test_a_run_without_a_name_of_its_own(elsewhere: Path, text_file: Path, name: str) -> None:
    """Where nothing is in the way yet, the run would become the folder in which runs live."""
    options = ["--data", text_file, "--run", name, *settings(training__max_steps=1)]
    assert glassgpt("train", *options).error
    assert contents(elsewhere.parent) == {}


@pytest.mark.parametrize("option", [[], ["--overwrite"], ["--resume"]])
@pytest.mark.parametrize("files", [["thesis.txt"], ["config.toml", "thesis.txt"], ["config.toml"]])
def test_a_folder_of_something_else_is_never_touched(
    elsewhere: Path, text_file: Path, option: list[str], files: list[str]
) -> None:
    """`config.toml` is the name of many a program's settings; it alone does not make a folder a run."""
    Path("precious").mkdir()
    for name in files:
        Path("precious", name).write_text('title = "mine"\n')
    before = contents(elsewhere)
    options = ["--data", text_file, "--run", "./precious", *option, *settings(training__max_steps=1)]
    assert "precious" in glassgpt("train", *options).error
    assert contents(elsewhere) == before


def test_resume_without_a_name_asks_for_it(elsewhere: Path) -> None:
    assert "--run" in glassgpt("train", "--resume").error


def test_a_recipe_of_ones_own_with_mistakes(elsewhere: Path, text_file: Path) -> None:
    for name, recipe, told in [
        ("broken.toml", "[model\n", "broken.toml"),
        ("latin.toml", "# caf\xe9\n", "latin.toml"),
        ("flat.toml", "model = 3\n", "model"),
        ("wrong.toml", "[model]\nlayers = 3\n", "layers"),
    ]:
        Path(name).write_bytes(recipe.encode("latin-1"))
        for extra in ([], ["--overfit-batch"], ["--set", "model.n_layer=1"]):
            assert told in glassgpt("train", name, "--data", text_file, "--run", "new", *extra).error
    assert not Path("runs").exists()


def test_a_cache_that_cannot_be_written(elsewhere: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("a-file").write_text("no folder")
    Path("new.txt").write_text(text + "A text that no cache has seen.\n")
    monkeypatch.setenv("GLASSGPT_CACHE", str(elsewhere / "a-file" / "cache"))
    assert "GLASSGPT_CACHE" in glassgpt(*TRAIN, "--data", "new.txt").error
    assert not Path("runs").exists()


def test_an_unknown_verb_and_an_unknown_option(elsewhere: Path) -> None:
    for arguments, told in [
        (["trian"], "trian"),
        (["train", "--lr", "1"], "--lr"),
        (["sample"], "RUN"),
        (["eval", "x", "--split", "test"], "--split"),
    ]:
        assert told.lower() in glassgpt(*arguments).error.lower()


@pytest.mark.parametrize(
    ("recipe", "sentence"),
    [
        ("char-tiny", "data.document_mask = true: the tokenizer 'char' has neither <|endoftext|> nor a bos_token"),
        ("decoder.toml", "'decoder' does not support document masks"),
    ],
)
def test_documents_that_cannot_be_kept_apart(elsewhere: Path, text_file: Path, recipe: str, sentence: str) -> None:
    Path("decoder.toml").write_text('[model]\narchitecture = "decoder"\n', encoding="utf-8")
    refused = glassgpt("train", recipe, "--data", text_file, *settings(data__document_mask="true"))
    assert sentence in refused.error


def test_one_run_by_two_names_is_locked_once(elsewhere: Path, tmp_path: Path) -> None:
    (tmp_path / "other").symlink_to(elsewhere)
    with (
        lock_run(elsewhere / "run"),
        pytest.raises(gg.UserError, match="another process is training"),
        lock_run(tmp_path / "other" / "run"),
    ):
        pass


def test_a_lock_that_cannot_be_taken(elsewhere: Path) -> None:
    Path("a-file").write_text("in the way")
    with pytest.raises(gg.UserError, match=r"cannot lock .*a-file: File exists"), lock_run(Path("a-file/run")):
        pass


def test_a_run_is_locked_whatever_the_folder_for_temporary_files(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with lock_run(run), lock_run(run.with_name("another")):
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "another"))
        with pytest.raises(gg.UserError, match="another process is training"), lock_run(run):
            pass
    with lock_run(run):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert not list(run.rglob(".*"))


def test_a_run_is_locked_for_those_who_see_it_at_another_place(run: Path) -> None:
    """As in a container that mounts nothing but the run: it cannot see a lock beside the folder."""
    moved = run.with_name("mounted")
    with lock_run(run):
        run.rename(moved)
        with pytest.raises(gg.UserError, match="another process is training"), lock_run(moved):
            pass
        moved.rename(run)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_run_is_locked_inside_from_its_first_session_on(run: Path, text_file: Path, overwrite: bool) -> None:
    folder = run if overwrite else run.with_name("new")
    seen: list[bool] = []

    class Watch(gg.Listener):
        def stepped(self, state: object, record: object) -> None:
            seen.append((folder / LOCK).exists())

    gg.train(
        data=str(text_file), run=folder, overwrite=overwrite, max_steps=2, listener=Watch(), overrides=settings()[1::2]
    )
    assert seen == [True, True]
    assert not list(folder.rglob(".*"))


@pytest.mark.parametrize("overwrite", [[], ["--overwrite"]])
def test_no_run_is_made_inside_another(run: Path, text_file: Path, overwrite: list[str]) -> None:
    before = contents(run)
    for inner in ("inner", "checkpoints", "checkpoints/inner"):
        error = glassgpt("train", "char-tiny", "--data", text_file, "--run", run / inner, *settings(), *overwrite).error
        assert f"lies inside the run {run}" in error
    assert contents(run) == before


def test_a_run_is_compared_with_itself_by_mistake_alone(run: Path, elsewhere: Path) -> None:
    assert f"{run} is named twice" in glassgpt("report", run, run).error
    assert contents(elsewhere) == {}


@pytest.mark.parametrize("name", ["nowhere/../mine", "mine/nowhere/../../mine"])
def test_a_path_through_a_folder_that_is_not_there_replaces_nothing(elsewhere: Path, trained: Path, name: str) -> None:
    Path("mine").mkdir()
    Path("mine/thesis.txt").write_text("years of work", encoding="utf-8")
    for arguments in (
        ["train", "char-tiny", "--data", "mine/thesis.txt", *settings(), "--run"],
        ["export", trained, "--out"],
    ):
        assert glassgpt(*arguments, name).code == 2
        assert contents(Path("mine")).keys() >= {"thesis.txt"}


def test_a_note_that_is_no_text_is_refused(run: Path) -> None:
    assert "lone surrogate" in glassgpt("note", run, "\udcff bad").error
    assert not (run / "notes.jsonl").exists()


def test_a_picture_in_the_place_of_a_folder_is_refused_before_measuring(elsewhere: Path) -> None:
    Path("pictures").mkdir()
    assert "is a folder" in glassgpt("bench", "tricks", "--out", "pictures").error


def test_a_trick_of_an_unknown_name_is_refused(elsewhere: Path) -> None:
    assert "unknown trick 'compil': did you mean 'compile'?" in glassgpt("bench", "tricks", "--only", "compil").error


def test_one_set_option_sets_one_field(elsewhere: Path, text_file: Path) -> None:
    refused = glassgpt(
        "train", "char-tiny", "--data", text_file, "--run", "x", "--set", "model.n_layer=1\noptimizer.lr=9"
    ).error
    assert "has several lines: give each field an option of its own" in refused


@pytest.mark.parametrize("value", ["inf", "nan", "-1.0"])
def test_a_learning_rate_that_is_no_number_to_train_with(elsewhere: Path, text_file: Path, value: str) -> None:
    refused = glassgpt("train", "char-tiny", "--data", text_file, "--run", "x", "--set", f"optimizer.lr={value}").error
    assert refused == f"optimizer.lr = {value} is out of range: it must be finite and above 0"


def test_a_run_in_the_home_folder(run: Path, tmp_path: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert glassgpt("train", "--run", "~/run", "--resume", "--max-steps", 41).code == 0
    assert glassgpt("note", "~/run", "at home").code == 0
    assert (run / "notes.jsonl").exists()
    assert (
        "there is no home folder for ~nobody-of-this-name/run"
        in glassgpt("train", "--run", "~nobody-of-this-name/run").error
    )
    assert not list(elsewhere.iterdir())


@pytest.mark.parametrize(
    ("command", "written"),
    [
        (["export", "{run}", "--out=~/new"], "new/config.json"),
        (["report", "{run}", "{copy}", "--out=~/new.html"], "new.html"),
        (["tokenizer", "train", "--data", "{text}", "--type", "char", "--out=~/new.json"], "new.json"),
        (["data", "prepare", "{text}", "--tokenizer=bpe", "--shard-tokens=400", "--out=~/new"], "new/manifest.json"),
        (["ladder", "--data", "{text}", "--section=1", "--steps=1", "--seeds=1", "--out=~/new"], "new/ladder.json"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_results_in_the_home_folder(
    trained: Path, text_file: Path, tmp_path: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch,
    command: list[str], written: str,
) -> None:  # fmt: skip
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    copy = shutil.copytree(trained, tmp_path / "copy")
    result = glassgpt(*[word.format(run=trained, copy=copy, text=text_file) for word in command])
    assert result.code == 0, result.err
    assert (tmp_path / "home" / written).is_file()
    assert not Path("~").exists()


@pytest.mark.parametrize("verb", ["bench tricks", "report", "export {run}", "ladder", "tokenizer train --data x"])
def test_there_is_no_home_of_an_unknown_user(elsewhere: Path, trained: Path, verb: str) -> None:
    refused = glassgpt(*verb.format(run=trained).split(), "--out=~nobody-of-this-name/new").error
    assert refused == "there is no home folder for ~nobody-of-this-name/new: write the path without ~"
    assert not list(elsewhere.iterdir())


def test_a_run_is_evaluated_on_one_known_split_or_text(trained: Path, text_file: Path) -> None:
    opened = gg.load(trained, device="cpu")
    split: Any = "test"
    with pytest.raises(gg.UserError, match="split = 'test': input should be 'train' or 'val'"):
        opened.evaluate(split=split)
    with pytest.raises(gg.UserError, match="both data and text are given"):
        opened.evaluate(str(text_file), text="a text")
