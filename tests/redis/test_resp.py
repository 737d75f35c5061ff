"""The parsers and encoders: our own and that of hiredis agree, whatever the chunks, and survive hostile bytes."""

from __future__ import annotations

import math
from contextlib import suppress
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_socketio._errors import RedisProtocolError, RedisReplyError
from trio_socketio._redis import parsing, resp
from trio_socketio._redis.resp import MAX_DEPTH, Push, PythonParser

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from trio_socketio._redis.parsing import Parser

LIMIT = 100_000

PARSERS: list[Any] = [pytest.param(PythonParser, id="python")]
if parsing.hiredis is not None:
    PARSERS.append(pytest.param(parsing.HiredisParser, id="hiredis"))

needs_hiredis = pytest.mark.skipif(parsing.hiredis is None, reason="hiredis is not installed")

# A reply on the wire, with what it means.

lines = st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=20)


def bulk(kind: str, data: bytes) -> bytes:
    return b"%s%d\r\n%b\r\n" % (kind.encode(), len(data), data)


def aggregate(kind: str, size: int, parts: Iterable[bytes]) -> bytes:
    return b"%s%d\r\n" % (kind.encode(), size) + b"".join(parts)


scalars = st.one_of(
    lines.map(lambda text: (f"+{text}\r\n".encode(), text.encode())),
    st.integers(-(2**63), 2**63 - 1).map(lambda number: (b":%d\r\n" % number, number)),
    st.binary(max_size=50).map(lambda data: (bulk("$", data), data)),
    st.binary(max_size=50).map(lambda data: (bulk("=", b"txt:" + data), data)),
    st.integers().map(lambda number: (b"(%d\r\n" % number, b"%d" % number)),
    st.floats(allow_nan=False).map(lambda number: (b",%s\r\n" % repr(number).encode(), number)),
    st.sampled_from([(b"#t\r\n", True), (b"#f\r\n", False), (b"_\r\n", None), (b"$-1\r\n", None), (b"*-1\r\n", None)]),
)
errors = lines.map(lambda text: (f"-ERR {text}\r\n".encode(), RedisReplyError(f"ERR {text}")))


