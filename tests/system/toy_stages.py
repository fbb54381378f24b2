"""Two stages that the package does not have, each in a few lines: a reward head, and a policy gradient.

As a program, `python toy_stages.py train …` is `glassgpt train …` with both of them registered.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glassgpt.cli.main import main
from glassgpt.data.loader import Loader
from glassgpt.models import Model, build_model
from glassgpt.runs.pretraining import Pretraining, PretrainingKind
from glassgpt.runs.stages import STAGES
from glassgpt.training.losses import Loss
from glassgpt.training.stage import Best

N_UPDATES, N_PROMPTS, N_NEW, WANTED = 3, 8, 6, 5  # updates from one rollout; its size; the id that is rewarded


@dataclass(frozen=True)
class Pairs:
    """A micro-batch: text, and tokens drawn at random; both (B, T)."""

    chosen: Tensor
    rejected: Tensor

    @property
    def n_tokens(self) -> int:
        return 2 * self.chosen.numel()


class RewardModel(Model):
    """`tokens (B, T)` to a reward each, (B,): a linear head on the features of the last token."""

    def __init__(self, base: Any) -> None:
        super().__init__()
        self.base, self.config = base, base.config
        self.reward = nn.Linear(base.config.n_embd, 1)
        if isinstance(base.head, nn.Module):  # an untied head: the loss does not use it
            base.head.requires_grad_(False)

    @property
    def blocks(self) -> nn.ModuleList:
        return self.base.blocks

    def features(self, tokens: Tensor) -> Tensor:
        return self.base.features(tokens)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.reward(self.features(tokens)[:, -1]).squeeze(-1)


class RewardStage(Pretraining):
    """Bradley-Terry on pairs: −log σ(r_chosen − r_rejected)."""

    best = Best("val/accuracy", "max")
    in_parts = False

    def batches(self, step: int) -> Sequence[Any]:
        first, last = self._runtime.ranks.rank_slice(self._config.batch_rows)
        pairs = self._pairs(self._loader, step)
        return [Pairs(pairs.chosen[row : row + 2], pairs.rejected[row : row + 2]) for row in range(first, last, 2)]

    def _pairs(self, loader: Loader, step: int) -> Pairs:
        chosen, _ = loader.rows(step)
        draw = torch.Generator().manual_seed(step)
        return Pairs(chosen, torch.randint(self.tokenizer.vocab_size, chosen.shape, generator=draw))

    def loss(self, model: Any, batch: Any) -> Loss:
        margin = model(batch.chosen) - model(batch.rejected)
        right = (margin > 0).float().sum()
        return Loss(-F.logsigmoid(margin).sum(), float(len(margin)), {"accuracy": (right, float(len(margin)))})

    @torch.no_grad()
    def validate(self, whole: bool) -> Mapping[str, float]:
        pairs = self._pairs(Loader(self.dataset.val, self._config.model.block_size, 32, seed=0), 0)
        margin = self.model(pairs.chosen) - self.model(pairs.rejected)
        return {
            "val/accuracy": (margin > 0).float().mean().item(),
            "val/reward_loss": -F.logsigmoid(margin).mean().item(),
        }

    def sample(self, step: int) -> None:
        return None


class RewardKind(PretrainingKind):
    def build_model(self, config: Any) -> Model:
        return RewardModel(build_model(config.architecture, config.model))

    def build(self, config: Any, model: Any, data: Any, runtime: Any) -> RewardStage:
        return RewardStage(config, model, data, runtime)


@dataclass(frozen=True)
class Rollouts:
    """A micro-batch: sequences (B, T) whose last N_NEW tokens the model wrote, and the advantage of each (B,)."""

    tokens: Tensor
    advantage: Tensor

    @property
    def n_tokens(self) -> int:
        return len(self.tokens) * N_NEW


class PolicyStage(Pretraining):
    """REINFORCE (Williams 1992) with a mean baseline: every rollout serves three updates."""

    best = Best("reward/mean", "max")
    in_parts = False
    batches_ahead = False  # rollouts come from the current model
    _rollout: Rollouts | None = None

    def batches(self, step: int) -> Sequence[Any]:
        if step % N_UPDATES == 0:
            self._rollout = self._roll_out(step)
        assert self._rollout is not None  # it comes from the batch before, or from a checkpoint
        rows = slice(*self._runtime.ranks.rank_slice(N_PROMPTS))
        return [Rollouts(self._rollout.tokens[rows], self._rollout.advantage[rows])]

    @torch.no_grad()
    def _roll_out(self, step: int) -> Rollouts:
        """The same on every rank: the prompts and the draws are a function of the step."""
        draw = torch.Generator().manual_seed(step)
        tokens = self._loader.rows(step, 0, N_PROMPTS)[0][:, :4]
        for _ in range(N_NEW):
            probabilities = self.model(tokens)[:, -1, : self.tokenizer.vocab_size].softmax(-1)
            tokens = torch.cat([tokens, torch.multinomial(probabilities, 1, generator=draw)], dim=1)
        reward = (tokens[:, -N_NEW:] == WANTED).float().mean(dim=1)
        return Rollouts(tokens, reward - reward.mean() + 0.01)

    def loss(self, model: Any, batch: Any) -> Loss:
        logprobs = model(batch.tokens[:, :-1]).log_softmax(-1)
        written = logprobs.gather(2, batch.tokens[:, 1:, None])[:, -N_NEW:, 0].sum(dim=1)
        return Loss(-(batch.advantage * written).sum(), float(len(written)))

    def validate(self, whole: bool) -> Mapping[str, float]:
        tokens = self._roll_out(1000).tokens
        return {"reward/mean": (tokens[:, -N_NEW:] == WANTED).float().mean().item()}

    def state(self) -> Mapping[str, Tensor]:
        return {} if self._rollout is None else vars(self._rollout)

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        self._rollout = Rollouts(**state) if state else None


class PolicyKind(PretrainingKind):
    def build(self, config: Any, model: Any, data: Any, runtime: Any) -> PolicyStage:
        return PolicyStage(config, model, data, runtime)


STAGES |= {"toy-reward": RewardKind(), "toy-policy": PolicyKind()}

if __name__ == "__main__":
    main()
