"""A WebSocket on our own listener: trio-websocket behind the fast lane.

The listener has validated the opening request, and the 101 is written here. Most clients then send nothing but messages
until they close, so trio-websocket begins when the lane has something else for it: two wsproto connections, a task and
a dozen objects less for each idle client, and its own opening handshake (190 of the 900 microseconds of a connect) for
nobody.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection
from wsproto import ConnectionType, WSConnection
from wsproto.connection import Connection

from .._errors import RemoteProtocolError
from .._wire.deflate import InflatingSorter
from .._wire.encoded import join_frames
from .._wire.frames import FrameSorter, Phase
from .lane import READ_SIZE, Lane

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .._engine.contract import Receiver
    from .._wire.encoded import EncodedPacket
    from .opening import Upgrade

ABNORMAL_CLOSURE = 1006
#: Who has begun the closing handshake; anything else that ends a WebSocket is a violation, or a broken connection.
HANDSHAKE = (Phase.OUR_CLOSE, Phase.PEER_CLOSE)


class LaneWebSocket:
    """The `WebSocket` that the engine sees."""

    __slots__ = ("_connection", "_deflate", "_lane", "_limit", "_nursery")

    def __init__(self, stream: trio.abc.Stream, upgrade: Upgrade, nursery: trio.Nursery) -> None:
        self._limit = limit = upgrade.acceptance.max_message_size
        self._deflate = upgrade.deflate
        self._nursery = nursery
        self._connection: WebSocketConnection | None = None
        sorter = FrameSorter(limit) if upgrade.deflate is None else InflatingSorter(limit)
        self._lane = Lane(stream, upgrade.trailing, sorter, self._summon)

    def _summon(self) -> WebSocketConnection:
        """Let trio-websocket in, if it is not there yet: on a WebSocket that is open already."""
        if self._connection is None:
            protocol = WSConnection(ConnectionType.SERVER)
            protocol.connection = Connection(ConnectionType.SERVER)
            # The lane holds messages to the limit in bytes; trio-websocket's own, in characters, comes later.
            self._connection = WebSocketConnection(
                self._lane,
                protocol,
                message_queue_size=1,
                max_message_size=self._limit,
                receive_buffer_size=READ_SIZE,
            )
            self._nursery.start_soon(self._connection._reader_task)
        return self._connection

    async def open(self, head: bytes, write_timeout: float) -> bool:
        """Write the 101; whether the client has taken it within so many seconds."""
        is_open = self._lane.send_nowait(head)
        if not is_open:
            with trio.move_on_after(write_timeout):
                await self._lane.drain()
                is_open = True
        return is_open

    async def cut(self) -> None:
        """Close the stream."""
        await self._lane.cut()

    async def pump(self, receiver: Receiver) -> None:
        """Deliver what arrives until the peer closes; see `trio_socketio._engine.contract.WebSocket`."""
        try:
            while True:
                await self._lane.carry(receiver)
                if self._lane.is_over:
                    return
                receiver.on_message(await self._summon().get_message())
        except ConnectionClosed as closed:
            reason = closed.reason
            if reason is None or reason.code == ABNORMAL_CLOSURE or self._lane.sorter.phase in HANDSHAKE:
                return
            raise RemoteProtocolError(reason.reason or f"closed with code {reason.code}") from None

    def send_nowait(self, packets: Sequence[EncodedPacket]) -> bool:
        """Write packets; False if `drain` must complete before the next call."""
        deflate = self._deflate
        if deflate is not None:
            return self._lane.send_nowait(b"".join([packet.deflated_frames(deflate) for packet in packets]))
        return self._lane.send_nowait(join_frames(packets))

    async def drain(self) -> None:
        """Write what `send_nowait` could not."""
        await self._lane.drain()

    async def aclose(self, code: int = 1000) -> None:
        """Close with a handshake; however that ends, and when cancelled at once, the connection is cut."""
        lane = self._lane
        try:
            if lane.is_over:
                return
            await lane.end_messages()
            connection = self._summon()
            if not lane.deaf:
                with lane.handshake():
                    await connection.aclose(code)
            elif connection.closed is None:
                await lane.close_alone(code)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # there is nobody left to say goodbye to
        finally:
            await lane.cut()  # noqa: ASYNC102 - it does not wait


async def serve_websocket(
    stream: trio.abc.Stream, upgrade: Upgrade, write_timeout: float, nursery: trio.Nursery
) -> None:
    """Write the 101, and run the acceptance. The stream is closed afterwards, whatever happens.

    Args:
        stream: The client's.
        upgrade: What was agreed.
        write_timeout: Seconds for the client to take the 101; if it does not, the acceptance does not run.
        nursery: For trio-websocket's reader, which ends when the nursery is cancelled.
    """
    websocket = LaneWebSocket(stream, upgrade, nursery)
    upgrade.trailing = b""
    try:
        if await websocket.open(upgrade.head, write_timeout):
            await upgrade.acceptance.run(websocket)
    finally:
        await websocket.cut()  # noqa: ASYNC102 - it does not wait
