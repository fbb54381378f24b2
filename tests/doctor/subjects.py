"""Configs of subjects, and the type of what admits one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from glassgpt.doctor.subject import Subject
from glassgpt.runs.config import RunConfig, parse_run_config

FromRecipe = Callable[..., Subject]


def small_config(**changes: Any) -> RunConfig:
    sections: dict[str, dict[str, Any]] = {
        "model": {"architecture": "gpt2", "block_size": 32, "n_layer": 2, "n_head": 2, "n_embd": 32, "dropout": 0.1},
        "optimizer": {"lr": 1e-3},
        "schedule": {"min_lr": 0.0},
        "training": {"batch_tokens": 256},
    }
    for name, value in changes.items():
        section, field = name.split("__")
        sections.setdefault(section, {})[field] = value
    return parse_run_config(sections)
