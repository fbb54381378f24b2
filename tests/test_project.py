"""What holds for the project as a whole: how it is started, what that costs, what its files may say."""

from __future__ import annotations

import importlib.metadata
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import glassgpt

ROOT = Path(__file__).resolve().parent.parent
# Homes and other places of one machine; a container's own folders and a URL's path are not among them.
MACHINE_PATH = re.compile(r"(?<![\w.:/-])/(?:home|Users|root|work|mnt|scratch)/[\w.-]+|\b[A-Z]:\\Users\\")


def run_python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=60, check=False)


def tracked_files() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        pytest.skip("needs a git checkout")
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_the_version_is_that_of_the_installed_package() -> None:
    assert importlib.metadata.version("glassgpt") == glassgpt.__version__


@pytest.mark.parametrize("start", [["-m", "glassgpt"], ["-c", "from glassgpt.cli.main import main; main()"]])
def test_version_is_printed_on_stdout(start: list[str]) -> None:
    done = run_python(*start, "--version")
    assert done.returncode == 0, done.stderr
    assert glassgpt.__version__ in done.stdout


def test_help_imports_nothing_that_computes() -> None:
    """Torch alone takes seconds to import; whoever asks for help should not wait for it."""
    code = """
import sys
from glassgpt.cli.main import main
sys.argv = ["glassgpt", "--help"]
try:
    main()
except SystemExit as exit:
    assert exit.code in (0, None), exit.code
heavy = {"torch", "numpy", "tiktoken", "safetensors", "transformers"} & set(sys.modules)
print("imported:", *sorted(heavy), file=sys.stderr)
"""
    done = run_python("-c", code)
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout
    assert done.stderr.strip() == "imported:"


def test_every_pin_is_of_something_that_is_asked_for() -> None:
    """The direct dependencies of a set-up are all pinned, each within the range that pyproject.toml states."""
    from packaging.requirements import Requirement

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    wanted = [
        *project["dependencies"],
        *(each for name in ("dev", "hf", "sentencepiece", "docs") for each in extras[name]),
    ]
    pins, old = pinned("constraints.txt"), pinned("constraints-parity.txt")
    for requirement in map(Requirement, wanted):
        assert requirement.specifier.contains(pins[normalised(requirement.name)]), requirement
        if (version := old.get(normalised(requirement.name))) is not None:
            assert requirement.specifier.contains(version), requirement
    assert old["torch"] == pins["torch"] and old["transformers"].startswith("4.56.")


def pinned(file: str) -> dict[str, str]:
    """The versions in a file of constraints."""
    lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if "==" in line and not line.startswith("#"))
    return {normalised(name): version for name, version in pins.items()}


def normalised(name: str) -> str:
    """A distribution's name as package indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def test_no_file_names_a_place_of_one_machine() -> None:
    found = [
        f"{path.relative_to(ROOT)}: {match.group()}"
        for path in tracked_files()
        if path != Path(__file__).resolve()
        for match in MACHINE_PATH.finditer(path.read_text(encoding="utf-8", errors="replace"))
    ]
    assert not found


def test_relative_links_lead_somewhere() -> None:
    """A link in a Markdown file to another file of the project points at one that is there."""
    broken = []
    for path in tracked_files():
        if path.suffix != ".md":
            continue
        text = re.sub(r"```.*?```|`[^`\n]*`", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
        for target in re.findall(r"\]\((?!https?:|mailto:|#)([^)#\s]+)", text):
            if not (path.parent / target).exists():
                broken.append(f"{path.relative_to(ROOT)}: {target}")
    assert not broken


README = """\
```bash
echo written > note
```
<!-- not run: needs a network -->
```bash
exit 3
```
```text
exit 3
```
```python
print(open("note").read())
```
"""


def test_readme_blocks_run_in_order_in_one_folder(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(README, encoding="utf-8")
    done = run_readme(tmp_path)
    assert done.returncode == 0, done.stdout
    assert re.findall(r"^(ok|not run|FAILED)\b.*README.md:(\d+)", done.stdout, re.MULTILINE) == [
        ("ok", "1"),
        ("not run", "5"),
        ("ok", "11"),
    ]


def test_a_failing_readme_command_fails_the_check(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("```bash\nfalse\necho unreached\n```\n", encoding="utf-8")
    done = run_readme(tmp_path)
    assert done.returncode == 1
    assert "exit 1" in done.stdout


def run_readme(folder: Path) -> subprocess.CompletedProcess[str]:
    return run_python(os.fspath(ROOT / "tools" / "run_readme.py"), os.fspath(folder / "README.md"))
