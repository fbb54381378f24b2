"""No verb replaces a file that it did not write, nor writes into a folder that is no run, unless it is told to."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from command_line import Command, contents, glassgpt
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

import glassgpt as gg
from glassgpt.errors import UserError
from glassgpt.ownership import HTML_MARK, RUN_FILES, check_output, is_run_folder, split_runs
from glassgpt.report.daybook import NOTES
from glassgpt.report.diagnosis import DIAGNOSIS
from glassgpt.runs.origin import ORIGIN
from glassgpt.runs.publisher import FILE

THESIS = "years of work"
SITE = 'baseURL = "https://example.org"\ntitle = "A site"\n[params]\nmodel = "x"\n'
BENCH = ["bench", "tricks", "--data", "text.txt", "--steps", "3", "--rounds", "1", "--device", "cpu"]


@pytest.fixture
def two_runs(elsewhere: Path, trained: Path) -> Path:
    """A folder with the runs a and b, a text, and files of the user's with the names that verbs give."""
    for name in ("a", "b"):
        shutil.copytree(trained, Path("runs") / name)
    Path("text.txt").write_text("A text of some length, to train on. " * 200)
    for name in ("thesis.txt", "comparison.html", "log.html", "tricks.svg"):
        Path(name).write_text(THESIS)
    Path("out").mkdir()
    Path("out/ladder.svg").write_text(THESIS)
    return elsewhere


@pytest.mark.parametrize(
    "command",
    [
        ["report", "a", "b", "--out", "thesis.txt"],
        ["report", "a", "b"],
        ["report", "--since", "2020-01-01"],
        ["report", "--since", "2020-01-01", "--out", "thesis.txt"],
        ["report", "a", "b", "--out", "runs/a/config.toml"],
        ["report", "a", "b", "--out", "runs/a/config.toml", "--overwrite"],
        ["report", "a", "b", "--out", "runs/a/notes.jsonl"],
        ["report", "a", "b", "--out", "runs/a/checkpoints/page.html"],
        ["report", "a", "b", "--out", "runs"],
        [*BENCH, "--out", "thesis.txt"],
        BENCH,
        [*BENCH, "--out", "runs/a/tokenizer.json", "--overwrite"],
        ["ladder", "--data", "text.txt", "--section", "1", "--steps", "1", "--seeds", "1", "--out", "out"],
        ["ladder", "--data", "text.txt", "--section", "1", "--steps", "1", "--seeds", "1", "--out", "runs/a"],
        ["tokenizer", "train", "--data", "text.txt", "--out", "thesis.txt", "--type", "char"],
        ["tokenizer", "train", "--data", "text.txt", "--out", "runs/a/tokenizer.json", "--overwrite"],
        ["train", "char-tiny", "--data", "text.txt", "--run", "./out", "--overwrite"],
        ["export", "a", "--out", "out", "--overwrite"],
        ["export", "a", "--out", "runs/b", "--overwrite"],
        ["data", "prepare", "text.txt", "--out", "runs/a", "--tokenizer", "bpe"],
    ],
)
def test_what_is_not_ours_stays(two_runs: Path, command: list[str]) -> None:
    before = contents(Path())
    assert glassgpt(*command).error
    assert contents(Path()) == before


def test_a_page_of_ours_is_written_again_and_another_file_with_overwrite(two_runs: Path) -> None:
    assert glassgpt("report", "a", "b", "--out", "page.html").code == 0
    assert glassgpt("report", "a", "b", "--out", "page.html").code == 0
    assert glassgpt("report", "a", "b", "--out", "runs/a/page.html").code == 0
    assert "exists: choose another name" in glassgpt("report", "a", "b").error
    assert glassgpt("report", "a", "b", "--overwrite").code == 0
    assert HTML_MARK in Path("comparison.html").read_text()


