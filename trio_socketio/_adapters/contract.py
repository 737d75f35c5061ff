"""What an adapter does, and what it may ask of its namespace.

The methods of an adapter are ``async``, because other adapters cross the wire; **what a method does to the local
server, it does before its first wait**, in one synchronous block. So a broadcast is atomic towards joins and leaves,
whatever the adapter, and a caller that is cancelled has either begun nothing or done all of the local part.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

import trio

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
    from collections.abc import Set as AbstractSet
    from contextlib import AbstractAsyncContextManager

    from .._wire.encoded import EncodedPacket
    from .._wire.packets import Packet
    from .answers import AckStream

Room: TypeAlias = str


@dataclass(frozen=True, slots=True)
class BroadcastOptions:
    """Who is meant, and how it is sent.

    Args:
        rooms: The union of these; empty means everybody.
        except_rooms: Members of these are left out.
        local: Only sockets of this server.
        volatile: Only those who can take it at once.
        compress: Whether a transport may compress it.
        timeout: Seconds for answers that cross the wire; None waits for as long as the caller does.
    """

    rooms: frozenset[Room] = frozenset()
    except_rooms: frozenset[Room] = frozenset()
    local: bool = False
    volatile: bool = False
    compress: bool = True
    timeout: float | None = None


@dataclass(frozen=True, slots=True)
class SocketDetails:
    """What is known about a socket, wherever it is.

    Args:
        id: Its public id.
        handshake: Its handshake, as a mapping.
        rooms: The rooms it is in.
        data: Its data.
    """

    id: str
    handshake: Mapping[str, Any] = field(default_factory=dict)
    rooms: frozenset[Room] = frozenset()
    data: Any = None


@dataclass(frozen=True, slots=True)
class PersistedSession:
    """What is left of a socket that may come back.

    Args:
        sid: Its public id.
        pid: Its private id, by which the client asks for it.
        rooms: The rooms it was in.
        data: Its data.
        trace: What the adapter has noted about it; nobody else's.
        is_vouched_for: Whether it is certainly one of this namespace; if not, its middlewares run in any case.
    """

    sid: str
    pid: str = field(repr=False)
    rooms: frozenset[Room]
    data: Any
    trace: Any = field(default=None, compare=False, repr=False)
    is_vouched_for: bool = True


class PendingAck(Protocol):
    """An entry in a table of pending acks. Each entry gets exactly one of these calls, or is taken out of the table."""

    def on_answer(self, answer: Any) -> None:
        """The answer has come."""

    def on_leave(self) -> None:
        """There will be no answer: the socket has ended."""


class AckCollector(PendingAck, Protocol):
    """Gathers the answers to a broadcast; the adapter of a single server only passes it on to the directory."""

    def register(self, table: MutableMapping[int, PendingAck], id: int) -> None:
        """Somebody is asked: expect the answer with this id in this table of pending acks."""

    def all_asked(self) -> None:
        """Nobody else will be asked."""


class Directory(Protocol):
    """The local sockets of a namespace, as an adapter sees them."""

    @property
    def name(self) -> str:
        """The namespace's name."""

    @property
    def connected(self) -> AbstractSet[str]:
        """The ids of all connected sockets, live."""

    def encode(self, packet: Packet, compress: bool = True) -> EncodedPacket:
        """A packet, ready to be sent."""

    def deliver(
        self,
        ids: Sequence[str],
        packet: Packet,
        encoded: EncodedPacket,
        volatile: bool,
        left_out: AbstractSet[str] = frozenset(),
    ) -> None:
        """Send to each of these sockets that is connected, and not left out.

        Several broadcasts with one and the same tuple of ids cost less than as many with lists, or with other tuples.

        Args:
            ids: Each once.
            packet: For the catch-all listeners of the sockets.
            encoded: What is sent.
            volatile: Only to those who can take it at once.
            left_out: Ids that may be among the others.
        """

    def deliver_with_ack(
        self, ids: Sequence[str], packet: Packet, options: BroadcastOptions, acks: AckCollector
    ) -> None:
        """Send to each of these sockets that is connected, and collect their answers."""

    def details(self, id: str) -> SocketDetails:
        """What is known about a connected socket."""

    def begin_disconnect(self, ids: Sequence[str], close: bool) -> None:
        """Disconnect these sockets, without waiting for their handlers; with `close`, their sessions too."""

    async def disconnect(self, ids: Sequence[str], close: bool) -> None:
        """The same, and wait until they are over."""

    def on_server_side_emit(self, args: Sequence[Any], answer: Callable[[Any], None] | None) -> None:
        """Another server has emitted to this one; its answer, if it wants one, may be given once."""


