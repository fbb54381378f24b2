"""Checkpoints: bit for bit, whole or absent whatever fails, and never silently other than what was written."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import safetensors
import safetensors.torch
import torch
from hypothesis import given, strategies
from torch import nn

from glassgpt.errors import UserError
from glassgpt.files import remove_unfinished
from glassgpt.training import tensor_files
from glassgpt.training.checkpoint import (
    MODEL,
    OPTIMIZER,
    STATE,
    Checkpoint,
    best_checkpoint,
    discard,
    list_checkpoints,
    load_model_weights,
    load_optimizer_state,
    load_stage_state,
    optimizer_tensors,
    prune,
    write_checkpoint,
)
from glassgpt.training.stage import Best

NAN = float("nan")


@pytest.fixture(autouse=True)
def no_flush(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flushing takes long on a busy disk, and what it is for, a loss of power, no test can see."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


@pytest.fixture(params=["whole", "divided"])
def layout(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each set of tensors in one file, or in several: two for the weights below, six for the optimizer's state."""
    if request.param == "divided":
        monkeypatch.setattr(tensor_files, "MAX_FILE_BYTES", 112)
    return str(request.param)


def build(seed: int = 0, n_steps: int = 3) -> tuple[nn.Module, torch.optim.Optimizer]:
    """A model with an optimizer that has gone `n_steps` steps."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Embedding(7, 4), nn.Linear(4, 5))
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    for _ in range(n_steps):
        optimizer.zero_grad()
        model(torch.randint(7, (3,))).square().sum().backward()
        optimizer.step()
    return model, optimizer


def save(folder: Path, step: int, *, seed: int = 0, whole: bool = True, **state: Any) -> Checkpoint:
    model, optimizer = build(seed)
    return write_checkpoint(folder, model, optimizer if whole else None, {"step": step, **state})


def assert_same(checkpoint: Checkpoint, seed: int = 0) -> None:
    """The checkpoint holds the weights of `build(seed)`, and its optimizer's state where it has one, bit for bit."""
    expected, expected_optimizer = build(seed)
    model, optimizer = build(seed=99, n_steps=0)
    load_model_weights(checkpoint, model)
    for name, tensor in expected.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name
    if checkpoint.resumable:
        load_optimizer_state(checkpoint, model, optimizer)
        ours, theirs = optimizer_tensors(model, optimizer), optimizer_tensors(expected, expected_optimizer)
        assert ours.keys() == theirs.keys()
        for name, tensor in theirs.items():
            assert torch.equal(ours[name], tensor), name
            assert ours[name].dtype == tensor.dtype


def steps(folder: Path) -> list[int]:
    return [checkpoint.step for checkpoint in list_checkpoints(folder)]


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_round_trip_is_bit_for_bit(tmp_path: Path, layout: str) -> None:
    state = {"tokens_seen": 9216, "val_loss": 0.1 + 0.2, "scaler": {}, "seconds": 1e-9}
    saved = save(tmp_path, 12, **state)
    (found,) = list_checkpoints(tmp_path)
    assert found == saved
    assert found.path.name == "step-00000012"
    assert found.resumable
    assert {name: found.state[name] for name in state} == state
    assert_same(found)


