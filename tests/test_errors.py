"""What a user reads when a name is wrong."""

from __future__ import annotations

import pytest

from glassgpt.errors import UserError, unknown


def test_the_nearest_name_is_offered() -> None:
    error = unknown("recipe", "char-tinny", ["gpt2-124m", "char-tiny"])
    assert isinstance(error, UserError)
    assert str(error) == "unknown recipe 'char-tinny': did you mean 'char-tiny'? Known: char-tiny, gpt2-124m"


@pytest.mark.parametrize("name", ["", "zzz", "ü"])
def test_without_a_near_one_the_known_names_are_listed(name: str) -> None:
    assert str(unknown("device", name, ("mps", "cpu"))) == f"unknown device '{name}': Known: cpu, mps"
