"""dataclass ⇄ TOML ⇄ dict, strict: an unknown field or a value of the wrong type is the user's error, by name."""

from __future__ import annotations

import dataclasses
import json
import tomllib
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import tomli_w
from pydantic import TypeAdapter, ValidationError

from glassgpt.errors import UserError, unknown

T = TypeVar("T")
NONE = "none"  # how TOML and `--set` write None


def from_dict(cls: type[T], data: Mapping[str, Any], *, where: str) -> T:
    """Builds the dataclass `cls` from a dict of its fields; missing ones take their defaults.

    For a field that may be None, the string "none" stands for None. `where` is the name of the section ("model"),
    used in messages. Raises UserError for an unknown field (with the nearest known one), for a value of the wrong type,
    and whatever the dataclass's own `__post_init__` raises.
    """
    hints = typing.get_type_hints(cls)
    fields = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
    values = {}
    for name, value in data.items():
        if name not in fields:
            raise unknown("field", f"{where}.{name}", [f"{where}.{field}" for field in fields])
        values[name] = _convert(hints[name], value, f"{where}.{name}")
    return cls(**values)


def _convert(hint: Any, value: Any, name: str) -> Any:
    """The value as the type `hint`, strictly as JSON: 1 is a float too, "1" is never an int, a list may be a tuple."""
    if value == NONE and type(None) in typing.get_args(hint):
        value = None
    try:
        return TypeAdapter(hint).validate_json(json.dumps(value), strict=True)
    except (ValidationError, TypeError) as error:
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        raise UserError(f"{name} = {value!r}: {reason[0].lower()}{reason[1:]}") from None


def to_dict(config: Any) -> dict[str, Any]:
    """The fields of a dataclass as plain values that TOML can hold: tuples become lists, None becomes "none"."""
    return {field.name: _plain(getattr(config, field.name)) for field in dataclasses.fields(config)}


def _plain(value: Any) -> Any:
    if value is None:
        return NONE
    return list(value) if isinstance(value, tuple) else value


def read_toml(path: Path) -> dict[str, Any]:
    """Raises UserError with the file's name when it is missing or not TOML."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid TOML: {error}") from None


def dump_toml(data: Mapping[str, Any]) -> str:
    """The inverse of `read_toml`."""
    return tomli_w.dumps(data)


def parse_override(text: str) -> tuple[str, str, Any]:
    """Splits `section.field=value`; the value is TOML (4, 1e-3, true, ["a"]), else a string as it stands."""
    path, equals, value = text.partition("=")
    section, dot, field = path.strip().partition(".")
    if not (equals and dot and section and field):
        raise UserError(f"--set {text}: write it as section.field=value, for example --set model.n_head=4")
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        parsed = value.strip()
    if not isinstance(parsed, str | int | float | list):  # a date: no field is one, but a file's name may look so
        parsed = value.strip()
    return section, field, parsed