def test_an_output_that_is_no_file_is_refused(two_runs: Path) -> None:
    Path("dangling").symlink_to("nowhere")
    with pytest.raises(UserError, match="dangling exists"):
        check_output(Path("dangling"), overwrite=False)
    for overwrite in (True, False):
        with pytest.raises(UserError, match="is not a regular file"):
            check_output(Path("/dev/null"), overwrite)
        with pytest.raises(UserError, match=r"config\.toml is a part of the run"):
            Path("link").unlink(missing_ok=True)
            Path("link").symlink_to("runs/a")
            check_output(Path("link/config.toml"), overwrite)


@pytest.mark.parametrize("verb", [["report"], ["note"], ["sample"], ["eval"], ["doctor"], ["export", "--out", "new"]])
def test_a_site_is_no_run(elsewhere: Path, verb: list[str]) -> None:
    Path("site/checkpoints").mkdir(parents=True)
    Path("site/config.toml").write_text(SITE)
    Path("site/tokenizer.json").write_text('{"model": {}}')
    Path("site/report.html").write_text(THESIS)
    before = contents(Path())
    name, *options = verb
    text = ["text"] if name == "note" else []
    assert "./site is a folder but not a run: a run has" in glassgpt(name, "./site", *text, *options).error
    refused = glassgpt("train", "char-tiny", "--data", "site/config.toml", "--run", "./site", "--overwrite").error
    assert "site exists and is not a run folder" in refused
    assert contents(Path()) == before


def test_a_run_consists_of_files_with_known_names(trained: Path) -> None:
    assert {path.name for path in trained.iterdir()} | {NOTES, DIAGNOSIS, ORIGIN, FILE} <= RUN_FILES


VERB = """
import multiprocessing, subprocess, sys
from glassgpt.cli import main

@main.app.command()
def verb():
    subprocess.run([sys.executable, "-c", "import json, queue, types; print('begun as -c')"], check=True)
    process = multiprocessing.get_context("spawn").Process(target=print, args=("spawned",))
    process.start()
    process.join()

main.main()
"""


def test_processes_of_a_verb_execute_nothing_in_the_current_folder(elsewhere: Path, start: type[Command]) -> None:
    for name in ("json", "pickle", "queue", "types"):
        Path(f"{name}.py").write_text("open('executed', 'w')\n")
    code, out, err = start("verb", program=("-P", "-c", VERB)).end()
    assert (code, out) == (0, "begun as -c\nspawned\n"), err
    assert not Path("executed").exists()


@hypothesis_settings(max_examples=40)
@given(st.binary(max_size=200))
def test_a_folder_is_a_run_only_if_it_says_so(tmp_path_factory: pytest.TempPathFactory, config: bytes) -> None:
    folder = tmp_path_factory.mktemp("folder")
    (folder / "config.toml").write_bytes(config)
    (folder / "tokenizer.json").write_bytes(config)
    (folder / "checkpoints").mkdir()
    assert not is_run_folder(folder)


def test_the_folders_with_a_config_are_runs_or_of_other_programs(elsewhere: Path, trained: Path) -> None:
    for name in ("b", "a"):
        shutil.copytree(trained, Path("runs") / name)
    Path("runs/site").mkdir()
    Path("runs/site/config.toml").write_text(SITE)
    Path("runs/empty").mkdir()
    assert split_runs(Path("runs")) == ([Path("runs/a"), Path("runs/b")], [Path("runs/site")])
    assert split_runs(Path("none")) == ([], [])


def test_training_does_not_take_a_site_for_a_run_of_before(elsewhere: Path, text: str) -> None:
    Path("site").mkdir()
    Path("site/config.toml").write_text(SITE)
    with pytest.raises(UserError, match="site exists and is not a run folder"):
        gg.train(text=text, run="./site", max_steps=1)


def test_a_damaged_config_leaves_it_a_run(run: Path) -> None:
    assert is_run_folder(run)
    (run / "config.toml").write_bytes(b"\xff")
    assert is_run_folder(run)
    (run / "tokenizer.json").unlink()
    assert not is_run_folder(run)
