from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import TYPE_CHECKING, Any
from uuid import UUID

import orjson
import pytest
from hypothesis import given

from trio_socketio import EncodeError, RemoteProtocolError
from trio_socketio._wire import json as default_json
from trio_socketio._wire.json_modules import ModuleCodec, as_codec

from .strategies import json_values

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio_socketio._wire.parser import JSONCodec


class Terse:
    """Takes ``allow_nan``, and nothing about separators."""

    @staticmethod
    def dumps(value: Any, *, default: Callable[[Any], Any], allow_nan: bool = True) -> str:
        return json.dumps(value, default=default, allow_nan=allow_nan)

    @staticmethod
    def loads(text: str, *, parse_constant: Callable[[str], Any] | None = None) -> Any:
        return json.loads(text, parse_constant=parse_constant)


class Overflows(Terse):
    """Does not raise a `ValueError` for what is too large."""

    @staticmethod
    def dumps(value: Any, **options: Any) -> str:
        if value == [2**64]:
            raise OverflowError("too large")
        return json.dumps(value, **options)


@pytest.fixture(params=[json, orjson, Terse], ids=lambda module: module.__name__)
def codec(request: pytest.FixtureRequest) -> JSONCodec:
    return as_codec(request.param)


def test_a_codec_is_itself() -> None:
    assert as_codec(default_json) is default_json


def test_texts_are_compact_where_the_module_can() -> None:
    value = {"a": [1, 2], "b": None}
    assert as_codec(json).dumps(value) == as_codec(orjson).dumps(value) == b'{"a":[1,2],"b":null}'


def test_types_have_the_forms_that_they_have_by_default(codec: JSONCodec) -> None:
    class Color(Enum):
        RED = "red"

    @dataclass
    class User:
        name: str
        _secret: int = 0

    value = [Color.RED, User("u"), UUID(int=1), (1,)]
    assert json.loads(codec.dumps(value)) == json.loads(default_json.dumps(value))


def test_a_datetime_is_a_text(codec: JSONCodec) -> None:
    moment = datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert datetime.fromisoformat(json.loads(codec.dumps(moment))) == moment


def test_the_hook_is_asked_once_for_each_value_in_order(codec: JSONCodec) -> None:
    asked: list[Any] = []

    def number(value: Any) -> int:
        asked.append(value)
        return len(asked)

    assert json.loads(codec.dumps([b"1", {"a": b"2"}, b"3"], number)) == [1, {"a": 2}, 3]
    assert asked == [b"1", b"2", b"3"]


def test_what_the_hook_raises_comes_out(codec: JSONCodec) -> None:
    def refuse(value: Any) -> Any:
        raise EncodeError("not today")

    with pytest.raises(EncodeError, match=r"^not today$"):
        codec.dumps([b""], refuse)


def test_circular_data_is_refused(codec: JSONCodec) -> None:
    circular: list[Any] = []
    circular.append(circular)
    with pytest.raises(EncodeError):
        codec.dumps(circular)


@pytest.mark.parametrize("module", [json, Terse], ids=lambda module: module.__name__)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_nan_is_refused_where_the_module_would_write_it(module: Any, value: float) -> None:
    with pytest.raises(EncodeError, match="JSON compliant"):
        as_codec(module).dumps({"deep": [value]})


def test_any_error_about_a_value_is_an_encode_error() -> None:
    with pytest.raises(EncodeError, match="too large"):
        ModuleCodec(Overflows()).dumps([2**64])


@pytest.mark.parametrize("text", ["NaN", "[Infinity]", '{"a":-Infinity}', "[", "", "[1,]", "\ud800"])
def test_what_is_not_json_is_a_value_error(codec: JSONCodec, text: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        codec.loads_untrusted(text)


def test_depth_is_bounded(codec: JSONCodec) -> None:
    limit = default_json.MAX_DEPTH
    codec.loads_untrusted("[" * limit + "]" * limit)
    with pytest.raises((RemoteProtocolError, ValueError)):
        codec.loads_untrusted("[" * (limit + 1) + "]" * (limit + 1))


@given(json_values)
def test_values_come_back_from_the_standard_library(value: Any) -> None:
    codec = as_codec(json)
    assert codec.loads_untrusted(codec.dumps(value).decode()) == value
