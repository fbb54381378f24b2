"""nanoGPT beside us: the CPU command of its README, and the loss of its checkpoint on the whole validation split."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from glassgpt.errors import UserError
from glassgpt.interop.nanogpt import load_model_file

NANOGPT_LOSS = 1.8983  # of that command on Tiny Shakespeare: 111,539 targets, windows of 64 (docs/log.md)
STEPS = 2000
OPTIONS = [
    "config/train_shakespeare_char.py", "--device=cpu", "--compile=False", "--eval_iters=20", "--log_interval=1",
    "--block_size=64", "--batch_size=12", "--n_layer=4", "--n_head=4", "--n_embd=128", "--dropout=0.0",
    f"--max_iters={STEPS}", f"--lr_decay_iters={STEPS}",
]  # fmt: skip
NEEDED = ("train.py", "model.py", "config/train_shakespeare_char.py", "data/shakespeare_char/prepare.py")


class NanoGPT:
    """A copy of a checkout, with `text` as its data. Raises UserError if `checkout` is none."""

    def __init__(self, checkout: Path, text: str, scratch: Path) -> None:
        for name in NEEDED:
            if not (checkout / name).is_file():
                raise UserError(f"{checkout} is no checkout of karpathy/nanoGPT: {name} is missing")
        self.copy = scratch / "nanoGPT"
        shutil.copytree(checkout, self.copy, ignore=shutil.ignore_patterns(".git"))
        data = self.copy / "data" / "shakespeare_char"
        (data / "input.txt").write_text(text, encoding="utf-8", newline="")
        _run(["prepare.py"], data)
        _run(["train.py", *OPTIONS, "--max_iters=1", "--eval_iters=1"], self.copy)  # fails now, or not at all

    def train(self) -> tuple[float, float, int]:
        """Seconds of the whole process, the loss on the whole validation split, steps.

        nanoGPT has no option for its seed, so every run is the same but for the time.
        """
        began = time.perf_counter()
        _run(["train.py", *OPTIONS], self.copy)
        return time.perf_counter() - began, self.loss(), STEPS

    @torch.no_grad()
    def loss(self) -> float:
        """The mean loss of its checkpoint over all targets, in windows of 64: as ours is measured."""
        module = load_model_file(self.copy)
        checkpoint = torch.load(self.copy / "out-shakespeare-char" / "ckpt.pt", weights_only=True)
        model = module.GPT(module.GPTConfig(**checkpoint["model_args"]))
        model.load_state_dict(checkpoint["model"])
        model.eval()
        tokens = np.fromfile(self.copy / "data" / "shakespeare_char" / "val.bin", np.uint16).astype(np.int64)
        total = 0.0
        for start in range(0, len(tokens) - 1, 64):
            window = torch.from_numpy(tokens[start : start + 65])[None]
            inputs, targets = window[:, :-1].contiguous(), window[:, 1:].contiguous()
            logits, _ = model(inputs, targets)  # with targets it returns the logits of every position
            total += F.cross_entropy(logits[0], targets[0], reduction="sum").item()
        return total / (len(tokens) - 1)


def _run(arguments: list[str], folder: Path) -> None:
    # Its scripts import the files beside them, which our own processes are told not to do.
    env = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=env, capture_output=True, text=True, check=False
    )
    if done.returncode:
        told = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        raise UserError(f"nanoGPT's {arguments[0]} failed: {told[0]}")
