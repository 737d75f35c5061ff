"""One client's connections: a session at a time, and those who are in its namespaces."""

from __future__ import annotations

import enum
from abc import abstractmethod
from collections import deque
from typing import TYPE_CHECKING, Protocol

import trio
import trio.testing

from .._errors import SessionClosed, SocketDisconnected
from .._wire.encoded import EncodedPacket
from .._wire.packets import Packet, PacketType
from ._session import REMEMBERED, Endpoint, Session, WirePacket

if TYPE_CHECKING:
    from .._wire.parser import Parser

IO_SERVER_DISCONNECT = "io server disconnect"
IO_CLIENT_DISCONNECT = "io client disconnect"
TRANSPORT_CLOSE = "transport close"

#: What ends a client in its namespace, and how it is called then.
_ENDS = {PacketType.DISCONNECT: IO_SERVER_DISCONNECT, PacketType.CONNECT_ERROR: "refused"}
#: Seconds for a server to answer a goodbye.
FAREWELL = 5.0


class State(enum.Enum):
    """Of a client, in its namespace."""

    DISCONNECTED = "disconnected"
    CONNECTING = "connecting"  # CONNECT is sent; what was missed may come before the answer
    CONNECTED = "connected"


class Member(Protocol):
    """What a connection asks of those who are in its namespaces."""

    @abstractmethod
    async def take(self, packet: Packet) -> None:
        """A packet of the namespace."""

    @abstractmethod
    def end(self, reason: str) -> None:
        """There will be no more."""


class Connection:
    """A session, from its handshake to its end.

    Attributes:
        session: The session.
        members: Who is there, by namespace.
        over: Set at the end.
    """

    def __init__(self, session: Session, parser: Parser) -> None:
        self.session: Session = session
        self.members: dict[str, Member] = {}
        self.over: trio.Event = trio.Event()
        self._parser = parser
        self._reason = TRANSPORT_CLOSE

    async def run(self) -> None:
        """Read, until there is no more. What breaks the protocol is the server's mistake, and is raised."""
        decoder = self._parser.decoder()
        try:
            while True:
                packet = decoder.add_untrusted(await self.session.receive())
                if packet is None or (member := self.members.get(packet.namespace)) is None:
                    continue
                await member.take(packet)
                if (reason := _ENDS.get(packet.type)) is not None:
                    await self.leave(packet.namespace, reason)
        except SessionClosed as closed:
            self._reason = closed.reason
        finally:
            self.over.set()
            for namespace in list(self.members):
                self.members.pop(namespace).end(self._reason)

    async def send(self, packet: Packet) -> None:
        """Send a packet.

        Raises:
            SocketDisconnected: The session has ended.
        """
        await self.send_encoded(self._parser.encode(packet))

    async def send_encoded(self, *units: EncodedPacket) -> None:
        """Send what is encoded already."""
        try:
            await self.session.send(*units)
        except SessionClosed as closed:
            raise SocketDisconnected(closed.reason) from closed

    async def leave(self, namespace: str, reason: str) -> None:
        """Nobody is in this namespace any more; after the last one, the session is closed."""
        member = self.members.pop(namespace, None)
        if member is not None:
            member.end(reason)
        if not self.members:
            await self.session.close()


class Link:
    """The way to the server: the connection, and the next one when that is lost.

    Attributes:
        nursery: For what runs as long as the client.
        wire: What was said on all of the connections.
    """

    def __init__(self, endpoint: Endpoint, parser: Parser, nursery: trio.Nursery) -> None:
        self.nursery: trio.Nursery = nursery
        self.wire: deque[WirePacket] = deque(maxlen=REMEMBERED)
        self._endpoint = endpoint
        self._parser = parser
        self._connection: Connection | None = None
        self._opening = trio.Lock()

    async def connect(self) -> Connection:
        """The connection; a new one if there is none. Raises as `Session.open`."""
        async with self._opening:
            connection = self._connection
            if connection is None or connection.over.is_set() or connection.session.closing:
                self._endpoint.network.restore()
                session = await Session.open(self._endpoint, self.wire)
                connection = self._connection = Connection(session, self._parser)
                self.nursery.start_soon(connection.run)
                if self._endpoint.upgrade:
                    await session.upgrade()
            return connection

    async def drop(self) -> None:
        """Lose the connection, as with a cable that is pulled; returns when the client knows."""
        # A client on long-polling is between two polls when it has just received something, and would not be missed.
        await trio.testing.wait_all_tasks_blocked()
        self._endpoint.network.cut()
        if (connection := self._connection) is not None:
            connection.session.resume_reading()
            await connection.over.wait()

    async def close(self) -> None:
        """Say goodbye."""
        with trio.move_on_after(FAREWELL):
            if (connection := self._connection) is not None:
                connection.session.resume_reading()
                await connection.session.close()
                await connection.over.wait()

    async def finish(self) -> None:
        """Say goodbye, and wait until the server is done with this client."""
        with trio.move_on_after(FAREWELL):
            await self.close()
            await self._endpoint.network.finished()
