"""Lays out the sources of the site: the Markdown of the project, in the places and with the links of the site.

README.md, CONTRIBUTING.md, CHANGELOG.md   index, contributing, changes
docs/…                                     the same, without docs/; the course is course/
a file or folder that a page links to      source/…, as a page with its code
docstrings                                 api/…
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path, PurePosixPath

from api import instruments_page, public_page
from sources import file_page, files_of, folder_page

from glassgpt.course.page import BLOCK, Link, map_links, without_comments
from glassgpt.course.pages import list_parts

TOP = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changes.md"}
GUIDES = (
    "gpt2", "planning", "training", "stages", "configuration", "scaling", "evaluation", "generation", "doctor",
    "inspection", "look", "family", "speedrun", "benchmarks", "tracking", "interop", "tokenizers", "data", "log",
)  # fmt: skip
ASSETS = (".svg", ".png", ".ipynb")


class Stage:
    """The sources of the site in `out`, made from the project in `root`."""

    def __init__(self, root: Path, out: Path) -> None:
        self.root, self.out = root, out
        self._linked: dict[Path, str] = {}  # files and folders outside the documents: their pages

    def write(self) -> None:
        """Writes all pages. Raises SystemExit for a link that leads nowhere."""
        for path in self.documents():
            self._put(self.place(path), self.convert(path))
        for path in self.root.joinpath("docs").rglob("*"):
            if path.suffix in ASSETS:
                target = self.out / path.relative_to(self.root / "docs")
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, target)
        self._put("api/index.md", public_page(self.root) + toctree("", ["inspection"]))
        self._put("api/inspection.md", instruments_page(self.root))
        for path, place in list(self._linked.items()):
            if path.is_dir():
                files = files_of(path)
                for file in files:
                    self._linked.setdefault(file, f"source/{file.relative_to(self.root).as_posix()}.md")
                self._put(place, folder_page(path, self.root, files))
        for path, place in self._linked.items():
            if path.is_file():
                self._put(place, file_page(path, self.root))

    def documents(self) -> list[Path]:
        """Every Markdown file of the site."""
        return [*(self.root / name for name in TOP), *sorted(self.root.joinpath("docs").rglob("*.md"))]

    def place(self, path: Path) -> str:
        """Where a file of the project is in the site."""
        name = path.relative_to(self.root).as_posix()
        if name in TOP:
            return TOP[name]
        if name.startswith("docs/") and path.suffix in (".md", *ASSETS):
            return re.sub(r"README\.md$", "index.md", name.removeprefix("docs/"))
        return self._linked.setdefault(path, f"source/{name}/index.md" if path.is_dir() else f"source/{name}.md")

    def convert(self, path: Path) -> str:
        """The Markdown of a document as the site has it."""
        place, text = PurePosixPath(self.place(path)), without_comments(path.read_text(encoding="utf-8"))

        def lead(link: Link) -> str:
            if not link.local:
                return str(link)
            target, hash_, part = link.target.partition("#")
            found = Path(os.path.normpath(path.parent / target))
            if not found.exists():
                raise SystemExit(f"{path.relative_to(self.root)}: the link {link.target} leads nowhere")
            return str(Link(link.label, relative(self.place(found), place) + hash_ + part, link.picture))

        text = BLOCK.sub(lambda block: self._with_title(block, place), map_links(text, lead))
        return text + self._contents(place)

    def _with_title(self, block: re.Match[str], place: PurePosixPath) -> str:
        """A block of code from a file, under a link to that file."""
        if block["title"] is None:
            return block[0]
        link = f"[{block['title']}]({relative(self.place(self.root / block['title']), place)})"
        return f"```{{code-block}} {block['language']}\n:caption: {link}\n\n{block['code']}```"

    def _contents(self, place: PurePosixPath) -> str:
        """The hidden tables of contents behind an index, from which the side bar is made."""
        if str(place) == "index.md":
            course, guides = ["course/index"], [*GUIDES, "Python reference <api/index>"]
            return toctree("Learn", course) + toctree("Use", guides) + toctree("Project", ["contributing", "changes"])
        if str(place) == "course/index.md":
            parts = list_parts(self.root / "docs" / "course")
            return "".join(toctree(part.title, [page.name for page in part.pages]) for part in parts)
        return ""

    def _put(self, place: str, text: str) -> None:
        target = self.out / place
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")


def relative(target: str, place: PurePosixPath) -> str:
    """The address of one page of the site from another."""
    return PurePosixPath(os.path.relpath(target, place.parent)).as_posix()


def toctree(caption: str, names: list[str]) -> str:
    """A hidden table of contents."""
    return "\n".join(
        ["", "", "```{toctree}", ":hidden:", f":caption: {caption}" if caption else "", "", *names, "```", ""]
    )
