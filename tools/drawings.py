"""Writes the drawings of the ladder's ideas as files, which the pages of the course show.

python tools/drawings.py
"""

from __future__ import annotations

from pathlib import Path

from glassgpt.course.drawings import DRAWINGS
from glassgpt.files import write_text
from glassgpt.models.ladder import SECTIONS

FOLDER = Path(__file__).parent.parent / "docs" / "course" / "drawings"


def main() -> None:
    """Writes all of them, by the names of their pages."""
    FOLDER.mkdir(exist_ok=True)
    for section in SECTIONS:
        write_text(FOLDER / f"{section.number:02}-{section.name}.svg", DRAWINGS[section.name]().document())


if __name__ == "__main__":
    main()
