"""Strict conversion between dataclasses, TOML and dicts; unknown fields and wrong types raise UserError."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import json
import tomllib
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, ParamSpec, TypeVar

import tomli_w
from pydantic import Field, InstanceOf, TypeAdapter, ValidationError

from glassgpt.errors import MOST, UserError, shown, unknown
from glassgpt.files import parse_json, read_file

T = TypeVar("T")
P = ParamSpec("P")
NONE = "none"  # how TOML and `--set` write None

Count = Annotated[int, Field(ge=0, le=MOST)]  # steps, tokens, bytes
Figure = float | None  # a measured number; null: it was not finite
# By the type of an error, where pydantic's message has terms of its own.
REASONS = {
    "sequence_str": "input should be a list, not one text",
    "list_type": "input should be a list",
    "tuple_type": "input should be a list",
    "dict_type": "input should be a table of names and values",
    "mapping_type": "input should be a table of names and values",
    "json_invalid": "it has half a character (a lone surrogate), which is no text",
}

Text = InstanceOf[str]  # may contain lone surrogates, which UTF-8 cannot encode


def from_dict(cls: type[T], data: Mapping[str, Any], *, where: str) -> T:
    """Builds the dataclass `cls` from a dict of its fields; missing fields take their defaults.

    For a field that may be None, the string "none" stands for None. `where` is the name of the section ("model"),
    used in messages. Raises UserError for an unknown field (suggesting the closest name), for a value of the wrong
    type, and for a missing field without a default. Errors from the dataclass's own `__post_init__` pass through.
    """
    hints = typing.get_type_hints(cls, include_extras=True)
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    values = {}
    for name, value in data.items():
        if name not in fields:
            raise unknown("field", f"{where}.{name}", [f"{where}.{field}" for field in fields])
        values[name] = convert(hints[name], value, f"{where}.{name}")
    for name, field in fields.items():
        if name not in values and field.default is field.default_factory is dataclasses.MISSING:
            raise UserError(f"{where}.{name} is missing")
    return cls(**values)


def record_from_dict(cls: type[T], data: Mapping[str, Any], path: Path) -> T:
    """Builds a dataclass from the fields of a file. Raises UserError like `from_dict`, with the file's name."""
    try:
        return from_dict(cls, data, where=path.stem)
    except UserError as error:
        raise UserError(f"{path} is damaged: {error}") from None


def read_json_as(kind: Any, path: Path) -> Any:
    """The contents of a JSON file, checked like `parse_json_as`. Raises UserError with the file and the reason."""
    data = read_file(path)
    try:
        return parse_json_as(kind, data)
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}") from None


def parse_json_as(kind: Any, data: bytes) -> Any:
    """Parses JSON and checks it strictly against a type, such as a TypedDict. Fields that the type lacks are kept.

    Raises ValueError with the place of the first wrong value and the reason.
    """
    value = parse_json(data)
    try:
        _adapter(kind).validate_python(value, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise ValueError(f"{place}: {_reason(first)}" if place else _reason(first)) from None
    return value


def convert(hint: Any, value: Any, name: str) -> Any:
    """Converts `value` to type `hint` by strict JSON rules: 1 may be a float, "1" no int, a list may be a tuple.

    Raises UserError, with the `name` of the value, if it is not of that type.
    """
    if value == NONE and type(None) in typing.get_args(hint):
        value = None
    try:
        return _adapter(hint).validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        name, value, reason = _first_problem(error, name, value)
        raise UserError(f"{name} is missing" if reason is None else f"{name} = {shown(value)}: {reason}") from None
    except TypeError:  # a date, bytes
        raise UserError(f"{name} = {shown(value)}: it should be a text, a number, true, false or a list") from None
    except (ValueError, RecursionError):  # a number of thousands of digits, a list of lists of lists …
        raise UserError(f"{name} = {shown(value)}: it is too large, or nested too deeply") from None


def _first_problem(error: ValidationError, name: str, value: Any) -> tuple[str, Any, str | None]:
    """The name and the value that are wrong, inside a table too, and the reason; None: it is missing."""
    first = error.errors()[0]
    if isinstance(value, dict):  # of other values, the place is a member of a union of types
        name, value = ".".join([name, *map(str, first["loc"])]), first["input"]
    return name, value, None if first["type"] == "missing" else _reason(first)


def _reason(error: Mapping[str, Any]) -> str:
    """Why a value is refused, in words that need no knowledge of pydantic."""
    message = error["msg"].removeprefix("Value error, ")
    return REASONS.get(error["type"], f"{message[:1].lower()}{message[1:]}")


@functools.cache
def _adapter(hint: Any) -> TypeAdapter[Any]:
    return TypeAdapter(hint)


def strict_arguments(function: Callable[P, T]) -> Callable[P, T]:
    """Decorates a function of the Python interface: its arguments are checked as strictly as the fields of a recipe.

    A call raises UserError for an argument that is not of the type in the signature: 10.0 and True are no int. `self`
    is not checked.
    """
    signature = inspect.signature(function)
    hints = functools.cache(lambda: typing.get_type_hints(function))  # in a call: its module is then complete

    @functools.wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> T:
        arguments = signature.bind(*args, **kwargs).arguments
        _check_types({name: hint for name, hint in hints().items() if name in arguments}, arguments)
        return function(*args, **kwargs)

    return checked


def check_field_types(config: Any) -> None:
    """Raises UserError for a field of a dataclass whose value is not of its type, as strictly as in a recipe."""
    _check_types(typing.get_type_hints(type(config)), vars(config))


def _check_types(hints: Mapping[str, Any], values: Mapping[str, Any]) -> None:
    """Raises UserError for a value that is not of the type in `hints`."""
    for name, hint in hints.items():
        try:
            _adapter(_by_instance(hint)).validate_python(values[name], strict=True)
        except ValidationError as error:
            raise UserError(f"{name} = {shown(values[name])}: {_reason(error.errors()[0])}") from None


def _by_instance(hint: Any) -> Any:
    """The type, where a class of this package accepts its instances, whose fields were checked when they were created.

    str accepts any text: the functions name the place of a lone surrogate themselves.
    """
    if isinstance(hint, UnionType) or typing.get_origin(hint) is typing.Union:
        return typing.Union[tuple(_by_instance(part) for part in typing.get_args(hint))]  # noqa: UP007 (built at run time)
    if hint is str:
        return Text
    own = isinstance(hint, type) and hint.__module__.partition(".")[0] == "glassgpt"
    instance: Any = InstanceOf
    return instance[hint] if own else hint


def to_dict(config: Any) -> dict[str, Any]:
    """The fields of a dataclass as plain values that TOML can hold: tuples become lists, None becomes "none"."""
    return {field.name: _plain(getattr(config, field.name)) for field in dataclasses.fields(config)}


def _plain(value: Any) -> Any:
    if value is None:
        return NONE
    return [_plain(member) for member in value] if isinstance(value, tuple) else value


def read_toml(path: Path) -> dict[str, Any]:
    """Parses a TOML file. Raises UserError if it is missing or not valid TOML."""
    try:
        return tomllib.loads(read_file(path).decode("utf-8-sig"))  # editors on Windows may begin a file with a BOM
    except (ValueError, RecursionError) as error:  # not TOML, not UTF-8, numbers of thousands of digits, deep nesting
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
    except (ValueError, RecursionError):  # not TOML, numbers of thousands of digits, deep nesting
        parsed = value.strip()
    if not isinstance(parsed, str | int | float | list):  # a date: no field has that type, a file name may look so
        parsed = value.strip()
    return section, field, parsed
