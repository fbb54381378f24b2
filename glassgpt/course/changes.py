"""What changes in the code from one section of the ladder to the next, line by line."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from functools import cache
from importlib import resources
from typing import Literal

from glassgpt.models.ladder import SECTIONS, Section

ALIKE = 0.75  # of two lines, from which one counts as the other with a few words changed
LARGE = 3  # lines of a change; two such changes with only blank lines between them are one
Span = tuple[int, int]
Change = tuple[bool, int, int, int, int]  # whether the lines are the same; from and to, before and after


@dataclass(frozen=True)
class CodeLine:
    """A line of the code before (`old`) and after (`new`), by its number from 1; None: it is not there.

    `changed` are the characters of a line that were added or removed, where the rest is the same as in a line of the
    other side. `aside`: not a part of what the code does, but a docstring, an import or the name of the model.
    """

    kind: Literal["same", "added", "removed"]
    old: int | None
    new: int | None
    text: str
    changed: tuple[Span, ...] = ()
    aside: bool = False


def code_changes(section: Section) -> list[CodeLine]:
    """The whole file of a section, and what was removed from the one before. All of the first section is the same."""
    after = source(section)
    before = source(SECTIONS[section.number - 2]) if section.number > 1 else after
    old, new = asides(before), asides(after)
    lines = compare(before.splitlines(), after.splitlines())
    changed = {(line.kind, line.new or line.old) for line in lines if line.kind != "same"}

    def is_aside(line: CodeLine) -> bool:
        known, place = (old, line.old) if line.kind == "removed" else (new, line.new)
        if place not in known:
            return False
        owner = known[place]  # the docstring of a function that is added or removed as a whole belongs to the change
        return owner is None or owner in known or (line.kind, owner) not in changed

    return [replace(line, aside=is_aside(line)) for line in lines]


@cache
def source(section: Section) -> str:
    """The text of a section's file."""
    return (resources.files("glassgpt.models.ladder") / file_name(section)).read_text(encoding="utf-8")


def file_name(section: Section) -> str:
    """The name of a section's file."""
    return f"s{section.number:02}_{section.name}.py"


def compare(before: Sequence[str], after: Sequence[str]) -> list[CodeLine]:
    """All lines of both texts in order. Those that were not removed are `after`, those that were not added `before`."""
    lines: list[CodeLine] = []
    for same, i0, i1, j0, j1 in _joined(before, after):
        if same:
            lines += [CodeLine("same", i + 1, i - i0 + j0 + 1, before[i]) for i in range(i0, i1)]
            continue
        marks = _word_changes(before[i0:i1], after[j0:j1])
        lines += [CodeLine("removed", i + 1, None, before[i], marks["removed", i - i0]) for i in range(i0, i1)]
        lines += [CodeLine("added", None, j + 1, after[j], marks["added", j - j0]) for j in range(j0, j1)]
    return lines


def _joined(before: Sequence[str], after: Sequence[str]) -> list[Change]:
    """The changes in order. Blank lines do not tear apart functions that replace other functions."""
    codes = SequenceMatcher(None, before, after, autojunk=False).get_opcodes()
    found: list[Change] = [(kind == "equal", i0, i1, j0, j1) for kind, i0, i1, j0, j1 in codes]
    i = 1
    while i < len(found) - 1:
        same, start, end, _, _ = found[i]
        if same and not "".join(before[start:end]).strip() and _is_large(found[i - 1]) and _is_large(found[i + 1]):
            first, last = found[i - 1], found[i + 1]
            found[i - 1 : i + 2] = [(False, first[1], last[2], first[3], last[4])]
        else:
            i += 1
    return found


def _is_large(change: Change) -> bool:
    same, i0, i1, j0, j1 = change
    return not same and min(i1 - i0, j1 - j0) > 0 and max(i1 - i0, j1 - j0) >= LARGE


def _word_changes(before: Sequence[str], after: Sequence[str]) -> dict[tuple[str, int], tuple[Span, ...]]:
    """The changed characters of each line. Each line is compared with the first one that is alike, in order."""
    marks: dict[tuple[str, int], tuple[Span, ...]] = {("removed", i): () for i in range(len(before))}
    marks |= {("added", j): () for j in range(len(after))}
    start = 0
    for i, old in enumerate(before):
        for j in range(start, len(after)):
            if not _are_alike(old, after[j]):
                continue
            words, others = _words(old), _words(after[j])
            codes = SequenceMatcher(None, words, others, autojunk=False).get_opcodes()
            codes = [code for code in codes if code[0] != "equal"]
            marks["removed", i] = tuple(_spans(words, [(a, b) for _, a, b, _, _ in codes]))
            marks["added", j] = tuple(_spans(others, [(a, b) for _, _, _, a, b in codes]))
            start = j + 1
            break
    return marks


def _are_alike(a: str, b: str) -> bool:
    if len(a) - len(a.lstrip()) != len(b) - len(b.lstrip()):
        return False
    return SequenceMatcher(None, a.strip(), b.strip(), autojunk=False).ratio() >= ALIKE


def _words(text: str) -> list[str]:
    return re.findall(r"\w+|\s+|.", text)


def _spans(words: Sequence[str], ranges: Sequence[Span]) -> Iterator[Span]:
    """Ranges of words as ranges of characters, without the blanks at both ends."""
    ends = [0]
    for word in words:
        ends.append(ends[-1] + len(word))
    for first, last in ranges:
        while first < last and words[first].isspace():
            first += 1
        while first < last and words[last - 1].isspace():
            last -= 1
        if first < last:
            yield ends[first], ends[last]


def asides(text: str) -> dict[int, int | None]:
    """The numbers of the lines that say nothing about what the code does.

    These are the docstrings, with the line of the function or class that they describe. With None, they are the
    docstring of the file, the imports with the blank lines between them, and the name of the model's class, which
    every section changes.
    """
    found: dict[int, int | None] = {}
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            first = node.body[0]
            if ast.get_docstring(node) is not None:
                found |= dict.fromkeys(range(first.lineno, (first.end_lineno or first.lineno) + 1), node.lineno)
        if isinstance(node, ast.ClassDef) and [ast.unparse(base) for base in node.bases] == ["Model"]:
            found[node.lineno] = None
    imports = [node.end_lineno or 0 for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    return found | dict.fromkeys(range(1, max(imports, default=0) + 1))
