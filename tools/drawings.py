"""Writes the drawings of the course as files, which its pages show.

python tools/drawings.py
"""

from __future__ import annotations

from pathlib import Path

from glassgpt.course.drawings import DRAWINGS
from glassgpt.files import write_text

FOLDER = Path(__file__).parent.parent / "docs" / "course" / "drawings"


def main() -> None:
    """Writes all of them, by the names of their pages."""
    FOLDER.mkdir(exist_ok=True)
    for page, draw in DRAWINGS.items():
        write_text(FOLDER / f"{page}.svg", draw().document())


if __name__ == "__main__":
    main()
