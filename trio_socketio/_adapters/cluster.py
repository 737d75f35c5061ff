"""Several servers as one: rooms of our own, and a bus to the others.

Socket.IO, "cluster adapter protocol". What an operation does here and what it publishes are one synchronous block, in
this order: whoever is cancelled has done both or neither, and two operations of one server reach every server in the
order in which they were called. What the others ask of this one is in the module ``cluster_member``.

Nothing is kept after a request has ended, however it ended: the tables `_requests` (of ours) and `_collecting` (of
others') have an entry exactly for as long as somebody waits.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import trio

from .._wire.cluster import MessageType
from .answers import AckStream, Roll
from .cluster_member import ClusterMember
from .contract import BroadcastOptions, SocketDetails

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from .._wire.encoded import EncodedPacket
    from .._wire.packets import Packet
    from .bus import Bus
    from .contract import Directory, Room


class ClusterAdapter(ClusterMember):
    """The rooms of one namespace in several servers; implements `Adapter`.

    Args:
        directory: The namespace whose local sockets these are.
        bus: The way to the other servers.
        request_timeout: Seconds that other servers have for an answer, where the caller does not say.
    """

    def __init__(self, directory: Directory, bus: Bus, request_timeout: float = 5.0) -> None:
        super().__init__(directory, bus)
        self._request_timeout = request_timeout

    # Rooms

    @property
    def rooms(self) -> Mapping[Room, AbstractSet[str]]:
        """The rooms of this server."""
        return self.local.rooms

    @property
    def sids(self) -> Mapping[str, AbstractSet[Room]]:
        """The sockets of this server."""
        return self.local.sids

    def on(self, event: str, listener: Callable[..., Any]) -> None:
        """Listen to the rooms of this server; see `Adapter.on`."""
        self.local.on(event, listener)

    def sockets(self, options: BroadcastOptions) -> list[str]:
        """See `Adapter.sockets`."""
        return self.local.sockets(options)

    async def add_all(self, id: str, rooms: Iterable[Room]) -> None:
        """See `Adapter.add_all`. Returns when what other servers send to these rooms arrives here.

        When cancelled, the socket is in the rooms or has not been put there, and the bus catches up by itself.
        """
        rooms = list(rooms)
        await self.local.add_all(id, rooms)
        await self.bus.follow(rooms)  # also those that exist: their first member may still wait for it

    async def delete(self, id: str, room: Room) -> None:
        await self.local.delete(id, room)

    async def delete_all(self, id: str) -> None:
        await self.local.delete_all(id)

    # What is done in all servers

    async def broadcast(self, packet: Packet, encoded: EncodedPacket, options: BroadcastOptions) -> None:
        if options.local:
            await self.local.broadcast(packet, encoded, options)
            return
        message = self._encode(MessageType.BROADCAST, packet.data, options)
        await self.bus.writable()
        self.local.deliver(packet, encoded, options)
        self._publish(message)

    async def add_sockets(self, options: BroadcastOptions, rooms: Sequence[Room], wait: bool = False) -> None:
        """See `Adapter.add_sockets`; with `wait`, the time is the operator's `timeout`, or the adapter's.

        Raises:
            AckTimeout: Servers have not confirmed it in time; ``.servers`` names them.
            ConnectionError: With `wait`, if the bus is lost.
        """
        await self._change(MessageType.SOCKETS_JOIN, self.local.add_sockets_now, options, rooms, wait)
        if here := [room for room in rooms if room in self.local.rooms]:
            await self.bus.follow(here)

    async def delete_sockets(self, options: BroadcastOptions, rooms: Sequence[Room], wait: bool = False) -> None:
        """See `add_sockets`."""
        await self._change(MessageType.SOCKETS_LEAVE, self.local.delete_sockets_now, options, rooms, wait)

    async def _change(
        self,
        type: MessageType,
        change: Callable[[BroadcastOptions, Sequence[Room]], None],
        options: BroadcastOptions,
        rooms: Sequence[Room],
        wait: bool,
    ) -> None:
        if options.local:
            await trio.lowlevel.checkpoint_if_cancelled()
            change(options, rooms)
            await trio.lowlevel.cancel_shielded_checkpoint()
        elif not wait:
            message = self._encode(type, tuple(rooms), options)
            await self.bus.writable()
            change(options, rooms)
            self._publish(message)
        else:
            peers = await self.bus.peers()
            async with self._asking(options) as answers:
                message = self._request(answers, Roll(len(peers), peers), type, tuple(rooms), options)
                await self.bus.writable()
                change(options, rooms)
                self._publish(message)

    async def disconnect_sockets(self, options: BroadcastOptions, close: bool) -> None:
        if options.local:
            await self.local.disconnect_sockets(options, close)
            return
        message = self._encode(MessageType.DISCONNECT_SOCKETS, close, options)
        await self.bus.writable()
        ids = self.local.sockets(options)
        self._directory.begin_disconnect(ids, close)
        self._publish(message)
        await self._directory.disconnect(ids, close)

    async def server_side_emit(self, args: Sequence[Any]) -> None:
        message = self._encode(MessageType.SERVER_SIDE_EMIT, list(args))
        await self.bus.writable()
        self._publish(message)

    # What other servers answer

    async def broadcast_with_ack(self, packet: Packet, options: BroadcastOptions, acks: AckStream) -> None:
        if not options.local:
            message = self._request(acks, await self.bus.roll_call(), MessageType.BROADCAST, packet.data, options)
            await self.bus.writable()
            self._publish(message)
        else:
            await trio.lowlevel.checkpoint()
        self._directory.deliver_with_ack(self.local.sockets(options), packet, options, acks)

    async def server_side_emit_with_ack(self, args: Sequence[Any], acks: AckStream) -> None:
        message = self._request(acks, await self.bus.roll_call(), MessageType.SERVER_SIDE_EMIT, list(args))
        await self.bus.writable()
        self._publish(message)
        acks.all_asked()

    async def fetch_sockets(self, options: BroadcastOptions) -> list[SocketDetails]:
        """See `Adapter.fetch_sockets`; the time is the operator's `timeout`, or the adapter's.

        Raises:
            AckTimeout: Servers have not answered in time; ``.responses`` are the sockets that are known.
            ConnectionError: The bus is lost.
        """
        if options.local:
            return await self.local.fetch_sockets(options)
        roll = await self.bus.roll_call()
        async with self._asking(options) as answers:
            message = self._request(answers, roll, MessageType.FETCH_SOCKETS, None, options)
            await self.bus.writable()
            answers.responses += [self._directory.details(id) for id in self.local.sockets(options)]
            self._publish(message)
        return answers.responses

    async def all_rooms(self) -> set[Room]:
        """The rooms of all servers; only on buses whose protocol has that, else only those of this server are meant.

        Raises:
            AckTimeout: Servers have not answered in time; ``.responses`` are the rooms that are known.
            ConnectionError: The bus is lost.
            LocalProtocolError: The bus has no message for it.
        """
        roll = await self.bus.roll_call()
        async with self._asking(BroadcastOptions()) as answers:
            message = self._request(answers, roll, MessageType.ALL_ROOMS, None)
            await self.bus.writable()
            answers.responses += self.local.rooms
            self._publish(message)
        return set(answers.responses)

    async def server_count(self) -> int:
        return (await self.bus.roll_call()).expected + 1

    @asynccontextmanager
    async def _asking(self, options: BroadcastOptions) -> AsyncIterator[AckStream]:
        """A request is made inside; at the end its answers have been waited for."""
        answers = AckStream(self._request_timeout if options.timeout is None else options.timeout)
        try:
            yield answers
            answers.all_asked()
            async for _ in answers:
                pass
        finally:
            answers.abandon()

    def _request(
        self,
        answers: AckStream,
        roll: Roll,
        type: MessageType,
        content: Any,
        options: BroadcastOptions | None = None,
    ) -> Any:
        """A message whose answers are expected from now on, until somebody abandons them."""
        request_id = secrets.token_hex(8)
        encoded = self._encode(type, content, options, request_id)
        answers.expect_servers(self._requests, request_id, roll, self.bus.members, ANSWERS[type])
        return encoded

    def __repr__(self) -> str:
        return f"<ClusterAdapter of {self._directory.name} as {self.bus.uid}, {len(self.rooms)} rooms here>"


#: What the answers to a request are.
ANSWERS: dict[MessageType, frozenset[MessageType]] = {
    MessageType.BROADCAST: frozenset(
        {MessageType.BROADCAST_CLIENT_COUNT, MessageType.BROADCAST_ACK, MessageType.APPLIED}
    ),
    MessageType.SOCKETS_JOIN: frozenset({MessageType.APPLIED}),
    MessageType.SOCKETS_LEAVE: frozenset({MessageType.APPLIED}),
    MessageType.FETCH_SOCKETS: frozenset({MessageType.FETCH_SOCKETS_RESPONSE}),
    MessageType.SERVER_SIDE_EMIT: frozenset({MessageType.SERVER_SIDE_EMIT_RESPONSE}),
    MessageType.ALL_ROOMS: frozenset({MessageType.ALL_ROOMS_RESPONSE}),
}
