"""A WebSocket over ASGI, for the engine.

The request's own task is the only one that awaits ``send``: it is the writer, inside `pump`. The reader is its child.
In between is what `send_nowait` stored; it is bounded because the engine calls again only after it was told that all is
sent.

The reader never stops before ``websocket.disconnect`` while a close is under way, nor when the engine has no use for
more: the server's queue of ten messages would fill, and the server would wait for room in it for ever.
"""

from __future__ import annotations

import enum
from collections import deque
from typing import TYPE_CHECKING, Any

import trio

from .._errors import MessageTooLarge
from .._parking import Parking

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping, Sequence

    from .._engine.contract import Receiver
    from .._wire.encoded import EncodedPacket
    from .hypercorn_worker import Outlet

#: Seconds for a write that is under way when the engine closes the WebSocket; then the connection is cut.
WRITE_GRACE = 1.0
#: Seconds for the peer's close frame, where the engine left the closing to us.
CLOSE_DEADLINE = 2.0
#: Seconds of silence after which nothing more is expected from a connection that was cut.
QUIET = 0.1


class _State(enum.Enum):
    OPEN = "messages go both ways"
    CLOSING = "our close frame is sent, or being sent"
    GONE = "the server has said that the connection is over"


_OPEN, _CLOSING, _ = _State  # an attribute of an enum's class costs 60 nanoseconds


class ASGIWebSocket:
    """Implements `trio_socketio._engine.contract.WebSocket`.

    Args:
        receive: From the ASGI server; after ``websocket.connect`` was received.
        outlet: Around the ASGI server's ``send``; after ``websocket.accept`` was sent.
        max_message_size: Bytes; a larger message ends `pump`.
    """

    def __init__(
        self, receive: Callable[[], Awaitable[MutableMapping[str, Any]]], outlet: Outlet, max_message_size: int
    ) -> None:
        self._receive = receive
        self._outlet = outlet
        self._max_message_size = max_message_size
        self._state = _State.OPEN
        self._stored: deque[str | bytes] = deque()
        self._parking: Parking | None = None  # while the writer waits
        self._too_large: MessageTooLarge | None = None

    async def pump(self, receiver: Receiver) -> None:
        """Read, and write what `send_nowait` stores, until the peer closes."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._read, receiver, nursery.cancel_scope)
            await self._write(receiver)
        if self._too_large is not None:
            raise self._too_large

    def send_nowait(self, packets: Sequence[EncodedPacket]) -> bool:
        """Store packets for the writer. Always False: the receiver is told when they are with the server."""
        if self._state is _CLOSING:
            raise trio.BrokenResourceError("the WebSocket is closed")
        # Not when the peer has gone: that is for `pump` to say, in a moment, and it is no error.
        for packet in packets:
            self._stored.extend(packet.messages)
        if self._parking is not None:
            self._parking.wake()
            self._parking = None
        return False

    #: The writer does it.
    drain = None

    async def aclose(self, code: int = 1000) -> None:
        """Send a close frame and wait until the connection is over; cut it when cancelled."""
        if self._state is not _State.OPEN:
            await trio.lowlevel.checkpoint()
            return
        self._state = _State.CLOSING
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._discard, nursery.cancel_scope)
            await self._outlet({"type": "websocket.close", "code": code})
            await trio.sleep_forever()

    async def finish(self) -> None:
        """Leave nothing behind, after the engine is done with the WebSocket."""
        with trio.move_on_after(CLOSE_DEADLINE):
            await self.aclose()
        if self._state is not _State.GONE:
            await self._outlet.cut()
        while self._state is not _State.GONE:
            with trio.move_on_after(QUIET) as silence:
                await self._next()
            if silence.cancelled_caught:
                return

    async def _write(self, receiver: Receiver) -> None:
        stored, outlet = self._stored, self._outlet
        parking = Parking(self._on_writer_cancelled)
        while True:
            if not stored:
                self._parking = parking
                await parking.park()
            while stored:
                message = stored[0]
                await outlet({"type": "websocket.send", "text" if isinstance(message, str) else "bytes": message})
                stored.popleft()
            if self._state is _OPEN:
                receiver.on_drained()

    def _on_writer_cancelled(self, _: object) -> trio.lowlevel.Abort:
        self._parking = None
        return trio.lowlevel.Abort.SUCCEEDED

    async def _read(self, receiver: Receiver, pumping: trio.CancelScope) -> None:
        async with self._outlet.settled(WRITE_GRACE, self._next):
            while True:
                if receiver.paused:
                    await receiver.resumed()
                message = await self._next()
                if message is None:
                    break
                if (size := _size(message)) > self._max_message_size:
                    self._too_large = MessageTooLarge(size, self._max_message_size)
                    break
                receiver.on_message(message)
                receiver.end_batch()
        pumping.cancel()

    async def _discard(self, closing: trio.CancelScope) -> None:
        async with self._outlet.settled(0, self._next):
            while await self._next() is not None:
                pass  # what the peer sent before it saw our close frame
        closing.cancel()

    async def _next(self) -> str | bytes | None:
        event = await self._receive()
        if event["type"] == "websocket.disconnect":
            self._state = _State.GONE
            return None
        text: str | None = event.get("text")
        return event["bytes"] if text is None else text


def _size(message: str | bytes) -> int:
    return len(message) if isinstance(message, bytes) or message.isascii() else len(message.encode())
