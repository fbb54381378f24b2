"""The reference of the public names: signatures and docstrings, read from the source without importing it.

The docstrings are Markdown already, so they need no translation.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

WIDTH = 88  # columns of a signature on one line
Definition = ast.FunctionDef | ast.ClassDef

PUBLIC = """\
# `import glassgpt as gg`

The names that a script or a notebook uses. Each is imported when it is first used.
"""
INSTRUMENTS = """\
# `glassgpt.inspection`

The instruments that look inside a model. [Inspection](../inspection.md) introduces them with examples.
"""


def public_page(root: Path) -> str:
    """The names of `glassgpt.__all__`, in its order."""
    package = ast.parse((root / "glassgpt" / "__init__.py").read_text(encoding="utf-8"))
    assigned = {
        target.id: ast.literal_eval(node.value)
        for node in package.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    modules = {**assigned["_MODULES"], "UserError": "glassgpt.errors"}
    parts = [PUBLIC]
    for name in assigned["__all__"]:
        if name in modules:
            parts += describe(f"gg.{name}", definitions(module_file(root, modules[name]))[name])
    return "\n".join(parts)


def instruments_page(root: Path) -> str:
    """The public functions and classes of the modules of `glassgpt.inspection`, module by module."""
    parts = [INSTRUMENTS]
    for path in sorted((root / "glassgpt" / "inspection").glob("*.py")):
        found = {name: node for name, node in definitions(path).items() if not name.startswith("_")}
        if not found or path.name == "__init__.py":
            continue
        parts += [f"## {path.stem}\n", f"{docstring(ast.parse(path.read_text(encoding='utf-8')))}\n"]
        for name, node in found.items():
            parts += describe(name, node, level="###")
    return "\n".join(parts)


def module_file(root: Path, module: str) -> Path:
    """The file of a module of the package."""
    path = root.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def definitions(path: Path) -> dict[str, Definition]:
    """The functions and classes that a file defines."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}


def describe(name: str, node: Definition, level: str = "##") -> Iterator[str]:
    """The section of a name: its signature, its docstring and, of a class, its public methods."""
    yield f"{level} {name}\n"
    yield f"```python\n{signature(name, node)}\n```\n"
    yield f"{docstring(node)}\n"
    if isinstance(node, ast.ClassDef):
        for method in node.body:
            if isinstance(method, ast.FunctionDef) and not method.name.startswith("_") and docstring(method):
                yield f"```python\n{signature(method.name, method)}\n```\n"
                yield f"{docstring(method)}\n"


def signature(name: str, node: Definition) -> str:
    """How it is called, or of a class its fields; one argument a line where the whole is long."""
    if isinstance(node, ast.ClassDef):
        fields = [ast.unparse(part) for part in node.body if isinstance(part, ast.AnnAssign)]
        return "\n".join([f"class {name}", *(f"    {field}" for field in fields if not field.startswith("_"))])
    if any(ast.unparse(each).endswith("property") for each in node.decorator_list):  # cached_property, too
        return f"{name}: {ast.unparse(node.returns)}" if node.returns else name
    arguments = ast.unparse(drop_self(node.args))
    result = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    line = f"{name}({arguments}){result}"
    if len(line) <= WIDTH:
        return line
    rows = "".join(f"    {argument},\n" for argument in split_arguments(arguments))
    return f"{name}(\n{rows}){result}"


def drop_self(arguments: ast.arguments) -> ast.arguments:
    """The arguments as a caller of a method sees them."""
    if arguments.args and arguments.args[0].arg in ("self", "cls"):
        arguments.args = arguments.args[1:]
    return arguments


def split_arguments(arguments: str) -> list[str]:
    """Splits at the commas that are inside no bracket."""
    parts, depth = [""], 0
    for character in arguments:
        depth += (character in "([{") - (character in ")]}")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts]


def docstring(node: Definition | ast.Module) -> str:
    """The docstring without its indentation, or ""."""
    return ast.get_docstring(node) or ""
