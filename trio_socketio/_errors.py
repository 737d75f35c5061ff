"""Every error of the library, in one tree.

Whose fault it is, is a type: a peer that breaks the protocol never raises into an application, and an application's
mistake never closes a peer's connection without saying so.

::

    TrioSocketIOError
    ├── RemoteProtocolError            the peer sent what the protocol forbids
    │   ├── HandshakeRefused           ... in a request, before there was a session; has the code of the protocol
    │   └── MessageTooLarge            ... in size; closes a WebSocket with 1009
    ├── LocalProtocolError             the application asked for what the protocol cannot say
    │   ├── EncodeError                a value with no JSON form, too many attachments (also a TypeError)
    │   └── ReservedEventError         an event name of the protocol's own (also a ValueError)
    ├── ConnectionRefused              raised by middlewares: the client gets its message and data
    ├── ClientDisconnected             the client left while its request was being read
    ├── BodyTooLarge                   a request body over its limit
    ├── EventArgumentsError            a client's event does not fit the handler's signature
    │   └── EventValidationError       ... or an argument not the type that the handler declares
    ├── SocketDisconnected             the socket has ended (also a trio.BrokenResourceError)
    ├── SessionClosed                  the Engine.IO session has ended (also a trio.BrokenResourceError)
    ├── AckTimeout                     answers are missing at the deadline (also a trio.TooSlowError)
    ├── RedisError                     whatever goes wrong with Redis
    │   ├── RedisReplyError            the server answered a command with an error
    │   ├── RedisConnectionLost        there is no connection, or it broke before the answer (also a ConnectionError)
    │   │   └── RedisUnavailable       ... or it could not be made at the start; names the address
    │   ├── RedisBufferFull            more was submitted than the server takes (also a trio.WouldBlock)
    │   └── RedisProtocolError         what the server sent is not its protocol
    └── NotRunning                     used outside ``async with io.running()`` (also a RuntimeError)
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import trio

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


class TrioSocketIOError(Exception):
    """The base of every error that this library defines."""


class RemoteProtocolError(TrioSocketIOError):
    """The peer broke the protocol; its connection is closed, the application does not see this error raised."""


class HandshakeRefused(RemoteProtocolError):
    """A request was refused before it reached a session (Engine.IO protocol, "connection errors").

    Given to the ``connection_error`` listeners of an engine.

    Attributes:
        request: The `Request` that was refused.
        code: 0 to 5, the protocol's number.
        message: The protocol's text for that number.
        context: What is known about the reason, such as ``{"sid": ...}``.
    """

    MESSAGES = (
        "Transport unknown",
        "Session ID unknown",
        "Bad handshake method",
        "Bad request",
        "Forbidden",
        "Unsupported protocol version",
    )

    def __init__(self, code: int, context: Mapping[str, Any], request: Any = None) -> None:
        self.code = code
        self.message = self.MESSAGES[code]
        self.context = context
        self.request = request
        super().__init__(self.message)


class MessageTooLarge(RemoteProtocolError):
    """A message is larger than the client was told it may be (bytes).

    Args:
        size: The message's; None for a compressed one, which was given up at the limit.
        limit: What it may be.
    """

    def __init__(self, size: int | None, limit: int) -> None:
        what = "compressed message" if size is None else f"message of {size} bytes"
        super().__init__(f"{what} exceeds the limit of {limit} bytes")


class LocalProtocolError(TrioSocketIOError):
    """The application asked for something that the protocol cannot express; nothing was sent."""


class EncodeError(LocalProtocolError, TypeError):
    """A value cannot be encoded; raised by the emit, before anything was queued."""


class ReservedEventError(LocalProtocolError, ValueError):
    """The event's name belongs to the protocol."""

    def __init__(self, name: object) -> None:
        super().__init__(f'"{name}" is a reserved event name')


class ConnectionRefused(TrioSocketIOError):
    """Raise this in a middleware, or in ``allow_request``, to refuse the client.

    Args:
        message: What the client reads as ``error.message``.
        data: Optional details, which the client reads as ``error.data``; must be encodable.
    """

    def __init__(self, message: str = "Forbidden", data: Any = None) -> None:
        super().__init__(message)
        self.message = message
        self.data = data


