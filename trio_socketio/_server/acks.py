"""Waiting for the answer of one socket, on a one-slot memory channel; and answering.

Socket.IO protocol, "acknowledgements". Whoever is asked has an entry under the packet's id in its table of pending
acks. The entry goes when the answer comes, when the one who was asked leaves, or when the one who waits gives up;
nothing else is ever kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import trio

if TYPE_CHECKING:
    from collections.abc import Sequence

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