def test_training_goes_on_as_if_it_had_not_stopped(tmp_path: Path, layout: str) -> None:
    def train(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        generator = torch.Generator().manual_seed(5)
        for _ in range(4):
            optimizer.zero_grad()
            model(torch.randint(7, (3,), generator=generator)).square().sum().backward()
            optimizer.step()

    model, optimizer = build()
    saved = write_checkpoint(tmp_path, model, optimizer, {"step": 3})
    train(model, optimizer)
    resumed, resumed_optimizer = build(seed=99, n_steps=0)
    load_model_weights(saved, resumed)
    load_optimizer_state(saved, resumed, resumed_optimizer)
    train(resumed, resumed_optimizer)
    for expected, got in zip(model.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(expected, got)


def test_weights_only(tmp_path: Path) -> None:
    saved = save(tmp_path, 0, whole=False)
    assert not saved.resumable
    assert_same(saved)


def test_checkpoints_are_listed_by_step_and_other_names_ignored(tmp_path: Path) -> None:
    for step in (100_000_000, 3, 20):
        save(tmp_path, step)
    (tmp_path / "step-7").mkdir()
    (tmp_path / ".glassgpt-new-step-00000021-1-0123abcd").mkdir()
    assert steps(tmp_path) == [3, 20, 100_000_000]
    assert steps(tmp_path / "nothing") == []


# What can happen while a checkpoint is written


class Killed(BaseException):
    """Stands for SIGKILL: no `except Exception` sees it."""


OPERATIONS = [
    (Path, "mkdir"), (Path, "write_text"), (Path, "rename"), (Path, "unlink"),
    (tensor_files, "save_file"), (os, "fsync"), (shutil, "rmtree"),
]  # fmt: skip


@contextmanager
def killed_before_operation(number: int) -> Iterator[Callable[[], bool]]:
    """Every operation on files from the `number`-th on raises Killed. Yields whether there were so many.

    Removing a tree is many operations: it is killed after its first file.
    """
    done = 0
    remove_tree = shutil.rmtree

    def guarded(operation: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            nonlocal done
            done += 1
            if done == number and operation is remove_tree:
                for file in sorted(Path(args[0]).glob("*"))[:1]:
                    file.write_bytes(b"")  # as good as removed; `unlink` itself is guarded
            if done >= number:
                raise Killed
            return operation(*args, **kwargs)

        return run

    with pytest.MonkeyPatch.context() as patch:
        for owner, name in OPERATIONS:
            patch.setattr(owner, name, guarded(getattr(owner, name)))
        yield lambda: done >= number


def kill_everywhere(act: Callable[[], Any], check: Callable[[], None], reset: Callable[[], Any]) -> int:
    """Runs `act` once for every place at which it can be killed, and checks what is left; returns how many."""
    for number in range(1, 1000):
        reset()
        with killed_before_operation(number) as was_killed, suppress(Killed):
            act()
        check()
        if not was_killed():
            return number - 1
    raise AssertionError("the operations never end")


def fresh(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    save(folder, 10, seed=1)


def test_a_kill_between_any_two_operations_of_a_save(tmp_path: Path, layout: str) -> None:
    folder = tmp_path / "checkpoints"

    def check() -> None:
        assert steps(folder) in ([10], [10, 20])
        for found in list_checkpoints(folder):
            assert found.resumable
            assert_same(found, seed=1 if found.step == 10 else 2)
        remove_unfinished(folder)
        assert not list(folder.glob(".*"))

    model, optimizer = build(seed=2)
    places = kill_everywhere(
        lambda: write_checkpoint(folder, model, optimizer, {"step": 20}),
        check,
        lambda: fresh(folder),
    )
    assert places >= 8  # remove, mkdir, two files and a state, their flushes, the rename
    assert steps(folder) == [10, 20]


def test_a_kill_while_a_snapshot_is_made_whole(tmp_path: Path) -> None:
    """The same step is saved again, now with the optimizer. Earlier steps are never touched."""
    folder = tmp_path / "checkpoints"

    def reset() -> None:
        fresh(folder)
        save(folder, 20, seed=2, whole=False)

    def check() -> None:
        assert steps(folder) in ([10], [10, 20])
        for found in list_checkpoints(folder):
            assert_same(found, seed=1 if found.step == 10 else 2)

    model, optimizer = build(seed=2)
    kill_everywhere(lambda: write_checkpoint(folder, model, optimizer, {"step": 20}), check, reset)
    assert [found.resumable for found in list_checkpoints(folder)] == [True, True]


def test_a_kill_while_pruning_never_takes_what_is_kept(tmp_path: Path, layout: str) -> None:
    template, folder = tmp_path / "template", tmp_path / "checkpoints"
    for step, loss in [(0, None), (1, 5.0), (2, 1.0), (3, 4.0), (4, 3.0)]:
        save(template, step, val_loss=loss)

    def check() -> None:
        found = {checkpoint.step: checkpoint.resumable for checkpoint in list_checkpoints(folder)}
        assert {0, 2, 4} <= found.keys() <= {0, 1, 2, 3, 4}
        assert found[4]
        for checkpoint in list_checkpoints(folder):
            assert_same(checkpoint)

    def reset() -> None:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(template, folder)

    places = kill_everywhere(lambda: prune(folder, keep_last=1, snapshots={0}), check, reset)
    assert places >= 6
    assert {found.step: found.resumable for found in list_checkpoints(folder)} == {0: False, 2: False, 4: True}


@pytest.mark.parametrize("number", range(1, 10))
def test_a_full_disk_leaves_the_checkpoints_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, layout: str
) -> None:
    """The disk is full from the `number`-th operation on, as safetensors and as Python say it."""
    fresh(tmp_path)
    before = files(tmp_path)
    done = 0

    def full(operation: Callable[..., Any], error: Exception) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            nonlocal done
            done += 1
            if done >= number:
                raise error
            return operation(*args, **kwargs)

        return run

    no_space = OSError(errno.ENOSPC, "No space left on device")
    theirs = safetensors.SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
    monkeypatch.setattr(tensor_files, "save_file", full(tensor_files.save_file, theirs))
    monkeypatch.setattr(os, "fsync", full(os.fsync, no_space))
    monkeypatch.setattr(Path, "write_text", full(Path.write_text, no_space))
    model, optimizer = build(seed=2)
    try:
        write_checkpoint(tmp_path, model, optimizer, {"step": 20})
    except UserError as error:
        assert f"cannot save {tmp_path}/step-00000020: no space left on the device" in str(error)
        left = files(tmp_path)
        assert {name: left[name] for name in before} == before
        assert not list(tmp_path.glob(".*"))
        for found in list_checkpoints(tmp_path):
            assert_same(found, seed=1 if found.step == 10 else 2)
    else:
        assert done < number


def test_a_disk_that_refuses_really(tmp_path: Path) -> None:
    """A limit on the size of files: the write fails in the system, not in a stand-in."""
    fresh(tmp_path)
    before = files(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    model = nn.Linear(100, 100)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(UserError, match=r"cannot save .*step-00000020: .*File too large"):
            write_checkpoint(tmp_path, model, None, {"step": 20})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert files(tmp_path) == before


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot save .*file/step-00000001: Not a directory"):
        save(tmp_path / "file", 1)


# What can happen to a checkpoint afterwards


@pytest.mark.parametrize("name", [MODEL, OPTIMIZER])
@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-1],
        lambda data: b"",
        lambda data: data[:5],
        lambda data: data[:-1] + bytes([data[-1] ^ 1]),
        lambda data: bytes([data[0] ^ 1]) + data[1:],
        lambda data: data + b"\0",
        lambda data: b"\xff" * len(data),
    ],
    ids=["truncated", "empty", "header cut", "last bit", "first bit", "longer", "foreign"],
)
def test_damaged_tensors_are_refused_by_name(tmp_path: Path, name: str, damage: Callable[[bytes], bytes]) -> None:
    found = save(tmp_path, 5)
    file = found.path / name
    file.write_bytes(damage(file.read_bytes()))
    model, optimizer = build(seed=1)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(UserError, match=f"{file} is damaged: its checksum"):
        if name == MODEL:
            load_model_weights(found, model)
        else:
            load_optimizer_state(found, model, optimizer)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    found = save(tmp_path, 5)
    (found.path / MODEL).unlink()
    with pytest.raises(UserError, match=rf"{found.path / MODEL} cannot be read: No such file"):
        load_model_weights(found, build()[0])
    (found.path / STATE).unlink()
    with pytest.raises(UserError, match=rf"{found.path / STATE} is damaged"):
        list_checkpoints(tmp_path)


def test_any_altered_byte_of_the_state_is_noticed_or_means_the_same(tmp_path: Path) -> None:
    found = save(tmp_path, 5, tokens_seen=480, val_loss=2.5)
    file = found.path / STATE
    whole = file.read_bytes()
    for place in range(len(whole)):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        try:
            assert list_checkpoints(tmp_path) == [found], place
        except UserError as error:
            assert str(file) in str(error)
    for size in range(len(whole) - 2):
        file.write_bytes(whole[:size])
        with pytest.raises(UserError, match=f"{file} is damaged"):
            list_checkpoints(tmp_path)


@pytest.mark.parametrize("content", ["[]", "3", "null", '{"format": 1}', '{"format": 1, "step": 5, "checksums": 3}'])
def test_a_foreign_state_is_refused_by_name(tmp_path: Path, content: str) -> None:
    found = save(tmp_path, 5)
    (found.path / STATE).write_text(content)
    with pytest.raises(UserError, match=f"{found.path / STATE} is damaged .* remove the folder"):
        list_checkpoints(tmp_path)


def test_another_format_is_refused(tmp_path: Path) -> None:
    found = save(tmp_path, 5)
    (found.path / STATE).write_text(json.dumps({**found.state, "format": 2}))
    with pytest.raises(UserError, match="has format 2, this version of glassgpt reads format 1"):
        list_checkpoints(tmp_path)


@pytest.mark.parametrize(
    ("model", "problem"),
    [
        (nn.Sequential(nn.Embedding(7, 4), nn.Linear(4, 6)), r"tensor 1\.bias is \(5,\), the config says \(6,\)"),
        (nn.Sequential(nn.Embedding(7, 4)), r"tensor 1\.bias is extra"),
        (nn.Sequential(nn.Embedding(7, 4), nn.Linear(4, 5), nn.Linear(5, 1)), r"tensor 2\.bias is missing"),
    ],
)
def test_weights_of_another_model_are_refused(tmp_path: Path, model: nn.Module, problem: str) -> None:
    with pytest.raises(UserError, match=rf"{MODEL}: {problem}"):
        load_model_weights(save(tmp_path, 5), model)


def test_the_optimizer_of_another_model_is_refused(tmp_path: Path) -> None:
    other = nn.Sequential(nn.Embedding(7, 4))
    with pytest.raises(UserError, match=rf"{OPTIMIZER}: the model has no parameter 1\."):
        load_optimizer_state(save(tmp_path, 5), other, torch.optim.AdamW(other.parameters()))


@pytest.mark.parametrize(
    ("name", "tensor", "problem"),
    [
        ("0.weight/exp_avg", torch.zeros(7, 5), r"is float32 \(7, 5\), the optimizer needs float32 \(7, 4\)"),
        ("0.weight/exp_avg_sq", torch.zeros(2), r"is float32 \(2,\), the optimizer needs"),
        ("1.bias/step", torch.zeros(5), r"is float32 \(5,\), the optimizer needs float32 \(\)"),
        ("1.bias/step", torch.tensor(3), r"is int64 \(\), the optimizer needs float32 \(\)"),
        ("0.weight/exp_avg", torch.zeros(7, 4, dtype=torch.bfloat16), r"is bfloat16 \(7, 4\), the optimizer needs"),
        ("1.weight/exp_avg_sq", None, r"is missing"),
        ("1.weight/momentum", torch.zeros(5, 4), r"is extra"),
    ],
)
def test_optimizer_tensors_that_do_not_fit_are_refused(
    tmp_path: Path, name: str, tensor: torch.Tensor | None, problem: str
) -> None:
    """The fused kernel would read and write outside of them. Nothing is loaded before all have been checked."""
    model, optimizer = build()
    changed = optimizer_tensors(model, optimizer) | {name: tensor}
    tensors = {key: value for key, value in changed.items() if value is not None}
    found = save_sets(tmp_path, {MODEL: dict(model.state_dict()), OPTIMIZER: tensors})
    resumed, resumed_optimizer = build(seed=1, n_steps=0)
    with pytest.raises(UserError, match=f"{OPTIMIZER}: tensor {name} {problem}"):
        load_optimizer_state(found, resumed, resumed_optimizer)
    assert not resumed_optimizer.state


def save_sets(folder: Path, sets: dict[str, dict[str, torch.Tensor]]) -> Checkpoint:
    """A checkpoint with any tensors and right checksums, as somebody else may have written it."""
    saved = save(folder, 5)
    for name, tensors in sets.items():
        safetensors.torch.save_file(tensors, saved.path / name)
    checksums = {file: f"crc32:{zlib.crc32((saved.path / file).read_bytes()):08x}" for file in sets}
    without = {**saved.state, "checksums": checksums}
    own = f"crc32:{zlib.crc32(json.dumps(without).encode()):08x}"
    state = {**without, "checksums": {**checksums, STATE: own}}
    (saved.path / STATE).write_text(json.dumps(state))
    (found,) = list_checkpoints(folder)
    return found


def test_weights_of_another_kind_are_refused(tmp_path: Path) -> None:
    model, _ = build()
    weights = {name: tensor.long() for name, tensor in model.state_dict().items()}
    with pytest.raises(UserError, match=rf"{MODEL}: tensor .* is int64 .*, the model needs float32"):
        load_model_weights(save_sets(tmp_path, {MODEL: weights}), model)


# Sets of tensors in several files


@pytest.fixture
def divided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Checkpoint:
    monkeypatch.setattr(tensor_files, "MAX_FILE_BYTES", 112)
    return save(tmp_path, 5)


def test_a_large_set_is_divided_as_hugging_face_does(divided: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = sorted(divided.path.glob("model-*"))
    assert (first.name, second.name) == ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
    assert set(safetensors.torch.load_file(first)) == {"0.weight"}
    assert set(safetensors.torch.load_file(second)) == {"1.weight", "1.bias"}
    index = json.loads((divided.path / "model.safetensors.index.json").read_text())
    assert index == {
        "metadata": {"total_size": 4 * (7 * 4 + 5 * 4 + 5)},
        "weight_map": {"0.weight": first.name, "1.weight": second.name, "1.bias": second.name},
    }
    assert not (divided.path / MODEL).exists() and not (divided.path / OPTIMIZER).exists()
    monkeypatch.undo()  # the size is a matter of writing alone
    assert divided.resumable
    assert_same(divided)


@given(
    sizes=strategies.lists(strategies.integers(0, 40), max_size=30),
    most=strategies.integers(1, 100),
)
def test_no_file_is_larger_than_allowed_unless_by_one_tensor(sizes: list[int], most: int) -> None:
    tensors = {f"t{n}": torch.empty(size, dtype=torch.uint8, device="meta") for n, size in enumerate(sizes)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tensor_files, "MAX_FILE_BYTES", most)
        files = tensor_files.divide(MODEL, tensors)
    assert [name for names in files.values() for name in names] == list(tensors)
    for names in files.values():
        assert sum(sizes[int(name[1:])] for name in names) <= most or len(names) == 1
    assert (list(files) == [MODEL]) == (len(files) == 1)
    assert len(files) == 1 or sum(sizes) > most
    assert all(tensor_files.belongs_to(file, MODEL) and not tensor_files.belongs_to(file, OPTIMIZER) for file in files)


def test_each_damaged_or_missing_part_is_named(divided: Checkpoint) -> None:
    parts = [file for file in divided.path.iterdir() if file.name != STATE]
    assert len(parts) == 2 + 6 + 2
    for part in parts:
        whole = part.read_bytes()
        for damage in (whole[:-1], b"", whole[:-1] + bytes([whole[-1] ^ 1]), None):
            if damage is None:
                part.unlink()
            else:
                part.write_bytes(damage)
            model, optimizer = build(seed=1)
            with pytest.raises(UserError, match=f"{part} (is damaged: its checksum|cannot be read: No such file)"):
                load_model_weights(divided, model)
                load_optimizer_state(divided, model, optimizer)
        part.write_bytes(whole)
    assert_same(divided)


def test_pruning_removes_every_part_of_the_optimizer(divided: Checkpoint) -> None:
    folder = divided.path.parent
    save(folder, 6)
    prune(folder, keep_last=1, snapshots={5})
    first, _ = list_checkpoints(folder)
    assert not first.resumable
    assert not list(first.path.glob("optimizer*"))
    assert_same(first)


def test_files_have_the_permissions_of_other_files(tmp_path: Path) -> None:
    for mask, expected in ((0o022, 0o644), (0o027, 0o640), (0o077, 0o600)):
        before = os.umask(mask)
        try:
            saved = save(tmp_path / f"{mask}", 5)
        finally:
            os.umask(before)
        assert {file.name: file.stat().st_mode & 0o777 for file in saved.path.iterdir()} == {
            MODEL: expected, OPTIMIZER: expected, STATE: expected,
        }  # fmt: skip


# What is kept


@pytest.mark.parametrize(
    ("keep_last", "snapshots", "kept"),
    [
        (1, set(), {2: False, 6: True}),
        (2, set(), {2: False, 5: True, 6: True}),
        (1, {0, 4, 7}, {0: False, 2: False, 4: False, 6: True}),
        (5, {0}, {0: False, 2: True, 3: True, 4: True, 5: True, 6: True}),
        (99, set(), dict.fromkeys(range(7), True)),
    ],
)
def test_prune_keeps_the_last_whole_and_the_best_and_the_snapshots_as_weights(
    tmp_path: Path, keep_last: int, snapshots: set[int], kept: dict[int, bool]
) -> None:
    for step, loss in enumerate([None, 5.0, 1.0, 4.0, None, 1.0, 1.5]):  # 2 is the best, the earlier of equals
        save(tmp_path, step, val_loss=loss)
    for _ in range(2):  # once more changes nothing
        prune(tmp_path, keep_last=keep_last, snapshots=snapshots)
        assert {found.step: found.resumable for found in list_checkpoints(tmp_path)} == kept
    for found in list_checkpoints(tmp_path):
        assert_same(found)


def test_prune_keeps_the_best_that_a_resumed_run_would_go_back_to(tmp_path: Path) -> None:
    """4 is the best, and a resumed run goes back to 3 and removes it: then 1 is the best again."""
    for step, loss, whole in [(1, 2.0, False), (2, 3.0, False), (3, 2.5, True), (4, 1.0, False)]:
        save(tmp_path, step, whole=whole, val_loss=loss)
    prune(tmp_path, keep_last=1, snapshots=set())
    assert {found.step: found.resumable for found in list_checkpoints(tmp_path)} == {1: False, 3: True, 4: False}
    save(tmp_path, 5)
    prune(tmp_path, keep_last=1, snapshots=set())
    assert {found.step: found.resumable for found in list_checkpoints(tmp_path)} == {4: False, 5: True}


def test_prune_keeps_the_best_before_a_score_that_a_continued_run_loses(tmp_path: Path) -> None:
    """6 was measured only because the run ended there; continued, the run has the checkpoints of one that never did."""
    for step, loss, whole in [(0, 5.0, True), (3, None, True), (4, 3.0, False), (6, 2.0, True)]:
        save(tmp_path, step, whole=whole, val_loss=loss)
        prune(tmp_path, keep_last=1, snapshots={0})
    assert {found.step: found.resumable for found in list_checkpoints(tmp_path)} == {0: False, 4: False, 6: True}


def test_snapshots_do_not_count_among_the_last(tmp_path: Path) -> None:
    save(tmp_path, 1)
    save(tmp_path, 2)
    for step in (3, 4):
        save(tmp_path, step, whole=False)
    prune(tmp_path, keep_last=2, snapshots={3, 4})
    assert {found.step: found.resumable for found in list_checkpoints(tmp_path)} == {
        1: True,
        2: True,
        3: False,
        4: False,
    }


@pytest.mark.parametrize(
    ("scores", "best"),
    [([], None), ([None], None), ([None, 2.0], 1), ([2.0, 1.0, 1.0], 1), ([NAN, 3.0], 1), ([NAN], None)],
)
def test_the_best_has_the_best_finite_score(scores: list[float | None], best: int | None) -> None:
    """The lowest, or where the stage says so the highest; "val_loss" is the score's name in older checkpoints."""
    highest: dict[str, Any] = {"best": {"figure": "reward/mean", "mode": "max"}}
    for states in (
        [{"val_loss": score} for score in scores],
        [{"score": score} for score in scores],
        [{"score": None if score is None else -score} | highest for score in scores],
    ):
        found = best_checkpoint([Checkpoint(Path(), {"step": step} | state) for step, state in enumerate(states)])
        assert (found.step if found else None) == best


def test_discard_and_leftovers(tmp_path: Path) -> None:
    kept, gone = save(tmp_path, 1), save(tmp_path, 2)
    discard(gone.path)
    assert [path.name for path in tmp_path.iterdir()] == [kept.path.name]
    shutil.copytree(kept.path, tmp_path / f".glassgpt-new-step-00000003-{2**22 + 1}-0123abcd")
    remove_unfinished(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [kept.path.name]


def test_any_score_is_better_than_none() -> None:
    for mode in ("min", "max"):
        best = Best("figure", mode)
        assert best.improves(3.0, on=NAN) and best.improves(3.0, on=None)
        assert not best.improves(NAN, on=3.0) and not best.improves(NAN, on=None)


def test_a_stage_may_keep_two_views_of_one_tensor(tmp_path: Path) -> None:
    model, optimizer = build()
    rollout = torch.arange(6.0)
    stage_state = {"first": rollout[:3], "last": rollout[3:]}
    saved = write_checkpoint(tmp_path, model, optimizer, {"step": 1}, stage_state=stage_state)
    assert {name: tensor.tolist() for name, tensor in load_stage_state(saved).items()} == {
        "first": [0, 1, 2], "last": [3, 4, 5],
    }  # fmt: skip
