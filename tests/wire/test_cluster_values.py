"""Values on the wires of clusters, and what JavaScript's three encoders make of the same values."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from enum import Enum
from typing import Any, NamedTuple
from uuid import UUID

import msgpack
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from trio_socketio import EncodeError, RemoteProtocolError
from trio_socketio._wire.cluster_values import Values, to_plain, valid_text
from trio_socketio._wire.json import MAX_DEPTH

from .strategies import json_values, texts
from .timing import assert_linear

VALUES = Values()
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

pack: Any = msgpack.packb

dates = st.datetimes(timezones=st.just(UTC))
msgpack_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | dates,
    lambda children: st.lists(children, max_size=5) | st.dictionaries(st.text(), children, max_size=5),
    max_leaves=20,
)

#: In hexadecimal digits what notepack.io 3.0.1 and @msgpack/msgpack 2.8.0 have written; those marked "old" by earlier
#: versions of notepack, which 3.0.1 reads in this way.
FROM_JAVASCRIPT: dict[str, tuple[str, Any]] = {
    "undefined": ("91c0", [None]),
    "an undefined property, @msgpack": ("81a175c0", {"u": None}),
    "an undefined property, notepack": ("80", {}),
    "a Date": ("d7ff1d5353006553f100", datetime(2023, 11, 14, 22, 13, 20, 123000, UTC)),
    "a Date in whole seconds": ("d6ff00000000", EPOCH),
    "a Date before 1970": ("c70cff3b8b87c0ffffffffffffffff", EPOCH - timedelta(milliseconds=1)),
    "an invalid Date": ("c70cff000000000000000000000000", EPOCH),
    "a Buffer": ("c4020102", b"\x01\x02"),
    "a Uint16Array, notepack": ("c40102", b"\x02"),
    "a Uint16Array, @msgpack": ("c4020201", b"\x02\x01"),
    "an ArrayBuffer, @msgpack": ("80", {}),
    "1.0": ("01", 1),
    "2**53, notepack": ("cf0020000000000000", 2**53),
    "2**53, @msgpack": ("cb4340000000000000", 2.0**53),
    "1e20, notepack": ("cf6bc75e2d63100000", 10**20 % 2**64),
    "1e20, @msgpack": ("cb4415af1d78b58c40", 1e20),
    "-(2**63)": ("d38000000000000000", -(2**63)),
    "Infinity": ("cb7ff0000000000000", math.inf),
    "a lone surrogate, notepack": ("a4f0908080", "\U00010000"),
    "a lone surrogate, @msgpack": ("a3eda080", "\ufffd" * 3),
    "a float of 32 bits": ("ca3fc00000", 1.5),
    "old undefined": ("93d40000a161c0", [None, "a", None]),
    "an old Date": ("d7000000018bcfe5687b", datetime(2023, 11, 14, 22, 13, 20, 123000, UTC)),
    "an old ArrayBuffer": ("c7030001c1ff", b"\x01\xc1\xff"),
    "an old ArrayBuffer as long as a Date": ("c708000102030405060708", bytes(range(1, 9))),
    "an old ArrayBuffer as long as undefined": ("c7010001", b"\x01"),
    "a property named by a number": ("8101a161", {"1": "a"}),
    "a property named by a float": ("81cb3ff8000000000000a161", {"1.5": "a"}),
    "a property named null": ("81c0a161", {"null": "a"}),
    "a property named true": ("81c3a161", {"true": "a"}),
    "a property twice": ("82a16101a16102", {"a": 2}),
    "__proto__": ("81a95f5f70726f746f5f5f01", {"__proto__": 1}),
    "a text of 32 bytes without str8": ("da0020" + "61" * 32, "a" * 32),
}

REFUSED = {
    "nothing": "",
    "trailing bytes": "0101",
    "too little": "92",
    "a byte that is never used": "c1",
    "an unknown extension": "d40501",
    "a timestamp of one byte": "d4ff00",
    "a timestamp with too many nanoseconds": "d7ffffffffffffffffff",
    "a timestamp beyond all years": "c70cff000000007fffffffffffffff",
    "the last Date of JavaScript": "c70cff00000000000007dba8218000",
    "an old Date beyond all years": "d7007fffffffffffffff",
    "bytes as a key": "81c40161a162",
    "an array as a key": "819101a161",
    "a map as a key": "8180a161",
    "a Date as a key": "81d6ff00000000a161",
    "an array that claims to be large": "ddffffffff",
    "a map that claims to be large": "dfffffffff",
}


class Point(NamedTuple):
    x: int
    y: int


class Color(Enum):
    RED = "red"


@dataclass
class Person:
    name: str


class Moment(datetime):
    """A datetime of a library."""


@pytest.mark.parametrize(("written", "value"), FROM_JAVASCRIPT.values(), ids=FROM_JAVASCRIPT)
def test_what_javascript_writes_is_read(written: str, value: Any) -> None:
    assert VALUES.unpack_untrusted(bytes.fromhex(written)) == value
    assert type(VALUES.loads_untrusted(bytes.fromhex(written))) is type(value)


def test_not_a_number_is_itself_in_msgpack() -> None:
    assert math.isnan(VALUES.unpack_untrusted(VALUES.pack(math.nan)))


@pytest.mark.parametrize("written", REFUSED.values(), ids=REFUSED)
def test_what_is_no_msgpack_is_refused(written: str) -> None:
    with pytest.raises(RemoteProtocolError):
        VALUES.unpack_untrusted(bytes.fromhex(written))


@pytest.mark.parametrize(
    "payload",
    [
        *(
            b"",
            b"{",
            b'{"a":1}x',
            b"\xff",
            b"nan",
            b"NaN",
            b"[Infinity]",
            b"[1e999]",
            b"[01]",
            b"'a'",
            b"\xef\xbb\xbf1",
        ),
        *(b'{"a":1,}', b'["\xc3"]', b'["\x00"]', b"[" * 10**6, b'{"a":' * 10**5),
    ],
    ids=lambda payload: repr(payload[:12]),
)
def test_what_is_no_json_is_refused(payload: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        VALUES.load_json_untrusted(payload)


def test_long_integers_are_floats() -> None:
    assert VALUES.load_json_untrusted(b"[1" + b"0" * 20 + b"]") == [1e20]
    assert VALUES.load_json_untrusted(VALUES.dumps([10**20])) == [1e20]
    assert VALUES.unpack_untrusted(VALUES.pack([10**20, 2**64 - 1, -(2**63)])) == [1e20, 2**64 - 1, -(2**63)]
    with pytest.raises(RemoteProtocolError):
        VALUES.load_json_untrusted(b"1" + b"0" * 400)
    for encode in (VALUES.dumps, VALUES.pack):
        with pytest.raises(EncodeError):
            encode(10**400)


def test_not_a_number_is_null_in_json() -> None:
    assert VALUES.dumps([math.nan, math.inf, -math.inf]) == b"[null,null,null]"


def test_bytes_make_it_msgpack() -> None:
    assert VALUES.dumps({"a": [1]}) == b'{"a":[1]}'
    for data in (b"\x01", bytearray(b"\x01"), memoryview(b"\x01")):
        assert VALUES.dumps({"a": [data]}) == bytes.fromhex("81a16191c40101")
    assert VALUES.loads_untrusted(VALUES.dumps([10**20, b""])) == [1e20, b""]


def test_keys_are_texts() -> None:
    value = {2: "a", 1.5: "b", None: "c", True: "d"}
    assert VALUES.unpack_untrusted(VALUES.pack(value)) == {"2": "a", "1.5": "b", "null": "c", "true": "d"}
    with pytest.raises(EncodeError):
        VALUES.pack({(1, 2): 3})


def test_points_in_time_are_timestamps() -> None:
    moment = datetime(2023, 11, 14, 22, 13, 20, 123000, UTC)
    elsewhere = moment.astimezone(timezone(timedelta(hours=5)))
    for known in (moment, elsewhere, Moment.fromtimestamp(moment.timestamp(), UTC)):
        assert VALUES.pack(known).hex() == FROM_JAVASCRIPT["a Date"][0]
    assert VALUES.pack(EPOCH).hex() == FROM_JAVASCRIPT["a Date in whole seconds"][0]
    assert VALUES.unpack_untrusted(VALUES.pack(datetime(2023, 11, 14))) == "2023-11-14T00:00:00"
    assert VALUES.dumps([moment]) == b'["2023-11-14T22:13:20.123000+00:00"]'
    with pytest.raises(EncodeError):
        VALUES.pack(datetime.min.replace(tzinfo=timezone(timedelta(hours=14))))


def test_what_has_a_json_form_has_the_same_in_msgpack() -> None:
    id = UUID(int=1)
    value = {"p": Point(1, 2), "c": Color.RED, "d": Person("a"), "id": id, "t": (1,)}
    expected = {"p": [1, 2], "c": "red", "d": {"name": "a"}, "id": str(id), "t": [1]}
    assert VALUES.unpack_untrusted(VALUES.pack(value)) == expected
    assert VALUES.load_json_untrusted(VALUES.dumps(value)) == expected


@pytest.mark.parametrize("value", [object(), {1, 2}, [{"a": print}], {"a": b"", "b": object()}])
def test_what_has_no_form_is_refused(value: Any) -> None:
    for encode in (VALUES.dumps, VALUES.pack, to_plain):
        with pytest.raises(EncodeError):
            encode(value)


def test_lone_surrogates_pass() -> None:
    assert VALUES.load_json_untrusted(VALUES.dumps(["a\ud800"])) == ["a\ud800"]
    assert VALUES.unpack_untrusted(VALUES.pack({"\udc00": ["a\ud800b", b"\xed\xa0\x80"]})) == {
        "\ufffd": ["a\ufffdb", b"\xed\xa0\x80"]
    }


@given(texts)
def test_a_valid_text_stays_as_it_is(text: str) -> None:
    valid = valid_text(text)
    assert len(valid) == len(text)
    assert all(a == b or "\ud800" <= a <= "\udfff" for a, b in zip(text, valid, strict=True))
    assert valid.encode().decode() == valid


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth - 1):
        value = [value]
    return value


def test_depth_is_bounded() -> None:
    deepest = nested(MAX_DEPTH)
    assert VALUES.unpack_untrusted(VALUES.pack(deepest)) == deepest
    assert VALUES.load_json_untrusted(VALUES.dumps(deepest)) == deepest
    circular: list[Any] = []
    circular.append(circular)
    for value in (nested(MAX_DEPTH + 1), nested(100_000), circular):
        for encode in (VALUES.dumps, VALUES.pack):
            with pytest.raises(EncodeError):
                encode(value)
    for depth in (MAX_DEPTH + 1, 1000, 100_000):
        for bomb in (b"\x91" * depth + b"\xc0", b"\x81\xa1a" * depth + b"\xc0", b"\x91" * depth + b"\xc4\x00"):
            with pytest.raises(RemoteProtocolError):
                VALUES.unpack_untrusted(bomb)
        with pytest.raises(RemoteProtocolError):
            VALUES.load_json_untrusted(b"[" * depth + b"]" * depth)


def test_size_is_bounded() -> None:
    small = Values(max_size=10)
    assert small.loads_untrusted(b'{"a":"bc"}') == {"a": "bc"}
    for payload in (b'{"a":"bcd"}', pack("a" * 10)):
        with pytest.raises(RemoteProtocolError, match="too large"):
            small.loads_untrusted(payload)


def test_many_containers_that_claim_to_be_large_cost_little() -> None:
    def bomb(size: int) -> bytes:
        head = (b"\xdd" + size.to_bytes(4, "big")) * 200
        return head + b"\xc0" * (size - len(head))

    def decode(payload: bytes) -> None:
        with pytest.raises(RemoteProtocolError):
            VALUES.unpack_untrusted(payload)

    assert_linear(bomb, decode)


@given(msgpack_values)
@example(datetime.min.replace(tzinfo=UTC))
@example(datetime.max.replace(tzinfo=UTC))
def test_msgpack_comes_back(value: Any) -> None:
    assert VALUES.unpack_untrusted(VALUES.pack(value)) == value
    assert VALUES.pack(VALUES.unpack_untrusted(VALUES.pack(value))) == VALUES.pack(value)


@given(json_values)
def test_json_comes_back(value: Any) -> None:
    assert VALUES.load_json_untrusted(VALUES.dumps(value)) == value


@given(st.binary())
def test_random_bytes_are_refused_or_a_value_that_can_be_sent(payload: bytes) -> None:
    try:
        value = VALUES.loads_untrusted(payload)
    except RemoteProtocolError:
        return
    assert isinstance(VALUES.dumps(value), bytes)


def test_without_msgpack_the_error_says_what_to_install() -> None:
    code = """
import sys
sys.modules["msgpack"] = None
from trio_socketio._wire.cluster_values import Values
try:
    Values()
except ImportError as error:
    print(error.name, error)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert "trio-socketio[redis]" in result.stdout
    assert result.stdout.startswith("msgpack ")