class ClientDisconnected(TrioSocketIOError):
    """The client's connection ended while its request body was being read."""


class BodyTooLarge(TrioSocketIOError):
    """A request body is larger than its limit (bytes)."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"request body over its limit of {limit} bytes")
        self.limit = limit


class EventArgumentsError(TrioSocketIOError):
    """A client sent an event with a number of arguments that the handler does not take; the handler was not called."""


class EventValidationError(EventArgumentsError):
    """An argument of a client's event is not what the handler's annotation says; the handler was not called.

    If the client asked for an acknowledgement, it is given `answer`.

    Attributes:
        index: Which argument of the event: 0 is the first.
        message: The first thing that is wrong with it, and where; of at most 500 characters.
    """

    def __init__(self, index: int, message: str) -> None:
        self.index = index
        self.message: str = message[:500]
        super().__init__(f"argument {index} is invalid: {self.message}")

    @property
    def answer(self) -> dict[str, Any]:
        """What the client gets: ``{"error": "invalid argument", "argument": 0, "message": "..."}``."""
        return {"error": "invalid argument", "argument": self.index, "message": self.message}


class SocketDisconnected(TrioSocketIOError, trio.BrokenResourceError):
    """The socket has ended; `reason` is one of the protocol's disconnect reasons."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the socket is disconnected: {reason}")
        self.reason = reason


class SessionClosed(TrioSocketIOError, trio.BrokenResourceError):
    """The Engine.IO session has ended; `reason` is one of the protocol's close reasons."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the session is closed: {reason}")
        self.reason = reason


class AckTimeout(TrioSocketIOError, trio.TooSlowError):
    """Some answers had not arrived at the deadline.

    Attributes:
        responses: The answers that did arrive, in the order of their arrival.
        missing: How many, at least, did not.
        servers: The names of other servers that did not answer, as far as they are known.
    """

    def __init__(self, responses: Sequence[Any] = (), missing: int = 1, servers: Sequence[str] = ()) -> None:
        silent = f" (silent: {', '.join(servers)})" if servers else ""
        super().__init__(f"operation has timed out: {len(responses)} answers arrived, {missing} did not{silent}")
        self.responses: list[Any] = list(responses)
        self.missing = missing
        self.servers: tuple[str, ...] = tuple(servers)


class RedisError(TrioSocketIOError):
    """Something went wrong with Redis; what exactly, the subclasses say."""


class RedisReplyError(RedisError):
    """The server answered a command with an error.

    Attributes:
        code: The error's first word, such as ``ERR`` or ``WRONGTYPE``.
    """

    @property
    def code(self) -> str:
        return str(self).partition(" ")[0]


class RedisConnectionLost(RedisError, ConnectionError):
    """There is no connection to Redis, or it broke before the answer came.

    In the second case nobody knows whether the server has executed the command. It is never sent again by itself.
    """


class RedisUnavailable(RedisConnectionLost):
    """Redis could not be used when the client started; the text names the address and the reason."""


class RedisBufferFull(RedisError, trio.WouldBlock):
    """The server takes commands slower than they come; this one was not sent."""


class RedisProtocolError(RedisError):
    """What came from the server is not its protocol; the connection it came on is given up."""


class NotRunning(TrioSocketIOError, RuntimeError):
    """The server is not running: use it inside ``async with io.running()``, or one of the ``serve_*`` functions."""


@contextmanager
def plain_exceptions() -> Iterator[None]:
    """Let one exception out of a nursery as itself, instead of as a group of one.

    Cancellations that came with it are dropped: the exception is on its way through the same scopes.
    """
    try:
        yield
    except BaseExceptionGroup as group:
        _, others = group.split(trio.Cancelled)
        error: BaseException = group if others is None else others
        while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
            error = error.exceptions[0]
        if error is group:
            raise
        context = error.__context__
        try:
            raise error
        finally:
            error.__context__ = context
