"""Plans of the architectures that people download, and what an encoder is not asked for."""

from __future__ import annotations

import pytest

from glassgpt.cli.plan_table import print_plan
from glassgpt.errors import UserError
from glassgpt.planning.plan import make_plan

EXPERTS = ["model.n_expert=4", "model.n_active=2", "model.head_size=32"]


@pytest.mark.parametrize("architecture", ["llama", "qwen3", "bert", "gpt_oss"])
def test_a_plan_counts_parameters_layers_and_memory(architecture: str, capsys: pytest.CaptureFixture[str]) -> None:
    changes = [f"model.architecture={architecture}", *(EXPERTS if architecture == "gpt_oss" else [])]
    plan = make_plan("char-tiny", overrides=changes, device="cpu", seconds=0)
    assert plan.n_parameters == sum(plan.parameters.values())
    assert plan.n_active < plan.n_parameters if architecture == "gpt_oss" else plan.n_active == plan.n_parameters
    assert plan.micro_batches and plan.largest_micro_batch > 0
    print_plan(plan)
    told = " ".join(capsys.readouterr().out.split())
    assert "L = 4, C = 128" in told
    assert ("N has 2 of 4 experts" in told) == (architecture == "gpt_oss")


@pytest.mark.parametrize("architecture", ["t5", "transformer"])
def test_an_encoder_decoder_has_no_plan_yet(architecture: str) -> None:
    with pytest.raises(UserError, match=rf"'{architecture}' is an encoder-decoder, which reads a source"):
        make_plan("char-tiny", overrides=[f"model.architecture={architecture}"], device="cpu", seconds=0)
