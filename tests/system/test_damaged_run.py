"""What can have happened to a folder on the disk: each damage is named with its file, and nothing more is lost."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import contents, figures, glassgpt, last_checkpoint, settings, weights

import glassgpt as gg
from glassgpt.data.dataset_cache import cached_folder
from glassgpt.data.shards import TokenArray, write_shard
from glassgpt.training import tensor_files
from glassgpt.training.config_formats import FORMAT


def commands(run: Path) -> list[list[object]]:
    """Every use of a run."""
    return [
        ["sample", run, "--checkpoint", "last", "--max-new-tokens", 2],
        ["eval", run, "--checkpoint", "last"],
        ["train", "--run", run, "--resume", "--max-steps", 45],
    ]


def edit(path: Path, **changes: Any) -> None:
    """Changes fields of a JSON file; one that is None is taken out."""
    fields = json.loads(path.read_text(encoding="utf-8")) | changes
    path.write_text(json.dumps({name: value for name, value in fields.items() if value is not None}))


DAMAGE = {
    "empty": lambda data: b"",
    "cut short": lambda data: data[: len(data) // 2],
    "one bit": lambda data: data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 0x80]) + data[len(data) // 2 + 1 :],
    "zeros": lambda data: bytes(len(data)),
    "other": lambda data: b"[1, 2, 3]\n",
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize(
    ("file", "needed_by"),
    [
        ("config.toml", {"sample", "eval", "train"}),
        ("tokenizer.json", {"sample", "eval", "train"}),
        ("data.json", {"eval", "train"}),
        ("checkpoints/step-00000040/model.safetensors", {"sample", "eval", "train"}),
        ("checkpoints/step-00000040/optimizer.safetensors", {"train"}),
        ("checkpoints/step-00000040/state.json", {"sample", "eval", "train"}),
        ("metrics.jsonl", {"train", "report"}),
        ("samples.jsonl", {"train", "report"}),
    ],
)
def test_a_damaged_file_is_named(run: Path, file: str, needed_by: set[str], damage: str) -> None:
    path = run / file
    path.write_bytes(DAMAGE[damage](path.read_bytes()))
    before = contents(run)
    for command in [*commands(run), ["report", run]]:
        if command[0] not in needed_by:
            continue
        if file.endswith(".jsonl") and damage in ("empty", "cut short"):
            continue  # a kill leaves such files; training goes on from what is there
        error = glassgpt(*command).error
        assert path.name in error, error
        assert contents(run) == before


@pytest.mark.parametrize(
    "file",
    ["config.toml", "tokenizer.json", "data.json", "checkpoints/step-00000040/model.safetensors",
     "checkpoints/step-00000040/state.json"],
)  # fmt: skip
def test_a_missing_file_is_named(run: Path, file: str) -> None:
    (run / file).unlink()
    before = contents(run)
    for command in commands(run)[1:]:
        assert Path(file).name in glassgpt(*command).error
        assert contents(run) == before


@pytest.mark.parametrize("name", ["step", "tokens_seen", "seconds", "skipped_in_row", "checksums", "format"])
@pytest.mark.parametrize("value", [None, "many", [1]])
def test_a_state_with_a_wrong_field_is_refused(run: Path, name: str, value: object) -> None:
    edit(last_checkpoint(run) / "state.json", **{name: value})
    before = contents(run)
    assert "state.json" in glassgpt("train", "--run", run, "--resume", "--max-steps", 45).error
    assert contents(run) == before


WRONG_FIELDS = [
    (name, value)
    for name in ("key", "source", "text_sha256", "val_fraction", "tokenizer", "train", "val")
    for value in (None, "other", 5, [1], {})
    if (name, value) not in [("key", "other"), ("source", "other")]  # text there is as good as any
]


@pytest.mark.parametrize(("name", "value"), WRONG_FIELDS)
def test_a_data_manifest_with_a_wrong_field_is_refused(run: Path, name: str, value: object) -> None:
    edit(run / "data.json", **{name: value})
    assert glassgpt("eval", run).error


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("config.toml", lambda text: text.replace(f"format = {FORMAT}", "format = 99")),
        ("tokenizer.json", lambda text: text.replace('"version": 1', '"version": 99')),
        ("data.json", lambda text: text.replace('"version": 1', '"version": 99')),
        ("checkpoints/step-00000040/state.json", lambda text: text.replace('"format": 1', '"format": 99')),
    ],
)
def test_a_folder_of_another_version_says_which(run: Path, file: str, change: Any) -> None:
    path = run / file
    path.write_text(change(path.read_text()))
    before = contents(run)
    error = glassgpt("eval", run).error
    assert path.name in error
    assert "99" in error
    assert "reads" in error
    assert contents(run) == before


def test_sizes_that_do_not_fit_the_weights(run: Path) -> None:
    config = run / "config.toml"
    config.write_text(config.read_text().replace("n_embd = 32", "n_embd = 64"))
    error = glassgpt("sample", run).error
    assert "model.safetensors" in error
    assert "64" in error


def test_a_tokenizer_of_another_run_is_noticed(run: Path) -> None:
    """Of equal size, it would turn every text into nonsense, and nothing would say so."""
    tokenizer = json.loads((run / "tokenizer.json").read_text())
    tokenizer["alphabet"] = tokenizer["alphabet"][::-1]
    (run / "tokenizer.json").write_text(json.dumps(tokenizer))
    for command in commands(run):
        assert "tokenizer" in glassgpt(*command).error


def test_what_a_kill_left_unfinished_is_removed(run: Path) -> None:
    gone = 2**22 + 1  # no process has such a number
    (run / f".glassgpt-new-config.toml-{gone}-0123abcd").write_text("half")
    (run / "checkpoints" / f".glassgpt-new-step-00000041-{gone}-0123abcd").mkdir()
    at_work = run / f".glassgpt-new-report.html-{os.getppid()}-0123abcd"
    at_work.write_text("somebody's at work")
    assert glassgpt("train", "--run", run, "--resume", "--max-steps", 41).code == 0
    assert [path.name for path in run.rglob(".*")] == [at_work.name]


def test_a_run_that_a_killed_overwrite_had_put_aside_comes_back(run: Path) -> None:
    before = contents(run)
    run.rename(run.with_name(f".glassgpt-replaced-run-{2**22 + 1}-0123abcd"))
    assert "exists: go on with --resume" in glassgpt("train", "--run", run, *settings()).error
    assert contents(run) == before
    assert [path.name for path in run.parent.iterdir()] == ["run"]


def test_a_damaged_checkpoint_leaves_the_others_usable(run: Path) -> None:
    (last_checkpoint(run) / "model.safetensors").write_bytes(b"")
    assert glassgpt("sample", run, "--checkpoint", 0, "--max-new-tokens", 2).code == 0


def test_resume_from_the_checkpoint_before_a_damaged_one(run: Path, trained: Path) -> None:
    """As the message says: without the damaged folder, training repeats what was lost."""
    damaged = last_checkpoint(run)
    (damaged / "optimizer.safetensors").write_bytes(b"")
    error = glassgpt("train", "--run", run, "--resume", "--max-steps", 45).error
    assert str(damaged) in error
    assert "remove" in error
    for file in damaged.iterdir():
        file.unlink()
    damaged.rmdir()
    assert glassgpt("train", "--run", run, "--resume").code == 0
    assert weights(run) == weights(trained)


def test_a_last_line_that_a_kill_cut_short_is_no_damage(run: Path, trained: Path) -> None:
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 41, "train/lo')
    assert glassgpt("report", run).code == 0
    assert glassgpt("train", "--run", run, "--resume", "--max-steps", 41).code == 0
    assert [line["step"] for line in figures(run) if "lr" in line] == list(range(1, 42))


def shards(run: Path) -> Path:
    return cached_folder(json.loads((run / "data.json").read_text())["key"])


@pytest.fixture
def own_run(tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run with a cache of its own, whose shards may be damaged, and whose text is gone."""
    monkeypatch.setenv("GLASSGPT_CACHE", str(tmp_path / "cache"))
    options = ["--data", "-", "--run", tmp_path / "own", *settings(training__max_steps=2, evaluation__every=1)]
    assert glassgpt("train", *options, stdin=text.encode()).code == 0
    return tmp_path / "own"


