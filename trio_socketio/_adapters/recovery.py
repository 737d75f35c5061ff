"""Connection state recovery in memory: what was sent lately, and who may come back for it.

Three things are kept. The **log** has the events of the last minutes, numbered, each with the offset that its
recipients saw. A **trace** says of a connected socket what has to be known later: since when it has been in which room,
and what was sent to it last. A **session** is what is left of a socket that lost its connection. The law is that a
client that comes back gets what it would have got without the interruption, once and in order, or else is told that it
is a new one; never a part.

So a packet that was meant for a room counts only for those who were in that room *then*: what was said there before
somebody joined stays unheard. And a client that has the last event that was sent to it needs only what came after its
departure, however long ago that event was and whether or not the log still has it. (What a socket was sent through a
room that it left before it lost its connection is not sent again.)

Everything is bounded, and whatever is over its time is dropped when the next one comes or is asked for: the oldest are
always in front, so nothing is ever searched for.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import trio

from .._wire.packets import PacketType
from .contract import PersistedSession
from .memory import MemoryAdapter
from .traces import BaseTrace, Traces

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from collections.abc import Set as AbstractSet

    from .._wire.encoded import EncodedPacket
    from .._wire.packets import Packet
    from .contract import BroadcastOptions, Directory, Room

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-_"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionStateRecovery:
    """For how long, and within which bounds, a client may come back as the one it was.

    The bounds hold for each namespace. When one of them is reached, the oldest is dropped, and clients that would need
    it connect as new ones.

    Args:
        max_disconnection_duration: Seconds that a client may be away, and for which events are kept.
        skip_middlewares: Whether a client that comes back passes without the namespace's middlewares.
        max_packets: Events that are kept.
        max_bytes: Bytes of them together, as encoded.
        max_sessions: Clients that are away and may come back.

    Raises:
        ValueError: A bound that is not positive.
    """

    max_disconnection_duration: float = 120.0
    skip_middlewares: bool = True
    max_packets: int = 10_000
    max_bytes: int = 10_000_000
    max_sessions: int = 10_000

    def __post_init__(self) -> None:
        for name in ("max_disconnection_duration", "max_packets", "max_bytes", "max_sessions"):
            value = getattr(self, name)
            if not value > 0:
                raise ValueError(f"{name} must be positive, not {value!r}")


def choose_recovery(option: bool | ConnectionStateRecovery) -> ConnectionStateRecovery | None:
    """What an option says: true is the defaults, false is none.

    Raises:
        TypeError: It is something else.
    """
    if isinstance(option, ConnectionStateRecovery):
        return option
    if not isinstance(option, bool):
        raise TypeError(f"connection_state_recovery is True, False or a ConnectionStateRecovery, not {option!r}")
    return ConnectionStateRecovery() if option else None


def encode_number(number: int) -> str:
    """A number in the digits of offsets."""
    digits = ALPHABET[number % 64]
    while number := number // 64:
        digits = ALPHABET[number % 64] + digits
    return digits


def generate_offsets(now: Callable[[], int] = time.time_ns) -> Iterator[str]:
    """Unique texts without end: the millisecond, and a suffix for all but the first in it.

    Args:
        now: Nanoseconds since 1970. A clock that is set back does not make an offset come twice.
    """
    last, count = -1, 0
    while True:
        last, before = max(last, now() // 1_000_000), last
        count = count + 1 if last == before else 0
        yield encode_number(last) + (f".{encode_number(count - 1)}" if count else "")


class LogEntry(NamedTuple):
    """An event that was sent: `number` counts all that ever were, from 1."""

    number: int
    offset: str
    at: float
    rooms: AbstractSet[Room]
    except_rooms: AbstractSet[Room]
    encoded: EncodedPacket


class OutgoingLog:
    """The latest events of a namespace, within the bounds of `ConnectionStateRecovery`."""

    __slots__ = ("_entries", "_numbers", "_options", "_size", "position")

    def __init__(self, options: ConnectionStateRecovery) -> None:
        self._options = options
        self._entries: deque[LogEntry] = deque()
        self._numbers: dict[str, int] = {}
        self._size = 0
        #: The number of the latest event.
        self.position = 0

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def size(self) -> int:
        """Bytes of what is kept."""
        return self._size

    def append(self, offset: str, encoded: EncodedPacket, options: BroadcastOptions) -> None:
        """Keep an event, and drop what is over a bound because of it."""
        self.position += 1
        now = trio.current_time()
        self._entries.append(LogEntry(self.position, offset, now, options.rooms, options.except_rooms, encoded))
        self._numbers[offset] = self.position
        self._size += encoded.size
        self.expire(now)

    def expire(self, now: float) -> None:
        """Drop what is too old, or too much."""
        options, entries = self._options, self._entries
        while entries and (
            entries[0].at + options.max_disconnection_duration < now
            or len(entries) > options.max_packets
            or self._size > options.max_bytes
        ):
            oldest = entries.popleft()
            del self._numbers[oldest.offset]
            self._size -= oldest.encoded.size

    def clear(self) -> None:
        """Drop everything."""
        self._entries.clear()
        self._numbers.clear()
        self._size = 0

    def find(self, offset: str) -> int | None:
        """The number of the event with this offset, if it is still there."""
        return self._numbers.get(offset)

    def is_complete_after(self, number: int) -> bool:
        """Whether every event with a higher number is still there."""
        return number >= self.position - len(self._entries)

    def after(self, number: int) -> Iterable[LogEntry]:
        """The events with a higher number."""
        return islice(self._entries, max(0, number - (self.position - len(self._entries))), None)


class Trace(BaseTrace[int, tuple[int, "str | None"]]):
    """What has to be known of a socket when it comes back; positions are numbers of the log.

    What was sent last is the number and the offset of an event; before the first one, the position and None.
    """

    __slots__ = ()

    def __init__(self, opened: int) -> None:
        super().__init__(opened, (opened, None))

    def concerns(self, entry: LogEntry, rooms: AbstractSet[Room]) -> bool:
        """Whether an event was for a socket that is in these rooms."""
        return self.is_meant(entry.number, entry.rooms, entry.except_rooms, rooms)


class RecoveringMemoryAdapter(MemoryAdapter):
    """Rooms in memory, with connection state recovery, for one server; implements `RecoveringAdapter`.

    Args:
        directory: The namespace whose sockets these are.
        options: The bounds.
    """

    def __init__(self, directory: Directory, options: ConnectionStateRecovery | None = None) -> None:
        super().__init__(directory)
        self._options = options or ConnectionStateRecovery()
        self._log = OutgoingLog(self._options)
        self._offsets = generate_offsets()
        self._traces: Traces[Trace] = Traces(Trace, lambda: self._log.position)
        self._sessions: dict[str, PersistedSession] = {}
        self.on("join-room", self._traces.on_join)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """See `Adapter.run`. At its end everything is forgotten: in another run of Trio, its clock begins anew."""
        try:
            await super().run(task_status=task_status)
        finally:
            self._log.clear()
            self._sessions.clear()

    def kept(self) -> tuple[int, int, int]:
        """How many events are kept, their bytes, and how many sessions."""
        return len(self._log), self._log.size, len(self._sessions)

    # What is sent

    async def broadcast(self, packet: Packet, encoded: EncodedPacket, options: BroadcastOptions) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        self.broadcast_nowait(packet, encoded, options)
        await trio.lowlevel.cancel_shielded_checkpoint()

    def broadcast_nowait(self, packet: Packet, encoded: EncodedPacket, options: BroadcastOptions) -> None:
        """See `RecoveringAdapter.broadcast_nowait`."""
        if packet.type is PacketType.EVENT and packet.id is None and not options.volatile:
            offset = next(self._offsets)
            # Not in the packet that is delivered: catch-all listeners are told what was emitted, without the offset.
            encoded = self._directory.encode(packet._replace(data=[*packet.data, offset]), options.compress)
            self._log.append(offset, encoded, options)
            last_sent = (self._log.position, offset)
            for id in self.sockets(options):
                trace = self._traces.get(id)
                if trace is not None:
                    trace.last_sent = last_sent
        self.deliver(packet, encoded, options)

    def hasten(self, id: str) -> None:
        """See `RecoveringAdapter.hasten`; nothing is ever on its way."""

    # Who is there

    def connected(self, id: str, session: PersistedSession | None = None) -> None:
        """See `RecoveringAdapter.connected`."""
        self._traces.connected(id, session, self.sids.get(id, set()))

    async def delete_all(self, id: str) -> None:
        self._traces.forget(id)
        await super().delete_all(id)

    # Who is away

    async def persist_session(self, session: PersistedSession) -> None:
        """See `RecoveringAdapter.persist_session`."""
        await trio.lowlevel.checkpoint_if_cancelled()
        await trio.lowlevel.cancel_shielded_checkpoint()
        now = trio.current_time()
        if session.trace is None:
            trace = self._traces.depart(session.sid, self._options.max_disconnection_duration)
            session = replace(session, trace=trace)
        self._sessions[session.pid] = session
        self._expire(now)

    async def restore_session(self, pid: str, offset: str | None) -> PersistedSession | None:
        """See `RecoveringAdapter.restore_session`."""
        await trio.lowlevel.checkpoint()
        self._expire(trio.current_time())
        session = self._sessions.get(pid)
        if session is None or session.trace.expires < trio.current_time() or self._start(session.trace, offset) is None:
            return None
        return self._sessions.pop(pid)

    async def missed_packets(self, session: PersistedSession, offset: str | None) -> list[EncodedPacket] | None:
        """See `RecoveringAdapter.missed_packets`."""
        await trio.lowlevel.checkpoint()
        trace: Trace = session.trace
        start = self._start(trace, offset)
        if start is None:
            return None
        missed = [entry for entry in self._log.after(start) if trace.concerns(entry, session.rooms)]
        trace.replayed = (missed[-1].number, missed[-1].offset) if missed else trace.last_sent
        return [entry.encoded for entry in missed]

    def _start(self, trace: Trace, offset: str | None) -> int | None:
        """The number of the last event that the client has, or None if what it missed cannot be told any more."""
        last_number, last_offset = trace.last_sent
        if offset == last_offset:
            # Nothing between that and its departure was for it, so it is no matter if that is still there.
            return last_number if self._log.is_complete_after(trace.left) else None
        start = trace.opened if offset is None else self._log.find(offset)
        return start if start is not None and self._log.is_complete_after(start) else None

    def _expire(self, now: float) -> None:
        self._log.expire(now)
        sessions = self._sessions
        while sessions:
            oldest = next(iter(sessions))
            if sessions[oldest].trace.expires >= now and len(sessions) <= self._options.max_sessions:
                break
            del sessions[oldest]
