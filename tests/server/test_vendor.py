"""The libraries of the pages are the published ones, with their licences, and nothing is loaded from elsewhere."""

from __future__ import annotations

import hashlib
import re
from importlib import resources

import pytest

from glassgpt.server.pages import LIBRARIES, Pages

VENDORED = resources.files("glassgpt.server") / "assets" / "vendor"
# sha256 of the files of preact 11.2.0 and htm 3.1.1 in the npm registry
DIGESTS = {
    "preact.mjs": "bdcbd9abdf2c77c5c45326eab42191e949222d479d0d5f69467387a77040cb55",
    "hooks.mjs": "e862ab2973aa6455eaa0f77c5d832d2157d6be59a17c8ba546550a575b58c6b4",
    "htm.mjs": "ab33dd3f38059b9be4d5f5350128eefb2356639c4e0bbe9d9e8b3ba75847e9e4",
    "LICENSE-preact": "1fe6958409c8c257a70c587a18b6f7f412b179b456630790d30b2ec9a8e4b7d4",
    "LICENSE-htm": "740725f7252e750af735d0028cc534970772f513331e9f68150fede8fb3ce00f",
}


@pytest.mark.parametrize("name", DIGESTS)
def test_the_files_are_unchanged(name: str) -> None:
    assert hashlib.sha256((VENDORED / name).read_bytes()).hexdigest() == DIGESTS[name]


def test_the_first_page_is_light() -> None:
    assert len(Pages().index.data) + sum(len(asset.data) for asset in Pages().assets.values()) < 1_000_000


def test_every_import_is_on_the_map() -> None:
    pages = Pages()
    known = {*LIBRARIES, *(f"glass/{name}" for name in pages.assets)}
    for asset in pages.assets.values():
        if asset.name.endswith(".js") and "/" not in asset.name:
            for imported in re.findall(r'from "([^"]+)"', asset.data.decode()):
                assert imported in known, f"{asset.name} imports {imported}"


def test_no_file_of_ours_names_another_host() -> None:
    for asset in Pages().assets.values():
        if not asset.name.startswith("vendor/"):
            assert not re.search(rb"https?://", asset.data), asset.name
            assert b"innerHTML" not in asset.data, asset.name