@pytest.mark.parametrize("split", ["train", "val"])
def test_ids_outside_the_vocabulary_are_refused_before_they_count(own_run: Path, split: str) -> None:
    """A shard that is whole by its header, and holds ids that this model does not know."""
    shard = shards(own_run) / f"{split}.shard"
    ids = TokenArray([shard]).slice(0, len(TokenArray([shard])))
    ids[::7] = 999
    write_shard(shard, ids, TokenArray([shard]).dtype)
    before = contents(own_run / "checkpoints" / "step-00000002")
    for command in (
        ["eval", own_run, "--split", split],
        ["train", "--run", own_run, "--resume", "--max-steps", 4, "--set", "evaluation.every=1"],
    ):
        error = glassgpt(*command).error
        assert "999" in error
        assert "data verify" in error
    assert contents(own_run / "checkpoints" / "step-00000002") == before


@pytest.mark.parametrize("damage", ["empty", "cut short", "zeros", "other"])
def test_a_damaged_shard_is_made_again_or_said(own_run: Path, text: str, damage: str) -> None:
    shard = shards(own_run) / "val.shard"
    shard.write_bytes(DAMAGE[damage](shard.read_bytes()))
    assert "stdin" in glassgpt("eval", own_run).error
    assert shard.name in glassgpt("data", "verify", shards(own_run)).err
    assert glassgpt("data", "prepare", "--data", "-", stdin=text.encode()).code == 0
    assert glassgpt("eval", own_run).code == 0


