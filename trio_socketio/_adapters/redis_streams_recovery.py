"""Connection state recovery over a stream: a client may come back to any server that reads it.

There is one order of events, that of the stream. An event of our own is delivered to our own clients when its entry
comes back to us, with the entry's id as its offset, like everybody else's. So each server knows at any moment what its
clients have got: whatever is for them up to the position of its reader, and nothing beyond. From that the law follows,
that a client which comes back gets what it has missed once and in order: everything after the offset of its last event
and up to the reader's position is read back, and everything beyond is delivered as it comes. A server that has not got
as far as the client has waits for its own reader first.

What is kept of a client is what servers in Node.js keep, so that it may go from one kind to the other and back. Servers
with this library add the positions at which it connected, joined its rooms and left; with them, a client that has not
received anything yet can come back, and what was said in a room before it was there stays unheard.

When Redis does not take an event, or nobody knows whether it has, our own clients get it at once and without an offset:
being late is worse for them than not being able to recover it.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING

import trio

from .._errors import LocalProtocolError, RedisConnectionLost, RedisError, RemoteProtocolError
from .._wire.cluster import MessageType
from .._wire.cluster_streams import parse_stream_id
from .._wire.packets import Packet, PacketType
from .cluster import ClusterAdapter
from .redis_sessions import Trace
from .targets import read_target
from .traces import Traces

if TYPE_CHECKING:
    from collections.abc import Sequence
    from collections.abc import Set as AbstractSet

    from .._redis.resp import Reply
    from .._wire.cluster_streams import StreamEntry
    from .._wire.encoded import EncodedPacket
    from .contract import BroadcastOptions, Directory, PersistedSession, Room
    from .recovery import ConnectionStateRecovery
    from .redis_sessions import SessionStore
    from .streams_bus import StreamsBus

logger = logging.getLogger("trio_socketio.adapters")

#: The field that numbers our own entries; others do not look at it. Their text would not tell two that are the same.
NUMBER = b"trio"
#: Entries of our own that may be on their way. Redis takes so many in a fraction of a second.
MOST_UNDER_WAY = 100_000

#: What is the same for whoever has it, now and later.
IMMUTABLE = frozenset({str, int, float, bool, type(None), bytes})


class Outgoing:
    """An event of our own, on its way to the stream and back.

    Attributes:
        delivered: Set when our own clients have got it.
        served: Who has got it already, without an offset.
    """

    __slots__ = ("delivered", "encoded", "is_in_stream", "options", "packet", "served")

    def __init__(self, packet: Packet, encoded: EncodedPacket, options: BroadcastOptions) -> None:
        self.packet = packet
        self.encoded = encoded
        self.options = options
        self.is_in_stream = False
        self.served: set[str] = set()
        self.delivered = trio.Event()


class RecoveringStreamsAdapter(ClusterAdapter):
    """The rooms of one namespace in several servers whose clients may come back; implements `RecoveringAdapter`.

    Args:
        directory: The namespace whose local sockets these are.
        bus: The stream.
        sessions: Where those who are away are kept.
        options: For how long, and the bounds of what is read back for one client.
        request_timeout: Seconds that other servers have for an answer, where the caller does not say, and Redis has.
    """

    def __init__(
        self,
        directory: Directory,
        bus: StreamsBus,
        sessions: SessionStore,
        options: ConnectionStateRecovery,
        *,
        request_timeout: float = 5.0,
    ) -> None:
        super().__init__(directory, bus, request_timeout)
        self._stream = bus
        self._sessions = sessions
        self._options = options
        self._traces: Traces[Trace] = Traces(Trace, lambda: bus.reader.position)
        self._last_number = 0
        self._under_way: dict[int, Outgoing] = {}
        self._uncertain: dict[int, Outgoing] = {}
        bus.on_echo = self._on_echo
        bus.on_doubt = self._on_doubt
        self.on("join-room", self._traces.on_join)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """See `ClusterAdapter.run`. What is under way at its end is delivered here."""
        try:
            await super().run(task_status=task_status)
        finally:
            for number in list(self._under_way):
                self._deliver_at_once(number)
            self._uncertain.clear()

    def kept(self) -> tuple[int, int, int]:
        """How many sockets are known, and events are on their way, or perhaps on their way."""
        return len(self._traces), len(self._under_way), len(self._uncertain)

    # What is sent

    async def broadcast(self, packet: Packet, encoded: EncodedPacket, options: BroadcastOptions) -> None:
        """See `RecoveringAdapter`. Returns when our own clients have been sent it, in the order of the stream.

        When cancelled, it has not begun, or our own clients will be sent it all the same.
        """
        if options.local or not _is_kept(packet, options):
            await super().broadcast(packet, encoded, options)
            return
        fields = self._encode(MessageType.BROADCAST, packet.data, options)
        await self._stream.writable()
        await self._submit(packet, encoded, options, fields).delivered.wait()

    def broadcast_nowait(self, packet: Packet, encoded: EncodedPacket, options: BroadcastOptions) -> None:
        """See `RecoveringAdapter.broadcast_nowait`; it is delivered when it is its turn in the stream."""
        if options.local:
            self.local.deliver(packet, encoded, options)
            return
        fields = self._encode(MessageType.BROADCAST, packet.data, options)
        if _is_kept(packet, options):
            self._submit(packet, encoded, options, fields)
        else:
            self.local.deliver(packet, encoded, options)
            self._publish(fields)

    def _submit(
        self, packet: Packet, encoded: EncodedPacket, options: BroadcastOptions, fields: list[bytes]
    ) -> Outgoing:
        self._last_number = number = self._last_number + 1
        event = self._under_way[number] = Outgoing(packet, encoded, options)
        if self._nursery is None:  # the server stops, and nobody reads the stream any more
            self._deliver_at_once(number)
            self._publish(fields)
            return event
        numbered = [*fields, NUMBER, b"%d" % number]
        taken = len(self._under_way) <= MOST_UNDER_WAY and self._stream.append(
            numbered, partial(self._on_reply, number)
        )
        self._count(taken)
        if not taken:
            self._deliver_at_once(number)
        return event

    def _on_reply(self, number: int, reply: Reply) -> None:
        event = self._under_way.get(number)
        if event is None:
            return  # it has come back already, or was delivered without waiting for that
        if not isinstance(reply, RedisError):
            event.is_in_stream = True
            return
        self._deliver_at_once(number)
        if isinstance(reply, RedisConnectionLost):
            self._uncertain[number] = event
        else:
            self._count(False)

    def _deliver_at_once(self, number: int) -> None:
        """Deliver an event of our own without an offset."""
        event = self._under_way.pop(number)
        ids = [id for id in self.local.sockets(event.options) if id not in event.served]
        event.served.update(ids)
        self._directory.deliver(ids, event.packet, event.encoded, False)
        event.delivered.set()

    def hasten(self, id: str) -> None:
        """See `RecoveringAdapter.hasten`."""
        rooms = self.sids.get(id, set())
        for event in list(self._under_way.values()):
            if id not in event.served and _is_for(event.options, rooms):
                event.served.add(id)
                self._directory.deliver([id], event.packet, event.encoded, False)

    # What comes from the stream

    def _on_echo(self, id: bytes, entry: StreamEntry, fields: Sequence[bytes]) -> None:
        """An entry of our own has come back; those without a number were delivered when they were sent."""
        if len(fields) < 2 or fields[-2] != NUMBER:
            return
        number = int(fields[-1])
        # The order of our entries is that in which they were submitted: what was before this one never got there.
        for earlier in [other for other in self._uncertain if other < number]:
            del self._uncertain[earlier]
        event = self._under_way.pop(number, None) or self._uncertain.pop(number, None)
        if event is None:
            return
        try:
            ids = [socket_id for socket_id in self.local.sockets(event.options) if socket_id not in event.served]
            if ids:
                self._deliver_kept(ids, self._as_emitted(event, entry), event.options, id)
        finally:
            event.delivered.set()

    def _as_emitted(self, event: Outgoing, entry: StreamEntry) -> Packet:
        """The packet as it was when it was emitted: its author may have changed what is in it since."""
        if all(type(argument) in IMMUTABLE for argument in event.packet.data):
            return event.packet
        return event.packet._replace(data=self._stream.decode_untrusted(entry).content)

    def _deliver(self, packet: Packet, options: BroadcastOptions) -> None:
        if self._stream.offset is None or options.volatile:
            super()._deliver(packet, options)
        else:
            self._deliver_kept(self.local.sockets(options), packet, options, self._stream.offset)

    def _deliver_kept(self, ids: Sequence[str], packet: Packet, options: BroadcastOptions, id: bytes) -> None:
        offset = id.decode()
        encoded = self._encode_with(packet, offset, options)
        for socket_id in ids:
            trace = self._traces.get(socket_id)
            if trace is not None:
                trace.last_sent = offset
        # Not in the packet: catch-all listeners are told what was emitted, without the offset.
        self._directory.deliver(ids, packet, encoded, False)

    def _encode_with(self, packet: Packet, offset: str, options: BroadcastOptions) -> EncodedPacket:
        return self._directory.encode(packet._replace(data=[*packet.data, offset]), options.compress)

    def _on_doubt(self) -> None:
        """Our own entries that are in the stream are perhaps lost for us: our clients should not wait for them."""
        for number in [number for number, event in self._under_way.items() if event.is_in_stream]:
            self._uncertain[number] = self._under_way[number]
            self._deliver_at_once(number)

    # Who is there

    def connected(self, id: str, session: PersistedSession | None = None) -> None:
        """See `RecoveringAdapter.connected`."""
        for event in self._uncertain.values():
            event.served.discard(id)  # that was an earlier connection, on which it may have been lost
        self._traces.connected(id, session, self.sids.get(id, set()))

    async def delete_all(self, id: str) -> None:
        self._traces.forget(id)
        await super().delete_all(id)

    # Who is away

    async def persist_session(self, session: PersistedSession) -> None:
        """See `RecoveringAdapter.persist_session`. If Redis does not take it, its client will be a new one."""
        await trio.lowlevel.checkpoint_if_cancelled()
        await trio.lowlevel.cancel_shielded_checkpoint()
        trace: Trace | None = session.trace
        if trace is None:
            trace = self._traces.depart(session.sid, self._options.max_disconnection_duration)
        try:
            self._sessions.put(session, trace)
        except LocalProtocolError as error:
            logger.warning("the socket %s cannot be recovered: %s", session.sid, error)

    async def restore_session(self, pid: str, offset: str | None) -> PersistedSession | None:
        """See `RecoveringAdapter.restore_session`. Whether all is there that was missed, `missed_packets` finds out."""
        await trio.lowlevel.checkpoint()
        if offset is not None and parse_stream_id(offset) is None:
            return None
        with trio.move_on_after(self._request_timeout):
            return await self._sessions.take(pid, offset)
        return None

    async def missed_packets(self, session: PersistedSession, offset: str | None) -> list[EncodedPacket] | None:
        """See `RecoveringAdapter.missed_packets`. Waits until our reader is where the session was left."""
        await trio.lowlevel.checkpoint()
        trace: Trace = session.trace
        start = trace.start(offset)
        if start is None:
            return None
        try:
            with trio.move_on_after(self._request_timeout):
                await self._stream.reader.reached(max(start, trace.left))
                return await self._read_missed(session, trace, start, offset)
        except RedisError as error:
            logger.warning("what the socket %s has missed cannot be read: %s", session.sid, error)
        return None

    async def _read_missed(
        self, session: PersistedSession, trace: Trace, start: tuple[int, int], offset: str | None
    ) -> list[EncodedPacket] | None:
        options = self._options
        with self._stream.tapped() as meanwhile:
            before = await self._stream.reader.read_back(
                b"%d-%d" % start, self._directory.name.encode(), options.max_packets, options.max_bytes
            )
            # No wait from here on: what comes next is delivered to the socket, or still missed the next time.
            if before is None:
                return None
            missed: list[EncodedPacket] = []
            trace.replayed = trace.last_sent if offset is None else offset
            for id, entry in (*before, *meanwhile):
                if (encoded := self._missed(session, trace, id, entry)) is not None:
                    missed.append(encoded)
                    trace.replayed = id.decode()
            return missed

    def _missed(self, session: PersistedSession, trace: Trace, id: bytes, entry: StreamEntry) -> EncodedPacket | None:
        """An entry as the session's client should have got it, if it should have."""
        if entry.type != b"3":
            return None
        try:
            message = self._stream.decode_untrusted(entry)
            options = read_target(message.target)
            if message.ack_id is not None or options.volatile or not trace.concerns(id, options, session.rooms):
                return None
            packet = Packet(PacketType.EVENT, self._directory.name, message.content)
            return self._encode_with(packet, id.decode(), options)
        except (LocalProtocolError, RemoteProtocolError):
            return None  # it was dropped when it came, too


def _is_kept(packet: Packet, options: BroadcastOptions) -> bool:
    return packet.type is PacketType.EVENT and packet.id is None and not options.volatile


def _is_for(options: BroadcastOptions, rooms: AbstractSet[Room]) -> bool:
    """Whether somebody in these rooms is meant."""
    return (not options.rooms or not rooms.isdisjoint(options.rooms)) and rooms.isdisjoint(options.except_rooms)
