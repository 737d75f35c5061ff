"""Several servers as one: rooms of our own, and a bus to the others.

Socket.IO, "cluster adapter protocol". What an operation does here and what it publishes are one synchronous block, in
this order: whoever is cancelled has done both or neither, and two operations of one server reach every server in the
order in which they were called. What other servers ask is answered from the bus's own task, without waiting; only
what takes time, which is handlers and the acknowledgements of clients, is waited for elsewhere.

Nothing is kept after a request has ended, however it ended: the tables `_requests` (of ours) and `_collecting` (of
others') have an entry exactly for as long as somebody waits.
"""

from __future__ import annotations

import logging
import math
import secrets
from collections.abc import Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import trio

from .._errors import LocalProtocolError, RemoteProtocolError, plain_exceptions
from .._wire.cluster import Message, MessageType
from .._wire.cluster_classic import ONE_SOCKET
from .._wire.cluster_sockets import details_from_wire_untrusted, details_to_wire
from .._wire.packets import Packet, PacketType
from .answers import AckStream, Roll
from .collector import Collector
from .contract import BroadcastOptions, SocketDetails
from .memory import MemoryAdapter
from .targets import read_target, to_target

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from .._wire.encoded import EncodedPacket
    from .bus import Bus
    from .contract import Directory, Room

logger = logging.getLogger("trio_socketio.adapters")

#: Seconds that we wait for clients on behalf of a server that does not say for how long it wants to.
LONGEST_COLLECTION = 60.0


@dataclass(frozen=True, slots=True)
class ClusterStatistics:
    """The figures of one namespace's part in a cluster.

    Args:
        published: Messages that were given to the bus.
        lost: Messages that it could not take.
        received: Messages that came.
        dropped: Of what came, what was no message, or could not be passed on to clients.
        requests: Of ours, that wait for answers of other servers.
        collecting: Of other servers, for which we wait for the answers of clients.
    """

    published: int
    lost: int
    received: int
    dropped: int
    requests: int
    collecting: int


