"""An architecture is one class and one line in the registry: all that CONTRIBUTING.md promises, it then gets."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from command_line import figures, glassgpt, settings, weights
from torch import Tensor, nn

import glassgpt as gg
from glassgpt.inspection.ablation import head_effects
from glassgpt.inspection.attention import heads_of, score_terms
from glassgpt.inspection.attribution import attribute
from glassgpt.inspection.lens import logit_lens
from glassgpt.models import ARCHITECTURES, Architecture, ContextModel
from glassgpt.models.attention import Attention
from glassgpt.models.context import Context
from glassgpt.models.sizes import check_sizes


@dataclass(frozen=True)
class SharedConfig:
    vocab_size: int = 65
    block_size: int = 32
    n_layer: int = 2
    n_head: int = 4
    n_embd: int = 32
    dropout: float = 0.0
    n_kv_head: int = 2

    def __post_init__(self) -> None:
        check_sizes(self)


class SharedAttention(nn.Module):
    """Two query heads to each key head, and positions by a bias that falls with distance (ALiBi, Press et al. 2021)."""

    def __init__(self, config: SharedConfig, layer: int) -> None:
        super().__init__()
        self.layer, self.size = layer, config.n_embd // config.n_head
        self.split = [config.n_embd, config.n_kv_head * self.size, config.n_kv_head * self.size]
        self.qkv = nn.Linear(config.n_embd, sum(self.split))
        self.inner = Attention(config.dropout)
        self.proj = nn.Linear(config.n_embd, config.n_embd)

    def forward(self, x: Tensor, context: Context | None) -> Tensor:
        B, T, _ = x.shape
        q, k, v = (part.view(B, T, -1, self.size).transpose(1, 2) for part in self.qkv(x).split(self.split, dim=-1))
        mask = None
        if context is not None:
            k, v, mask = context.append(self.layer, k, v)
        S = k.size(-2)
        distance = torch.arange(S - T, S, device=x.device)[:, None] - torch.arange(S, device=x.device)
        slopes = 0.5 ** torch.arange(1, q.size(1) + 1, device=x.device)[:, None, None]
        out = self.inner(q, k, v, mask, -slopes * distance)
        return self.proj(out.transpose(1, 2).flatten(2))


class SharedBlock(nn.Module):
    def __init__(self, config: SharedConfig, layer: int) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(config.n_embd)
        self.attn = SharedAttention(config, layer)

    def forward(self, x: Tensor, context: Context | None = None) -> Tensor:
        return x + self.attn(self.norm(x), context)


class SharedModel(ContextModel):
    def __init__(self, config: SharedConfig) -> None:
        super().__init__()
        self.config = config
        self.token_embedding = nn.Embedding(config.vocab_size, config.n_embd)
        self.blocks = nn.ModuleList(SharedBlock(config, layer) for layer in range(config.n_layer))
        self.head = nn.Linear(config.n_embd, config.vocab_size)
        nn.init.normal_(self.head.weight, std=0.05)

    def features(self, tokens: Tensor, *, context: Context | None = None) -> Tensor:
        x = self.token_embedding(tokens)
        for block in self.blocks:
            x = block(x, context)
        if context is not None:
            context.advance(tokens.size(1))
        return x

    def forward(self, tokens: Tensor, *, context: Context | None = None) -> Tensor:
        return self.head(self.features(tokens, context=context))


@pytest.fixture(autouse=True)
def registered(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(ARCHITECTURES, "shared", Architecture(SharedConfig, SharedModel))
    Path("text.txt").write_text(text)


OPTIONS = ("--data", "text.txt", *settings(model__architecture="shared", model__n_head=4))


def test_it_trains_resumes_writes_and_is_captured() -> None:
    for run, stops in (("whole", [12]), ("halves", [7, 12])):
        for steps in stops:
            done = glassgpt("train", "char-tiny", *OPTIONS, "--run", run, "--resume", "--max-steps", steps)
            assert done.code == 0, done.err
    assert weights(Path("runs/whole")) == weights(Path("runs/halves"))
    losses = [line["train/loss"] for line in figures(Path("runs/whole")) if "train/loss" in line]
    assert losses[-1] < losses[0]

    run = gg.load("whole")
    text = run.generate("The ", max_new_tokens=40, temperature=0)  # up to block_size with a cache, and beyond it
    ids = run.tokenizer.encode(text)
    for end in range(len("The "), len(ids)):
        logits = run.model(torch.tensor([ids[:end][-32:]]))
        assert int(logits[0, -1].argmax()) == ids[end]

    logits, seen = gg.capture(run.model, torch.tensor([ids[:9]]))
    torch.testing.assert_close(logits, run.model(torch.tensor([ids[:9]])), atol=1e-5, rtol=1e-5)
    assert seen["blocks.1.attn.pattern"].shape == (1, 4, 9, 9)
    assert seen["blocks.1.attn.k"].shape == (1, 2, 9, 8)

    trace = gg.trace(run.model, ids[:9])
    terms = score_terms(trace, layer=1, head=3, query=6, key=4)
    bias = 2 * 0.5**4  # what the fourth head takes off at a distance of two
    torch.testing.assert_close(terms.terms.sum() - bias, seen["blocks.1.attn.scores"][0, 3, 6, 4])
    assert heads_of(trace).shape == (2, 4, 9, 9) and head_effects(run.model, ids[:9]).shape == (2, 4)
    torch.testing.assert_close(logit_lens(trace, top=1).probabilities[-1, :, 0], logits[0].softmax(-1).amax(-1))
    answer = attribute(trace, position=8, token=3)
    assert sum(value for _, value in answer.parts) == pytest.approx(float(logits[0, 8, 3]), abs=1e-4)


def test_it_is_planned_and_examined() -> None:
    plan = glassgpt("plan", "char-tiny", *OPTIONS[2:], "--no-measure", "--json")
    assert plan.code == 0, plan.err
    parts = json.loads(plan.out)["parameters"]
    attention = 2 * (32 * (32 + 16 + 16) + 64 + 32 * 32 + 32)
    assert (parts["attention"], parts["norms"], parts["token table"]) == (attention, 2 * 32, 65 * 32)
    found = glassgpt("doctor", "char-tiny", *OPTIONS, "--set", "optimizer.lr=1e-2", "--json")
    assert {finding["name"] for finding in json.loads(found.out)["findings"] if finding["status"] == "failed"} == set()
