"""Chooses the next token from the logits of a model."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from glassgpt.config import check_field_types
from glassgpt.errors import UserError

MIN_TEMPERATURE = 1e-30  # below it float32 may divide by zero; sampling is effectively greedy long before


@dataclass(frozen=True)
class SamplingConfig:
    """How the next token is chosen. Temperature 0 is greedy; `top_k` and `top_p` truncate the distribution."""

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None

    def __post_init__(self) -> None:
        check_field_types(self)
        if not 0.0 <= self.temperature < float("inf"):
            raise UserError(f"temperature {self.temperature} is out of range: it must be at least 0 (0 is greedy)")
        if self.top_k is not None and self.top_k < 1:
            raise UserError(f"top-k {self.top_k} is out of range: it must be at least 1 (1 is greedy)")
        if self.top_p is not None and not 0.0 < self.top_p <= 1.0:
            raise UserError(f"top-p {self.top_p} is out of range: it must be above 0 and at most 1")


def next_token_probabilities(logits: Tensor, config: SamplingConfig) -> Tensor:
    """Maps logits (B, V) to the sampling distribution (B, V); the temperature must be above 0.

    `top_k` keeps the k most likely tokens (Fan et al. 2018). `top_p` keeps the smallest set of the most likely tokens
    whose total reaches p, at least one (nucleus sampling, Holtzman et al. 2020). It is applied after `top_k`.
    """
    logits = logits.float()
    # Subtract the maximum first: a tiny temperature then sends the other logits to -inf, but never the largest to +inf.
    logits = (logits - logits.amax(dim=-1, keepdim=True)) / max(config.temperature, MIN_TEMPERATURE)
    if config.top_k is not None and config.top_k < logits.size(-1):
        chosen = logits.topk(config.top_k, dim=-1)
        logits = torch.full_like(logits, -torch.inf).scatter(-1, chosen.indices, chosen.values)
    probabilities = logits.softmax(dim=-1)
    if config.top_p is not None and config.top_p < 1.0:
        ordered, order = probabilities.sort(dim=-1, descending=True, stable=True)
        mass_before = ordered.cumsum(dim=-1) - ordered
        ordered = ordered.masked_fill(mass_before >= config.top_p, 0.0)
        probabilities = torch.zeros_like(probabilities).scatter(-1, order, ordered)
        probabilities = probabilities / probabilities.sum(dim=-1, keepdim=True)
    return probabilities


def check_finite(logits: Tensor) -> None:
    """Raises UserError if the largest logit of a row (..., V) is NaN or infinite."""
    if not bool(logits.amax(dim=-1).isfinite().all()):
        raise UserError(
            "the model's logits are not finite: its weights have diverged; take an earlier checkpoint,"
            " or train again with a lower optimizer.lr"
        )


def choose(logits: Tensor, config: SamplingConfig, generator: torch.Generator | None) -> Tensor:
    """Chooses one token per row: logits (B, V) to (B, 1). Raises UserError if the largest logit is NaN or infinite."""
    check_finite(logits)
    if config.temperature == 0.0:
        return logits.argmax(dim=-1, keepdim=True)
    probabilities = next_token_probabilities(logits, config)
    # Draw on the CPU, so that one seed gives the same text on every device that computes the same logits.
    drawn = torch.multinomial(probabilities.cpu(), num_samples=1, generator=generator)
    return drawn.to(logits.device)
