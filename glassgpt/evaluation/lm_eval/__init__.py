"""Evaluates our models with EleutherAI's lm-eval, in this process: lm-eval 0.4.13 has no plug-ins for models.

`python -m glassgpt.evaluation.lm_eval --run RUN --tasks …` is its command line.
"""

from __future__ import annotations

import difflib
import fnmatch
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from glassgpt.errors import UserError, option
from glassgpt.models import Model
from glassgpt.runtime.device import Runtime
from glassgpt.tokenizers.base import Tokenizer


def evaluate_tasks(
    model: Model,
    tokenizer: Tokenizer,
    tasks: Sequence[str],
    runtime: Runtime,
    *,
    prefix_id: int,
    include_path: str | Path | None = None,
    limit: int | None = None,
    num_fewshot: int | None = None,
) -> dict[str, dict[str, Any]]:
    """The results that lm-eval reports for each task: {"hellaswag": {"acc,none": 0.25, "acc_stderr,none": 0.01, …}}.

    `include_path` is a folder of additional tasks, as YAML files. `prefix_id` precedes a text that has no context.
    Raises UserError if lm-eval is not installed, and for a task that it does not have or cannot load.
    """
    try:
        from lm_eval import simple_evaluate
        from lm_eval.tasks import TaskManager

        from glassgpt.evaluation.lm_eval.adapter import GlassGPT
    except ImportError as error:
        raise UserError(f"lm-eval is not installed ({error}): pip install 'glassgpt[eval]'") from None
    if include_path is not None and not Path(include_path).is_dir():
        raise UserError(
            f"the task folder '{include_path}' does not exist: {option(include_path=None)} must name a folder of YAML"
            " files"
        )
    manager = TaskManager(include_path=None if include_path is None else str(include_path))
    _check_tasks(tasks, manager.all_tasks)
    adapter = GlassGPT(model, tokenizer, runtime, prefix_id=prefix_id)
    try:
        found = simple_evaluate(
            adapter, tasks=list(tasks), task_manager=manager, limit=limit, num_fewshot=num_fewshot, log_samples=False,
        )  # fmt: skip
    except UserError:
        raise
    except Exception as error:  # unavailable data sets, invalid task files: each library has its own errors
        first, *_ = str(error).splitlines() or [type(error).__name__]
        raise UserError(f"lm-eval could not run {', '.join(tasks)}: {first}") from error
    results: dict[str, dict[str, Any]] = json.loads(json.dumps(found["results"], default=_plain))
    return results


def _plain(value: Any) -> Any:
    """Converts a numpy number to a Python number, and anything else to a string."""
    return value.item() if hasattr(value, "item") else str(value)


def _check_tasks(tasks: Sequence[str], known: Sequence[str]) -> None:
    for task in tasks:
        if not fnmatch.filter(known, task):
            near = difflib.get_close_matches(task, known, n=1)
            hint = f"did you mean '{near[0]}'?" if near else "'lm-eval ls tasks' lists all tasks"
            raise UserError(f"unknown task '{task}': {hint}")
