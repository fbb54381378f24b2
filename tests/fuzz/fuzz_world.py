"""The folder that every case starts from: runs, texts, shards, an exported model, and files of every kind."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
from pathlib import Path

from fuzz_process import Streams, run_forked

SMALL = {
    "model.n_layer": 1, "model.n_head": 2, "model.n_embd": 8, "model.block_size": 8, "training.batch_tokens": 16,
    "schedule.warmup_steps": 1, "evaluation.every": 2, "evaluation.tokens": 64, "evaluation.sample_every": 2,
    "evaluation.sample_tokens": 4, "evaluation.log_every": 1, "checkpoint.every": 2, "training.max_steps": 4,
    "machine.device": "cpu",
}  # fmt: skip
SET = tuple(part for name, value in SMALL.items() for part in ("--set", f"{name}={value}"))
RECIPE = """about = "small"
needs = "laptop"
[model]
n_layer = 1
n_head = 2
n_embd = 8
block_size = 8
[training]
batch_tokens = 16
max_steps = 2
[data]
source = "text.txt"
"""
ITEM = {"ctx": "The cat", "endings": ["sat.", "on.", "a mat.", "a dog."], "label": 0}
ODD_NAMES = (b"new\nline", b"\x1b[31mred", b"\xff\xfe", "ünïcode ✓".encode(), b" blank ", b"-dash")


def build_world(folder: Path) -> None:
    """Fills `folder`. Raises AssertionError where a command of it fails."""
    folder.mkdir()
    text = "".join(f"The {word} sat on a mat.\n" for word in ("cat", "dog", "cow", "hen") * 40)
    (folder / "text.txt").write_text(text)
    (folder / "texts").mkdir()
    (folder / "texts" / "a.txt").write_text(text)
    (folder / "documents.jsonl").write_text("".join(json.dumps({"text": text[: 90 + n]}) + "\n" for n in range(20)))
    (folder / "recipe.toml").write_text(RECIPE)
    (folder / "suite.jsonl").write_text(f"{json.dumps(ITEM)}\n" * 2)
    (folder / "thesis.txt").write_text("three years of work")
    (folder / ".lock").write_text("somebody's lock")
    (folder / ".draft.tmp").write_text("somebody's draft")
    for command in (
        ("train", "char-tiny", "--data", "text.txt", "--run", "tiny", *SET),
        ("note", "tiny", "learns"),
        ("doctor", "tiny"),
        ("tokenizer", "train", "--data", "text.txt", "--out", "bpe.json", "--vocab-size", "270",
         "--special", "<|endoftext|>"),
        ("data", "prepare", "texts", "--out", "shards", "--tokenizer", "bpe.json", "--shard-tokens", "500"),
        ("train", "char-tiny", "--data", "shards", "--run", "sharded", *SET),
        ("export", "sharded", "--out", "hf"),
        ("train", "bert-tiny", "--data", "text.txt", "--run", "encoder", *SET),
        ("train", "reverse-tiny", "--data", "text.txt", "--run", "pairs", *SET),
    ):  # fmt: skip
        ended = run_forked(command, folder, Streams(), limit=300)
        assert ended.code in (0, 1), f"{command}: {ended}"  # the doctor finds a model of this size abnormal
    (folder / "hf" / "glassgpt_tokenizer.json").unlink()  # else tokenizer.json is not read
    _make_old_export(folder)
    (folder / "runs" / "foreign").mkdir()
    (folder / "runs" / "foreign" / "config.toml").write_text("[tool]\nname = 'other'\n")
    (folder / "odd").mkdir()
    for name in ODD_NAMES:
        (folder / "odd" / os.fsdecode(name)).write_text(text)
    os.mkfifo(folder / "fifo")
    (folder / "zero").symlink_to("/dev/zero")
    (folder / "full").symlink_to("/dev/full")
    (folder / "nowhere").symlink_to("not-there")
    (folder / "loop").symlink_to("loop")
    (folder / "empty").mkdir()
    (folder / "empty.txt").write_text("")
    (folder / "binary").write_bytes(bytes(range(256)) * 8)


def _make_old_export(folder: Path) -> None:
    """The layout of older folders: vocab.json, merges.txt and a pickle of the weights."""
    import torch
    from safetensors.torch import load_file

    shutil.copytree(folder / "hf", folder / "hf-old")
    tokenizer = json.loads((folder / "hf-old" / "tokenizer.json").read_text())
    vocab = tokenizer["model"]["vocab"] | {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    merges = [line if isinstance(line, str) else " ".join(line) for line in tokenizer["model"]["merges"]]
    (folder / "hf-old" / "vocab.json").write_text(json.dumps(vocab))
    (folder / "hf-old" / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]))
    torch.save(load_file(folder / "hf-old" / "model.safetensors"), folder / "hf-old" / "pytorch_model.bin")
    for name in ("tokenizer.json", "model.safetensors"):
        (folder / "hf-old" / name).unlink()


def copy_world(world: Path, folder: Path) -> None:
    """A copy for one case: folders, files, links and FIFOs."""
    for parent, _, names in os.walk(world):
        inside = folder / Path(parent).relative_to(world)
        inside.mkdir()
        for name in names:
            source = Path(parent) / name
            mode = source.lstat().st_mode
            if stat.S_ISLNK(mode):
                (inside / name).symlink_to(source.readlink())
            elif stat.S_ISFIFO(mode):
                os.mkfifo(inside / name)
            else:
                shutil.copyfile(source, inside / name)


def snapshot(folder: Path) -> dict[str, str]:
    """What every path below `folder` is: a hash of a file's bytes, the target of a link, or its kind."""
    found = {}
    for parent, folders, names in os.walk(folder):
        for name in (*folders, *names):
            path = Path(parent) / name
            mode = path.lstat().st_mode
            if stat.S_ISREG(mode):
                content = hashlib.blake2b(path.read_bytes()).hexdigest()
            else:
                content = str(path.readlink()) if stat.S_ISLNK(mode) else str(stat.S_IFMT(mode))
            found[str(path.relative_to(folder))] = content
    return found
