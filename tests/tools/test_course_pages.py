"""The pages of the course are as they have to be, and the checks notice where one is not."""

from __future__ import annotations

import contextlib
import io
import shutil
from pathlib import Path

import course
import pytest
from excerpts import check_excerpt, renew_page
from page_format import check_format

from glassgpt.course.page import Block, iter_blocks

ROOT = Path(__file__).resolve().parent.parent.parent
MODEL = ROOT / "docs" / "course" / "04-head.md"
PAGES = course.choose_pages([])


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_every_page_has_the_form_and_the_code_of_its_files(path: Path) -> None:
    assert list(course.check_page(path)) == []


def answers_alone(path: Path) -> list[Block]:
    """The Python of a page's answers, if it needs none of the page's commands before it; else none."""
    page, _, exercises = path.read_text(encoding="utf-8").partition("\n## Exercises\n")
    answers = [block for block in iter_blocks(exercises) if block.runs and block.language == "python"]
    before = any(block.runs and block.language == "python" for block in iter_blocks(page))
    return [] if before or any("runs/" in block.code or "gg." in block.code for block in answers) else answers


@pytest.mark.parametrize("path", list(filter(answers_alone, PAGES)), ids=lambda path: path.stem)
def test_answers_hold(path: Path, tmp_path: Path) -> None:
    """Those of all other pages are executed by `make check`, after the page's commands."""
    names: dict[str, object] = {}
    with contextlib.chdir(tmp_path), contextlib.redirect_stdout(io.StringIO()):
        for block in answers_alone(path):
            exec(compile(block.code_at("small"), f"{path.name}, line {block.line} of the exercises", "exec"), names)


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("## Run it", "## Running", "the headings are"),
        ("## Look at it\n", "## Look at it\n\n## More\n", "the headings are"),
        ("$$", "", "no formula"),
        ('python title="', 'python name="', 'no block with title="FILE"'),
        ("<!-- loss ± ", "<!-- loss +- ", "none that the checks know"),
        ("<!-- seconds × 4 -->", "", "how long it takes"),
        ("127.0.0.1:4242/inside", "127.0.0.1:4242/outside", "no view 'outside'"),
        ("127.0.0.1:4242", "127.0.0.1:80", "no link to http"),
        ("**3.** In a text", "<details>\n**3.** In a text", "an answer begins with"),
        ("**1.** A query", "## Exercises\n\n**1.** A query", "the headings are"),
        ("<!-- small: --section →", "<!-- small: --sections →", "does not have '--sections'"),
        ("```bash\nglassgpt ladder", "  ```bash\nglassgpt ladder", "is indented"),
        ("<!-- = exp(2 / sqrt(2)) / (exp(2 / sqrt(2)) + exp(0)) -->", "", "answer 1 has neither"),
        ("0.804<!--", "0.805<!--", "0.805 is not exp(2 / sqrt(2))"),
        ("self.query(x), self.key(x)", "self.key(x), self.query(x)", "has no such lines in this place"),
        ("ladder/s04_head.py\"", "ladder/s04_feet.py\"", "there is no file"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(old: str, new: str, problem: str, tmp_path: Path) -> None:
    text = MODEL.read_text(encoding="utf-8")
    assert old in text
    changed = tmp_path / MODEL.name
    changed.write_text(text.replace(old, new), encoding="utf-8")
    assert any(problem in found for found in course.check_page(changed)), list(course.check_page(changed))


def test_two_exercises_are_too_few(tmp_path: Path) -> None:
    text = MODEL.read_text(encoding="utf-8")
    changed = tmp_path / MODEL.name
    changed.write_text(text[: text.index("**3.** In a text")], encoding="utf-8")
    assert "there are 2 exercises with a hidden answer: at least 3 are needed" in list(check_format(changed))


def test_a_drawing_that_is_there_has_to_be_shown(tmp_path: Path) -> None:
    page = Path(shutil.copy(MODEL, tmp_path))
    text = page.read_text(encoding="utf-8")
    without = text.replace("![", "[")
    (tmp_path / "drawings").mkdir()
    (tmp_path / "drawings" / "04-head.svg").write_text("<svg/>")
    page.write_text(without, encoding="utf-8")
    assert any("does not show its drawing" in problem for problem in check_format(page))
    for alt, problems in (("Three vectors", 0), ("", 1)):
        picture = f"## The question\n\n![{alt}](drawings/04-head.svg)\n"
        page.write_text(without.replace("## The question\n", picture), encoding="utf-8")
        assert len(list(check_format(page))) == problems


SOURCE = """\
def one(x):
    y = x + 1
    return y


class Two:
    def forward(self, x):
        a = 1
        b = 2
        return a + b

    def backward(self):
        return 0
"""
EXCERPT = """\
```python title="code.py"
def one(x):
    y = x + 1
    return y
# …
a = 1
b = 2
return a + b
```
"""


@pytest.fixture
def code(tmp_path: Path) -> Path:
    path = tmp_path / "code.py"
    path.write_text(SOURCE)
    return path


def problem_of(markdown: str, root: Path) -> str | None:
    (block,) = iter_blocks(markdown)
    return check_excerpt(block, root)


def test_an_excerpt_is_its_files_lines_in_order(code: Path) -> None:
    assert problem_of(EXCERPT, code.parent) is None
    code.write_text(SOURCE.replace("b = 2", "b = 3"))
    assert problem_of(EXCERPT, code.parent) == "line 6: code.py has no such lines in this place, from 'a = 1' on"
    first, second = SOURCE.split("\n\n\n")
    code.write_text(f"{second}\n\n{first}\n")
    assert problem_of(EXCERPT, code.parent) is not None


def test_a_stale_excerpt_is_renewed_and_keeps_its_margin(code: Path) -> None:
    code.write_text(SOURCE.replace("b = 2", "b = 3\n        c = 4"))
    renewed = renew_page(EXCERPT, code.parent)
    assert renewed == EXCERPT.replace("b = 2", "b = 3\nc = 4")
    assert problem_of(renewed, code.parent) is None


def test_the_first_and_the_last_line_are_enough(code: Path) -> None:
    short = EXCERPT.replace("b = 2\n", "").replace("    y = x + 1\n", "")
    assert renew_page(short, code.parent) == EXCERPT


def test_what_cannot_be_renewed_stays_and_is_reported(code: Path) -> None:
    code.write_text(SOURCE.replace("return a + b", "return a"))
    assert renew_page(EXCERPT, code.parent) == EXCERPT
    assert problem_of(EXCERPT, code.parent) is not None


def test_a_full_run_renews_the_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "It reaches **4.30**<!-- loss ± 0.1 --> and 5<!-- other ± 1 -->.\n\n"
        "<!-- figure loss: loss ([\\d.]+) -->\n```bash\necho loss 3.127\n```\n"
    )
    unknown = "line 1: no block of the page has the figure other"
    assert list(course.run_page(page, "full", write=False)) == ["line 1: 4.30 is not loss, 3.127, within 0.1", unknown]
    assert list(course.run_page(page, "full", write=True)) == [unknown]
    assert page.read_text().startswith("It reaches **3.13**<!-- loss")
