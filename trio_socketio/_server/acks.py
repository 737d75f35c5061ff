"""Waiting for answers, on one-slot and many-slot memory channels; and answering.

Socket.IO protocol, "acknowledgements". Whoever is asked has an entry under the packet's id in its table of pending
acks. The entry goes when the answer comes, when the one who was asked leaves, or when the one who waits gives up;
nothing else is ever kept.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Protocol

import trio

from .._errors import AckTimeout

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self

    from .socket import Socket


def unpack(args: Sequence[Any]) -> Any:
    """What an acknowledgement says: no argument is None, one is itself, several are a tuple."""
    if len(args) == 1:
        return args[0]
    return tuple(args) or None


def pack(value: Any) -> list[Any]:
    """The arguments of the acknowledgement that says this: the other direction of `unpack`."""
    if value is None:
        return []
    return list(value) if isinstance(value, tuple) else [value]


class PendingAck(Protocol):
    """An entry in a table of pending acks. Each entry gets exactly one of these calls, or is taken out of the table."""

    def on_answer(self, answer: Any) -> None:
        """The answer has come."""

    def on_leave(self) -> None:
        """There will be no answer: the socket has ended."""


class SingleAck:
    """Waits for the answer of one socket."""

    __slots__ = ("_receive", "_send")

    def __init__(self) -> None:
        self._send, self._receive = trio.open_memory_channel[Any](1)

    def on_answer(self, answer: Any) -> None:
        self._send.send_nowait(answer)

    def on_leave(self) -> None:
        self._send.close()

    async def wait(self) -> Any:
        """The answer.

        Raises:
            trio.EndOfChannel: The socket has ended without one.
        """
        return await self._receive.receive()


class AckStream:
    """The answers to a broadcast, each as it arrives: an async iterator, made by ``acks(...)``.

    It ends when everybody who was asked has answered or left.

    Attributes:
        responses: The answers that were received through it so far.
    """

    __slots__ = ("_answered", "_asked", "_complete", "_deadline", "_left", "_receive", "_send", "_tables", "responses")

    def __init__(self, timeout: float | None) -> None:
        # Not bounded by a number, but by who was asked: each of them answers once at the most.
        self._send, self._receive = trio.open_memory_channel[Any](math.inf)
        self._deadline = math.inf if timeout is None else trio.current_time() + timeout
        self._asked = self._answered = self._left = 0
        self._complete = False
        self._tables: list[tuple[dict[int, PendingAck], int]] = []
        self.responses: list[Any] = []

    # Whoever asks

    def register(self, table: dict[int, PendingAck], id: int) -> None:
        """Expect the answer with this id of the owner of a table."""
        self._asked += 1
        table[id] = self
        self._tables.append((table, id))

    def all_asked(self) -> None:
        """Nobody else will be asked."""
        self._complete = True
        self._close_if_done()

    def abandon(self) -> None:
        """Expect nothing any more."""
        for table, id in self._tables:
            table.pop(id, None)
        self._tables.clear()
        self._receive.close()

    def on_answer(self, answer: Any) -> None:
        self._answered += 1
        self._send.send_nowait(answer)
        self._close_if_done()

    def on_leave(self) -> None:
        self._left += 1
        self._close_if_done()

    def _close_if_done(self) -> None:
        if self._complete and self._answered + self._left >= self._asked:
            self._send.close()

    # Whoever waits

    async def receive(self) -> Any:
        """The next answer.

        Raises:
            trio.EndOfChannel: Everybody has answered, or left.
            AckTimeout: The timeout of the operator has passed; ``.responses`` are the answers that did arrive.
        """
        with trio.CancelScope(deadline=self._deadline):
            return self._keep(await self._receive.receive())
        try:
            return self._keep(self._receive.receive_nowait())  # the answer was in time, even if its reader was not
        except trio.WouldBlock:
            raise AckTimeout(self.responses, self._asked - self._answered - self._left) from None

    def _keep(self, response: Any) -> Any:
        self.responses.append(response)
        return response

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        try:
            return await self.receive()
        except trio.EndOfChannel:
            raise StopAsyncIteration from None


class EventAck:
    """The acknowledgement of one event: sent once, or never."""

    __slots__ = ("_handlers", "_id", "_socket")

    def __init__(self, socket: Socket, id: int) -> None:
        self._socket = socket
        self._id: int | None = id
        self._handlers = 1

    def expect(self, handlers: int) -> None:
        """So many handlers are called for the event."""
        self._handlers = handlers

    def answer(self, value: Any) -> None:
        """Send a handler's result, if it is the first that is not None, or that of the last handler.

        Raises:
            EncodeError: It cannot be encoded; no acknowledgement was sent.
        """
        self._handlers -= 1
        if self._id is None or (value is None and self._handlers):
            return
        id, self._id = self._id, None
        self._socket.acknowledge(id, pack(value))
