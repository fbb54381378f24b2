"""Random damage and random options: no traceback, no hang, no change to a file that is not ours.

`make fuzz` runs FUZZ_CASES cases from FUZZ_FIRST on, and prints which failed; the suite runs the first few. A case is
known by its number alone: it is one command, at most one damage, and the three standard streams.
"""

from __future__ import annotations

import os
import shutil
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest
from fuzz_commands import OURS, READERS, USES, VERBS, draw_use
from fuzz_damage import Damage, draw_damage
from fuzz_process import Ended, Streams, run_forked, warm_up
from fuzz_world import build_world, copy_world, snapshot

CASES = int(os.environ.get("FUZZ_CASES", "40"))
FIRST = int(os.environ.get("FUZZ_FIRST", "0"))
LIMIT = 20.0  # seconds for a command that ends by itself; the usual one takes a tenth of a second
PATIENCE = 4.0  # seconds before a command whose options may ask for hours of work is interrupted
USUAL = Streams()
STREAMS = (
    Streams(stdout=None), Streams(stderr=None), Streams(stdin=None), Streams(None, None, None),
    Streams(stdout="/dev/full"), Streams(stderr="/dev/full"), Streams(stdin="text.txt"), Streams(stdin="binary"),
    Streams(encoding="ascii"), Streams(encoding="latin-1"),
)  # fmt: skip

pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs fork and pidfd_open, so Linux")


@dataclass(frozen=True)
class Case:
    """A command, the damage before it, and its standard streams."""

    number: int
    command: tuple[str, ...]
    damage: Damage | None = None
    streams: Streams = USUAL

    @property
    def bounded(self) -> bool:
        """Whether the command must end by itself: only odd options can ask for endless work."""
        return self.damage is not None


def draw_case(number: int, world: Path) -> Case:
    """The case of that number."""
    random = Random(number)
    if random.random() < 0.6:
        beginning = random.choice((*READERS, "runs/tiny/", "runs/tiny/"))
        files = sorted(path for path in world.rglob("*") if path.is_file() and not path.is_symlink())
        paths = [str(path.relative_to(world)) for path in files]
        damage = draw_damage(random, random.choice([path for path in paths if path.startswith(beginning)]))
        return Case(number, random.choice(READERS[beginning]), damage)
    streams = random.choice((*(USUAL,) * 20, *STREAMS))
    command = draw_use(random) if random.random() < 0.9 else random.choice(sorted(USES.values()))
    return Case(number, command, streams=streams)


def faults(case: Case, ended: Ended, before: dict[str, str], after: dict[str, str]) -> list[str]:
    """What is wrong with the way in which a command ended; empty if nothing is."""
    found = []
    lines = ended.err.splitlines() or [""]
    if ended.overdue and case.bounded:
        found.append("hang")
    elif ended.overdue and ended.code not in (0, 2, 130):
        found.append(f"did not stop when it was interrupted: {ended.code}")
    if ended.code not in (0, 2, 130) and not (ended.code == 1 and case.command[0] == "doctor"):
        found.append(f"exit code {ended.code}: {lines[-1][:200]}")
    if "Traceback" in ended.err or "Exception ignored" in ended.err:
        found.append(f"traceback: {lines[-1][:200]}")
    sentences = [line for line in lines if line.startswith("glassgpt: ")]
    if ended.code == 2 and case.streams.stderr == "" and sentences != lines[-1:]:
        found.append(f"not one sentence at the end: {ended.err[-300:]!r}")
    if any(unicodedata.category(character) == "Cc" and character not in "\n\t" for character in ended.err):
        found.append(f"control characters on stderr: {ended.err[-300:]!r}")
    changed = [path for path, content in before.items() if after.get(path) != content and not path.startswith(OURS)]
    return [*found, *(f"changed {path}" for path in changed)]


def run_case(case: Case, world: Path) -> list[str]:
    """Runs a case on a copy of the world, and returns what is wrong."""
    folder = world.with_name("case")
    copy_world(world, folder)
    try:
        if case.damage is not None:
            case.damage.apply(folder)
        before = snapshot(folder)
        ended = run_forked(case.command, folder, case.streams, LIMIT if case.bounded else PATIENCE)
        return faults(case, ended, before, snapshot(folder))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def summary(failures: dict[Case, list[str]]) -> Iterable[str]:
    """The kinds of faults, the most frequent first, then every case that failed."""
    kinds = Counter(fault for found in failures.values() for fault in found)
    for fault, number in kinds.most_common():
        yield f"{number:5}  {fault}"
    for case, found in failures.items():
        yield f"{case}\n    {found}"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GLASSGPT_CACHE", "cache")  # a folder of each case
        warm_up()
        folder = tmp_path_factory.mktemp("fuzz") / "world"
        build_world(folder)
        yield folder


def test_every_verb_has_a_use() -> None:
    assert set(USES) == set(VERBS)


def test_no_traceback_no_hang_no_change(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    failures: dict[Case, list[str]] = {}

    def say(text: str) -> None:
        if "FUZZ_CASES" in os.environ:  # an hour without a word would be long
            with capsys.disabled():
                print(text, flush=True)

    for number in range(FIRST, FIRST + CASES):
        case = draw_case(number, world)
        if found := run_case(case, world):
            failures[case] = found
            say(f"{case}\n    {found}")
        if (done := number - FIRST + 1) % 100 == 0:
            say(f"fuzz: {len(failures)} of {done} cases failed")
    result = "\n".join([f"fuzz: {len(failures)} of {CASES} cases failed", *summary(failures)])
    say(result)
    assert not failures, result
