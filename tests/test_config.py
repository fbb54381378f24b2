"""Values to dataclasses, strictly, and back through TOML."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import PlainValidator

from glassgpt.config import convert, dump_toml, from_dict, parse_override, read_toml, strict_arguments, to_dict
from glassgpt.errors import UserError


@dataclass(frozen=True)
class Cake:
    """One field of every type that configs use."""

    layers: int = 1
    weight: float = 1.0
    iced: bool = False
    name: str = "plain"
    shape: Literal["round", "square"] = "round"
    fillings: tuple[str, ...] = ()
    candles: int | Literal["many"] | None = None
    wish: str | None = None

    def __post_init__(self) -> None:
        if self.layers < 1:
            raise UserError(f"cake.layers = {self.layers} is out of range")


cakes = st.builds(
    Cake,
    layers=st.integers(1, 10**30),
    weight=st.floats(allow_nan=False),
    iced=st.booleans(),
    name=st.text(),
    shape=st.sampled_from(["round", "square"]),
    fillings=st.lists(st.text()).map(tuple),
    candles=st.none() | st.just("many") | st.integers(0, 9),
    wish=st.none() | st.text().filter(lambda text: text != "none"),
)


@given(cakes)
def test_config_to_dict_to_toml_and_back(tmp_path_factory: pytest.TempPathFactory, cake: Cake) -> None:
    path = tmp_path_factory.getbasetemp() / "cake.toml"
    path.write_text(dump_toml({"cake": to_dict(cake)}), encoding="utf-8")
    data = read_toml(path)["cake"]
    assert data == to_dict(cake)
    assert from_dict(Cake, data, where="cake") == cake


def test_missing_fields_take_their_defaults() -> None:
    assert from_dict(Cake, {}, where="cake") == Cake()
    assert from_dict(Cake, {"layers": 3}, where="cake") == Cake(layers=3)


def test_a_whole_number_is_a_float_too() -> None:
    weight = from_dict(Cake, {"weight": 2}, where="cake").weight
    assert weight == 2.0
    assert type(weight) is float


def test_a_byte_order_mark_is_no_part_of_a_file(tmp_path: Path) -> None:
    """Notepad writes one."""
    (tmp_path / "config.toml").write_bytes(b"\xef\xbb\xbfformat = 3\n")
    assert read_toml(tmp_path / "config.toml") == {"format": 3}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("layers", "3"), ("layers", 3.0), ("layers", 2.5), ("layers", True), ("layers", None), ("layers", [3]),
        ("weight", "2"), ("weight", True), ("weight", {}),
        ("iced", 1), ("iced", "true"), ("iced", "yes"),
        ("name", 3), ("name", ["plain"]),
        ("shape", "oval"), ("shape", 1),
        ("fillings", "jam"), ("fillings", [1]), ("fillings", ["jam", None]),
        ("layers", object()),
    ],
)  # fmt: skip
def test_a_value_of_another_type_is_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(UserError) as caught:
        from_dict(Cake, {field: value}, where="cake")
    assert str(caught.value).startswith(f"cake.{field} = {value!r}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("fillings", "jam", "input should be a list"),
        ("name", "half \ud800", "it has half a character (a lone surrogate), which is no text"),
        ("name", date(2026, 11, 21), "it should be a text, a number, true, false or a list"),
        pytest.param("layers", 10**5000, "it is too large, or nested too deeply", id="digits"),
    ],
)
def test_a_reason_has_no_words_of_a_library(field: str, value: Any, reason: str) -> None:
    with pytest.raises(UserError) as caught:
        from_dict(Cake, {field: value}, where="cake")
    assert str(caught.value).endswith(f": {reason}")


def test_the_reason_of_a_type_of_ours_stands_alone() -> None:
    def refuse(value: object) -> object:
        raise ValueError("It has no jam")

    with pytest.raises(UserError) as caught:
        convert(Annotated[str, PlainValidator(refuse)], "dry", "cake")
    assert str(caught.value) == "cake = 'dry': it has no jam"


def test_arguments_of_a_call_are_refused_in_the_same_words() -> None:
    @strict_arguments
    def bake(fillings: Sequence[str] = (), sizes: Mapping[str, int] | None = None) -> None: ...

    for arguments, reason in (
        ({"fillings": "jam"}, "fillings = 'jam': input should be a list, not one text"),
        ({"sizes": [1]}, "sizes = [1]: input should be a table of names and values"),
    ):
        with pytest.raises(UserError) as caught:
            bake(**arguments)
        assert str(caught.value) == reason


def test_an_unknown_field_is_refused_with_the_nearest() -> None:
    with pytest.raises(UserError, match=r"unknown field 'cake\.layer': did you mean 'cake\.layers'\? Known: cake\.c"):
        from_dict(Cake, {"layer": 3}, where="cake")


def test_the_dataclass_checks_its_own_ranges() -> None:
    with pytest.raises(UserError, match=r"cake\.layers = 0 is out of range"):
        from_dict(Cake, {"layers": 0}, where="cake")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("cake.layers=4", 4),
        ("cake.layers = 1_000", 1000),
        ("cake.layers=1e-3", 1e-3),
        ("cake.layers=inf", math.inf),
        ("cake.layers=true", True),
        ("cake.layers=True", "True"),
        ('cake.layers="4"', "4"),
        ("cake.layers=char", "char"),
        ("cake.layers=a=b", "a=b"),
        ("cake.layers=", ""),
        ("cake.layers= folder/a b#c.txt ", "folder/a b#c.txt"),
        ('cake.layers=["a", "b"]', ["a", "b"]),
    ],
)
def test_an_override_is_a_toml_value_or_else_a_string(text: str, value: Any) -> None:
    section, field, parsed = parse_override(text)
    assert (section, field, parsed, type(parsed)) == ("cake", "layers", value, type(value))


@pytest.mark.parametrize("text", ["", "cake", "cake.layers", "layers=3", "=3", ".layers=3", "cake.=3"])
def test_an_override_of_another_form_is_shown_how(text: str) -> None:
    with pytest.raises(UserError, match=r"write it as section\.field=value, for example --set model\.n_head=4"):
        parse_override(text)


@given(cakes)
def test_every_value_can_be_given_as_an_override(cake: Cake) -> None:
    for line in dump_toml({k: v for k, v in to_dict(cake).items() if k != "fillings"}).splitlines():
        field, _, value = line.partition(" = ")
        section, name, parsed = parse_override(f"cake.{field}={value}")
        assert (section, name) == ("cake", field)
        assert getattr(from_dict(Cake, {name: parsed}, where="cake"), field) == getattr(cake, field)


def test_not_set_is_none_here_and_a_word_there() -> None:
    assert to_dict(Cake())["candles"] == to_dict(Cake())["wish"] == "none"
    for value in ("none", None):
        assert from_dict(Cake, {"candles": value, "wish": value}, where="cake") == Cake()
    assert from_dict(Cake, {"name": "none"}, where="cake").name == "none"  # a field that is always set
    with pytest.raises(UserError, match=r"cake\.layers = 'none': input should be a valid integer"):
        from_dict(Cake, {"layers": "none"}, where="cake")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read .*gone\.toml: No such file"):
        read_toml(tmp_path / "gone.toml")
    with pytest.raises(UserError, match=r"cannot read .*: Is a directory"):
        read_toml(tmp_path)


@pytest.mark.parametrize("content", [b"[model", b"a = ", b"\xff\xfe", b"a = 1\na = 2"])
def test_a_file_that_is_not_toml_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"config\.toml is not valid TOML"):
        read_toml(path)


def test_a_dict_of_a_config_shares_nothing_with_it() -> None:
    cake = Cake(fillings=("jam",))
    to_dict(cake)["fillings"].append("cream")
    assert cake == Cake(fillings=("jam",))
    assert [field.name for field in dataclasses.fields(cake)] == list(to_dict(cake))
