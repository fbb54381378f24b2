"""Makes of a page what a terminal can show: no comments, no hidden answers, and formulas as plain text."""

from __future__ import annotations

import re
from collections.abc import Callable

from glassgpt.course.page import BLOCK, map_links, without_comments

DETAILS = re.compile(r"<details>\n<summary>.*?</summary>\n(.*?)</details>", re.DOTALL)
FORMULA = re.compile(
    r"^\$\$\n?(?P<block>.*?)\n?\$\$$|(?<![\\$\w])\$(?P<inline>[^$\n]+)\$(?!\w)", re.MULTILINE | re.DOTALL
)
# What the commands of TeX stand for.
SIGNS = {
    "partial": "∂", "dots": "…", "ldots": "…", "approx": "≈", "mid": "|", "pi": "π", "mu": "μ", "sigma": "σ",
    "gamma": "γ", "beta": "β", "varepsilon": "ε", "Phi": "Φ", "eta": "η", "lambda": "λ", "leftarrow": "←",
    "lVert": "‖", "rVert": "‖", "tau": "τ", "ge": "≥", "ne": "≠", "in": "∈", "to": "→", "alpha": "α", "delta": "δ",
    "theta": "θ", "Delta": "Δ",
}  # fmt: skip


def _fraction(match: re.Match[str]) -> str:
    """A part that is a single letter needs no brackets."""
    return " / ".join(part if re.fullmatch("√?\\w\u0302?", part) else f"({part})" for part in match.groups())


Rules = tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...]
BRACES: Rules = (  # from the innermost braces to the outermost, until none are left
    (r"\\(?:mathrm|text|operatorname|mathbf|mathbb)\{([^{}]*)\}", r"\1"),
    (r"\\hat\{(\w)\}", "\\1\u0302"),
    (r"([_^])\{([^{}])\}", r"\1\2"),
    (r"([_^])\{([^{}]*)\}", r"\1(\2)"),
    (r"\\sqrt\{(\w)\}", r"√\1"),
    (r"\\sqrt\{([^{}]*)\}", r"√(\1)"),
    (r"\\frac\{([^{}]*)\}\{([^{}]*)\}", _fraction),
)
COMMANDS: Rules = (  # in the order in which they are replaced
    (r"\^\\top", "ᵀ"),
    (r"\s*\\q?quad\s*", "    "),
    (r"\\infty", "∞"),
    (r"\\cdot", "·"),
    (r"\\times", "×"),
    (r"\\sum", "Σ"),
    (r"\\le\b", "≤"),
    (r"\\[,;!]|\\(?:left|right)(?![a-zA-Z])", ""),
    (r"\\ ", " "),
    *((rf"\\{name}(?![a-zA-Z])", sign) for name, sign in SIGNS.items()),
    (r"\\(ln|log|exp|min|max|cos|tanh)\b", r"\1"),
)


def terminal_text(markdown: str, answers: bool) -> str:
    """The Markdown of a page for a terminal; `answers` says whether those of the exercises are shown."""
    text = without_comments(markdown)
    hidden = "*(The answer is hidden: --answers shows it.)*\n"
    text = DETAILS.sub(lambda answer: answer[1] if answers else hidden, text)
    parts, end = [], 0
    for block in BLOCK.finditer(text):  # a $ in code is none of a formula
        parts += [FORMULA.sub(_plain_formula, text[end : block.start()]), block[0]]
        end = block.end()
    text = "".join([*parts, FORMULA.sub(_plain_formula, text[end:])])
    return map_links(text, lambda link: f"*{link.label}*" if link.picture else link.label if link.local else str(link))


def _plain_formula(match: re.Match[str]) -> str:
    formula = match["block"] if match["inline"] is None else match["inline"]
    before = ""
    while formula != before:
        before, formula = formula, _apply(BRACES, formula)
    formula = _apply(COMMANDS, formula)
    if match["inline"] is not None:
        return f"`{formula}`"
    lines = [line.strip() for line in formula.splitlines() if line.strip()]
    return "```text\n" + "\n".join(lines) + "\n```"


def _apply(rules: Rules, formula: str) -> str:
    for pattern, plain in rules:
        formula = re.sub(pattern, plain, formula)
    return formula