class ClusterAdapter:
    """The rooms of one namespace in several servers; implements `Adapter`.

    Args:
        directory: The namespace whose local sockets these are.
        bus: The way to the other servers.
        request_timeout: Seconds that other servers have for an answer, where the caller does not say.

    Attributes:
        local: The rooms of this server.
        bus: The bus.
    """

    def __init__(self, directory: Directory, bus: Bus, request_timeout: float = 5.0) -> None:
        self.local: MemoryAdapter = MemoryAdapter(directory)
        self.bus: Bus = bus
        self._directory = directory
        self._request_timeout = request_timeout
        self._requests: dict[str, AckStream] = {}
        self._collecting: set[Collector] = set()
        self._nursery: trio.Nursery | None = None
        self._published = self._lost = self._received = self._dropped = 0
        self._bus_is_lost = False
        self.local.on("delete-room", bus.unfollow)

    def statistics(self) -> ClusterStatistics:
        """The figures, now."""
        return ClusterStatistics(
            published=self._published,
            lost=self._lost,
            received=self._received,
            dropped=self._dropped,
            requests=len(self._requests),
            collecting=len(self._collecting),
        )

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """See `Adapter.run`. It is a member of the cluster from when it has started until it is cancelled."""
        with plain_exceptions():
            async with self.bus.opened(self), trio.open_nursery() as self._nursery:
                try:
                    task_status.started()
                    await trio.sleep_forever()
                finally:
                    self._nursery = None
                    self._collecting.clear()

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
        self._directory.deliver(self.local.sockets(options), packet, encoded, options.volatile)
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

    # What is published

    def _encode(
        self, type: MessageType, content: Any, options: BroadcastOptions | None = None, request_id: str | None = None
    ) -> Any:
        target = None if options is None else to_target(options)
        return self.bus.encode(Message(type, self.bus.uid, self._directory.name, content, target, request_id))

    def _publish(self, encoded: Any) -> None:
        self._count(self.bus.publish(encoded))

    def _answer(self, request: Message, type: MessageType, content: Any = None) -> None:
        encoded = self._encode(type, content, None, request.request_id)
        self._count(self.bus.answer(request.uid, encoded))

    def _count(self, taken: bool) -> None:
        if taken:
            self._published += 1
            if self._bus_is_lost:
                logger.info("the bus of %s takes messages again; %d were lost so far", self._directory.name, self._lost)
        else:
            self._lost += 1
            if not self._bus_is_lost:
                logger.warning(
                    "the bus of %s is lost or full: what is emitted reaches this server only", self._directory.name
                )
        self._bus_is_lost = not taken

    # What comes: the `Receiver` of the bus

    def has_room(self, room: str) -> bool:
        return room in self.local.rooms

    def on_bad_message(self, why: Exception) -> None:
        self._dropped += 1
        logger.warning("a message on the bus of %s was dropped: %s", self._directory.name, why)

    def on_member_left(self, uid: str) -> None:
        for request in list(self._requests.values()):
            request.on_member_left(uid)

    def receive(self, message: Message) -> None:
        self._received += 1
        try:
            RECEIVERS[message.type](self, message)
        except (LocalProtocolError, RemoteProtocolError) as error:
            self.on_bad_message(error)  # no message, or one that cannot be said to clients

    def _on_broadcast(self, message: Message) -> None:
        options = read_target(message.target)
        ids = self.local.sockets(options)
        packet = Packet(PacketType.EVENT, self._directory.name, message.content)
        if message.request_id is not None:
            self._collect(message, ids, packet, options)
        elif ids and message.ack_id is None:
            self._deliver(ids, packet, options)

    def _deliver(self, ids: Sequence[str], packet: Packet, options: BroadcastOptions) -> None:
        """Send what another server has broadcast to sockets of ours."""
        encoded = self._directory.encode(packet, options.compress)
        self._directory.deliver(ids, packet, encoded, options.volatile)

    def _collect(self, message: Message, ids: Sequence[str], packet: Packet, options: BroadcastOptions) -> None:
        collector = Collector(self._collecting, partial(self._answer, message))
        try:
            self._directory.deliver_with_ack(ids, packet, options, collector)
        except LocalProtocolError:
            collector.all_asked()  # a server that says nothing makes the one who asks wait for its timeout
            raise
        if collector.waiting and self._nursery is not None:
            self._nursery.start_soon(collector.expire, min(options.timeout or math.inf, LONGEST_COLLECTION))

    def _on_join(self, message: Message) -> None:
        options = read_target(message.target)
        ids = self.local.sockets(options)
        self.local.add_sockets_now(options, message.content)
        if ids and self._nursery is not None:
            self._nursery.start_soon(self._follow, message, ids)
        else:
            self._confirm(message, ids)

    async def _follow(self, message: Message, ids: Sequence[str]) -> None:
        # Confirmed afterwards: what the one who asks sends to these rooms then has to arrive.
        await self.bus.follow([room for room in message.content if room in self.local.rooms])
        self._confirm(message, ids)

    def _on_leave(self, message: Message) -> None:
        options = read_target(message.target)
        ids = self.local.sockets(options)
        self.local.delete_sockets_now(options, message.content)
        self._confirm(message, ids)

    def _confirm(self, message: Message, ids: Sequence[str]) -> None:
        is_for_its_server = message.target is not None and message.target.flags.get(ONE_SOCKET)
        if message.request_id is not None and (ids or not is_for_its_server):
            self._answer(message, MessageType.APPLIED)

    def _on_disconnect(self, message: Message) -> None:
        ids = self.local.sockets(read_target(message.target))
        self._directory.begin_disconnect(ids, message.content)
        self._confirm(message, ids)

    def _on_fetch(self, message: Message) -> None:
        ids = self.local.sockets(read_target(message.target))
        found = [self._describe(id) for id in ids]
        self._answer(message, MessageType.FETCH_SOCKETS_RESPONSE, found)

    def _describe(self, id: str) -> dict[str, Any]:
        details = self._directory.details(id)

        def on_bad_data(error: Exception) -> None:
            logger.warning("the data of the socket %s is not told to other servers: %s", id, error)

        return details_to_wire(details.id, details.handshake, details.rooms, details.data, on_bad_data=on_bad_data)

    def _on_socket_ids(self, message: Message) -> None:
        ids = self.local.sockets(read_target(message.target))
        self._answer(message, MessageType.SOCKET_IDS_RESPONSE, ids)

    def _on_all_rooms(self, message: Message) -> None:
        self._answer(message, MessageType.ALL_ROOMS_RESPONSE, list(self.local.rooms))

    def _on_server_side_emit(self, message: Message) -> None:
        answer = None
        if message.request_id is not None:
            answer = partial(self._answer, message, MessageType.SERVER_SIDE_EMIT_RESPONSE)
        self._directory.on_server_side_emit(message.content, answer)

    def _answered(self, message: Message) -> AckStream | None:
        """Our request that this answers; None if nobody waits for it, or for something of another kind."""
        request = self._requests.get(message.request_id or "")
        return request if request is not None and request.expects(message.type) else None

    def _on_client_count(self, message: Message) -> None:
        if request := self._answered(message):
            request.on_client_count(message.uid, message.content)

    def _on_ack(self, message: Message) -> None:
        if request := self._answered(message):
            request.on_remote_ack(message.uid, message.content)

    def _on_fetched(self, message: Message) -> None:
        if request := self._answered(message):
            found = [SocketDetails(*details_from_wire_untrusted(details)) for details in message.content]
            request.on_server_answer(message.uid, found)

    def _on_server_answers(self, message: Message) -> None:
        if request := self._answered(message):
            request.on_server_answer(message.uid, message.content)

    def _on_server_answer(self, message: Message) -> None:
        if request := self._answered(message):
            request.on_server_answer(message.uid, [message.content])

    def _on_applied(self, message: Message) -> None:
        if request := self._answered(message):
            request.on_applied(message.uid)

    def _on_nothing(self, message: Message) -> None:
        """Heartbeats are the business of those buses that have them, and some answers are to what is never asked."""

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

