"""The protocol of Redis, RESP2 and RESP3, in plain Python: bytes in, replies out; for where hiredis is not installed.

What a reply is: simple and bulk strings, verbatim strings (without their format) and big numbers are bytes; arrays and
sets are lists, maps are dicts, pushes are a `Push`; null is None; integers, doubles and booleans are Python's; an error
is a `RedisReplyError`, given back like any other reply, on its own or inside an array. This is what hiredis makes of
them. What neither Redis nor Valkey sends (streamed strings and aggregates, blob errors, attributes) is refused.

An aggregate that has not arrived completely waits on a stack, so every byte is looked at once, however the replies are
cut into chunks. A peer can make it keep no more than `max_reply_bytes` and a chunk.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, TypeAlias

from .._errors import RedisProtocolError, RedisReplyError

if TYPE_CHECKING:
    from collections.abc import Iterator

#: One reply of the server: see above.
Reply: TypeAlias = Any
#: One word of a command.
Argument: TypeAlias = str | bytes | int | float | memoryview

MAX_DEPTH = 32
MAX_LINE = 64 * 1024
INTEGER = re.compile(rb"0|-?[1-9][0-9]{0,18}")
LENGTH = re.compile(rb"-1|0|[1-9][0-9]{0,9}")
BIG_NUMBER = re.compile(rb"-?[0-9]+")
DOUBLE = re.compile(rb"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|-?inf|nan")


class Push(list[Any]):
    """Something that the server sends unasked, such as a message; otherwise a list."""


class _Incomplete:
    pass


INCOMPLETE = _Incomplete()


class Aggregate:
    """An aggregate whose elements are still coming in."""

    __slots__ = ("elements", "kind", "missing")

    def __init__(self, kind: int, missing: int) -> None:
        self.kind = kind
        self.missing = missing
        self.elements: list[Reply] = []

    def finish(self) -> Reply:
        if self.kind == PUSH:
            return Push(self.elements)
        if self.kind != MAP:
            return self.elements
        try:
            return dict(zip(self.elements[::2], self.elements[1::2], strict=True))
        except TypeError as error:
            raise RedisProtocolError(f"a map's key is an aggregate: {error}") from None


ARRAY, SET, MAP, PUSH = b"*~%>"
BULK, VERBATIM = b"$="


class PythonParser:
    """Takes replies out of a stream of bytes.

    Args:
        max_reply_bytes: The largest reply that is taken, to within one chunk.
    """

    def __init__(self, max_reply_bytes: int) -> None:
        self._limit = max_reply_bytes
        self._waiting = 0
        self._buffer = bytearray()
        self._at = 0
        self._stack: list[Aggregate] = []

    def feed(self, data: bytes) -> Iterator[Reply]:
        """The replies that are complete with these bytes. What is not taken from the iterator comes with the next.

        Raises:
            RedisProtocolError: This is not RESP, or too large; the parser cannot be used any more.
        """
        del self._buffer[: self._at]
        self._buffer += data
        self._at = 0
        reply = self._next()
        if reply is INCOMPLETE:
            self._waiting += len(data)
            if self._waiting > self._limit:
                raise RedisProtocolError(f"a reply exceeds the limit of {self._limit} bytes")
            return
        self._waiting = 0
        while reply is not INCOMPLETE:
            yield reply
            reply = self._next()

    def _next(self) -> Reply:
        while (value := self._element()) is not INCOMPLETE:
            if isinstance(value, Aggregate):
                if value.missing:
                    if len(self._stack) == MAX_DEPTH:
                        raise RedisProtocolError(f"aggregates nested deeper than {MAX_DEPTH}")
                    self._stack.append(value)
                    continue
                value = value.finish()
            while self._stack:
                top = self._stack[-1]
                top.elements.append(value)
                top.missing -= 1
                if top.missing:
                    break
                value = self._stack.pop().finish()
            else:
                return value
        return INCOMPLETE

    def _element(self) -> Reply:
        """The next element, of which aggregates are only begun."""
        buffer, start = self._buffer, self._at
        end = buffer.find(b"\r\n", start)
        if end < 0:
            if len(buffer) - start > MAX_LINE:
                raise RedisProtocolError(f"a line is longer than {MAX_LINE} bytes")
            return INCOMPLETE
        kind, text = buffer[start], bytes(buffer[start + 1 : end])
        if kind in (BULK, VERBATIM):
            return self._bulk(kind, text, end + 2)
        self._at = end + 2
        if kind in (ARRAY, SET, MAP, PUSH):
            size = parse_length(text)
            return None if size < 0 else Aggregate(kind, 2 * size if kind == MAP else size)
        try:
            return SCALARS[kind](text)
        except KeyError:
            raise RedisProtocolError(f"no reply begins with {bytes([kind])!r}") from None

    def _bulk(self, kind: int, text: bytes, start: int) -> Reply:
        size = parse_length(text)
        if size < 0:
            self._at = start
            return None
        if size > self._limit:
            raise RedisProtocolError(f"a reply of {size} bytes exceeds the limit of {self._limit} bytes")
        end = start + size
        if len(self._buffer) < end + 2:
            return INCOMPLETE
        if not self._buffer.startswith(b"\r\n", end):
            raise RedisProtocolError("a string does not end where it should")
        self._at = end + 2
        value = bytes(self._buffer[start:end])
        if kind == BULK:
            return value
        if value[3:4] != b":":
            raise RedisProtocolError("a verbatim string without its format")
        return value[4:]


def parse_length(text: bytes) -> int:
    if not LENGTH.fullmatch(text):
        raise RedisProtocolError(f"not a length: {text[:40]!r}")
    return int(text)


def parse_simple(text: bytes) -> bytes:
    if b"\r" in text or b"\n" in text:
        raise RedisProtocolError("a line break in a simple string")
    return text


def parse_error(text: bytes) -> RedisReplyError:
    return RedisReplyError(parse_simple(text).decode("utf-8", "replace"))


def parse_integer(text: bytes) -> int:
    if not INTEGER.fullmatch(text) or not -(1 << 63) <= (number := int(text)) < 1 << 63:
        raise RedisProtocolError(f"not an integer of 64 bits: {text[:40]!r}")
    return number


def parse_double(text: bytes) -> float:
    if not DOUBLE.fullmatch(text):
        raise RedisProtocolError(f"not a double: {text[:40]!r}")
    return float(text)


def parse_big_number(text: bytes) -> bytes:
    if not BIG_NUMBER.fullmatch(text):
        raise RedisProtocolError(f"not a big number: {text[:40]!r}")
    return text


def parse_boolean(text: bytes) -> bool:
    if text not in (b"t", b"f"):
        raise RedisProtocolError(f"not a boolean: {text[:40]!r}")
    return text == b"t"


def parse_null(text: bytes) -> None:
    if text:
        raise RedisProtocolError(f"not a null: {text[:40]!r}")


SCALARS = {
    ord("+"): parse_simple,
    ord("-"): parse_error,
    ord(":"): parse_integer,
    ord(","): parse_double,
    ord("("): parse_big_number,
    ord("#"): parse_boolean,
    ord("_"): parse_null,
}


def pack_command(args: tuple[Argument, ...]) -> bytes:
    """A command as the server wants it: an array of bulk strings.

    Raises:
        TypeError: A word that is no text, bytes, integer or float.
    """
    parts = [b"*%d\r\n" % len(args)]
    for arg in args:
        word = encode_argument(arg)
        parts.append(b"$%d\r\n%b\r\n" % (len(word), word))
    return b"".join(parts)


def encode_argument(arg: Argument) -> bytes:
    if isinstance(arg, bytes):
        return arg
    if isinstance(arg, str):
        return arg.encode()
    if isinstance(arg, int | float) and not isinstance(arg, bool):
        return repr(arg).encode()
    if isinstance(arg, memoryview):
        return arg.tobytes()
    raise TypeError(f"a word of a command must be str, bytes, int or float, not {type(arg).__name__}")
