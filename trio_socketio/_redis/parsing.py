"""Which parser is used: that of hiredis where it is installed, else our own (`resp`); both give the same replies."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

from .._errors import RedisProtocolError, RedisReplyError
from . import resp
from .resp import INCOMPLETE, Push, PythonParser

hiredis: Any = None
with suppress(ImportError):  # it is an extra, and has no wheels for every interpreter
    import hiredis

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .resp import Argument, Reply

#: What the server sends unasked is of one of these types.
PUSHES: tuple[type[list[Any]], ...] = (Push,) if hiredis is None else (Push, hiredis.PushNotification)


class Parser(Protocol):
    """Takes replies out of a stream of bytes."""

    def feed(self, data: bytes) -> Iterator[Reply]:
        """The replies that are complete with these bytes: see `PythonParser.feed`."""


class HiredisParser:
    """The same as `PythonParser`, many times as fast. It believes the server about the length of an array."""

    def __init__(self, max_reply_bytes: int) -> None:
        self._limit = max_reply_bytes
        self._waiting = 0
        self._reader = hiredis.Reader(
            protocolError=RedisProtocolError, replyError=RedisReplyError, notEnoughData=INCOMPLETE
        )

    def feed(self, data: bytes) -> Iterator[Reply]:
        """The same as `PythonParser.feed`."""
        self._reader.feed(data)
        gets = self._reader.gets
        try:
            reply = gets()
            if reply is INCOMPLETE:
                self._waiting += len(data)
                if self._waiting > self._limit:
                    raise RedisProtocolError(f"a reply exceeds the limit of {self._limit} bytes")
                return
            self._waiting = 0
            while reply is not INCOMPLETE:
                yield reply
                reply = gets()
        except (TypeError, MemoryError) as error:  # an aggregate as a map's key; an array of billions
            raise RedisProtocolError(f"not a reply: {error!r}") from error


def make_parser(max_reply_bytes: int) -> Parser:
    """A parser for one connection."""
    return PythonParser(max_reply_bytes) if hiredis is None else HiredisParser(max_reply_bytes)


def pack_command(args: tuple[Argument, ...]) -> bytes:
    """A command as the server wants it: see `resp.pack_command`."""
    packed: bytes = (resp if hiredis is None else hiredis).pack_command(args)
    return packed
