"""Reads a Markdown page: its blocks of code, the figures that it quotes, and the comments that keep both honest.

A page is plain Markdown. HTML comments, which no reader sees, say what a check needs to know. On the lines before a
fenced block:

    <!-- not run: why -->           a reader does not run it here, and neither does a check
    <!-- small: OLD → NEW -->       in the check at small size, NEW stands in place of OLD
    <!-- figure NAME: PATTERN -->   a number that the block prints: the group of a regular expression

Directly behind a number in the text:

    <!-- NAME ± 0.02 -->            it is the figure NAME, within 0.02 of what is printed
    <!-- NAME × 3 -->               the same, within a factor of 3; `seconds` is the time of the next block
    <!-- = 65 * 65 -->              it is the value of a Python expression, to the digits shown
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from glassgpt.errors import UserError

COMMENT = r"<!-- (?:not run|small|figure [\w-]+): [^\n]+? -->\n+"
BLOCK = re.compile(
    rf'^(?P<comments>(?:{COMMENT})*)```(?P<language>\w+)(?: title="(?P<title>[^"\n]+)")?\n(?P<code>.*?)^```$',
    re.MULTILINE | re.DOTALL,
)
Size = Literal["small", "full"]
RUN = ("bash", "python")  # the languages of blocks that are run
NUMBER = r"[−-]?\d[\d,]*(?:\.\d+)?"
QUOTED = re.compile(
    rf"(?<![\d.,])(?P<number>{NUMBER})(?P<unit>[^\d\n<]{{0,16}})"
    r"<!-- (?:= (?P<expression>[^\n]+?)|(?P<name>[\w-]+) (?P<kind>[±×]) (?P<within>[\d.]+)) -->"
)
# A link or a picture, or a piece of code, in which nothing is a link.
LINK = re.compile(
    r"^```.*?^```$|`[^`]+`|(?P<picture>!?)\[(?P<label>[^\[\]]*)\]\((?P<target>[^()\s]+)\)", re.MULTILINE | re.DOTALL
)
HIDDEN = re.compile(r"^<!--.*?-->\n|<!--.*?-->", re.DOTALL | re.MULTILINE)  # with its line, where it has one


@dataclass(frozen=True)
class Block:
    """One fenced block: the line of its opening fence, its language, and what the comments before it say."""

    line: int
    language: str
    code: str
    title: str | None = None  # the file that its lines are from; such a block is shown and not run
    reason: str | None = None  # why it is not run
    small: tuple[tuple[str, str], ...] = ()  # (old, new): replaced in the check at small size
    figures: dict[str, str] = field(default_factory=dict)  # name: regular expression with one group

    @property
    def runs(self) -> bool:
        """Whether a reader runs it, and so a check."""
        return self.language in RUN and self.title is None and self.reason is None

    def code_at(self, size: Size) -> str:
        """The code as it is run. Raises UserError if the text that is replaced at small size is not in it."""
        code = self.code
        for old, new in self.small if size == "small" else ():
            if old not in code:
                raise UserError(f"line {self.line}: the block does not have {old!r}, which its small size replaces")
            code = code.replace(old, new)
        return code


@dataclass(frozen=True)
class Quoted:
    """A number in the text that a comment ties to a figure or an expression."""

    line: int
    number: str  # as the reader sees it
    span: tuple[int, int]  # where it stands in the page
    expression: str | None
    name: str
    kind: str  # "±": within a distance, "×": within a factor
    within: float

    def problem(self, true: float) -> str | None:
        """How the quoted number differs from the true one, or None where it is near enough."""
        shown = parse_number(self.number)
        if self.expression is not None:
            near, limit = abs(shown - true) <= 0.5 * 10 ** -decimals(self.number) * (1 + 1e-9), "to the digits shown"
        elif self.kind == "±":
            near, limit = abs(shown - true) <= self.within, f"within {self.within:g}"
        else:
            near = true > 0 and 1 / self.within <= shown / true <= self.within
            limit = f"within a factor of {self.within:g}"
        what = self.expression or self.name
        return None if near else f"line {self.line}: {self.number} is not {what}, {true:g}, {limit}"


def iter_blocks(markdown: str) -> Iterator[Block]:
    """The fenced blocks that begin at the margin, in order."""
    for match in BLOCK.finditer(markdown):
        line = markdown.count("\n", 0, match.start("code"))  # that of the opening fence
        reason, small, figures = None, [], {}
        for comment in re.findall(r"<!-- (.+?) -->", match["comments"]):
            what, _, rest = comment.partition(": ")
            if what == "not run":
                reason = rest
            elif what == "small":
                old, arrow, new = rest.partition(" → ")
                if not arrow:
                    raise UserError(f"line {line}: write <!-- small: OLD → NEW -->")
                small.append((old, new))
            else:
                figures[what.removeprefix("figure ")] = rest
        yield Block(line, match["language"], match["code"], match["title"], reason, tuple(small), figures)


def iter_quoted(markdown: str) -> Iterator[Quoted]:
    """The numbers that a comment ties to something, in order."""
    for match in QUOTED.finditer(markdown):
        yield Quoted(
            1 + markdown.count("\n", 0, match.start("number")),
            match["number"],
            match.span("number"),
            match["expression"],
            match["name"] or "",
            match["kind"] or "",
            float(match["within"] or 0),
        )


def title_of(markdown: str) -> str:
    """The text of the first heading."""
    found = re.search(r"^# (.+)$", markdown, re.MULTILINE)
    return found[1] if found else ""


def without_comments(markdown: str) -> str:
    """The page as a reader sees it: without the comments, but for those inside code."""
    parts = re.split(r"(^```.*?^```$)", markdown, flags=re.MULTILINE | re.DOTALL)
    return "".join(part if part.startswith("```") else HIDDEN.sub("", part) for part in parts)


@dataclass(frozen=True)
class Link:
    """A link, or a picture, of a page."""

    label: str
    target: str
    picture: bool

    @property
    def local(self) -> bool:
        """Whether it leads to a file of the project."""
        return not re.match(r"[a-z]+:|#", self.target)

    def __str__(self) -> str:
        return f"{'!' if self.picture else ''}[{self.label}]({self.target})"


def map_links(markdown: str, replace: Callable[[Link], str]) -> str:
    """The page with each link and each picture replaced by what `replace` makes of it; code stays as it is."""

    def put(match: re.Match[str]) -> str:
        return match[0] if match["target"] is None else replace(_link(match))

    return LINK.sub(put, markdown)


def iter_links(markdown: str) -> Iterator[Link]:
    """Each link and each picture of a page, in order; code has none."""
    return (_link(match) for match in LINK.finditer(markdown) if match["target"] is not None)


def _link(match: re.Match[str]) -> Link:
    return Link(match["label"], match["target"], bool(match["picture"]))


def parse_number(text: str) -> float:
    """A number as the pages write it: 1,234.5 or −0.5, with a minus sign or a hyphen."""
    return float(text.replace(",", "").replace("−", "-"))


def decimals(text: str) -> int:
    """How many digits behind the point a number shows."""
    return len(text.partition(".")[2])


def format_like(value: float, shown: str) -> str:
    """A value written as `shown` is: as many decimals, with commas and a minus sign where `shown` would have them."""
    comma = "," if "," in shown or abs(value) >= 10_000 else ""
    return f"{value:{comma}.{decimals(shown)}f}".replace("-", "−")


def check_expressions(markdown: str) -> Iterator[str]:
    """The numbers of a page that are not the value of the expression behind them."""
    for quoted in iter_quoted(markdown):
        if quoted.expression is None:
            continue
        try:
            problem = quoted.problem(evaluate_expression(quoted.expression))
        except (SyntaxError, NameError, TypeError, ValueError, ArithmeticError) as error:
            problem = f"line {quoted.line}: {quoted.expression} has no value: {error}"
        if problem is not None:
            yield problem


def evaluate_expression(expression: str) -> float:
    """The value of an arithmetic expression of the page's author, which may use the functions of `math`."""
    names = {name: value for name, value in vars(math).items() if not name.startswith("_")}
    return float(eval(expression, {"__builtins__": {}, "abs": abs, "sum": sum, "range": range}, names))
