"""A namespace: its sockets, its middlewares, its listeners. To its adapter it is the `Directory` of local sockets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, overload

import trio

from .._adapters.contract import BroadcastOptions
from .._listeners import Listeners, inspect_listener
from .._wire.packets import Packet, PacketType, check_event_name
from .operator import Broadcasting, BroadcastOperator
from .socket import State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from collections.abc import Set as AbstractSet

    from .._adapters.contract import AckCollector, SocketDetails
    from .._listeners import Listener
    from .._wire.encoded import EncodedPacket
    from .server import Server
    from .socket import Socket

F = TypeVar("F", bound="Callable[..., Any]")

#: Names that a server-side emit may not have: the listeners of a namespace hear of its life under them.
RESERVED = frozenset(("connect", "connection", "new_namespace"))


class Namespace(Broadcasting):
    """A part of a server that clients connect to by name; made by `Server.of`.

    Attributes:
        name: With its leading slash; exact and case-sensitive.
        server: The `Server`.
        sockets: The connected sockets by id; not to be changed.
        adapter: Its rooms.
    """

    def __init__(self, name: str, server: Server) -> None:
        self.name = name
        self.server = server
        self.sockets: dict[str, Socket] = {}
        self.adapter = server.config.adapter(self)
        self._listeners = Listeners({"connection": 1, "connect": 1, "new_namespace": 1})
        self._middlewares: tuple[Listener, ...] = ()
        self._last_ack_id = -1

    # Listening

    @overload
    def on(self, event: str, fn: None = None) -> Callable[[F], F]: ...
    @overload
    def on(self, event: str, fn: F) -> F: ...
    def on(self, event: str, fn: F | None = None) -> Any:
        """Listen to an event of the namespace; as a decorator, or with the function.

        Args:
            event: ``"connection"`` (or ``"connect"``): a socket has connected; its handler gets the `Socket`. Async, or
                a plain function. It runs in a task of the socket's own. Events of the client that nobody listens to
                yet wait for as long as it runs. If it raises, the socket is disconnected.
            fn: The listener.
        """
        return self._listeners.on(_canonical(event), fn)

    @overload
    def once(self, event: str, fn: None = None) -> Callable[[F], F]: ...
    @overload
    def once(self, event: str, fn: F) -> F: ...
    def once(self, event: str, fn: F | None = None) -> Any:
        """Like `on`, for one time."""
        return self._listeners.on(_canonical(event), fn, once=True)

    def off(self, event: str | None = None, fn: Callable[..., Any] | None = None) -> None:
        """Remove a listener, all of an event, or all."""
        self._listeners.off(None if event is None else _canonical(event), fn)

    def take_listeners(self, event: str) -> Sequence[Listener]:
        """Who is to be called for an event, now."""
        return self._listeners.take(event)

    def use(self, middleware: F) -> F:
        """Run a function for every socket before it is connected; in order of registration; as a decorator.

        Args:
            middleware: Async or plain; called with the `Socket`. It returns to let the client go on, and raises
                `ConnectionRefused` to refuse it: the client gets a ``connect_error`` with the message and data. Any
                other exception refuses it too, with a text that says nothing, and reaches ``on_error``.
        """
        listener = inspect_listener(middleware, what=f"middleware of {self.name}", given=1)
        self._middlewares = (*self._middlewares, listener)
        return middleware

    async def run_middlewares(self, socket: Socket) -> None:
        """Ask every middleware that is registered now."""
        for middleware in self._middlewares:
            if middleware.is_async:
                await middleware.fn(*(socket,)[: middleware.most])
            else:
                middleware.call_sync(socket)

    # Emitting

    def _operator(self) -> BroadcastOperator:
        return BroadcastOperator(self, BroadcastOptions())

    def event_packet(self, event: str | int, args: Sequence[Any], id: int | None = None) -> Packet:
        """An event of this namespace."""
        check_event_name(event)
        return Packet(PacketType.EVENT, self.name, [event, *args], id)

    def encode(self, packet: Packet, compress: bool = True) -> EncodedPacket:
        """A packet, ready to be sent."""
        return self.server.config.parser.encode(packet, compress)

    def encode_event(
        self, event: str | int, args: Sequence[Any], id: int | None = None, compress: bool = True
    ) -> EncodedPacket:
        """An event, ready to be sent."""
        return self.encode(self.event_packet(event, args, id), compress)

    def next_ack_id(self) -> int:
        """One counter for direct emits and broadcasts, so that their ids never meet in a socket's table."""
        self._last_ack_id += 1
        return self._last_ack_id

    # Other servers

    async def server_side_emit(self, event: str, *args: Any) -> None:
        """Emit to the same namespace of all other servers of the cluster; not to clients, and not to this server.

        Raises:
            ValueError: The name is one of a namespace's own events.
        """
        _check_server_side(event)
        await self.adapter.server_side_emit([event, *args])

    async def server_side_emit_with_ack(self, event: str, *args: Any) -> list[Any]:
        """Like `server_side_emit`, and collect one answer of each other server; without any, ``[]`` at once."""
        _check_server_side(event)
        return await self.adapter.server_side_emit_with_ack([event, *args], None)

    # The directory of the adapter

    @property
    def connected(self) -> AbstractSet[str]:
        """The ids of the connected sockets, live."""
        return self.sockets.keys()

    def deliver(self, ids: Iterable[str], encoded: EncodedPacket, volatile: bool) -> None:
        """Send to each of these sockets that is connected."""
        sockets = self.sockets
        for id in ids:
            socket = sockets.get(id)
            if socket is not None and socket.state is State.CONNECTED and (not volatile or socket.conn.writable):
                socket.conn.write(encoded)

    def deliver_with_ack(
        self, ids: Iterable[str], packet: Packet, options: BroadcastOptions, acks: AckCollector
    ) -> None:
        """Ask each of these sockets that is connected."""
        id = self.next_ack_id()
        encoded = self.encode(packet._replace(id=id), options.compress)
        for sid in ids:
            socket = self.sockets.get(sid)
            if socket is None or socket.state is not State.CONNECTED or (options.volatile and not socket.conn.writable):
                continue
            acks.register(socket.acks, id)
            socket.conn.write(encoded)
        acks.all_asked()

    def details(self, id: str) -> SocketDetails:
        """What is known about a connected socket."""
        return self.sockets[id].details()

    async def disconnect(self, ids: Sequence[str], close: bool) -> None:
        """Disconnect these sockets, all of them before the first one's handlers run; return when they are over."""
        sockets = [self.sockets[id] for id in ids if id in self.sockets]
        for socket in sockets:
            socket.begin_disconnect(close)
        await trio.lowlevel.checkpoint()
        for socket in sockets:
            await socket.wait_ended()

    def on_server_side_emit(self, args: Sequence[Any], answer: Callable[[Any], None] | None) -> None:
        """Another server has emitted to this namespace."""
        raise AssertionError("a single server has no other servers")

    def __repr__(self) -> str:
        return f"<Namespace {self.name}, {len(self.sockets)} sockets>"


def _canonical(event: str) -> str:
    return "connection" if event == "connect" else event


def _check_server_side(event: str) -> None:
    if event in RESERVED:
        raise ValueError(f'"{event}" is a reserved event name')
