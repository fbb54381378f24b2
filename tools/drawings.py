"""Writes the drawings of the course, and those of docs/family.md, as files, which the pages show.

python tools/drawings.py
"""

from __future__ import annotations

from pathlib import Path

from glassgpt.course.drawings import DRAWINGS, FAMILY, draw_family
from glassgpt.files import write_text

DOCS = Path(__file__).parent.parent / "docs"
COURSE, MODELS = DOCS / "course" / "drawings", DOCS / "drawings"


def main() -> None:
    """Writes all of them, by the names of their pages and of the models' files."""
    for folder in (COURSE, MODELS):
        folder.mkdir(exist_ok=True)
    for page, draw in DRAWINGS.items():
        write_text(COURSE / f"{page}.svg", draw().document())
    for name, model in FAMILY.items():
        write_text(MODELS / f"{name}.svg", draw_family(model).document())


if __name__ == "__main__":
    main()
