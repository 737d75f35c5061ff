"""What a server of a cluster does for the others: it takes their messages, and answers.

What other servers ask is answered from the bus's own task, without waiting; only what takes time, which is handlers and
the acknowledgements of clients, is waited for elsewhere. What is no message, or cannot be said to clients, is dropped:
one line in the log and one more in a counter.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import trio

from .._errors import LocalProtocolError, RemoteProtocolError, plain_exceptions
from .._wire.cluster import Message, MessageType
from .._wire.cluster_classic import ONE_SOCKET
from .._wire.cluster_sockets import details_from_wire_untrusted, details_to_wire
from .._wire.packets import Packet, PacketType
from .collector import Collector
from .contract import BroadcastOptions, SocketDetails
from .memory import MemoryAdapter
from .targets import read_target, to_target

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .answers import AckStream
    from .bus import Bus
    from .contract import Directory

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


class ClusterMember:
    """One namespace of one server, as the other servers see it: the `Receiver` of a bus.

    Args:
        directory: The namespace whose local sockets these are.
        bus: The way to the other servers.

    Attributes:
        local: The rooms of this server.
        bus: The bus.
    """

    def __init__(self, directory: Directory, bus: Bus) -> None:
        self.local: MemoryAdapter = MemoryAdapter(directory)
        self.bus: Bus = bus
        self._directory = directory
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
        packet = Packet(PacketType.EVENT, self._directory.name, message.content)
        if message.request_id is not None:
            self._collect(message, self.local.sockets(options), packet, options)
        elif message.ack_id is None and self.local.has_members(options):
            self._deliver(packet, options)

    def _deliver(self, packet: Packet, options: BroadcastOptions) -> None:
        """Send what another server has broadcast to sockets of ours."""
        self.local.deliver(packet, self._directory.encode(packet, options.compress), options)

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


RECEIVERS: dict[MessageType, Callable[[ClusterMember, Message], None]] = {
    MessageType.INITIAL_HEARTBEAT: ClusterMember._on_nothing,
    MessageType.HEARTBEAT: ClusterMember._on_nothing,
    MessageType.ADAPTER_CLOSE: ClusterMember._on_nothing,
    MessageType.BROADCAST: ClusterMember._on_broadcast,
    MessageType.SOCKETS_JOIN: ClusterMember._on_join,
    MessageType.SOCKETS_LEAVE: ClusterMember._on_leave,
    MessageType.DISCONNECT_SOCKETS: ClusterMember._on_disconnect,
    MessageType.FETCH_SOCKETS: ClusterMember._on_fetch,
    MessageType.FETCH_SOCKETS_RESPONSE: ClusterMember._on_fetched,
    MessageType.SERVER_SIDE_EMIT: ClusterMember._on_server_side_emit,
    MessageType.SERVER_SIDE_EMIT_RESPONSE: ClusterMember._on_server_answer,
    MessageType.BROADCAST_CLIENT_COUNT: ClusterMember._on_client_count,
    MessageType.BROADCAST_ACK: ClusterMember._on_ack,
    MessageType.ALL_ROOMS: ClusterMember._on_all_rooms,
    MessageType.ALL_ROOMS_RESPONSE: ClusterMember._on_server_answers,
    MessageType.APPLIED: ClusterMember._on_applied,
    MessageType.SOCKET_IDS: ClusterMember._on_socket_ids,
    MessageType.SOCKET_IDS_RESPONSE: ClusterMember._on_nothing,
}
