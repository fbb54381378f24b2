"""glassgpt course: the list, a page in the terminal, as a notebook and run, and what it refuses."""

from __future__ import annotations

import json
import sys
import webbrowser
from pathlib import Path

import pytest
from command_line import glassgpt

from glassgpt.course import pages

PAGE = """\
# 4 · A head

A *page*.

<!-- small: 1000 → 2 -->
```bash
echo 1000 > steps
```

```python
print(open("steps").read())
```
"""


@pytest.fixture
def course(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with a course of two pages."""
    folder = tmp_path / "docs" / "course"
    folder.mkdir(parents=True)
    (folder / "04-head.md").write_text(PAGE, encoding="utf-8")
    (folder / "metrics.md").write_text("# Metrics\n\n```bash\nfalse\n```\n")
    (folder / "README.md").write_text("# Course\n\n## The ladder\n\nBegin with [the head](04-head.md).\n")
    monkeypatch.setattr(pages, "pages_folder", lambda: folder)
    monkeypatch.chdir(tmp_path)
    return folder


def test_pages_are_listed(course: Path) -> None:
    assert glassgpt("course").out == "The ladder\n  04-head  A head\n\nMore\n  metrics  Metrics\n"
    listed = json.loads(glassgpt("course", "--json").out)
    head = {"page": "04-head", "title": "4 · A head", "part": "The ladder", "path": str(course / "04-head.md")}
    assert listed[0] == head and [each["part"] for each in listed] == ["The ladder", "More"]


@pytest.mark.parametrize("name", ["4", "04", "head", "04-head"])
def test_a_page_is_shown_by_any_of_its_names(name: str, course: Path) -> None:
    result = glassgpt("course", name)
    assert "4 · A head" in result.out and "A page." in result.out and "<!--" not in result.out
    assert str(course / "04-head.md") in result.err


def test_a_built_site_is_opened(course: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    site = course.parent.parent / "site" / "course" / "04-head.html"
    site.parent.mkdir(parents=True)
    site.write_text("<p>A page.")
    assert glassgpt("course", 4).out == f"{site}\n"
    assert opened == [site.as_uri()]
    assert "A page." in glassgpt("course", 4, "--no-browser").out


def test_a_notebook_is_written_once(course: Path) -> None:
    assert glassgpt("course", 4, "--notebook", "head.ipynb").out == "head.ipynb\n"
    first = Path("head.ipynb").read_text(encoding="utf-8")
    assert [cell["cell_type"] for cell in json.loads(first)["cells"]] == ["markdown", "code", "code"]
    assert "head.ipynb exists" in glassgpt("course", 4, "--notebook", "head.ipynb").error
    assert glassgpt("course", 4, "--notebook", "head.ipynb", "--overwrite").code == 0


def test_the_scripts_of_a_page_come_with_its_notebook(course: Path) -> None:
    (course / "experiments").mkdir()
    (course / "experiments" / "scaling.py").write_text("print(1)\n")
    (course / "metrics.md").write_text("# Metrics\n\n```bash\npython docs/course/experiments/scaling.py\n```\n")
    Path("mine").mkdir()
    result = glassgpt("course", "metrics", "--notebook", "mine/metrics.ipynb")
    script = Path("mine", "docs", "course", "experiments", "scaling.py")
    assert str(script.parent) in result.err and script.read_text() == "print(1)\n"
    script.write_text("print(2)  # changed by its reader\n")
    assert glassgpt("course", "metrics", "--notebook", "mine/again.ipynb").err == ""
    assert script.read_text() == "print(2)  # changed by its reader\n"
    assert glassgpt("course", 4, "--notebook", "head.ipynb").err == ""  # it runs no script


@pytest.mark.skipif(sys.platform == "win32", reason="pages run bash")
def test_a_page_is_run_small_or_full(course: Path) -> None:
    for options, steps in (((), "2"), (("--full",), "1000")):
        folder = Path(f"work-{steps}")
        result = glassgpt("course", 4, "--run", "--folder", folder, *options)
        assert result.code == 0 and result.out.count("ok ") == 2, result.err
        assert (folder / "steps").read_text() == f"{steps}\n"
    failed = glassgpt("course", "metrics", "--run")
    assert failed.code == 1 and "failed" in failed.out and "exit 1" in failed.err


def test_what_cannot_be_is_one_sentence(course: Path) -> None:
    assert glassgpt("course", 11).error == "the course has no page 11: glassgpt course lists the pages"
    assert glassgpt("course", "metric").error == "the course has no page metric: did you mean metrics?"
    assert glassgpt("course", "--run").error.startswith("which page?")
    assert "--folder is for --run" in glassgpt("course", 4, "--folder", "x").error
    assert "--overwrite is for --notebook" in glassgpt("course", 4, "--overwrite").error
    assert "--full is for --run" in glassgpt("course", 4, "--full").error
    assert "--json is for the list" in glassgpt("course", 4, "--json").error
    assert "not an empty folder" in glassgpt("course", 4, "--run", "--folder", course).error
    assert "is a folder" in glassgpt("course", 4, "--notebook", course).error
