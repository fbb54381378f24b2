"""Errors that the user can fix. Each message says what is wrong, where, and what to do."""

from __future__ import annotations

import contextlib
import difflib
import errno
import json
import shlex
from collections.abc import Iterable, Iterator, Mapping
from contextvars import ContextVar


class UserError(Exception):
    """A mistake in the input, explained in one sentence.

    It is raised where the cause is known (the file, the field, the prompt). It is caught in one place, `glassgpt.cli`,
    which prints it on stderr and exits with code 2. Python users catch it like any exception.
    """


class ReportedByFirstRank(UserError):
    """Another rank of the job already reports this error; exit silently."""


class RankLost(UserError):
    """Another process of the same job has died, or the network connection to it failed."""


_COMMAND_LINE = ContextVar("_COMMAND_LINE", default=False)


@contextlib.contextmanager
def on_command_line() -> Iterator[None]:
    """Context in which messages name settings as the command line does, see `option`."""
    token = _COMMAND_LINE.set(True)
    try:
        yield
    finally:
        _COMMAND_LINE.reset(token)


def option(**settings: object) -> str:
    """Settings as the reader of a message can type them: as options on the command line, elsewhere as arguments.

    `option(resume=True)` gives "--resume" or "resume=True", and `option(device="cpu")` "--device cpu" or
    "device='cpu'". None stands for the name alone. A name with a dot is a field of the configuration:
    `option(**{"model.n_head": 4})` gives "--set model.n_head=4" or "settings={'model.n_head': 4}".
    """
    if _COMMAND_LINE.get():
        return " ".join(_as_option(name, value) for name, value in settings.items())
    return ", ".join(_as_argument(name, value) for name, value in settings.items())


def _as_option(name: str, value: object) -> str:
    if "." in name:
        return f"--set {name}={shlex.quote(json.dumps(value)) if isinstance(value, list) else value}"
    flag = f"--{name.replace('_', '-')}"
    return flag if value is None or value is True else f"{flag} {value}"


def _as_argument(name: str, value: object) -> str:
    if "." in name:
        return f"settings={ {name: value}!r}"
    return name if value is None else f"{name}={value!r}"


def unknown(kind: str, name: str, known: Iterable[str]) -> UserError:
    """The error for a name that is not in a fixed set; it suggests the closest valid name.

    `unknown("recipe", "char-tinny", ["char-tiny", "gpt2-124m"])` gives
    "unknown recipe 'char-tinny': did you mean 'char-tiny'? Known: char-tiny, gpt2-124m".
    """
    return UserError(f"unknown {kind} '{name}'{known_names(name, known)}")


def known_names(name: str, known: Iterable[str]) -> str:
    """The end of an error about an unknown name, from its colon on: a known name that is close, then all of them."""
    options = sorted(known)
    near = difflib.get_close_matches(name, options, n=1, cutoff=0.5)
    hint = f": did you mean '{near[0]}'?" if near else "."
    return f"{hint} Known: {', '.join(options)}"


def printable(text: str) -> str:
    """The text on one line, with control characters and lone surrogates escaped: names of files may have any."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def counted(count: int, noun: str) -> str:
    """A number with its noun: "1 document", "2,000 documents"."""
    return f"{count:,} {noun}{'s' * (count != 1)}"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory could not be allocated; torch has no class for this on a CPU."""
    if isinstance(error, RuntimeError):
        return type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error)
    return isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM)


def shown(value: object) -> str:
    """A value as a message shows it: at most 60 characters of it, on one line."""
    try:
        text = repr(value)
    except ValueError:  # an integer of thousands of digits
        return "a number of thousands of digits"
    return text if len(text) <= 60 else f"{text[:50]}… ({len(text)} characters)"


MOST = (1 << 63) - 1  # the largest integer of a config or a file: torch and numpy count in 64 bits


def check_least(section: str, config: object, least: Mapping[str, float]) -> None:
    """Raises UserError for a config number that is below its minimum, infinite, NaN, or an integer of 64 bits or more.

    None (not set) and a name, such as "auto", are not numbers and pass.
    """
    for field, minimum in least.items():
        value = getattr(config, field)
        if not isinstance(value, int | float):
            continue
        if not minimum <= value < float("inf"):
            bound = f"at least {minimum}" if value < minimum else f"finite and at least {minimum}"
            raise UserError(f"{section}.{field} = {shown(value)} is out of range: it must be {bound}")
        if isinstance(value, int) and value > MOST:
            raise UserError(f"{section}.{field} = {shown(value)} is out of range: it must be at most {MOST}")
