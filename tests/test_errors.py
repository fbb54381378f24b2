"""What a user reads when a name is wrong."""

from __future__ import annotations

import pytest

from glassgpt.errors import UserError, counted, on_command_line, option, unknown


def test_the_nearest_name_is_offered() -> None:
    error = unknown("recipe", "char-tinny", ["gpt2-124m", "char-tiny"])
    assert isinstance(error, UserError)
    assert str(error) == "unknown recipe 'char-tinny': did you mean 'char-tiny'? Known: char-tiny, gpt2-124m"


@pytest.mark.parametrize("name", ["", "zzz", "ü"])
def test_without_a_near_one_the_known_names_are_listed(name: str) -> None:
    assert str(unknown("device", name, ("mps", "cpu"))) == f"unknown device '{name}'. Known: cpu, mps"


@pytest.mark.parametrize(
    ("settings", "argument", "flag"),
    [
        ({"overwrite": True}, "overwrite=True", "--overwrite"),
        ({"max_steps": None}, "max_steps", "--max-steps"),
        ({"data": "a b.txt"}, "data='a b.txt'", "--data a b.txt"),
        ({"model.n_head": 4}, "settings={'model.n_head': 4}", "--set model.n_head=4"),
        ({"run": "x", "resume": True}, "run='x', resume=True", "--run x --resume"),
    ],
)
def test_a_setting_is_named_as_the_reader_can_type_it(settings: dict[str, object], argument: str, flag: str) -> None:
    assert option(**settings) == argument
    with on_command_line():
        assert option(**settings) == flag
    assert option(**settings) == argument


def test_one_thing_is_no_plural() -> None:
    assert [counted(n, "step") for n in (0, 1, 2000)] == ["0 steps", "1 step", "2,000 steps"]
