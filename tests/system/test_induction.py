"""The recipe `induction` does what it is for: a head that copies appears early in its training."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

import glassgpt as gg
from glassgpt.inspection.attention import head_scores, heads_of
from glassgpt.runs.run import Run


def induction_scores(run: Run) -> Tensor:
    """The scores (L, H) on words of 15 different letters, longer than those of the training text, said twice."""
    found = []
    for seed in range(5):
        order = torch.randperm(26, generator=torch.Generator().manual_seed(seed))[:15]
        word = "".join("abcdefghijklmnopqrstuvwxyz"[letter] for letter in order)
        ids = run.tokenizer.encode(f"{word} {word}")
        found.append(head_scores(heads_of(gg.trace(run.model, ids)), ids).induction)
    return torch.stack(found).mean(dim=0)


def test_an_induction_head_appears(tmp_path: Path) -> None:
    quiet = {"evaluation.every": 0, "evaluation.sample_every": 0, "machine.device": "cpu", "machine.dtype": "float32"}
    run = gg.train("induction", run=str(tmp_path / "run"), max_steps=170, settings=quiet)
    before, after = (induction_scores(gg.load(run.folder, checkpoint=step)) for step in (0, 170))
    assert before.max() < 0.15
    assert after[1].max() > 0.6  # in the second block: it needs what the first one finds
    assert after[0].max() < 0.2
    steps = [int(path.name.removeprefix("step-")) for path in (run.folder / "checkpoints").glob("step-*")]
    assert len([step for step in steps if step > 50]) >= 6
