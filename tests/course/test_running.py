"""Running a page, and comparing the numbers that it quotes with what it prints."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from glassgpt.course import running
from glassgpt.course.running import Outcome, PythonSession, check_figures, environment, run_bash, run_page, work_folder
from glassgpt.errors import UserError

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="pages run bash")

PAGE = """\
It takes 100 s<!-- seconds × 2 -->.

<!-- small: 4.25 → 9.5 -->
<!-- figure loss: loss ([\\d.]+) -->
```bash
echo loss 4.25; echo made > file
```
```python
text = open("file").read()
```
```python
print(text.upper())
assert text == "other", "not that"
```
It reaches 4.30<!-- loss ± 0.1 -->, and 5<!-- other ± 1 -->.
"""


def run(markdown: str, folder: Path, size: running.Size) -> list[Outcome]:
    return run_page(markdown, "page.md", folder, size=size, env=environment())


def test_blocks_run_in_order_and_python_keeps_its_names(tmp_path: Path) -> None:
    bash, first, second = run(PAGE, tmp_path, "full")
    assert (bash.output, bash.problem, first.problem) == ("loss 4.25\n", None, None)
    assert second.output.startswith("MADE")
    problem = second.problem or ""
    assert 'File "page.md, line 11", line 2' in problem and problem.endswith("AssertionError: not that")
    assert running.__file__ not in problem


def test_figures_are_compared_at_full_size_only(tmp_path: Path) -> None:
    full, true = check_figures(PAGE, run(PAGE, tmp_path, "full"), "full")
    assert [problem.partition(",")[0] for problem in full] == [
        "line 1: 100 is not seconds",
        "line 15: no block of the page has the figure other",
    ]
    assert {quoted.name: value for quoted, value in true.items()}["loss"] == 4.25
    small, true = check_figures(PAGE, run(PAGE, tmp_path, "small"), "small")
    assert [problem[:8] for problem in small] == ["line 15:"]
    assert {quoted.name: value for quoted, value in true.items()}["loss"] == 9.5


def test_a_figure_has_to_be_printed(tmp_path: Path) -> None:
    page = "<!-- figure loss: loss ([\\d.]+) -->\n```bash\necho no\n```\n4<!-- loss ± 1 -->\n"
    assert check_figures(page, run(page, tmp_path, "small"), "small")[0] == [
        "line 2: the block prints nothing that matches figure loss"
    ]


def test_what_takes_too_long_is_ended_with_all_that_it_has_started(tmp_path: Path) -> None:
    started = time.monotonic()
    assert run_bash("sleep 60 | cat", tmp_path, environment(), 0.2) == ("", "not finished after 0.2 s")
    with PythonSession(tmp_path, environment()) as session:
        output, problem = session.run("print('begun')\nimport time\ntime.sleep(60)", "block", 1.0)
        assert output == "begun\n" and (problem or "").startswith("not finished after 1 s")
        assert session.run("print('again')", "block", 60)[1] is None  # a new process
    assert time.monotonic() - started < 30


def test_python_that_ends_is_a_problem(tmp_path: Path) -> None:
    with PythonSession(tmp_path, environment()) as session:
        assert "ended with code 3" in (session.run("import os; os._exit(3)", "block", 60)[1] or "")
        assert "SystemExit" in (session.run("raise SystemExit(0)", "block", 60)[1] or "")


def test_experiments_are_where_the_commands_name_them(tmp_path: Path) -> None:
    scripts = tmp_path / "experiments"
    scripts.mkdir()
    (scripts / "one.py").write_text("print('one')")
    work = tmp_path / "work"
    work.mkdir()
    page = "```bash\npython docs/course/experiments/one.py\n```\n"
    (outcome,) = run_page(page, "page", work, size="small", env=environment(), experiments=scripts)
    assert (outcome.output, outcome.problem) == ("one\n", None)


def test_a_folder_with_files_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious")
    with pytest.raises(UserError, match="not an empty folder"), work_folder(tmp_path):
        pass
    with work_folder(tmp_path / "new") as folder:
        assert folder.is_dir()
