"""The pages of the course: where they are, and how one is named."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from pathlib import Path

from glassgpt.course.page import title_of
from glassgpt.errors import UserError
from glassgpt.files import read_file


@dataclass(frozen=True)
class Page:
    """One page: `name` is that of its file without the suffix, such as 04-head or metrics."""

    name: str
    path: Path

    @property
    def number(self) -> int | None:
        """The section of the ladder that it is about, if it is about one."""
        found = re.match(r"(\d+)-", self.name)
        return int(found[1]) if found else None

    @property
    def markdown(self) -> str:
        """Its text."""
        return read_file(self.path).decode("utf-8")

    @property
    def title(self) -> str:
        """Its first heading."""
        return title_of(self.markdown)

    @property
    def site(self) -> Path | None:
        """Its page in the site that `make docs` has built in this checkout; None if there is none."""
        page = self.path.parents[2] / "site" / "course" / f"{self.name}.html"
        return page if page.is_file() else None


def pages_folder() -> Path:
    """The folder of the pages: in a checkout docs/course, in an installed package a part of it.

    Raises UserError if the package was built without them.
    """
    here = Path(__file__).parent
    for folder in (here / "markdown", here.parent.parent / "docs" / "course"):
        if (folder / "README.md").is_file():
            return folder
    raise UserError("this installation has no pages of the course: install GlassGPT from a checkout or a wheel")


def list_pages() -> list[Page]:
    """The numbered pages in order, then the others by name."""
    paths = sorted(path for path in pages_folder().glob("*.md") if path.name != "README.md")
    return [Page(path.stem, path) for path in sorted(paths, key=lambda path: not path.name[0].isdigit())]


def find_page(name: str) -> Page:
    """The page of a number, a name or a part of it: 4, 04-head, head. Raises UserError where there is no such page."""
    pages = list_pages()
    for page in pages:
        if name in (page.name, re.sub(r"^\d+-", "", page.name)) or (name.isdecimal() and int(name) == page.number):
            return page
    near = difflib.get_close_matches(name, [page.name for page in pages], n=1, cutoff=0.5)
    hint = f": did you mean {near[0]}?" if near else ": glassgpt course lists the pages"
    raise UserError(f"the course has no page {name}{hint}")
