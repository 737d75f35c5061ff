"""Connection state recovery, as a namespace and its sockets see it.

Socket.IO, "connection state recovery". Each socket has a private id, which only its own client is told. After a lost
connection the client says it again, with the offset of the last event that it received, and is what it was: same id,
rooms and data, and what it has missed comes before the answer to its CONNECT. What cannot be made good completely is
not attempted: then the client is a new one, and knows that it is.
"""

from __future__ import annotations

import logging
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import trio

from .._adapters.contract import BroadcastOptions, PersistedSession, RecoveringAdapter
from .._engine.handshake import new_id
from .._engine.reasons import TRANSPORT_CLOSE
from .socket import State

if TYPE_CHECKING:
    from collections.abc import Sequence
    from collections.abc import Set as AbstractSet

    from .._adapters.contract import Adapter
    from .._adapters.recovery import ConnectionStateRecovery
    from .._wire.encoded import EncodedPacket
    from .._wire.packets import Packet
    from .socket import Socket

logger = logging.getLogger("trio_socketio.server")

#: The reasons after which a client may come back: nobody has said that this was meant to be the end.
RECOVERABLE = frozenset(
    (
        "transport close",
        "transport error",
        "ping timeout",
        "forced close",
        "forced server close",
        "server shutting down",
    )
)


class Claim(NamedTuple):
    """What a client says that it was."""

    pid: str
    offset: str | None


def split_claim(auth: Any) -> tuple[Any, Claim | None]:
    """What a client sends with CONNECT, without its claim, and the claim: a secret, which is not for the handshake.

    A claim of the wrong type is none.
    """
    if not isinstance(auth, dict) or not isinstance(auth.get("pid"), str):
        return auth, None
    rest = dict(auth)
    pid, offset = rest.pop("pid"), rest.pop("offset", None)
    return rest, Claim(pid, offset) if offset is None or isinstance(offset, str) else None


class Recovery:
    """The way back into one namespace.

    Args:
        adapter: That of the namespace.
        options: The server's.

    Raises:
        TypeError: The adapter has nothing to recover from.

    Attributes:
        holders: The passports of connected and ending sockets by their private ids.
    """

    __slots__ = ("adapter", "holders", "options")

    def __init__(self, adapter: Adapter, options: ConnectionStateRecovery) -> None:
        if not isinstance(adapter, RecoveringAdapter):
            raise TypeError(f"connection_state_recovery needs an adapter that can do it, and {adapter!r} cannot")
        self.adapter: RecoveringAdapter = adapter
        self.options: ConnectionStateRecovery = options
        self.holders: dict[str, Passport] = {}


class Passport:
    """With what the client of one socket comes, and comes back.

    Args:
        recovery: Of the namespace.
        claim: What the client says that it was.

    Attributes:
        pid: The private id: told to the client, and to nobody else.
    """

    __slots__ = ("_adapter", "_claim", "_gone", "_options", "_recovery", "_session", "_socket", "_until", "pid")

    def __init__(self, recovery: Recovery, claim: Claim | None) -> None:
        self.pid: str = new_id()
        self._recovery = recovery
        self._adapter = recovery.adapter
        self._options = recovery.options
        self._gone = trio.Event()
        self._socket: Socket | None = None
        self._claim = claim
        self._session: PersistedSession | None = None
        self._until = -math.inf

    # Coming

    async def restore(self, socket: Socket) -> bool:
        """Make a new socket the one that its client claims it was, if that can be.

        Returns:
            Whether it passes without middlewares.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._claim is None:
            return False
        holder = self._recovery.holders.get(self._claim.pid)
        if holder is not None:
            await holder.hand_over()
        try:
            self._session = await self._adapter.restore_session(*self._claim)
            missed = await self.missed_packets()
        except Exception:
            logger.exception("%r cannot be recovered", socket)
            self._session = None
        else:
            if missed is None or not _fit(missed, socket):
                logger.info("%r cannot be recovered: its client has missed too much", socket)
                self._session = None
        if (session := self._session) is None:
            return False
        self.pid = session.pid
        socket.id, socket.data, socket.recovered = session.sid, session.data, True
        await self._adapter.add_all(session.sid, session.rooms)
        return self._options.skip_middlewares and session.is_vouched_for

    async def missed_packets(self, rooms: AbstractSet[str] | None = None) -> Sequence[EncodedPacket] | None:
        """What the client has missed, until now; None if some of that is not there any more.

        Args:
            rooms: Where the socket is now: a middleware may have taken it out of one whose events it should not get.
        """
        session, claim = self._session, self._claim
        if session is None or claim is None:
            return ()
        if rooms is not None:
            session = replace(session, rooms=session.rooms & rooms)
        return await self._adapter.missed_packets(session, claim.offset)

    def stamp(self, socket: Socket) -> None:
        """The socket is connected."""
        self._socket = socket
        self._recovery.holders[self.pid] = self
        self._adapter.connected(socket.id, self._session)

    async def give_back(self) -> None:
        """The socket was not connected after all: its client may try again."""
        if self._session is not None:
            await self._adapter.persist_session(self._session)

    # Being there

    async def emit(self, id: str, packet: Packet, encoded: EncodedPacket) -> None:
        """Send an event through the own room of the socket with this id, so that it is kept; also while it is away."""
        await self._adapter.broadcast(packet, encoded, _only_for(id, encoded))

    def emit_nowait(self, id: str, packet: Packet, encoded: EncodedPacket) -> None:
        """Like `emit`, without waiting."""
        self._adapter.broadcast_nowait(packet, encoded, _only_for(id, encoded))

    # Going

    async def hand_over(self) -> None:
        """The client is here on another connection: so the old one is dead, though nothing has told us so yet.

        Without this, a client that notices the loss of its network before the server does, which has to wait for a
        ping's timeout, would be a new one. The socket ends as it would have then; wait until it may come back.
        """
        if self._socket is not None and self._socket.state is State.CONNECTED:
            self._socket.conn.finish(TRANSPORT_CLOSE, "the client has come back on another connection")
        if self.is_awaited:
            await self._gone.wait()

    def hasten(self, id: str) -> None:
        """The server is about to disconnect the socket: what was emitted to it before goes first."""
        self._adapter.hasten(id)

    def lose(self, reason: str) -> None:
        """The socket ends."""
        if reason in RECOVERABLE:
            self._until = trio.current_time() + self._options.max_disconnection_duration

    @property
    def is_awaited(self) -> bool:
        """Whether the client of a socket that has ended may still come back, or has."""
        return trio.current_time() < self._until

    async def keep(self, socket: Socket) -> None:
        """Remember a socket whose client may come back; without a wait at the end."""
        try:
            if self.is_awaited:
                await self._adapter.persist_session(PersistedSession(socket.id, self.pid, socket.rooms, socket.data))
        except Exception:
            logger.exception("%r cannot be recovered", socket)
        finally:
            del self._recovery.holders[self.pid]
            self._socket = None  # which knows its passport
            self._gone.set()


def _only_for(id: str, encoded: EncodedPacket) -> BroadcastOptions:
    return BroadcastOptions(rooms=frozenset((id,)), compress=encoded.compress)


def _fit(missed: Sequence[EncodedPacket], socket: Socket) -> bool:
    # Half of the outbox, because what is too much would be so at each of the client's attempts: a session that is
    # closed because of it only brings the next one.
    config = socket.namespace.server.engine.config
    size, count = sum(packet.size for packet in missed), sum(packet.count for packet in missed)
    return size * 2 <= config.max_outbox_bytes and count * 2 <= config.max_outbox_packets
