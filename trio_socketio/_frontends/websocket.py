"""A WebSocket on our own listener: trio-websocket behind the fast lane.

The listener has validated the opening request. trio-websocket reads a normalised copy, of which nothing can fail, and
writes the 101; from then on both share the lane.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio
from trio_websocket import ConnectionClosed, wrap_server_stream

from .._errors import RemoteProtocolError
from .._wire.deflate import InflatingSorter
from .._wire.encoded import join_frames
from .._wire.frames import FrameSorter, Phase
from .lane import READ_SIZE, Lane

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trio_websocket import WebSocketConnection

    from .._engine.contract import Receiver
    from .._wire.deflate import PerMessageDeflate
    from .._wire.encoded import EncodedPacket
    from .opening import Upgrade

ABNORMAL_CLOSURE = 1006
#: Who has begun the closing handshake; anything else that ends a WebSocket is a violation, or a broken connection.
HANDSHAKE = (Phase.OUR_CLOSE, Phase.PEER_CLOSE)


class LaneWebSocket:
    """The `WebSocket` that the engine sees."""

    __slots__ = ("_connection", "_deflate", "_lane")

    def __init__(self, lane: Lane, connection: WebSocketConnection, deflate: PerMessageDeflate | None) -> None:
        self._lane = lane
        self._connection = connection
        self._deflate = deflate

    async def pump(self, receiver: Receiver) -> None:
        """Deliver what arrives until the peer closes; see `trio_socketio._engine.contract.WebSocket`."""
        try:
            while True:
                await self._lane.carry(receiver)
                receiver.on_message(await self._connection.get_message())
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
        return self._lane.send_nowait(packets[0].frames if len(packets) == 1 else join_frames(packets))

    async def drain(self) -> None:
        """Write what `send_nowait` could not."""
        await self._lane.drain()

    async def aclose(self, code: int = 1000) -> None:
        """Close with a handshake; however that ends, and when cancelled at once, the connection is cut."""
        lane, connection = self._lane, self._connection
        try:
            await lane.end_messages()
            if not lane.deaf:
                with lane.handshake():
                    await connection.aclose(code)
            elif connection.closed is None:
                await lane.close_alone(code)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # there is nobody left to say goodbye to
        finally:
            await trio.aclose_forcefully(lane)


async def serve_websocket(stream: trio.abc.Stream, upgrade: Upgrade, write_timeout: float) -> None:
    """Write the 101, and run the acceptance. The stream is closed afterwards, whatever happens.

    Args:
        stream: The client's.
        upgrade: What was agreed.
        write_timeout: Seconds for the client to take the 101; if it does not, the acceptance does not run.
    """
    limit = upgrade.acceptance.max_message_size
    opening = upgrade.opening
    sorter = FrameSorter(limit) if upgrade.deflate is None else InflatingSorter(limit)
    lane = Lane(stream, opening.normalised(), upgrade.trailing, sorter)
    upgrade.trailing = b""
    try:
        async with trio.open_nursery() as nursery:
            websocket = None
            with trio.move_on_after(write_timeout):
                # The lane holds messages to the limit in bytes; trio-websocket's own, in characters, comes later.
                proposal = await wrap_server_stream(
                    nursery, lane, message_queue_size=1, max_message_size=limit, receive_buffer_size=READ_SIZE
                )
                connection = await proposal.accept(subprotocol=opening.protocol, extra_headers=upgrade.headers)
                websocket = LaneWebSocket(lane, connection, upgrade.deflate)
            if websocket is not None:
                await upgrade.acceptance.run(websocket)
            nursery.cancel_scope.cancel()
    except* ConnectionClosed:
        pass  # the client left before it had the 101
    finally:
        await trio.aclose_forcefully(lane)
