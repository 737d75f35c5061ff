from __future__ import annotations

import enum
import json
import uuid
from collections import OrderedDict, UserDict, defaultdict, deque
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from trio_socketio import _errors
from trio_socketio._wire.json import MAX_DEPTH

from .strategies import CODECS, json_values, texts
from .timing import assert_linear

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio_socketio._wire.parser import JSONCodec


class Colour(enum.Enum):
    RED = "red"
    NESTED = ("a", 1)


class Level(enum.IntEnum):
    HIGH = 3


class Name(enum.StrEnum):
    BOB = "bob"


class Point(NamedTuple):
    x: int
    y: int


class Metres(float):
    pass


class Title(str):
    __slots__ = ()


@dataclass
class User:
    name: str
    joined: date
    tags: list[str] = field(default_factory=list)
    _secret: str = "hidden"


@dataclass(slots=True)
class Slotted:
    a: int = 1


ENCODED = [
    (None, "null"),
    (True, "true"),
    ([0, -1, 2**64 - 1, -(2**63)], "[0,-1,18446744073709551615,-9223372036854775808]"),
    ([1.5, 1e-7, -0.25], "[1.5,1e-7,-0.25]"),
    ([float("nan"), float("inf"), float("-inf")], "[null,null,null]"),
    ("é€😀\u2028\x7f", '"é€😀\u2028\x7f"'),
    ('"\\/\b\f\n\r\t\x00\x1f', '"\\"\\\\/\\b\\f\\n\\r\\t\\u0000\\u001f"'),
    ({"b": 1, "a": [{}, []]}, '{"b":1,"a":[{},[]]}'),
    ((1, (2,)), "[1,[2]]"),
    (Point(1, 2), "[1,2]"),
    (Metres(2.5), "2.5"),
    (Metres("nan"), "null"),
    (Title("x"), '"x"'),
    (OrderedDict(b=1, a=2), '{"b":1,"a":2}'),
    (defaultdict(int, a=1), '{"a":1}'),
    ([Colour.RED, Colour.NESTED, Level.HIGH, Name.BOB], '["red",["a",1],3,"bob"]'),
    (datetime(2024, 2, 29, 1, 2, 3), '"2024-02-29T01:02:03"'),
    (datetime(2024, 2, 29, 1, 2, 3, 4, UTC), '"2024-02-29T01:02:03.000004+00:00"'),
    (datetime(1890, 1, 1, tzinfo=timezone(timedelta(seconds=-75))), '"1890-01-01T00:00:00-00:01:15"'),
    ([date(2024, 2, 29), time(1, 2, 3)], '["2024-02-29","01:02:03"]'),
    (uuid.UUID(int=1), '"00000000-0000-0000-0000-000000000001"'),
    (User("a", date(2024, 1, 1), ["t"]), '{"name":"a","joined":"2024-01-01","tags":["t"]}'),
    (Slotted(), '{"a":1}'),
    ({1: 0, 1.5: 0, None: 0}, '{"1":0,"1.5":0,"null":0}'),
    ("\ud83d", '"\\ud83d"'),
    ({"\udc00a": "a\ud800"}, '{"\\udc00a":"a\\ud800"}'),
]

#: What JavaScript's ``String`` makes of each number.
KEYS = [
    (True, "true"),
    (False, "false"),
    (None, "null"),
    (7, "7"),
    (Level.HIGH, "3"),
    (-(2**63), "-9223372036854775808"),
    (1.0, "1"),
    (-0.0, "0"),
    (0.1, "0.1"),
    (100.5, "100.5"),
    (1e16, "10000000000000000"),
    (1.2345678901234568e20, "123456789012345680000"),
    (1e21, "1e+21"),
    (1e-6, "0.000001"),
    (1.5e-7, "1.5e-7"),
    (-1e-10, "-1e-10"),
    (5e-324, "5e-324"),
    (1.7976931348623157e308, "1.7976931348623157e+308"),
    (float("nan"), "NaN"),
    (float("inf"), "Infinity"),
    (float("-inf"), "-Infinity"),
    (Name.BOB, "bob"),
    (Title("t"), "t"),
]

