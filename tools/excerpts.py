"""Code that a page shows from a file of the project: whether it is still that file's, and what it is now.

A block that begins with ```python title="glassgpt/models/ladder/s04_head.py" has lines of that file, word for word, in
their order. A line `# …` stands for lines that are left out. The lines between two of these may be indented less than
in the file.

The first and the last line of a part say where it is in the file. So a part whose inner lines have changed can be
renewed, and an author may write its first and last line only.
"""

from __future__ import annotations

import difflib
import textwrap
from pathlib import Path

from glassgpt.course.page import Block, iter_blocks

GAP = ("# …", "…")


def parts_of(code: str) -> list[list[str]]:
    """The lines of an excerpt, in the parts that gaps divide; the gaps are parts of one line."""
    parts: list[list[str]] = [[]]
    for line in code.splitlines():
        if line.strip() in GAP:
            parts += [[line], []]
        else:
            parts[-1].append(line)
    return [part for part in parts if any(line.strip() for line in part)]


def is_gap(part: list[str]) -> bool:
    """Whether a part is a gap."""
    return len(part) == 1 and part[0].strip() in GAP


def margin_off(lines: list[str]) -> list[str]:
    """The lines without their common indentation and without blanks at their ends."""
    return textwrap.dedent("\n".join(line.rstrip() for line in lines)).strip("\n").split("\n")


def find_part(part: list[str], source: list[str], start: int) -> int | None:
    """The line, from `start` on, from which the source has this part, or None."""
    wanted = margin_off(part)
    for line in range(start, len(source) - len(wanted) + 1):
        if margin_off(source[line : line + len(wanted)]) == wanted:
            return line
    return None


def renew_part(part: list[str], source: list[str]) -> list[str] | None:
    """The lines of the source from the part's first to its last, indented as the part is; None if one is gone.

    Where several places begin and end so, it is the one that is most like the part.
    """
    wanted = margin_off(part)
    first, last = wanted[0].strip(), wanted[-1].strip()
    found = []
    for begin, line in enumerate(source):
        if line.strip() != first:
            continue
        inside = range(begin if len(wanted) == 1 else begin + 1, len(source))
        end = next((number for number in inside if source[number].strip() == last), None)
        if end is not None:
            found.append(margin_off(source[begin : end + 1]))
    if not found:
        return None
    best = max(found, key=lambda lines: difflib.SequenceMatcher(None, wanted, lines).ratio())
    indent = part[0][: len(part[0]) - len(part[0].lstrip())]
    return [(indent + line).rstrip() for line in best]


def check_excerpt(block: Block, root: Path) -> str | None:
    """What is wrong with one excerpt, or None."""
    path = root / str(block.title)
    if not path.is_file():
        return f"line {block.line}: there is no file {block.title}"
    source, start, at = path.read_text(encoding="utf-8").splitlines(), 0, block.line + 1
    for part in parts_of(block.code):
        if not is_gap(part):
            found = find_part(part, source, start)
            if found is None:
                return f"line {at}: {block.title} has no such lines in this place, from {part[0].strip()!r} on"
            start = found + len(part)
        at += len(part)
    return None


def renew_page(markdown: str, root: Path) -> str:
    """The page with every excerpt as its file has it today. A part that cannot be found is left as it is."""
    for block in iter_blocks(markdown):
        if block.title is None or check_excerpt(block, root) is None or not (root / block.title).is_file():
            continue
        source = (root / block.title).read_text(encoding="utf-8").splitlines()
        lines = []
        for part in parts_of(block.code):
            lines += part if is_gap(part) else renew_part(part, source) or part
        fence = f'```{block.language} title="{block.title}"\n'
        markdown = markdown.replace(fence + block.code, fence + "\n".join(lines) + "\n")
    return markdown
