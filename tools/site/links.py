"""Checks a built site: every link leads to a page and a place in it, and no page loads anything from the network."""

from __future__ import annotations

from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LOADING = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "srcset", "object": "data"}


class Addresses(HTMLParser):
    """The ids of a page, the addresses that it links to, and those that it loads."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: set[str] = set()
        self.loads: set[str] = set()
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Notes what a tag names."""
        values = {name: value for name, value in attrs if value}
        if "id" in values:
            self.ids.add(values["id"])
        if tag == "a" and "href" in values:
            self.links.add(values["href"])
        elif (address := values.get(LOADING.get(tag, ""), "#")) != "#":
            self.loads.add(address)


def check_site(folder: Path) -> list[str]:
    """What is wrong with the pages of a site, page by page."""
    pages = {path: Addresses(path.read_text(encoding="utf-8")) for path in sorted(folder.rglob("*.html"))}
    return [f"{path.relative_to(folder)}: {problem}" for path in pages for problem in _problems(path, folder, pages)]


def _problems(path: Path, folder: Path, pages: dict[Path, Addresses]) -> Iterator[str]:
    for address in sorted(pages[path].loads):
        if urlsplit(address).scheme in ("http", "https") or address.startswith("//"):
            yield f"loads {address} from the network"
        elif not urlsplit(address).scheme and not (path.parent / unquote(urlsplit(address).path)).is_file():
            yield f"loads {address}, which is not there"
    for address in sorted(pages[path].links):
        parts = urlsplit(address)
        if parts.scheme or parts.netloc:
            continue
        target = Path(path.parent, unquote(parts.path)).resolve() if parts.path else path
        if not target.is_relative_to(folder.resolve()) and parts.path:
            yield f"the link {address} leaves the site"
        elif not target.is_file():
            yield f"the link {address} leads nowhere"
        elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].ids:
            yield f"the link {address} leads to no such place"