REFUSED = [
    (Decimal(1), "type decimal.Decimal "),
    ({1, 2}, "type set "),
    (b"x", "type bytes "),
    (object(), "type object "),
    (1j, "type complex "),
    (timedelta(1), "type datetime.timedelta "),
    (deque([1]), "type collections.deque "),
    (UserDict(a=1), "type collections.UserDict "),
    (User, "type type "),
    (lambda: None, "type function "),
    (2**64, "64 bits"),
    (-(2**63) - 1, "64 bits"),
    ({2**64: 1}, "64 bits"),
    ({(1, 2): 1}, "not tuple"),
    ({b"x": 1}, "not bytes"),
    ({Colour.RED: 1}, "not Colour"),
]

#: What is not JSON, or not a number that a float can hold.
INVALID = [
    "",
    " ",
    "NaN",
    "Infinity",
    "[-Infinity]",
    "1e999",
    "-1e999",
    "9" * 400,
    "01",
    "1.",
    ".5",
    "+1",
    "-",
    "0x1",
    "1_000",
    "[1,]",
    "[1 2]",
    '{"a":1,}',
    "{a:1}",
    "{1:1}",
    "'a'",
    '"a',
    '"\t"',
    '"\\x"',
    '"\\u12"',
    '"\\u 123"',
    "[1]2",
    "\ufeff1",
    "\xa01",
    "\x0c1",
    "nul",
    "True",
    "undefined",
    "// x\n1",
    "١",
    "[",
    "[" * 100_000,
    "[" * 100_000 + "]" * 100_000,
    '{"a":' * 100_000 + "1" + "}" * 100_000,
    "[{" * 50_000,
]

DECODED = [
    ("null", None),
    (" [ 1 , 2 ]\r\n\t", [1, 2]),
    ("-0", 0),
    ("[1.0,1e2,-1.5E-3]", [1.0, 100.0, -0.0015]),
    ("18446744073709551615", 2**64 - 1),
    ("-9223372036854775808", -(2**63)),
    ("18446744073709551616", float(2**64)),
    ("-9223372036854775809", -float(2**63)),
    ("1" + "0" * 300, 1e300),
    ("1e-999", 0.0),
    ('{"a":1,"a":2}', {"a": 2}),
    ('"\\u00e9\\ud83d\\ude00\\/"', "é😀/"),
    ('"\\ud83d"', "\ud83d"),
    ('"\\ude00\\ud83d"', "\ude00\ud83d"),
    ('["\ud83d"]', ["\ud83d"]),
    ('{"__proto__":1,"_placeholder":true}', {"__proto__": 1, "_placeholder": True}),
]


@pytest.fixture(params=CODECS)
def codec(request: pytest.FixtureRequest) -> JSONCodec:
    return CODECS[request.param]


def nested(depth: int, wrap: Callable[[Any], Any] = lambda inner: [inner], inner: Any = 0) -> Any:
    for _ in range(depth):
        inner = wrap(inner)
    return inner


@pytest.mark.parametrize(("value", "text"), ENCODED, ids=[text for _, text in ENCODED])
def test_a_value_is_encoded_as_documented(codec: JSONCodec, value: Any, text: str) -> None:
    assert codec.dumps(value) == text.encode("utf-8")


@pytest.mark.parametrize(("key", "text"), KEYS, ids=[text for _, text in KEYS])
def test_a_key_is_the_text_that_javascript_makes_of_it(codec: JSONCodec, key: Any, text: str) -> None:
    assert codec.dumps({key: 1}) == f'{{"{text}":1}}'.encode()


