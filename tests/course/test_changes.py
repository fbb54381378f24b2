"""What changes from one section of the ladder to the next: whole, exact, and without the noise."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glassgpt.course.changes import CodeLine, code_changes, compare, source
from glassgpt.models.ladder import SECTIONS, Section

LINES = st.lists(
    st.sampled_from(["", "a", "a = 1", "    a = 1", "a = 2", "def f(a):", "return a + b", "ä·"]), max_size=30
)


def before_and_after(lines: list[CodeLine]) -> tuple[list[str], list[str]]:
    """The two texts that the lines stand for. Every line has its number."""
    old = [line for line in lines if line.kind != "added"]
    new = [line for line in lines if line.kind != "removed"]
    assert [line.old for line in old] == list(range(1, len(old) + 1))
    assert [line.new for line in new] == list(range(1, len(new) + 1))
    assert all(line.new is None for line in lines if line.kind == "removed")
    assert all(line.old is None for line in lines if line.kind == "added")
    return [line.text for line in old], [line.text for line in new]


@given(LINES, LINES)
def test_the_lines_give_both_texts_back(before: list[str], after: list[str]) -> None:
    lines = compare(before, after)
    assert before_and_after(lines) == (before, after)
    for line in lines:
        ends = [end for span in line.changed for end in span]
        assert ends == sorted(set(ends)) and all(0 <= end <= len(line.text) for end in ends)
        assert not line.changed or line.kind != "same"


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.name)
def test_the_changes_of_a_section_are_those_of_its_file(section: Section) -> None:
    earlier = section if section.number == 1 else SECTIONS[section.number - 2]
    found = before_and_after(code_changes(section))
    assert found == (source(earlier).splitlines(), source(section).splitlines())


def code_lines(number: int) -> list[tuple[str, str]]:
    lines = code_changes(SECTIONS[number - 1])
    return [(line.kind, line.text.strip()) for line in lines if line.kind != "same" and not line.aside]


def test_without_the_noise_the_idea_is_left() -> None:
    assert code_lines(8) == [
        ("removed", "x = self.attn(x)"),
        ("removed", "return self.mlp(x)"),
        ("added", "x = x + self.attn(x)"),
        ("added", "return x + self.mlp(x)"),
    ]
    assert code_lines(1) == []


def test_the_words_that_changed_are_marked() -> None:
    lines = [line for line in code_changes(SECTIONS[7]) if line.kind == "added" and not line.aside]
    assert [[line.text[a:b] for a, b in line.changed] for line in lines] == [["x +"], ["x +"]]


def test_functions_that_replace_others_are_not_torn_apart() -> None:
    code = code_lines(4)
    kinds = [kind for kind, _ in code[: code.index(("added", "return self.inner(q, k, v)")) + 1]]
    assert kinds == sorted(kinds, reverse=True)  # all that is removed, then all that is added
    assert ("added", '"""x (B, T, C) to the weighted sum of the values up to each position (B, T, D)."""') in code
