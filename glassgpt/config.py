"""Strict conversion between dataclasses, TOML and dicts; unknown fields and wrong types raise UserError."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import json
import reprlib
import tomllib
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import tomli_w
from pydantic import ConfigDict, TypeAdapter, ValidationError

from glassgpt.errors import UserError, unknown

T = TypeVar("T")
P = ParamSpec("P")
NONE = "none"  # how TOML and `--set` write None


def from_dict(cls: type[T], data: Mapping[str, Any], *, where: str) -> T:
    """Builds the dataclass `cls` from a dict of its fields; missing fields take their defaults.

    For a field that may be None, the string "none" stands for None. `where` is the name of the section ("model"),
    used in messages. Raises UserError for an unknown field (suggesting the closest name) and for a value of the wrong
    type. Errors from the dataclass's own `__post_init__` pass through.
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
    """Converts `value` to type `hint` by strict JSON rules: 1 may be a float, "1" no int, a list may be a tuple."""
    if value == NONE and type(None) in typing.get_args(hint):
        value = None
    try:
        return TypeAdapter(hint).validate_json(json.dumps(value), strict=True)
    except (ValidationError, TypeError) as error:
        raise _wrong_type(name, repr(value), error) from None


def _wrong_type(name: str, value: str, error: ValidationError | TypeError) -> UserError:
    reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
    return UserError(f"{name} = {value}: {reason[0].lower()}{reason[1:]}")


def strict_arguments(function: Callable[P, T]) -> Callable[P, T]:
    """Decorates a function of the Python interface: its arguments are checked as strictly as the fields of a recipe.

    A call raises UserError for an argument that is not of the type in the signature: 10.0 and True are no int.
    """
    signature = inspect.signature(function)

    @functools.cache
    def adapter(name: str) -> TypeAdapter[Any]:
        hint = typing.get_type_hints(function)[name]
        return TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True))

    @functools.wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> T:
        for name, value in signature.bind(*args, **kwargs).arguments.items():
            try:
                adapter(name).validate_python(value, strict=True)
            except ValidationError as error:
                raise _wrong_type(name, reprlib.repr(value), error) from None
        return function(*args, **kwargs)

    return checked


def to_dict(config: Any) -> dict[str, Any]:
    """The fields of a dataclass as plain values that TOML can hold: tuples become lists, None becomes "none"."""
    return {field.name: _plain(getattr(config, field.name)) for field in dataclasses.fields(config)}


def _plain(value: Any) -> Any:
    if value is None:
        return NONE
    return list(value) if isinstance(value, tuple) else value


def read_toml(path: Path) -> dict[str, Any]:
    """Parses a TOML file. Raises UserError if it is missing or not valid TOML."""
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
    """Splits `section.field=value`; the value is parsed as TOML (4, 1e-3, true, ["a"]), else taken as a string."""
    path, equals, value = text.partition("=")
    section, dot, field = path.strip().partition(".")
    if not (equals and dot and section and field):
        raise UserError(f"--set {text}: write it as section.field=value, for example --set model.n_head=4")
    try:
        lines = tomllib.loads(f"value = {value}")
        parsed = lines.pop("value")
        if lines:  # a second line of the value gives another field
            raise UserError(f"--set {text!r} has several lines: give each field an option of its own")
    except tomllib.TOMLDecodeError:
        parsed = value.strip()
    if not isinstance(parsed, str | int | float | list):  # a date: no field has that type, a file name may look so
        parsed = value.strip()
    return section, field, parsed