@pytest.mark.parametrize(("value", "reason"), REFUSED, ids=[reason for _, reason in REFUSED])
def test_a_value_without_a_json_form_is_refused_by_name(codec: JSONCodec, value: Any, reason: str) -> None:
    with pytest.raises(_errors.EncodeError, match=reason):
        codec.dumps(["a", {"b": value}])


def test_numpy_like_arrays_are_refused_by_name(codec: JSONCodec) -> None:
    array = pytest.importorskip("array").array("d", [1.0])
    with pytest.raises(_errors.EncodeError, match="array"):
        codec.dumps([array])


def test_circular_data_is_refused(codec: JSONCodec) -> None:
    loop: list[Any] = []
    loop.append({"again": loop})
    with pytest.raises(_errors.EncodeError, match="circular"):
        codec.dumps(loop)


@pytest.mark.parametrize("wrap", [lambda inner: [inner], lambda inner: {"a": inner}], ids=["lists", "dicts"])
@pytest.mark.parametrize("inner", [0, [], {}], ids=["scalar", "list", "dict"])
def test_the_limit_of_depth_is_the_same_in_both_directions(
    codec: JSONCodec, wrap: Callable[[Any], Any], inner: Any
) -> None:
    levels = MAX_DEPTH if inner == 0 else MAX_DEPTH - 1
    deepest = codec.dumps(nested(levels, wrap, inner))
    assert codec.dumps(codec.loads_untrusted(deepest.decode())) == deepest
    with pytest.raises(_errors.EncodeError, match="nested deeper"):
        codec.dumps(nested(levels + 1, wrap, inner))
    with pytest.raises(_errors.RemoteProtocolError, match=r"^invalid payload$"):
        codec.loads_untrusted("[" + deepest.decode() + "]")


@pytest.mark.parametrize("name", CODECS)
def test_nested_tuples_are_limited_too(name: str) -> None:
    with pytest.raises(_errors.EncodeError, match="nested deeper"):
        CODECS[name].dumps(nested(MAX_DEPTH + 1, lambda inner: (inner,)))


def test_brackets_in_texts_and_shallow_ones_are_not_depth(codec: JSONCodec) -> None:
    values: list[Any] = [["[" * 1000, {"{" * 1000: 0}], [[] for _ in range(1000)], "[" * 1000]
    for value in values:
        assert codec.loads_untrusted(json.dumps(value)) == value


@pytest.mark.parametrize("text", INVALID, ids=lambda text: ascii(text[:20]))
def test_invalid_json_is_a_protocol_error(codec: JSONCodec, text: str) -> None:
    with pytest.raises(_errors.RemoteProtocolError, match=r"^invalid payload$"):
        codec.loads_untrusted(text)


@pytest.mark.parametrize(("text", "value"), DECODED, ids=[ascii(text[:30]) for text, _ in DECODED])
def test_a_text_is_decoded_as_documented(codec: JSONCodec, text: str, value: Any) -> None:
    decoded = codec.loads_untrusted(text)
    assert decoded == value
    assert type(decoded) is type(value)


@given(value=json_values)
def test_values_survive_each_pair_of_back_ends(value: Any) -> None:
    for writer in CODECS.values():
        for reader in CODECS.values():
            assert reader.loads_untrusted(writer.dumps(value).decode()) == value


class Hooked:
    """A type that only the hook knows."""

    def __init__(self, number: int) -> None:
        self.number = number


python_values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        texts,
        st.datetimes(timezones=st.none() | st.timezones()),
        st.dates(),
        st.times(),
        st.uuids(),
        st.decimals(),
        st.sampled_from([*Colour, *Level, *Name]),
        st.builds(Hooked, st.integers(0, 9)),
        st.builds(Slotted, st.integers()),
        st.builds(Metres, st.floats()),
    ),
    lambda children: st.one_of(
        st.lists(children, max_size=4),
        st.tuples(children, children),
        st.builds(Point, children, children),
        st.builds(User, texts, children, children),
        st.sets(st.integers(), max_size=2),
        st.dictionaries(st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), texts), children, max_size=4),
    ),
    max_leaves=15,
)


