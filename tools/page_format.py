"""Whether a page of the course has the parts that every page has, in their order.

They are described in CONTRIBUTING.md, under "A page of the course".
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from glassgpt.course.page import BLOCK, QUOTED, Block, iter_blocks, iter_quoted
from glassgpt.server.pages import VIEWS

INDEX = "README"  # the list of pages, which has no format
HEADINGS = (
    "The question",
    "The formula",
    "The code",
    "Run it",
    "Look at it",
    "What it shows, and what it does not",
    "Exercises",
)
CODE_LINES = 16  # of the excerpts of a page in all, without blank lines and gaps: about twelve
EXERCISES = 3
LOOK = re.compile(r"http://127\.0\.0\.1:4242/(\w*)")
DETAILS = re.compile(r"^<details>\n<summary>[^\n]+</summary>\n\n(.*?)\n\n</details>$", re.MULTILINE | re.DOTALL)


def check_format(path: Path) -> Iterator[str]:
    """Each way in which a page of docs/course is not like the others."""
    markdown = path.read_text(encoding="utf-8")
    yield from check_comments(markdown)
    if path.stem == INDEX:
        return
    blocks = list(iter_blocks(markdown))
    prose = BLOCK.sub(lambda match: "\n" * match[0].count("\n"), markdown)
    headings = re.findall(r"^## (.+)$", prose, re.MULTILINE)
    if headings != list(HEADINGS):
        yield f"the headings are {', '.join(headings) or 'none'}; they have to be {', '.join(HEADINGS)}"
        return
    starts = [markdown.index(f"\n## {heading}\n") for heading in HEADINGS]
    sections = dict(zip(HEADINGS, zip(starts, [*starts[1:], len(markdown)], strict=True), strict=True))
    parts = {heading: markdown[begin:end] for heading, (begin, end) in sections.items()}

    def within(heading: str) -> list[Block]:
        begin, end = (markdown.count("\n", 0, place) for place in sections[heading])
        return [block for block in blocks if begin < block.line <= end]

    yield from check_drawing(path, parts["The question"])
    if "$$" not in parts["The formula"]:
        yield "The formula has no formula: write one between two lines $$"
    excerpts = [block for block in within("The code") if block.title]
    if not excerpts:
        yield 'The code has no block with title="FILE"'
    lines = [line for block in excerpts for line in block.code.splitlines() if line.strip() not in ("", "…", "# …")]
    if len(lines) > CODE_LINES:
        yield f"The code has {len(lines)} lines: show the {CODE_LINES} that matter most, or fewer"
    if not any(block.runs and block.language == "bash" for block in within("Run it")):
        yield "Run it has no bash block that is run"
    named = {quoted.name for quoted in iter_quoted(parts["Run it"])}
    if "seconds" not in named:
        yield "Run it does not say how long it takes: 20 s<!-- seconds × 3 -->"
    if not named - {"seconds", ""}:
        yield "Run it has no figure that its block prints: 2.39<!-- loss ± 0.02 -->"
    views = LOOK.findall(parts["Look at it"])
    if not views:
        yield "Look at it has no link to http://127.0.0.1:4242/"
    for view in views:
        if view not in VIEWS:
            yield f"Look at it: glassgpt look has no view {view!r}, but {', '.join(VIEWS)}"
    yield from check_exercises(parts["Exercises"])


def check_comments(markdown: str) -> Iterator[str]:
    """Comments that no check understands, and blocks that no check sees: mistakes that nobody would notice."""
    for line, text in enumerate(QUOTED.sub("", blank_blocks(markdown)).splitlines(), 1):
        for comment in re.findall(r"<!--.*?(?:-->|$)", text):
            yield f"line {line}: the comment {comment} is none that the checks know, or not where it should be"
        if re.match(r" +```", text):
            yield f"line {line}: this block is indented, so no check sees it: let it begin at the margin"


def blank_blocks(markdown: str) -> str:
    """The page with empty lines for its blocks and the comments before them."""
    return BLOCK.sub(lambda match: "\n" * match[0].count("\n"), markdown)


def check_drawing(path: Path, question: str) -> Iterator[str]:
    """The drawing of a page is drawings/NAME.svg: shown as soon as it is there, with a text that says what it shows."""
    name = f"drawings/{path.stem}.svg"
    shown = re.findall(r"!\[([^\]]*)\]\(([^)]+)\)", question)
    if (path.parent / name).is_file() and name not in [target for _, target in shown]:
        yield f"The question does not show its drawing: ![what it shows]({name})"
    for text, target in shown:
        if not text.strip():
            yield f"the picture {target} has no text that says what it shows"


def check_exercises(text: str) -> Iterator[str]:
    """Three exercises, each with a hidden answer that can be checked."""
    answers = list(DETAILS.finditer(text))
    if text.count("<details") != len(answers):
        yield "an answer begins with the lines <details> and <summary>Answer</summary>, its text between blank lines"
    if len(answers) < EXERCISES:
        yield f"there are {len(answers)} exercises with a hidden answer: at least {EXERCISES} are needed"
    end = text.index("\n", 1)
    for number, answer in enumerate(answers, 1):
        if not text[end : answer.start()].strip():
            yield f"answer {number} has no question before it"
        end = answer.end()
        python = any(block.runs and block.language == "python" for block in iter_blocks(answer[1] + "\n"))
        if not python and not list(iter_quoted(answer[1])):
            yield f"answer {number} has neither a python block nor a number with a comment such as 3.5<!-- = 7 / 2 -->"
