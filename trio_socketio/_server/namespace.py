"""A namespace: its sockets, its middlewares, its listeners. To its adapter it is the `Directory` of local sockets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar, overload

import trio

from .._adapters.contract import BroadcastOptions
from .._listeners import Listeners, inspect_listener
from .._wire.packets import RESERVED_EVENTS, Packet, PacketType, check_event_name
from .._wire.parser import DefaultParser
from .audiences import FEW, Audiences
from .data import DataT
from .event_types import AnswerT, ArgsT, event_name
from .handlers import check_handled_name, find_handlers, new_handlers
from .operator import Broadcasting, BroadcastOperator
from .recovery import Recovery
from .remote import RemoteSocket
from .server_side import ServerSideEvents
from .socket import State

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from collections.abc import Set as AbstractSet

    from .._adapters.contract import AckCollector, Adapter, SocketDetails
    from .._listeners import Listener
    from .._wire.encoded import EncodedPacket
    from .event_types import EventType, HandlerDecorator
    from .parent import ParentNamespace
    from .remote import AnySocket
    from .server import Server
    from .socket import Socket

F = TypeVar("F", bound="Callable[..., Any]")
HandlersT = TypeVar("HandlersT")


class Namespace(Broadcasting, Generic[DataT]):
    """A part of a server that clients connect to by name; made by `Server.of`.

    Attributes:
        name: With its leading slash; exact and case-sensitive.
        server: The `Server`.
        sockets: The connected sockets by id; not to be changed.
        adapter: Its rooms.
        handlers: What `handle` has registered.
        tapped: The ids of sockets with catch-all listeners for outgoing events. Asked once per broadcast (20 ns), so
            that the loop over the recipients, the hottest of the library, has nothing to ask.
    """

    def __init__(self, name: str, server: Server) -> None:
        self.name = name
        self.server = server
        self.sockets: dict[str, Socket[DataT]] = {}
        self.tapped: set[str] = set()
        self._audiences = Audiences(self.sockets, server.engine.open_batch)
        self.adapter: Adapter = self._make_adapter()
        self.recovery: Recovery | None = self._make_recovery()
        #: The `ParentNamespace` that made it, if one has.
        self.parent: ParentNamespace | None = None
        self._ready = trio.Event()
        self._scope: trio.CancelScope | None = None
        self._over = trio.Event()
        self._occupants = 0
        self._listeners = Listeners({"connection": 1, "connect": 1, "new_namespace": 1}, sync_only=("new_namespace",))
        self.handlers: Listeners = new_handlers()
        self._middlewares: tuple[Listener, ...] = ()
        self._last_ack_id = -1
        parser = server.config.parser
        self._encode = parser.encode
        # Not that of a subclass, which may encode otherwise.
        self._encode_event = parser.event_encoder(name) if type(parser) is DefaultParser else None
        self._server_side = ServerSideEvents(self)

    def _make_adapter(self) -> Adapter:
        return self.server.config.adapter(self)

    def _make_recovery(self) -> Recovery | None:
        options = self.server.config.recovery
        return None if options is None else Recovery(self.adapter, options)

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
                yet wait for as long as it runs. If it raises, the socket is disconnected. Any other name: what
                another server of the cluster emits to this one with `server_side_emit`; the handler gets the
                arguments, and what it returns is the answer, a single value, if one is wanted.
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

    @overload
    def handle(self, event: EventType[AnswerT, *ArgsT], fn: None = None) -> HandlerDecorator[*ArgsT, AnswerT]: ...
    @overload
    def handle(self, event: str | int, fn: None = None) -> Callable[[F], F]: ...
    @overload
    def handle(self, event: str | int, fn: F) -> F: ...
    def handle(self, event: Any, fn: Callable[..., Any] | None = None) -> Any:
        """Register a handler once, for an event of all sockets of the namespace; as a decorator, or with the function.

        It is treated like a handler of `Socket.on`, whose handlers of the same event are called after it, and shares
        the acknowledgement with them: the first result that is not None counts. It is there before any ``connection``
        handler runs, so its events do not wait for those; handlers that they are about to register miss such an event.

        An argument whose annotation is, or contains, a ``msgspec.Struct`` or a pydantic model (version 2) is decoded
        into that; other annotations mean nothing. One that does not fit is the client's fault: the handler is not
        called, ``on_error`` gets an `EventValidationError`, and the acknowledgement is its ``answer``.

        Args:
            event: A name the clients use, or ``"disconnecting"`` or ``"disconnect"`` (both: reason, description).
            fn: Async, or a plain function that does not wait. Its first argument is the `Socket`, the others are the
                event's.

        Raises:
            TypeError: The function cannot be called like that, or an annotation cannot be resolved or decoded into.
            ReservedEventError: A name that clients cannot send.
        """
        event = event_name(event)
        check_handled_name(event)
        return self.handlers.on(event, fn)

    def add_handlers(self, target: HandlersT) -> HandlersT:
        """Register the methods of an object as handlers, once for all sockets; see `handle`.

        ``on_connect(self, socket)`` is a listener of ``connection``, ``on_disconnecting`` and ``on_disconnect`` get
        (socket, reason, description) or fewer of these. Every other ``on_<event>(self, socket, *args)`` handles the
        event of that name; `event` names those that are no identifiers. Each is async, or a plain method.

        Args:
            target: The object, not its class. Its methods are found now, in its class and those that it inherits from;
                what is registered can be reached by clients under the events' names, and nothing else of it can.

        Returns:
            The object.

        Raises:
            TypeError: A method cannot be called like that, or there is none; nothing was registered.
            ReservedEventError: A name that clients cannot send; nothing was registered.
        """
        for name, fn in find_handlers(target):
            if name == "connect":
                self.on("connection", fn)
            else:
                self.handlers.on(name, fn)
        return target

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

    # Its life

    def inherit(self, parent: Namespace) -> None:
        """Begin with the middlewares, handlers and ``connection`` listeners that a parent has now."""
        self._middlewares = parent._middlewares
        self.handlers.copy_all(parent.handlers)
        self._listeners.copy("connection", parent._listeners)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Have its adapter at work until `stop`; sockets that are here already wait for its beginning.

        A cancellation from outside waits for `stop` as well: what the last handlers of its sockets do still goes
        through the adapter, and the server stops its namespaces when they are over.
        """
        self._over = trio.Event()
        try:
            with trio.CancelScope() as self._scope:
                await self.adapter.run(task_status=Start(self._on_started, task_status))
        finally:
            self._scope = None
            self._ready.set()  # it failed before: its sockets are on their own
            self._over.set()

    def _on_started(self) -> None:
        if self._scope is not None:
            self._scope.shield = True
        self._ready.set()

    @property
    def is_open(self) -> bool:
        """Whether its adapter is at work."""
        return self._scope is not None

    async def stop(self) -> None:
        """Stop its adapter, and what other servers have begun here; it may run again. Returns when that is done."""
        self._ready = trio.Event()
        if self._scope is not None:
            self._server_side.close()
            self._scope.cancel()
            await self._over.wait()

    async def wait_ready(self) -> None:
        """Wait for the adapter of a namespace that was made a moment ago."""
        if not self._ready.is_set():
            await self._ready.wait()

    def on_change(self) -> None:
        """A socket has connected, or is not connected any more."""
        self._audiences.forget()

    def on_arrival(self) -> None:
        """A socket was made, which counts from before its middlewares until after its ``disconnect`` handlers."""
        self._occupants += 1

    async def on_departure(self) -> None:
        """A socket is over."""
        self._occupants -= 1
        if not self._occupants:
            await self.server.on_vacated(self)

    # Emitting

    def _operator(self) -> BroadcastOperator:
        return BroadcastOperator(self, BroadcastOptions())

    def event_packet(self, event: str | int, args: Sequence[Any], id: int | None = None) -> Packet:
        """An event of this namespace."""
        check_event_name(event)
        return Packet(PacketType.EVENT, self.name, [event, *args], id)

    def encode(self, packet: Packet, compress: bool = True) -> EncodedPacket:
        """A packet, ready to be sent."""
        if self._encode_event is not None and packet.type is PacketType.EVENT and packet.id is None:
            return self._encode_event(packet.data, compress)
        return self._encode(packet, compress)

    def encode_event(
        self, event: str | int, args: Sequence[Any], id: int | None = None, compress: bool = True
    ) -> EncodedPacket:
        """An event, ready to be sent."""
        if type(event) is not str or event in RESERVED_EVENTS:
            check_event_name(event)
        if id is None and self._encode_event is not None:
            return self._encode_event([event, *args], compress)  # as `encode` does, but without a packet
        return self._encode(Packet(PacketType.EVENT, self.name, [event, *args], id), compress)

    def next_ack_id(self) -> int:
        """One counter for direct emits and broadcasts, so that their ids never meet in a socket's table."""
        self._last_ack_id += 1
        return self._last_ack_id

    def socket_of(self, details: SocketDetails) -> AnySocket:
        """The socket that an adapter has described."""
        return self.sockets.get(details.id) or RemoteSocket(self, details)

    # The directory of the adapter

    @property
    def connected(self) -> AbstractSet[str]:
        """The ids of the connected sockets, live."""
        return self.sockets.keys()

    def deliver(
        self,
        ids: Sequence[str],
        packet: Packet,
        encoded: EncodedPacket,
        volatile: bool,
        left_out: AbstractSet[str] = frozenset(),
    ) -> None:
        """Send to each of these sockets that is connected, and not left out."""
        if left_out and (self.tapped or len(left_out) * 4 > len(ids)):
            ids = [id for id in ids if id not in left_out]
        if self.tapped:
            self._tell_tapped(ids, packet)
        if type(ids) is tuple and not volatile and len(ids) > FEW:
            self._audiences.send(ids, encoded, left_out)
            return
        sockets = self.sockets
        for id in ids:
            socket = sockets.get(id)
            if socket is None or socket.state is not State.CONNECTED or id in left_out:
                continue
            if not volatile or socket.conn.writable:
                socket.conn.write(encoded)

    def deliver_with_ack(
        self, ids: Sequence[str], packet: Packet, options: BroadcastOptions, acks: AckCollector
    ) -> None:
        """Ask each of these sockets that is connected."""
        id = self.next_ack_id()
        encoded = self.encode(packet._replace(id=id), options.compress)
        if self.tapped:
            self._tell_tapped(ids, packet)
        for sid in ids:
            socket = self.sockets.get(sid)
            if socket is None or socket.state is not State.CONNECTED or (options.volatile and not socket.conn.writable):
                continue
            acks.register(socket.acks, id)
            socket.conn.write(encoded)
        acks.all_asked()

    def _tell_tapped(self, ids: Sequence[str], packet: Packet) -> None:
        # All of them before anybody is sent anything: what a listener does cannot tear the broadcast.
        event, *args = packet.data
        for id in [id for id in ids if id in self.tapped]:
            socket = self.sockets.get(id)
            if socket is not None and socket.state is State.CONNECTED:
                socket.tell_outgoing(event, args)

    def details(self, id: str) -> SocketDetails:
        """What is known about a connected socket."""
        return self.sockets[id].details()

    def begin_disconnect(self, ids: Sequence[str], close: bool) -> None:
        """Disconnect these sockets, all of them before the first one's handlers run."""
        for id in ids:
            if id in self.sockets:  # with `close`, the one before it may have taken it along
                self.sockets[id].begin_disconnect(close)

    async def disconnect(self, ids: Sequence[str], close: bool) -> None:
        """The same, and return when they are over."""
        sockets = [self.sockets[id] for id in ids if id in self.sockets]
        self.begin_disconnect(ids, close)
        await trio.lowlevel.checkpoint()
        for socket in sockets:
            await socket.wait_ended()

    def on_server_side_emit(self, args: Sequence[Any], answer: Callable[[Any], None] | None) -> None:
        """Another server has emitted to this namespace."""
        self._server_side.put(args, answer)

    def __repr__(self) -> str:
        return f"<Namespace {self.name}, {len(self.sockets)} sockets>"


class Start(NamedTuple):
    """What an adapter's `started` does: the namespace is told first."""

    tell: Callable[[], None]
    task_status: trio.TaskStatus[None]

    def started(self, value: None = None) -> None:
        self.tell()
        self.task_status.started(value)


def _canonical(event: str) -> str:
    return "connection" if event == "connect" else event
