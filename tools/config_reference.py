"""Writes docs/configuration.md: every field of a run's configuration, from the dataclasses themselves.

The meaning of a field is the comment behind it; a size that all architectures have is explained once, in `ModelConfig`.
With --check nothing is written: the exit code is 1 where the page is not up to date.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import io
import sys
import tokenize
from pathlib import Path
from typing import Any

import tomli_w

from glassgpt.config import to_dict
from glassgpt.models import ARCHITECTURES, ModelConfig
from glassgpt.runs.config import SECTIONS, may_change

PAGE = Path(__file__).resolve().parent.parent / "docs" / "configuration.md"
INTRODUCTION = """\
# Configuration

<!-- Written by tools/config_reference.py from the dataclasses; do not edit it by hand. -->

Every field of a recipe, of `--set section.field=value`, of `settings=` in Python, and of a run's `config.toml`. A field
that is left out has its default. "Not set" is `"none"` in TOML, `none` in `--set` and `None` in Python; 0 turns off
`every`, `sample_every`, `grad_clip` and `dropout`. On `--resume`, only the marked fields may change. Names of earlier
versions, such as `training.eval_every`, still work; a note says the new one.
"""


def meanings(cls: type[Any]) -> dict[str, str]:
    """The comment behind each field or property of a class. Raises SystemExit for a field without one."""
    source = inspect.getsource(cls)
    comments = {
        token.start[0]: token.string.lstrip("# ")
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    (body,) = (node.body for node in ast.parse(source).body if isinstance(node, ast.ClassDef))
    named = {
        node.target.id: node for node in body if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }
    properties = {node.name: node for node in body if isinstance(node, ast.FunctionDef)}
    nodes: dict[str, ast.stmt] = {**named, **properties}
    return {name: comments[node.end_lineno] for name, node in nodes.items() if node.end_lineno in comments}


def type_in_words(annotation: str) -> str:
    """`int | Literal["auto"] | None` as "int, auto or none"."""
    parts: list[str] = []
    for part in ast.unparse(ast.parse(annotation)).split(" | "):
        if part.startswith("Literal["):
            parts += [value.strip(" '") for value in part.removeprefix("Literal[").removesuffix("]").split(",")]
        else:
            parts.append({"None": "none", "tuple[str, ...]": "list of str"}.get(part, part))
    return " or ".join([*([", ".join(parts[:-1])] if parts[:-1] else []), parts[-1]])


def default_as_toml(value: Any) -> str:
    """A default as a recipe writes it."""
    return tomli_w.dumps({"x": value}).removeprefix("x = ").strip()


def rows(cls: type[Any], section: str) -> list[tuple[str, str, str, str, str]]:
    """Name, type, default, meaning and whether it may change, of each field of a dataclass with defaults."""
    explained, plain = meanings(ModelConfig) | meanings(cls), to_dict(cls())
    found = []
    for field in dataclasses.fields(cls):
        if field.name not in explained:
            sys.exit(f"{cls.__name__}.{field.name} has no comment that says what it means")
        changes = "yes" if may_change(section, field.name) else ""
        default = f"`{default_as_toml(plain[field.name])}`"
        found.append((f"`{field.name}`", type_in_words(str(field.type)), default, explained[field.name], changes))
    return found


def table(lines: list[tuple[str, str, str, str, str]]) -> str:
    """Markdown; a column without entries is left out."""
    header = ("field", "type", "default", "meaning", "may change on resume")
    kept = [column for column in range(len(header)) if any(line[column] for line in lines)]
    cells = [tuple(line[column].replace("|", "\\|") for column in kept) for line in [header, *lines]]
    cells.insert(1, ("---",) * len(kept))
    return "\n".join(f"| {' | '.join(line)} |" for line in cells) + "\n"


def page() -> str:
    """The whole page."""
    parts = [INTRODUCTION]
    for name, cls in SECTIONS.items():
        parts.append(f"## [{name}]\n\n{table(rows(cls, name))}")
        if name == "run":
            parts.append(model_sections())
    return "\n".join(parts)


def model_sections() -> str:
    """[model], whose fields are those of the architecture."""
    by_config: dict[type[Any], list[str]] = {}
    for name, architecture in ARCHITECTURES.items():
        by_config.setdefault(architecture.config, []).append(name)
    parts = [
        '## [model]\n\n`architecture` (`"gpt2"` if left out) names the architecture; the other fields are its own.',
    ]
    for config, names in by_config.items():
        named = ", ".join(f"`{name}`" for name in names)
        parts.append(f"{named}:\n\n{table(rows(config, 'model'))}".rstrip("\n"))
    return "\n\n".join(parts) + "\n"


def main() -> None:
    """Writes the page, or with --check compares it."""
    text = page()
    if sys.argv[1:] == ["--check"]:
        if not PAGE.exists() or PAGE.read_text(encoding="utf-8") != text:
            sys.exit(f"docs/{PAGE.name} is not up to date: run python tools/config_reference.py")
    else:
        PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
