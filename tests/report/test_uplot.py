"""The chart library of the pages is the published one, with its licence."""

from __future__ import annotations

import hashlib
from importlib import resources

import pytest

from glassgpt.report.page import render

VENDORED = resources.files("glassgpt.report") / "assets" / "uplot"
# sha256 of the files of uplot 1.6.32 in the npm registry
DIGESTS = {
    "uPlot.iife.min.js": "19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f",
    "uPlot.min.css": "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04",
    "LICENSE": "8f989229699b4fe2f1a0432d0e9edc338a8a911e250e2d1b01ecd770a5f5b1bd",
}


@pytest.mark.parametrize("name", DIGESTS)
def test_the_files_are_unchanged(name: str) -> None:
    assert hashlib.sha256((VENDORED / name).read_bytes()).hexdigest() == DIGESTS[name]


def test_the_version_is_named_where_the_files_are() -> None:
    library = (VENDORED / "uPlot.iife.min.js").read_text(encoding="utf-8")
    assert "(v1.6.32)" in library[:100]
    assert "# uPlot 1.6.32" in (VENDORED / "README.md").read_text(encoding="utf-8")


def test_a_page_has_the_licence_of_what_it_contains() -> None:
    html = render(title="", body="", data={})
    licence = (VENDORED / "LICENSE").read_text(encoding="utf-8").strip()
    assert licence.startswith("The MIT License") and licence in html
    assert "-->" not in licence