def make_aggregates(children: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    many = st.lists(children, max_size=5)
    pairs = st.lists(st.tuples(scalars, children), max_size=4, unique_by=lambda pair: pair[0][1])
    return st.one_of(
        many.map(
            lambda items: (aggregate("*", len(items), [wire for wire, _ in items]), [value for _, value in items])
        ),
        many.map(
            lambda items: (aggregate("~", len(items), [wire for wire, _ in items]), [value for _, value in items])
        ),
        pairs.map(
            lambda items: (
                aggregate("%", len(items), [key[0] + value[0] for key, value in items]),
                {key[1]: value[1] for key, value in items},
            )
        ),
    )


values: st.SearchStrategy[tuple[bytes, Any]] = st.recursive(scalars | errors, make_aggregates, max_leaves=15)
pushes = st.lists(values, min_size=1, max_size=4).map(
    lambda items: (aggregate(">", len(items), [item[0] for item in items]), Push([item[1] for item in items]))
)
replies = values | pushes


def plain(value: Any) -> Any:
    """A form that can be compared: pushes and errors are marked, and types count."""
    if isinstance(value, parsing.PUSHES):
        return ("push", [plain(item) for item in value])
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return [(plain(key), plain(item)) for key, item in value.items()]
    if isinstance(value, RedisReplyError):
        return ("error", str(value))
    return (type(value).__name__, value)


def parse(parser: Parser, chunks: Iterable[bytes]) -> list[Any]:
    return [plain(reply) for chunk in chunks for reply in parser.feed(chunk)]


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


@pytest.mark.parametrize("make", PARSERS)
@settings(max_examples=30)
@given(st.lists(replies, max_size=4), st.lists(st.integers(0, 10_000), max_size=6))
def test_every_chunking_gives_the_same_replies(
    make: Callable[[int], Parser], given_replies: list[Any], places: list[int]
) -> None:
    wire = b"".join(wire for wire, _ in given_replies)
    expected = [plain(value) for _, value in given_replies]
    assert parse(make(LIMIT), [wire]) == expected
    assert parse(make(LIMIT), [wire[at : at + 1] for at in range(len(wire))]) == expected
    assert parse(make(LIMIT), cut(wire, places)) == expected


@pytest.mark.parametrize("make", PARSERS)
@settings(max_examples=30)
@given(replies, st.binary(min_size=1, max_size=20))
def test_a_reply_is_given_before_what_follows_it(make: Callable[[int], Parser], reply: Any, tail: bytes) -> None:
    wire, value = reply
    got = next(iter(make(LIMIT).feed(wire + tail)))
    assert plain(got) == plain(value)


@pytest.mark.parametrize("make", PARSERS)
def test_what_is_not_taken_from_the_iterator_comes_with_the_next_bytes(make: Callable[[int], Parser]) -> None:
    parser = make(LIMIT)
    assert next(iter(parser.feed(b":1\r\n:2\r\n:3"))) == 1
    assert list(parser.feed(b"4\r\n")) == [2, 34]


@pytest.mark.parametrize("make", PARSERS)
def test_doubles_that_are_no_numbers(make: Callable[[int], Parser]) -> None:
    first, second, third = make(LIMIT).feed(b",inf\r\n,-inf\r\n,nan\r\n")
    assert (first, second) == (math.inf, -math.inf)
    assert math.isnan(third)


@pytest.mark.parametrize("make", PARSERS)
def test_an_error_that_is_no_utf_8_is_an_error_nevertheless(make: Callable[[int], Parser]) -> None:
    (error,) = make(LIMIT).feed(b"-ERR \xff\r\n")
    assert isinstance(error, RedisReplyError)
    assert error.code == "ERR"


HOSTILE = [
    b"HTTP/1.1 400 Bad Request\r\n",
    b"\r\n",
    b":\r\n",
    b":1.5\r\n",
    b":9223372036854775808\r\n",
    b":--1\r\n",
    b"$x\r\n",
    b"$-2\r\n",
    b"*-2\r\n",
    b"*1_0\r\n",
    b"+a\nb\r\n",
    b"#x\r\n",
    b"_x\r\n",
    b",x\r\n",
    b",0x10\r\n",
    b"(x\r\n",
    b"=3\r\ntxt\r\n",
    b"=3\r\nabc\r\n",
    b"%1\r\n*1\r\n:1\r\n:2\r\n",
    b"%1\r\n%0\r\n:2\r\n",
    b"$?\r\n",
    b"*?\r\n",
    b"!5\r\nERR x\r\n",
    b"*1\r\n" * 200_000,
    b"$100001\r\n" + b"x" * 100_001,
    b"*2\r\n" + b"$60000\r\n" + b"x" * 60_000 + b"\r\n$60000\r\n" + b"x" * 50_000,
]


@pytest.mark.parametrize("make", PARSERS)
@pytest.mark.parametrize("data", HOSTILE, ids=lambda data: repr(data[:20]))
def test_hostile_bytes_raise_one_type_of_error(make: Callable[[int], Parser], data: bytes) -> None:
    chunks = (data[start : start + 4096] for start in range(0, len(data), 4096))
    with pytest.raises(RedisProtocolError):
        parse(make(LIMIT), chunks)


@pytest.mark.parametrize("make", PARSERS)
@given(st.lists(st.binary(max_size=30) | st.sampled_from([b"*2\r\n", b"%1\r\n", b"$3\r\n", b">1\r\n", b"\r\n", b":1"])))
def test_random_bytes_raise_nothing_else(make: Callable[[int], Parser], chunks: list[bytes]) -> None:
    replies: list[Any] = []
    with suppress(RedisProtocolError):
        replies = parse(make(LIMIT), chunks)
    assert len(replies) <= sum(map(len, chunks))


@pytest.mark.parametrize(
    "data", [b"$2\r\nabXX", b"|1\r\n+a\r\n:1\r\n:5\r\n", b"*1\r\n" * (MAX_DEPTH + 1), b"x" * 70_000]
)
def test_our_own_parser_is_stricter(data: bytes) -> None:
    with pytest.raises(RedisProtocolError):
        list(PythonParser(LIMIT).feed(data))


@pytest.mark.parametrize("make", PARSERS)
def test_replies_within_the_limit_are_never_too_many(make: Callable[[int], Parser]) -> None:
    parser = make(LIMIT)
    data = bulk("$", b"x" * 90_000) * 10
    got = [reply for start in range(0, len(data), 1000) for reply in parser.feed(data[start : start + 1000])]
    assert got == [b"x" * 90_000] * 10


# Commands

words = st.one_of(
    st.text(st.characters(codec="utf-8")),
    st.binary(),
    st.integers(),
    st.floats(),
    st.binary().map(lambda data: memoryview(data)),
)


def test_a_command_is_an_array_of_bulk_strings() -> None:
    packed = resp.pack_command(("SET", b"k", 1, 2.5, "é"))
    assert packed == b"*5\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\n1\r\n$3\r\n2.5\r\n$2\r\n\xc3\xa9\r\n"


@needs_hiredis
@given(st.lists(words, min_size=1, max_size=6).map(tuple))
def test_both_encoders_agree(command: tuple[Any, ...]) -> None:
    assert resp.pack_command(command) == parsing.hiredis.pack_command(command)


@pytest.mark.parametrize("pack", [resp.pack_command, parsing.pack_command])
@pytest.mark.parametrize("word", [None, True, [], object()])
def test_a_word_of_a_wrong_type_is_refused(pack: Callable[[tuple[Any, ...]], bytes], word: object) -> None:
    with pytest.raises(TypeError):
        pack(("SET", word))


def test_without_hiredis_our_own_parser_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parsing, "hiredis", None)
    assert isinstance(parsing.make_parser(LIMIT), PythonParser)
    assert parsing.pack_command(("PING",)) == b"*1\r\n$4\r\nPING\r\n"