class Adapter(Protocol):
    """The rooms of one namespace.

    ``rooms`` maps each room to the ids in it, ``sids`` each id to its rooms; both always agree, and no room is empty.
    """

    @property
    def rooms(self) -> Mapping[Room, AbstractSet[str]]: ...
    @property
    def sids(self) -> Mapping[str, AbstractSet[Room]]: ...

    def on(self, event: str, listener: Callable[..., Any]) -> None:
        """Listen to ``create-room`` (room), ``join-room``, ``leave-room`` (room, id) or ``delete-room`` (room).

        Listeners are plain functions, called in the middle of the change; they may change the rooms themselves.
        """

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """The adapter's life: started before the namespace is used, and cancelled when the server stops.

        It may be run again afterwards, in another run of Trio. What waits or listens for other servers does so in here;
        every other method only computes, or asks for something and waits for it.
        """

    async def add_all(self, id: str, rooms: Iterable[Room]) -> None:
        """Put a socket into rooms."""

    async def delete(self, id: str, room: Room) -> None:
        """Take a socket out of a room."""

    async def delete_all(self, id: str) -> None:
        """Take a socket out of all rooms, and forget it."""

    def sockets(self, options: BroadcastOptions) -> list[str]:
        """The ids of the connected local sockets that are meant, each once."""

    async def broadcast(self, packet: Packet, encoded: EncodedPacket, options: BroadcastOptions) -> None:
        """Send a packet to the sockets that are meant."""

    async def broadcast_with_ack(self, packet: Packet, options: BroadcastOptions, acks: AckStream) -> None:
        """Send a packet to the sockets that are meant; their answers go to `acks`."""

    async def fetch_sockets(self, options: BroadcastOptions) -> list[SocketDetails]:
        """The details of the sockets that are meant."""

    async def add_sockets(self, options: BroadcastOptions, rooms: Sequence[Room], wait: bool = False) -> None:
        """Put the sockets that are meant into rooms; with `wait`, return when other servers have done so as well."""

    async def delete_sockets(self, options: BroadcastOptions, rooms: Sequence[Room], wait: bool = False) -> None:
        """Take the sockets that are meant out of rooms; `wait` likewise."""

    async def disconnect_sockets(self, options: BroadcastOptions, close: bool) -> None:
        """Disconnect the sockets that are meant."""

    async def server_side_emit(self, args: Sequence[Any]) -> None:
        """Emit to the other servers."""

    async def server_side_emit_with_ack(self, args: Sequence[Any], acks: AckStream) -> None:
        """Emit to the other servers; their answers go to `acks`, whose `all_asked` is called in any case."""

    async def server_count(self) -> int:
        """How many servers there are, this one included."""


@runtime_checkable
class RecoveringAdapter(Adapter, Protocol):
    """What servers with connection state recovery need besides.

    Its `broadcast` gives every event an offset, as the last of its arguments, and keeps it for those who are away; not
    those with an ack id, and not volatile ones. **Nothing gets lost between two methods**: what is broadcast after
    `missed_packets` has returned is either delivered to the socket, or still missed the next time.
    """

    def broadcast_nowait(self, packet: Packet, encoded: EncodedPacket, options: BroadcastOptions) -> None:
        """The same as `broadcast`, without waiting: for what is emitted to one socket, through its own room."""

    def hasten(self, id: str) -> None:
        """The server is about to disconnect a socket: what was broadcast here for it, and is still on its way, is
        delivered to it now."""

    def connected(self, id: str, session: PersistedSession | None = None) -> None:
        """A socket is connected from this moment; if it has come back, as the one that left this session."""

    async def persist_session(self, session: PersistedSession) -> None:
        """Keep a socket's session; called before the socket leaves its rooms, with no wait in between.

        A session from `restore_session` may come again, if its client went before it was connected. It keeps its time.
        """

    async def restore_session(self, pid: str, offset: str | None) -> PersistedSession | None:
        """Take a session out, of which all that was missed is known; only one of several who ask gets it.

        Args:
            pid: What the client says it is.
            offset: That of the last event it has received; None if it says that it has received none.
        """

    async def missed_packets(self, session: PersistedSession, offset: str | None) -> list[EncodedPacket] | None:
        """What a session's client has missed, until the very moment of the return; None if that is not known any more.

        Args:
            session: From `restore_session`, with the rooms that count now.
            offset: The same as before.
        """


AdapterFactory: TypeAlias = "Callable[[Directory], Adapter]"


@runtime_checkable
class RunningFactory(Protocol):
    """An `AdapterFactory` whose adapters share something, such as a connection; it belongs to one server."""

    def running(self) -> AbstractAsyncContextManager[Any]:
        """The life of what they share: entered before the first adapter runs, and left when the last one has ended.

        Should the server be cancelled from outside, its adapters are still at work for what its last handlers do: so
        what is in here has to be shielded until the context is left.
        """


EVENTS = ("create-room", "join-room", "leave-room", "delete-room")
EVENT_ARGUMENTS = {"create-room": 1, "join-room": 2, "leave-room": 2, "delete-room": 1}
