"""Settings of Sphinx for the site (https://www.sphinx-doc.org/en/master/usage/configuration.html).

Sphinx with MyST reads the dialect of Markdown that GitHub shows (CommonMark), so a page looks the same in both.
Material for MkDocs ends in May 2027. Its successor Zensical (0.1.2) reads Python-Markdown, in which a list needs a
blank line before it, and the Markdown inside <details> stays as it is written. The theme Furo loads nothing from the
network.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.writers.html5 import HTML5Translator

project = "GlassGPT"
extensions = ["myst_parser"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4
myst_dmath_allow_space = False
myst_dmath_allow_digits = False
suppress_warnings = ["misc.highlighting_failure"]  # a block that is shortened with … is no longer valid code

html_theme = "furo"
html_title = "GlassGPT"
html_static_path = ["_static"]
html_css_files = ["glass.css"]
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
html_show_search_summary = False  # a page that is opened as a file may not read the pages that it finds
html_math_renderer = "mathml"
pygments_style = "a11y-high-contrast-light"
pygments_dark_style = "a11y-high-contrast-dark"
SANS = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif'
FUNCTION = "<mi>(?:ln|log|exp|tanh)</mi>"
SHORT = 24  # characters of code that fit on a line of a phone
WIDEST = 600  # pixels of a picture whose letters can still be read on a phone
MONO = 'ui-monospace, "SF Mono", "Cascadia Mono", "DejaVu Sans Mono", Menlo, Consolas, monospace'


def colours(accent: str, ground: str, raised: str, line: str, text: str, quiet: str) -> dict[str, str]:
    """The theme's variables in the colours of `glassgpt look` (glassgpt/server/assets/glass.css)."""
    return {
        "color-brand-primary": accent,
        "color-brand-content": accent,
        "color-brand-visited": accent,
        "color-background-primary": ground,
        "color-background-secondary": raised,
        "color-background-border": line,
        "color-foreground-primary": text,
        "color-foreground-secondary": quiet,
        "color-foreground-muted": quiet,
        "font-stack": SANS,
        "font-stack--monospace": MONO,
    }


html_theme_options = {
    "light_css_variables": colours("#5b3fa8", "#ffffff", "#f6f6f8", "#d9dade", "#1d1d22", "#5c5d66"),
    "dark_css_variables": colours("#b9a4ff", "#16161a", "#1f1f25", "#383840", "#ececf1", "#a5a6b0"),
}


def inline_math(self: HTML5Translator, node: nodes.math) -> None:
    """A formula within a line, as MathML, which browsers show without a script."""
    before, after = node.get("before", ""), node.get("after", "")
    formula = mathml(node.astext(), "inline")
    self.body.append(f'<span class="together">{before}{formula}{after}</span>' if before or after else formula)
    raise nodes.SkipNode


def block_math(self: HTML5Translator, node: nodes.math_block) -> None:
    """A formula on lines of its own."""
    self.body.append(f'<div class="formula">{mathml(node.astext(), "block")}</div>\n')
    raise nodes.SkipNode


def mathml(formula: str, display: str) -> str:
    """The formula for a browser, with the spaces that TeX would set."""
    # \\lVert would be as high as its whole line, and \\| is as high as a letter.
    found = convert(re.sub(r"\\[lr]Vert\b", r"\\|", formula), display=display)
    found = found.replace("<mo>&#x0221E;</mo>", "<mi>&#x0221E;</mi>")  # infinity is a number, not an operation
    # A minus sign behind a bracket, a comma or another sign belongs to the number that follows.
    found = re.sub(
        r"(^<math[^>]*><mrow>|<mo[^>]*>(?:&#x00028;|\(|=|&#x0003D;|,|&#x0002C;)</mo>)<mo>&#x02212;</mo>",
        r'\1<mo form="prefix">&#x02212;</mo>',
        found,
    )
    gap = '<mspace width="0.17em"/>'
    found = re.sub(rf"(?<!<msub>)({FUNCTION})(?=<m)(?!<mo|<mrow><mo)", rf"\1{gap}", found)
    return re.sub(rf"(</m[in]>)({FUNCTION})", rf"\1{gap}\2", found)


def keep_together(app: Sphinx, page: nodes.document, name: str) -> None:
    """Keeps short code, and a formula with the signs around it, on one line; marks pictures too wide for a phone."""
    for code in page.findall(nodes.literal):
        if len(code.astext()) <= SHORT:
            code["classes"].append("together")
    for formula in list(page.findall(nodes.math)):
        around = formula.parent
        for side, step, signs in (("before", -1, r"\($"), ("after", 1, r"^[.,;:?!)]+")):
            place = around.index(formula) + step
            if not 0 <= place < len(around) or not isinstance(around[place], nodes.Text):
                continue
            text = around[place].astext()
            if found := re.search(signs, text):
                formula[side] = found[0]
                around[place] = nodes.Text(text[: found.start()] + text[found.end() :])
    for image in page.findall(nodes.image):
        source = Path(app.srcdir, image["uri"])
        width = (
            re.search(r'<svg[^>]* width="(\d+)', source.read_text(encoding="utf-8"))
            if source.suffix == ".svg"
            else None
        )
        if width and int(width[1]) > WIDEST:
            image["classes"].append("wide")


def setup(app: Sphinx) -> dict[str, Any]:
    """Tells Sphinx how to write formulas and pictures."""
    app.connect("doctree-resolved", keep_together)
    app.add_html_math_renderer("mathml", (inline_math, None), (block_math, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
