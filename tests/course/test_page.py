"""Reading a page: its blocks, its comments, its numbers, and what a terminal and a notebook show of it."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glassgpt.course.notebook import build_notebook
from glassgpt.course.page import (
    BLOCK,
    Block,
    check_expressions,
    evaluate_expression,
    format_like,
    iter_blocks,
    iter_quoted,
    map_links,
    parse_number,
    without_comments,
)
from glassgpt.course.pages import Page, list_pages, list_parts, pages_folder
from glassgpt.course.terminal import FORMULA, terminal_text
from glassgpt.errors import UserError

PAGE = """\
# 9 · A page

It takes 3 s<!-- seconds × 2 --> and reaches **1,234.5**<!-- loss ± 0.5 -->; see [the file](../code.py) and
[a view](http://127.0.0.1:4242/runs). Half of $\\sqrt{D}$ is `$x`. ![A square](square.svg)

<!-- small: 100 → 2 -->
<!-- figure loss: loss ([\\d.]+) -->
```bash
echo 100 loss 1234.6
```

```python title="glassgpt/errors.py"
class UserError(Exception):
```

<!-- not run: it serves -->
```bash
glassgpt look
```

$$
\\frac{a + b}{c}
$$

**1.** How much?

<details>
<summary>Answer</summary>

It is 0.33<!-- = 1 / 3 -->:

```python
assert round(1 / 3, 2) == 0.33
```

And so on.

</details>

The end.
"""


def test_blocks_know_what_the_comments_before_them_say() -> None:
    bash, excerpt, served, answer = iter_blocks(PAGE)
    assert bash == Block(8, "bash", "echo 100 loss 1234.6\n", small=(("100", "2"),), figures={"loss": r"loss ([\d.]+)"})
    assert (bash.code_at("small"), bash.code_at("full")) == ("echo 2 loss 1234.6\n", bash.code)
    assert excerpt.title == "glassgpt/errors.py"
    assert served.reason == "it serves"
    assert [block.runs for block in (bash, excerpt, served, answer)] == [True, False, False, True]


def test_a_small_size_that_changes_nothing_is_refused() -> None:
    (block,) = iter_blocks("<!-- small: 100 → 2 -->\n```bash\necho 200\n```\n")
    with pytest.raises(UserError, match="line 2: the block does not have '100'"):
        block.code_at("small")


def test_numbers_are_tied_to_figures_and_expressions() -> None:
    seconds, loss, third = iter_quoted(PAGE)
    assert (seconds.number, seconds.name, seconds.kind, seconds.within) == ("3", "seconds", "×", 2.0)
    assert PAGE[slice(*loss.span)] == "1,234.5"
    assert evaluate_expression(third.expression or "") == pytest.approx(1 / 3)
    assert [seconds.problem(value) is None for value in (1.4, 1.5, 6.0, 6.1)] == [False, True, True, False]
    assert [loss.problem(value) is None for value in (1233.9, 1234.1, 1235.1)] == [False, True, False]
    assert [third.problem(value) is None for value in (1 / 3, 0.337)] == [True, False]
    assert loss.problem(2.0) == "line 3: 1,234.5 is not loss, 2, within 0.5"


def test_expressions_have_the_values_that_a_page_says() -> None:
    page = (
        "6.0<!-- = 2 * 3 --> 7<!-- = 2 * 3 -->\n"
        "0.33<!-- = 1 / 3 --> 0.34<!-- = 1 / 3 --> 1<!-- = 1 / 0 --> 2<!-- = x -->"
    )
    assert [problem.split(",")[0] for problem in check_expressions(page)] == [
        "line 1: 7 is not 2 * 3",
        "line 2: 0.34 is not 1 / 3",
        "line 2: 1 / 0 has no value: division by zero",
        "line 2: x has no value: name 'x' is not defined",
    ]


@given(st.floats(-1e9, 1e9), st.sampled_from(["1", "0.1", "1,000", "2.345", "−1.25"]))
def test_a_number_is_read_as_it_is_written(value: float, shown: str) -> None:
    digits = len(shown.partition(".")[2])
    assert parse_number(format_like(value, shown)) == pytest.approx(round(value, digits))


def test_a_reader_sees_no_comment_but_those_in_code() -> None:
    code = "```html\n<!-- kept -->\n```\n"
    assert without_comments(f"a<!-- b --> c\n<!-- d -->\n{code}") == f"a c\n{code}"
    assert without_comments("0.08<!-- b -->\nof it") == "0.08\nof it"


@given(st.lists(st.sampled_from(["`a`", "[x](y)", "`[x](y)`", " and ", "[`x`](y)", "\n"])))
def test_links_are_found_outside_code_only(parts: list[str]) -> None:
    text = " ".join(parts)
    changed = map_links(text, lambda link: f"<{link.label}>")
    assert changed == " ".join({"[x](y)": "<x>", "[`x`](y)": "<`x`>"}.get(part, part) for part in parts)


def test_a_terminal_shows_formulas_as_text_and_answers_when_asked() -> None:
    shown = terminal_text(PAGE, answers=False)
    assert "`√D` is `$x`" in shown and "(a + b) / c" in shown
    assert "see the file and" in shown and "http://127.0.0.1:4242/runs" in shown
    assert "0.33" not in shown and "--answers" in shown and "<!--" not in shown
    assert "It is 0.33:" in terminal_text(PAGE, answers=True)


def test_the_cells_of_a_notebook_are_the_blocks_that_a_reader_runs(tmp_path: Path) -> None:
    (tmp_path / "square.svg").write_text("<svg/>")
    notebook = build_notebook(PAGE, tmp_path)
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    code = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert code == ["%%bash -e\necho 100 loss 1234.6", "assert round(1 / 3, 2) == 0.33"]
    texts = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "markdown"]
    assert "<!--" not in "".join(texts) and "see the file and" in texts[0] and "class UserError" in texts[1]
    assert [text.count("<details>") - text.count("</details>") for text in texts] == [0] * len(texts)
    assert texts[-1].startswith("<details>") and texts[-1].endswith("The end.")
    attached = notebook["cells"][0]["attachments"]["square.svg"]["image/svg+xml"]
    assert base64.b64decode(attached) == b"<svg/>"
    assert len({cell["id"] for cell in notebook["cells"]}) == len(notebook["cells"])


@pytest.mark.parametrize("page", list_pages(), ids=lambda page: page.name)
def test_every_page_becomes_a_notebook_with_all_its_blocks(page) -> None:
    cells = build_notebook(page.markdown, page.path.parent)["cells"]
    code = ["".join(cell["source"]).removeprefix("%%bash -e\n") for cell in cells if cell["cell_type"] == "code"]
    assert code == [block.code.strip("\n") for block in iter_blocks(page.markdown) if block.runs]
    assert terminal_text(page.markdown, answers=True)


@pytest.mark.parametrize(
    ("formula", "shown"),
    [
        (r"\frac{\partial X_l'}{\partial X_{l-1}} = I", "(∂ X_l') / (∂ X_(l-1)) = I"),
        (r"\gamma_c, \quad l = 1, \dots, L", "γ_c,    l = 1, …, L"),
        (r"\sum_{i=1}^{T} x_{i}, \ \text{if}\ s \le t", "Σ_(i=1)^T x_i,  if s ≤ t"),
        (r"s = \sqrt{\frac{1}{n - 1}} x^{\frac{a}{b + c}}", "s = √(1 / (n - 1)) x^(a / (b + c))"),
        (r"f'(x) \ge \frac{1}{\sqrt{D}}, \ (N)", "f'(x) ≥ 1 / √D,  (N)"),
        (r"w \leftarrow w - \eta \left( \frac{\hat{m}}{\lVert g \rVert} \right)", "w ← w - η ( m̂ / (‖ g ‖) )"),
    ],
)
def test_a_formula_can_be_read_in_a_terminal(formula: str, shown: str) -> None:
    assert terminal_text(f"${formula}$", answers=False).strip() == f"`{shown}`"


@pytest.mark.parametrize("page", list_pages(), ids=lambda page: page.name)
def test_no_formula_of_a_page_is_left_with_commands(page: Page) -> None:
    prose = BLOCK.sub("", page.markdown)
    shown = [terminal_text(formula[0], answers=True) for formula in FORMULA.finditer(prose)]
    assert not [formula for formula in shown if re.search(r"[\\{}]", formula)]


def test_the_index_of_the_course_gives_each_page_its_part(tmp_path: Path) -> None:
    for name in ("b", "a", "04-head", "more"):
        (tmp_path / f"{name}.md").write_text(f"# {name}\n")
    first = "## One\n[b](b.md), [head](04-head.md)\n```text\n[m](more.md)\n```\n"
    index = f"# C\n[a](a.md)\n{first}## Two\n[b](b.md)\n[a](a.md)\n"
    (tmp_path / "README.md").write_text(index)
    parts = [(part.title, [page.name for page in part.pages]) for part in list_parts(tmp_path)]
    assert parts == [("One", ["b", "04-head"]), ("Two", ["a"]), ("More", ["more"])]


def test_the_index_of_the_course_lists_every_page() -> None:
    assert "More" not in [part.title for part in list_parts(pages_folder())]


def test_the_figures_in_the_list_of_questions_are_those_of_their_pages() -> None:
    index = (pages_folder() / "README.md").read_text(encoding="utf-8")
    rows = re.findall(
        r"^- \*\*\[[^]]+\]\(([\w-]+)\.md\)\*\*.*\*A figure:\* (.*\d.*)\.$",
        index.partition("## Your questions")[2],
        re.M,
    )
    assert len(rows) >= 8
    for name, words in rows:
        page = without_comments((pages_folder() / f"{name}.md").read_text(encoding="utf-8"))
        for figure in re.findall(r"\d+\.\d+|\d+(?=%| times)", words):
            assert figure in page, f"{name}: {figure}"