RECEIVERS: dict[MessageType, Callable[[ClusterAdapter, Message], None]] = {
    MessageType.INITIAL_HEARTBEAT: ClusterAdapter._on_nothing,
    MessageType.HEARTBEAT: ClusterAdapter._on_nothing,
    MessageType.ADAPTER_CLOSE: ClusterAdapter._on_nothing,
    MessageType.BROADCAST: ClusterAdapter._on_broadcast,
    MessageType.SOCKETS_JOIN: ClusterAdapter._on_join,
    MessageType.SOCKETS_LEAVE: ClusterAdapter._on_leave,
    MessageType.DISCONNECT_SOCKETS: ClusterAdapter._on_disconnect,
    MessageType.FETCH_SOCKETS: ClusterAdapter._on_fetch,
    MessageType.FETCH_SOCKETS_RESPONSE: ClusterAdapter._on_fetched,
    MessageType.SERVER_SIDE_EMIT: ClusterAdapter._on_server_side_emit,
    MessageType.SERVER_SIDE_EMIT_RESPONSE: ClusterAdapter._on_server_answer,
    MessageType.BROADCAST_CLIENT_COUNT: ClusterAdapter._on_client_count,
    MessageType.BROADCAST_ACK: ClusterAdapter._on_ack,
    MessageType.ALL_ROOMS: ClusterAdapter._on_all_rooms,
    MessageType.ALL_ROOMS_RESPONSE: ClusterAdapter._on_server_answers,
    MessageType.APPLIED: ClusterAdapter._on_applied,
    MessageType.SOCKET_IDS: ClusterAdapter._on_socket_ids,
    MessageType.SOCKET_IDS_RESPONSE: ClusterAdapter._on_nothing,
}
