"""The sources of the site, made from a small project, and the check of what is built from them."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from api import describe, instruments_page, public_page
from links import check_site
from stage import Stage

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    course = root / "docs" / "course"
    course.mkdir(parents=True)
    package = root / "glassgpt"
    (package / "inspection").mkdir(parents=True)
    (root / "README.md").write_text("# Home\n\n[course](docs/course/README.md) [code](glassgpt) `[not](a-link)`\n")
    (root / "CONTRIBUTING.md").write_text("# C\n")
    (root / "CHANGELOG.md").write_text("# C\n")
    (course / "README.md").write_text("# Course\n\n[one](01-one.md#part) [site](https://example.org)\n")
    (course / "01-one.md").write_text(
        '# One\n\n![a](a.svg) 3<!-- = 3 --> [home](../../README.md)\n\n```python title="glassgpt/x.py"\ny = 1\n```\n'
    )
    (course / "a.svg").write_text("<svg/>")
    (package / "x.py").write_text("y = 1\n")
    (package / "__init__.py").write_text("_MODULES = {}\n__all__ = []\n")
    return root


def test_links_lead_to_their_places_in_the_site(project: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    Stage(project, out).write()
    home, one = (out / "index.md").read_text(), (out / "course" / "01-one.md").read_text()
    assert "[course](course/index.md)" in home and "[code](source/glassgpt/index.md)" in home
    assert "`[not](a-link)`" in home
    assert "[one](01-one.md#part) [site](https://example.org)" in (out / "course" / "index.md").read_text()
    assert "[home](../index.md)" in one and "<!--" not in one
    assert ":caption: [glassgpt/x.py](../source/glassgpt/x.py.md)" in one
    assert (out / "course" / "a.svg").is_file()
    assert "[x.py](x.py.md)" in (out / "source" / "glassgpt" / "index.md").read_text()
    assert "y = 1" in (out / "source" / "glassgpt" / "x.py.md").read_text()


def test_a_link_that_leads_nowhere_ends_the_build(project: Path, tmp_path: Path) -> None:
    (project / "docs" / "more.md").write_text("# M\n\n[x](nowhere.md)\n")
    with pytest.raises(SystemExit, match=r"docs/more.md: the link nowhere.md leads nowhere"):
        Stage(project, tmp_path / "out").write()


def test_the_project_can_be_laid_out(tmp_path: Path) -> None:
    Stage(ROOT, tmp_path).write()
    assert (tmp_path / "course" / "04-head.md").is_file()
    assert (tmp_path / "source" / "glassgpt" / "models" / "ladder" / "s04_head.py.md").is_file()


def test_the_reference_has_the_public_names() -> None:
    page = public_page(ROOT)
    assert all(f"## gg.{name}\n" in page for name in ("train", "load", "capture", "Run", "UserError"))
    assert "load(\n" in page and "run: str | Path" in page
    assert "### capture\n" in instruments_page(ROOT)


def test_a_signature_is_as_a_caller_sees_it() -> None:
    code = '''
class A:
    """An A."""

    size: int = 3  # of it

    @cached_property
    def model(self) -> Model:
        """Its model."""

    def act(self, x: dict[str, int], *, a_long_name: int = 1, another_long_name: tuple[int, int] = (1, 2)) -> None:
        """Acts."""

    def _hidden(self) -> None:
        """No."""
'''
    (node,) = ast.parse(code).body
    text = "\n".join(describe("A", node))
    assert "class A\n    size: int=3" in text.replace(" = ", "=") and "model: Model\n" in text
    assert "act(\n    x: dict[str, int],\n    *,\n    a_long_name: int=1,\n" in text
    assert "self" not in text and "_hidden" not in text


def test_a_built_site_is_checked(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "index.html").write_text(
        '<a href="sub/page.html#here">1</a><a href="sub/page.html#there">2</a><a href="no.html">3</a>'
        '<a href="../out.html">4</a><a href="https://example.org">5</a><img src="sub/no.png">'
        '<script src="https://example.org/x.js"></script><link href="#">'
    )
    (tmp_path / "sub" / "page.html").write_text('<p id="here"></p><a href="../index.html">1</a><a href="#here">2</a>')
    assert check_site(tmp_path) == [
        "index.html: loads https://example.org/x.js from the network",
        "index.html: loads sub/no.png, which is not there",
        "index.html: the link ../out.html leaves the site",
        "index.html: the link no.html leads nowhere",
        "index.html: the link sub/page.html#there leads to no such place",
    ]