def test_a_shard_of_another_version_is_refused(own_run: Path) -> None:
    shard = shards(own_run) / "val.shard"
    data = shard.read_bytes()
    shard.write_bytes(data[:8] + struct.pack("<I", 99) + data[12:])
    assert "99" in glassgpt("data", "info", shard).error


def half_written(tensors: object, path: Path, metadata: object) -> None:
    """What safetensors does on a full disk: a part of the file, then the system's error."""
    path.write_bytes(bytes(1000))
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


def test_a_full_disk_during_a_save_keeps_what_was_saved_before(
    run: Path, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(run / "checkpoints")
    monkeypatch.setattr(tensor_files, "save_file", half_written)
    error = glassgpt("train", "--run", run, "--resume", "--max-steps", 50).error
    assert "no space left" in error
    assert "step-000000" in error
    monkeypatch.undo()
    assert contents(run / "checkpoints").items() >= before.items()
    assert glassgpt("sample", run, "--max-new-tokens", 2).code == 0
    assert glassgpt("train", "--run", run, "--resume", "--max-steps", 50).code == 0
    assert [line["step"] for line in figures(run) if "lr" in line] == list(range(1, 51))


def test_a_full_disk_at_the_beginning_leaves_no_run(
    text_file: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensor_files, "save_file", half_written)
    error = glassgpt("train", "char-tiny", "--data", text_file, "--run", "new", *settings()).error
    assert "no space left" in error
    assert contents(elsewhere) == {}


def test_a_full_disk_at_the_report_says_that_the_training_is_saved(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, text: str) -> None:
        raise gg.UserError(f"cannot write {path}: No space left on device")

    monkeypatch.setattr("glassgpt.report.run_page.write_text", full)
    refused = glassgpt("train", "--run", run, "--resume", "--max-steps", 45).error
    assert "training is complete and saved; only report.html could not be written (cannot write" in refused
    monkeypatch.undo()
    assert figures(run)[-1]["step"] == 45
    assert glassgpt("report", run).code == 0


def test_a_setting_that_is_missing_is_named(run: Path) -> None:
    config = run / "config.toml"
    config.write_text(config.read_text().replace("n_head = 2\n", ""))
    refused = glassgpt("sample", run).error
    assert refused == f"{config}: model.n_head is missing: restore the file, or add the field"


CAP_DAC_OVERRIDE = 1


@contextlib.contextmanager
def file_modes_respected() -> Iterator[None]:
    """File modes do not hold for root, unless it lays down its right to pass over them (capabilities(7))."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # version 3, this thread
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted and inheritable, low words first
    if os.geteuid() != 0:
        yield
        return
    assert libc.capget(header, sets) == 0
    effective = sets[0]
    sets[0] = effective & ~(1 << CAP_DAC_OVERRIDE)
    assert libc.capset(header, sets) == 0
    try:
        yield
    finally:
        sets[0] = effective
        assert libc.capset(header, sets) == 0


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """No file below `folder` can be written, made or removed."""
    paths = [folder, *folder.rglob("*")]
    for path in paths:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        with file_modes_respected():
            yield
    finally:
        for path in paths:
            path.chmod(0o755 if path.is_dir() else 0o644)


@pytest.mark.skipif(os.name == "nt", reason="file modes of POSIX")
def test_a_read_only_run_is_used_and_not_changed(run: Path) -> None:
    before = contents(run)
    with read_only(run):
        assert glassgpt("sample", run, "--max-new-tokens", 2).code == 0
        assert glassgpt("eval", run).code == 0
        for command in (["train", "--run", run, "--resume", "--max-steps", 45], ["report", run]):
            error = glassgpt(*command).error
            assert str(run) in error
            assert "ermission denied" in error
    assert contents(run) == before


@pytest.mark.skipif(os.name == "nt", reason="file modes of POSIX")
def test_a_read_only_place_for_a_run(run: Path, text_file: Path) -> None:
    before = contents(run)
    options = ["--data", text_file, *settings(training__max_steps=1)]
    with read_only(run.parent):
        for way in (["--run", run.parent / "new"], ["--run", run, "--overwrite"], ["--run", run.parent / "a" / "b"]):
            error = glassgpt("train", *options, *way).error
            assert str(run.parent) in error
            assert "ermission denied" in error
    assert contents(run.parent) == {f"run/{name}": value for name, value in before.items()}


def test_a_run_that_diverges_says_so_while_it_is_watched(text_file: Path, tmp_path: Path) -> None:
    """The weights stay finite, for such steps are not applied; what the model says with them does not."""
    options = settings(evaluation__sample_every=1, evaluation__every=1, schedule__warmup_steps=0)
    wild = ["--set", "optimizer.lr=1e30", "--set", "optimizer.weight_decay=0.0"]
    error = glassgpt("train", "char-tiny", "--data", text_file, "--run", tmp_path / "run", *options, *wild).error
    assert "5 steps in a row" in error
    assert "optimizer.lr" in error
    assert (tmp_path / "run" / "report.html").is_file()
    assert gg.load(tmp_path / "run").step < 5


def test_a_final_record_without_a_figure_is_a_summary_without_it(run: Path, tmp_path: Path) -> None:
    lines = (run / "metrics.jsonl").read_text().splitlines()
    whole = gg.load(run, device="cpu").summary
    lost = ("tokens_seen", "train/loss", "val/loss", "best/step", "best/val/loss", "seconds")
    final = {name: value for name, value in json.loads(lines[-1]).items() if name not in lost}
    (run / "metrics.jsonl").write_text("\n".join([*lines[:-1], json.dumps(final), ""]))
    opened = gg.load(run, device="cpu")
    assert whole is not None and whole.keys() == opened.summary.keys()
    assert [name for name, value in opened.summary.items() if value is not None] == ["run", "steps"]
    again = glassgpt("train", "--run", run, "--resume", "--json")
    assert again.code == 0 and json.loads(again.out)["val_loss"] is None
