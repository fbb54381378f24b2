"""The pages of the course: where they are, and how one is named."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from pathlib import Path

from glassgpt.course.page import iter_links, title_of
from glassgpt.errors import UserError
from glassgpt.files import read_file

INDEX = "README.md"  # the list of the pages


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
        if (folder / INDEX).is_file():
            return folder
    raise UserError("this installation has no pages of the course: install GlassGPT from a checkout or a wheel")


@dataclass(frozen=True)
class Part:
    """A part of the course: the pages under one heading of its index."""

    title: str
    pages: list[Page]


def list_parts(folder: Path) -> list[Part]:
    """The pages in the order in which one reads them: as README.md first links them, under its headings.

    Pages that it does not link come last, under the title "More".
    """
    left = {path.name: Page(path.stem, path) for path in sorted(folder.glob("*.md")) if path.name != INDEX}
    titles_and_texts = re.split(r"^## (.+)$", read_file(folder / INDEX).decode("utf-8"), flags=re.MULTILINE)[1:]
    parts = [
        Part(title, [left.pop(link.target) for link in iter_links(text) if link.target in left])
        for title, text in zip(titles_and_texts[::2], titles_and_texts[1::2], strict=True)
    ]
    return [part for part in [*parts, Part("More", list(left.values()))] if part.pages]


def list_pages() -> list[Page]:
    """All pages, in the order of `list_parts`."""
    return [page for part in list_parts(pages_folder()) for page in part.pages]


def find_page(name: str) -> Page:
    """The page of a number, a name or a part of it: 4, 04-head, head. Raises UserError where there is no such page."""
    pages = list_pages()
    for page in pages:
        if name in (page.name, re.sub(r"^\d+-", "", page.name)) or (name.isdecimal() and int(name) == page.number):
            return page
    near = difflib.get_close_matches(name, [page.name for page in pages], n=1, cutoff=0.5)
    hint = f": did you mean {near[0]}?" if near else ": glassgpt course lists the pages"
    raise UserError(f"the course has no page {name}{hint}")
