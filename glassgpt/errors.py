"""Errors that the user can fix. Each message says what is wrong, where, and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping


class UserError(Exception):
    """A mistake in the input, explained in one sentence.

    It is raised where the cause is known (the file, the field, the prompt). It is caught in one place, `glassgpt.cli`,
    which prints it on stderr and exits with code 2. Python users catch it like any exception.
    """


class ReportedByFirstRank(UserError):
    """Another rank of the job already reports this error; exit silently."""


class RankLost(UserError):
    """Another process of the same job has died, or the network connection to it failed."""


def unknown(kind: str, name: str, known: Iterable[str]) -> UserError:
    """The error for a name that is not in a fixed set; it suggests the closest valid name.

    `unknown("recipe", "char-tinny", ["char-tiny", "gpt2-124m"])` gives
    "unknown recipe 'char-tinny': did you mean 'char-tiny'? Known: char-tiny, gpt2-124m".
    """
    return UserError(f"unknown {kind} '{name}':{known_names(name, known)}")


def known_names(name: str, known: Iterable[str]) -> str:
    """The end of an error about an unknown name: the nearest known name, if one is close, then all known names."""
    options = sorted(known)
    near = difflib.get_close_matches(name, options, n=1, cutoff=0.5)
    hint = f" did you mean '{near[0]}'?" if near else ""
    return f"{hint} Known: {', '.join(options)}"


def check_least(section: str, config: object, least: Mapping[str, float]) -> None:
    """Raises UserError for a config number that is below its minimum, infinite or NaN.

    None (not set) and a name, such as "auto", are not numbers and pass.
    """
    for field, minimum in least.items():
        value = getattr(config, field)
        if isinstance(value, int | float) and not minimum <= value < float("inf"):
            bound = f"at least {minimum}" if value < minimum else f"finite and at least {minimum}"
            raise UserError(f"{section}.{field} = {value} is out of range: it must be {bound}")
