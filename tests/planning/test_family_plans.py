"""Plans of the architectures that people download, whatever they read and predict."""

from __future__ import annotations

import pytest

from glassgpt.cli.plan_table import print_plan
from glassgpt.planning.plan import make_plan

EXPERTS = ["model.n_expert=4", "model.n_active=2", "model.head_size=32"]


@pytest.mark.parametrize("architecture", ["llama", "qwen3", "bert", "gpt_oss", "t5", "transformer"])
def test_a_plan_counts_parameters_layers_and_memory(architecture: str, capsys: pytest.CaptureFixture[str]) -> None:
    changes = [f"model.architecture={architecture}", *(EXPERTS if architecture == "gpt_oss" else [])]
    plan = make_plan("char-tiny", overrides=changes, device="cpu", seconds=0)
    assert plan.n_parameters == sum(plan.parameters.values())
    assert plan.n_active < plan.n_parameters if architecture == "gpt_oss" else plan.n_active == plan.n_parameters
    assert plan.micro_batches and plan.largest_micro_batch > 0
    print_plan(plan)
    told = " ".join(capsys.readouterr().out.split())
    reads_a_source = architecture in ("t5", "transformer")
    channels = 256 if architecture == "t5" else 128  # its heads have 64 channels each, whatever the stream has
    assert f"L = {12 if reads_a_source else 4}, C = {channels}" in told
    assert ("L counts the self-attention of both parts and the cross-attention" in told) == reads_a_source
    assert ("N has 2 of 4 experts" in told) == (architecture == "gpt_oss")


@pytest.mark.parametrize("recipe", ["bert-tiny", "reverse-tiny"])
def test_a_plan_measures_steps_of_the_recipes_own_kind(recipe: str) -> None:
    plan = make_plan(recipe, overrides=["model.n_embd=16"], device="cpu", seconds=0.1)
    assert plan.measured is not None and plan.measured.tokens_per_second > 0
    assert plan.n_parameters < 60_000
