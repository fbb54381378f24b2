"""The classic CPU recipe beside nanoGPT's: whole processes in turn, and the loss on the whole validation split.

    python bench/char_tiny.py --data tinyshakespeare.txt --nanogpt ../nanoGPT --runs 3

Both train 4 layers, 4 heads, 128 wide, block 64, batch 12 x 64 for 2,000 steps. `--nanogpt` is a checkout of
karpathy/nanoGPT, run with the command of its README; without it that column is left out. nanoGPT's checkpoint is
measured here the same way as ours: every target of the validation split, in consecutive windows.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
import torch.nn.functional as F

NANOGPT_OPTIONS = [
    "config/train_shakespeare_char.py", "--device=cpu", "--compile=False", "--eval_iters=20", "--log_interval=1",
    "--block_size=64", "--batch_size=12", "--n_layer=4", "--n_head=4", "--n_embd=128", "--dropout=0.0",
]  # fmt: skip


def train_ours(data: str, folder: Path, steps: int) -> tuple[float, float, int]:
    """Seconds of the whole process, loss on the whole validation split, its targets."""
    command = [sys.executable, "-m", "glassgpt", "train", "char-tiny", "--data", data, "--run", str(folder)]
    command += ["--overwrite", "--set", f"training.max_steps={steps}", "--json"]
    began = time.perf_counter()
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    seconds = time.perf_counter() - began
    final = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
    return seconds, json.loads(done.stdout)["val_loss"], final["val/tokens"]


def train_nanogpt(checkout: Path, data: str, folder: Path, steps: int) -> tuple[float, float, int]:
    """The same of nanoGPT, in a copy of its checkout."""
    copy = folder / "nanoGPT"
    if not copy.exists():
        shutil.copytree(checkout, copy, ignore=shutil.ignore_patterns(".git"))
        shutil.copy(data, copy / "data" / "shakespeare_char" / "input.txt")
        subprocess.run([sys.executable, "prepare.py"], cwd=copy / "data" / "shakespeare_char", check=True)
    options = [*NANOGPT_OPTIONS, f"--max_iters={steps}", f"--lr_decay_iters={steps}"]
    began = time.perf_counter()
    subprocess.run([sys.executable, "train.py", *options], cwd=copy, check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - began
    return seconds, *nanogpt_loss(copy)


def nanogpt_loss(copy: Path) -> tuple[float, int]:
    """The mean loss of nanoGPT's checkpoint over all targets of its validation split, windows of 64 in order."""
    model_module = load_module(copy / "model.py")
    checkpoint = torch.load(copy / "out-shakespeare-char" / "ckpt.pt", weights_only=True)
    model = model_module.GPT(model_module.GPTConfig(**checkpoint["model_args"]))
    model.load_state_dict(checkpoint["model"])
    model.eval()
    tokens = torch.from_numpy(np.fromfile(copy / "data" / "shakespeare_char" / "val.bin", np.uint16).astype(np.int64))
    total, count = 0.0, 0
    with torch.no_grad():
        for start in range(0, len(tokens) - 1, 64):
            window = tokens[start : start + 65][None]
            inputs, targets = window[:, :-1].contiguous(), window[:, 1:].contiguous()
            logits, _ = model(inputs, targets)  # with targets it returns every position's logits
            total += F.cross_entropy(logits[0], targets[0], reduction="sum").item()
            count += targets.numel()
    return total / count, count


def load_module(path: Path) -> ModuleType:
    """nanoGPT is not a package: its model file, as a module."""
    import importlib.util

    spec = importlib.util.spec_from_file_location("nanogpt_model", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["nanogpt_model"] = module
    spec.loader.exec_module(module)
    return module


def main() -> None:
    """Prints one line a run and the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="shakespeare")
    parser.add_argument("--nanogpt", type=Path)
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--steps", type=int, default=2000)
    options = parser.parse_args()
    if options.nanogpt and not Path(options.data).is_file():
        parser.error("--nanogpt needs --data to be a file: both train on the same one")
    folder = Path(tempfile.mkdtemp(prefix="glassgpt-bench-"))
    ours, theirs = [], []
    for number in range(options.runs):
        seconds, loss, targets = train_ours(options.data, folder / "ours", options.steps)
        ours.append(seconds)
        print(
            f"run {number + 1}  glassgpt {seconds:6.1f} s, validation loss {loss:.4f} over {targets:,} targets",
            flush=True,
        )
        if options.nanogpt:
            seconds, loss, targets = train_nanogpt(options.nanogpt, options.data, folder, options.steps)
            theirs.append(seconds)
            print(
                f"run {number + 1}  nanoGPT  {seconds:6.1f} s, validation loss {loss:.4f} over {targets:,} targets",
                flush=True,
            )
    print(f"median   glassgpt {statistics.median(ours):.1f} s")
    if theirs:
        ratio = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
        print(f"median   nanoGPT  {statistics.median(theirs):.1f} s; glassgpt / nanoGPT, pair by pair: {ratio:.3f}")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