def outcome(codec: JSONCodec, value: Any) -> tuple[list[int], Any]:
    """What the hook was asked, and then the value that the text stands for, with its order, or the error."""
    asked: list[int] = []

    def default(unknown: Any) -> Any:
        if not isinstance(unknown, Hooked):
            raise _errors.EncodeError(f"no {type(unknown).__name__}")
        asked.append(unknown.number)
        return [{"n": len(asked)}, datetime(2024, 1, 1)]

    try:
        text = codec.dumps(value, default)
    except _errors.EncodeError as error:
        return [], str(error)
    return asked, json.loads(text, object_pairs_hook=list)


@pytest.mark.skipif(len(CODECS) < 2, reason="orjson is not installed")
@given(value=python_values)
@example(value=[Hooked(1), {1: Hooked(2)}, "\ud800", Hooked(3)])
@example(value=[Hooked(1), 2**64])
def test_both_back_ends_agree_on_what_they_write(value: Any) -> None:
    assert outcome(CODECS["orjson"], value) == outcome(CODECS["plain"], value)


@pytest.mark.skipif(len(CODECS) < 2, reason="orjson is not installed")
@given(text=st.text(st.sampled_from('[]{}:,"\\ud8ac0123456789.eE+-truefalsn \t\x0b\ud800é')))
def test_both_back_ends_agree_on_what_they_read(text: str) -> None:
    def read(codec: JSONCodec) -> Any:
        try:
            return repr(codec.loads_untrusted(text))
        except _errors.RemoteProtocolError as error:
            return str(error)

    assert read(CODECS["orjson"]) == read(CODECS["plain"])


def test_the_hook_is_asked_once_for_each_value_in_the_order_of_the_text(codec: JSONCodec) -> None:
    first, second = Hooked(1), Hooked(2)
    # The lone surrogate comes last, and makes orjson give up when it has asked for everything.
    value = [first, {"a": second, "b": [first]}, first, "\ud800"]
    asked: list[Hooked] = []

    def default(unknown: Hooked) -> int:
        asked.append(unknown)
        return len(asked)

    assert codec.dumps(value, default) == b'[1,{"a":2,"b":[3]},4,"\\ud800"]'
    assert asked == [first, second, first, first]


def test_what_the_hook_raises_passes_through(codec: JSONCodec) -> None:
    def default(unknown: object) -> object:
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        codec.dumps([Hooked(1)], default)


def test_a_hook_that_never_comes_to_an_end_is_an_encode_error(codec: JSONCodec) -> None:
    with pytest.raises(_errors.EncodeError, match="nested too deep"):
        codec.dumps([Hooked(0)], lambda unknown: Hooked(unknown.number + 1))


def test_encoding_leaves_the_value_as_it_was(codec: JSONCodec) -> None:
    hooked = Hooked(1)
    value = {"a": [Point(1, 2), {"b": hooked}], "\ud800": {1: 2}}
    codec.dumps(value, lambda unknown: 0)
    assert value == {"a": [Point(1, 2), {"b": hooked}], "\ud800": {1: 2}}


def test_decoding_is_linear(codec: JSONCodec) -> None:
    for make in (
        lambda size: "9" * 100 * size,
        lambda size: "0." + "9" * 100 * size,
        lambda size: "[" + "1234567890123456789012345," * size + "1]",
        lambda size: '"' + "\\ud800" * 10 * size + '"',
        lambda size: "[" * 10 * size,
        lambda size: "[" + "[[]]," * size + "1]",
    ):
        assert_linear(make, partial(ignoring_errors, codec.loads_untrusted))


def ignoring_errors(load: Callable[[str], Any], text: str) -> None:
    try:
        load(text)
    except _errors.RemoteProtocolError as error:
        assert str(error) == "invalid payload"  # noqa: PT017 - either outcome will do; it is the time that is measured
