"""The pages of the site for files that are not Markdown: the code that the documents link to."""

from __future__ import annotations

from pathlib import Path

LANGUAGES = {".py": "python", ".toml": "toml", ".sh": "bash", ".json": "json", ".txt": "text", "": "text"}


def file_page(path: Path, root: Path) -> str:
    """A file of the project as a page, with numbered lines."""
    language = LANGUAGES.get(path.suffix, "text")
    code = path.read_text(encoding="utf-8")
    fence = "`" * max(4, max((len(run) for run in code.split() if set(run) == {"`"}), default=0) + 1)
    return (
        f"---\norphan: true\n---\n\n# `{path.relative_to(root).as_posix()}`\n\n"
        f"{fence}{{code-block}} {language}\n:linenos:\n\n{code}\n{fence}\n"
    )


def folder_page(folder: Path, root: Path, shown: list[Path]) -> str:
    """A folder of the project as a list of those of its files that are pages."""
    links = "\n".join(f"- [{path.name}]({path.name}.md)" for path in shown)
    return f"---\norphan: true\n---\n\n# `{folder.relative_to(root).as_posix()}/`\n\n{links}\n"


def files_of(folder: Path) -> list[Path]:
    """The files of a folder that are shown where a document links to the folder."""
    return sorted(path for path in folder.iterdir() if path.is_file() and path.suffix in LANGUAGES)
