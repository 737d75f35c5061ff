"""A socket of another server of the cluster, as far as it can be known and reached from here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from .._adapters.contract import BroadcastOptions
from .._engine.contract import Headers
from .._errors import SocketDisconnected
from .handshake import Handshake
from .operator import BroadcastOperator
from .socket import Socket

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from .._adapters.contract import SocketDetails
    from .namespace import Namespace

#: What `fetch_sockets` finds: all that both have in common can be done without asking which of them it is.
AnySocket: TypeAlias = "Socket | RemoteSocket"

UNKNOWN_REASON = "unknown"


def read_handshake(known: Mapping[str, Any]) -> Handshake:
    """The handshake in a socket's details; what they do not say is empty."""
    return Handshake(
        headers=Headers({name: str(value) for name, value in known.get("headers", {}).items()}),
        query=dict(known.get("query", {})),
        auth=known.get("auth", {}),
        url=known.get("url", ""),
        address=known.get("address", ""),
        secure=bool(known.get("secure", False)),
        xdomain=bool(known.get("xdomain", False)),
        issued=float(known.get("issued", 0.0)),
    )


class RemoteSocket:
    """A client in one namespace, connected to another server; from `fetch_sockets`.

    What it says is how things were when it was fetched. What it does goes through the adapter, as a broadcast to the
    room that is named after the socket: nothing happens, and nothing fails, if the socket is not there any more.

    Attributes:
        id: Its public id.
        handshake: How the client came in.
        rooms: The rooms it was in, its own among them.
        data: A copy of its data.
    """

    __slots__ = ("_namespace", "data", "handshake", "id", "rooms")

    def __init__(self, namespace: Namespace, details: SocketDetails) -> None:
        self.id: str = details.id
        self.handshake: Handshake = read_handshake(details.handshake)
        self.rooms: frozenset[str] = frozenset(details.rooms)
        self.data: Any = details.data
        self._namespace = namespace

    @property
    def _operator(self) -> BroadcastOperator:
        return BroadcastOperator(self._namespace, BroadcastOptions()).to(self.id)

    async def emit(self, event: str | int, *args: Any) -> None:
        """Send an event to it; see `Broadcasting.emit`."""
        await self._operator.emit(event, *args)

    async def emit_with_ack(self, event: str | int, *args: Any) -> Any:
        """Send an event to it, and wait for its acknowledgement; the time belongs to the caller, or use `timeout`.

        Returns:
            None, the value, or a tuple of several.

        Raises:
            SocketDisconnected: It is not there (any more). The reason is known to its own server only.
        """
        return await RemoteOperator(self._operator).emit_with_ack(event, *args)

    def timeout(self, seconds: float) -> RemoteOperator:
        """For an acknowledgement with a time limit, in seconds: `AckTimeout` is raised when it has passed."""
        return RemoteOperator(self._operator.timeout(seconds))

    async def join(self, rooms: str | Iterable[str]) -> None:
        """Put it into a room, or several."""
        await self._operator.sockets_join(rooms)

    async def leave(self, room: str) -> None:
        """Take it out of a room."""
        await self._operator.sockets_leave(room)

    async def disconnect(self, close: bool = False) -> None:
        """Disconnect it; see `Socket.disconnect`. Does not wait for another server to have done so."""
        await self._operator.disconnect_sockets(close)

    def __repr__(self) -> str:
        return f"<RemoteSocket {self.id} in {self._namespace.name}>"


class RemoteOperator:
    """One socket of another server, with flags for what is emitted to it. Immutable; from `RemoteSocket.timeout`."""

    __slots__ = ("_operator",)

    def __init__(self, operator: BroadcastOperator) -> None:
        self._operator = operator

    def timeout(self, seconds: float) -> RemoteOperator:
        """Seconds for `emit_with_ack`."""
        return RemoteOperator(self._operator.timeout(seconds))

    async def emit(self, event: str | int, *args: Any) -> None:
        """Send an event; see `RemoteSocket.emit`."""
        await self._operator.emit(event, *args)

    async def emit_with_ack(self, event: str | int, *args: Any) -> Any:
        """Send an event and wait for the acknowledgement: a single value, as there is one socket to give it.

        Raises:
            AckTimeout: The `timeout` has passed.
            SocketDisconnected: It is not there (any more).
        """
        # The first answer is the only one; the other servers need not be heard out to know that.
        async with self._operator.acks(event, *args) as replies:
            async for reply in replies:
                return reply
        raise SocketDisconnected(UNKNOWN_REASON)
