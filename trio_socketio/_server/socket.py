"""One client in one namespace."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

import trio

from .._adapters.contract import BroadcastOptions, SocketDetails
from .._errors import LocalProtocolError, SocketDisconnected
from .._listeners import Listener, Listeners, inspect_listener, raise_cancellations, refuse_coroutine
from .._wire.packets import Packet, PacketType
from .acks import EventAck, SingleAck, unpack
from .catch_all import CatchAllListening
from .data import DataT
from .event_types import AnswerT, ArgsT, event_name
from .events import Event, EventQueue
from .handlers import ENDINGS, with_decoder
from .handshake import Handshake
from .operator import BroadcastOperator, SocketOperator, one_or_more
from .statistics import SocketStatistics

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from .._engine.contract import Request
    from .._engine.session import Session
    from .._wire.encoded import EncodedPacket
    from .acks import PendingAck
    from .connection import Connection
    from .event_types import Decorator, EventType
    from .namespace import Namespace
    from .recovery import Passport

F = TypeVar("F", bound="Callable[..., Any]")

CLIENT_LEFT = "client namespace disconnect"
SERVER_DISCONNECTED = "server namespace disconnect"


class State(enum.Enum):
    """The life of a socket."""

    CONNECTING = "its middlewares are running"
    CONNECTED = "connected"
    ENDING = "its tasks are being cancelled; it is still in its rooms"
    ENDED = "disconnected"


TRANSITIONS = {
    State.CONNECTING: (State.CONNECTED, State.ENDED),
    State.CONNECTED: (State.ENDING,),
    State.ENDING: (State.ENDED,),
    State.ENDED: (),
}


class Socket(CatchAllListening, Generic[DataT]):
    """One client in one namespace; made by the server, and given to ``connection`` handlers.

    Attributes:
        id: Public, random, and the name of a room that only this socket is in.
        namespace: Its `Namespace`.
        conn: The Engine.IO `Session` underneath.
        handshake: How the client came in.
        data: For the application's use: a dict, or what the option ``data`` makes; readable through `fetch_sockets`,
            and until after ``disconnect``.
        recovered: Whether it is the continuation of an earlier connection.
    """

    def __init__(
        self, id: str, namespace: Namespace, connection: Connection, auth: Any, passport: Passport | None = None
    ) -> None:
        self.id = id
        self.namespace = namespace
        self.conn: Session = connection.session
        self.handshake: Handshake = Handshake.of(connection.session.request, auth)
        self.data: DataT = connection.config.data()
        self.recovered = False
        self.passport = passport
        self.state: State = State.CONNECTING
        #: Set when ``disconnect`` handlers are over.
        self.ended: trio.Event = trio.Event()
        self.acks: dict[int, PendingAck] = {}
        self._connection = connection
        self._config = connection.config
        self._listeners = Listeners(ENDINGS, refine=with_decoder)
        self._middlewares: tuple[Listener, ...] = ()
        self._events = EventQueue(self, connection.config.max_concurrent_events)
        self._finisher: trio.lowlevel.Task | None = None
        namespace.on_arrival()
        self._why: tuple[str, str | None] = ("", None)

    # Who it is

    @property
    def connected(self) -> bool:
        """From the end of its middlewares until after its ``disconnecting`` handlers."""
        return self.state in (State.CONNECTED, State.ENDING)

    @property
    def rooms(self) -> frozenset[str]:
        """The rooms it is in, its own id among them; empty after the disconnect."""
        return frozenset(self.namespace.adapter.sids.get(self.id, ()))

    @property
    def request(self) -> Request:
        """The request that opened the session."""
        return self.conn.request

    def details(self) -> SocketDetails:
        """What other servers are told about it."""
        handshake = self.handshake
        described = {name: getattr(handshake, name) for name in handshake.__slots__}
        described["headers"] = dict(handshake.headers)
        return SocketDetails(self.id, described | {"time": handshake.time}, self.rooms, self.data)

    def statistics(self) -> SocketStatistics:
        """Its figures, now."""
        return SocketStatistics(
            rooms=len(self.rooms),
            pending_acks=len(self.acks),
            queued_events=len(self._events),
            tasks=len(self._events.tasks),
            buffered_bytes=self.conn.buffered_bytes,
        )

    # Listening

    @overload
    def on(self, event: EventType[AnswerT, *ArgsT], fn: None = None) -> Decorator[*ArgsT, AnswerT]: ...
    @overload
    def on(self, event: str | int, fn: None = None) -> Callable[[F], F]: ...
    @overload
    def on(self, event: str | int, fn: F) -> F: ...
    def on(self, event: Any, fn: Callable[..., Any] | None = None) -> Any:
        """Listen to an event of this client; as a decorator, or with the function.

        What the handler returns is the acknowledgement, if the client asked for one: None is one without arguments, a
        tuple one with several. If several handlers listen, the first result that is not None counts. A handler that
        raises sends none. Those of the namespace (`Namespace.handle`) are called first.

        Args:
            event: A name the client uses, or ``"disconnecting"`` or ``"disconnect"`` (both: reason, description).
            fn: Async, or a plain function that does not wait. Of its annotations see `Namespace.handle`.

        Raises:
            TypeError: The function cannot be called with positional arguments, or has annotations without a meaning.
        """
        event = event_name(event)
        if fn is None:
            return lambda fn: self.on(event, fn)
        self._listeners.on(event, fn)
        self._events.advance()
        return fn

    @overload
    def once(self, event: EventType[AnswerT, *ArgsT], fn: None = None) -> Decorator[*ArgsT, AnswerT]: ...
    @overload
    def once(self, event: str | int, fn: None = None) -> Callable[[F], F]: ...
    @overload
    def once(self, event: str | int, fn: F) -> F: ...
    def once(self, event: Any, fn: Callable[..., Any] | None = None) -> Any:
        """Like `on`, for the next event of this name only."""
        event = event_name(event)
        if fn is None:
            return lambda fn: self.once(event, fn)
        self._listeners.on(event, fn, once=True)
        self._events.advance()
        return fn

    def off(self, event: str | int | None = None, fn: Callable[..., Any] | None = None) -> None:
        """Remove a listener, all of an event, or all."""
        self._listeners.off(event, fn)

    def use(self, middleware: Callable[[list[Any]], Any]) -> Callable[[list[Any]], Any]:
        """Run a function for every event of this client before its handlers; as a decorator.

        Args:
            middleware: Async or plain; called with the event as a list, ``[name, *args]``, which it may change. It
                returns to go on, and raises to refuse: the handlers are not called, no acknowledgement is sent, and
                ``on_error`` is told.
        """
        listener = inspect_listener(middleware, what="middleware of a socket", given=1)
        self._middlewares = (*self._middlewares, listener)
        return middleware

    def start_soon(self, fn: Callable[..., Awaitable[Any]], *args: Any) -> None:
        """Start a task that lives exactly as long as this socket: cancelled when the socket ends.

        What it raises is treated like an error of a handler.

        Raises:
            SocketDisconnected: The socket has ended.
        """
        self._require_alive()
        self.spawn(self._events.run_task, fn, *args)

    # Emitting

    @overload
    async def emit(self, event: EventType[Any, *ArgsT], *args: *ArgsT) -> None: ...
    @overload
    async def emit(self, event: str | int, *args: Any) -> None: ...
    async def emit(self, event: Any, *args: Any) -> None:  # type: ignore[misc]  # mypy does not see that Any takes *ArgsT
        """Send an event to this client.

        Waits while more than half of the session's outbox is in use; the packet is queued when this returns, and leaves
        at the end of the scheduler's tick, or with the client's next poll. When cancelled, nothing has been sent.

        Args:
            event: Not one of the protocol's own names.
            args: JSON values, with bytes anywhere in them.

        Raises:
            EncodeError: A value that cannot be encoded; nothing was queued.
            ReservedEventError: The name is the protocol's own.
            SocketDisconnected: The socket has ended, and with ``connection_state_recovery``: its client cannot come
                back any more.
        """
        event = event_name(event)
        await self.send_event(event, args)

    @overload
    def emit_nowait(self, event: EventType[Any, *ArgsT], *args: *ArgsT) -> None: ...
    @overload
    def emit_nowait(self, event: str | int, *args: Any) -> None: ...
    def emit_nowait(self, event: Any, *args: Any) -> None:  # type: ignore[misc]  # mypy does not see that Any takes *ArgsT
        """Like `emit`, without waiting.

        Raises:
            trio.WouldBlock: The session's outbox has no room for it; nothing was queued.
        """
        event = event_name(event)
        self.send_event_nowait(event, args)

    @overload
    async def emit_with_ack(self, event: EventType[AnswerT, *ArgsT], *args: *ArgsT) -> AnswerT: ...
    @overload
    async def emit_with_ack(self, event: str | int, *args: Any) -> Any: ...
    async def emit_with_ack(self, event: Any, *args: Any) -> Any:  # type: ignore[misc]  # mypy does not see that Any takes *ArgsT
        """Send an event to this client, and wait for its acknowledgement.

        The time belongs to the caller: put it under `trio.move_on_after` or `trio.fail_after`. When cancelled, a late
        answer is ignored.

        Returns:
            None, the value, or a tuple of several, as the client gave them.

        Raises:
            SocketDisconnected: The socket has ended, or ends before it answers; at once, not at a timeout.
        """
        event = event_name(event)
        return await self.ask(event, args, BroadcastOptions())

    async def ask(self, event: str | int, args: Sequence[Any], options: BroadcastOptions) -> Any:
        """`emit_with_ack`, with flags."""
        self._require_alive()
        id = self.namespace.next_ack_id()
        encoded = self.encode_event(event, args, id, options.compress)
        ack = self.acks[id] = SingleAck()
        try:
            if options.volatile:
                self.send_volatile(encoded, event, args)
            else:
                await self.send_packet(encoded, event, args)
            return await ack.wait()
        except trio.EndOfChannel:
            raise SocketDisconnected(self._why[0]) from None
        finally:
            self.acks.pop(id, None)

    def encode_event(
        self, event: str | int, args: Sequence[Any], id: int | None = None, compress: bool = True
    ) -> EncodedPacket:
        """An event for this socket's namespace, encoded."""
        return self.namespace.encode_event(event, args, id, compress)

    async def send_event(self, event: str | int, args: Sequence[Any], compress: bool = True) -> None:
        """`emit`, with flags."""
        encoded = self.encode_event(event, args, compress=compress)
        if self.passport is None or self.state is State.CONNECTING:
            await self.send_packet(encoded, event, args)
        else:
            await self.conn.wait_writable(encoded)
            self._send_kept(self.passport, encoded, event, args)

    def send_event_nowait(self, event: str | int, args: Sequence[Any], compress: bool = True) -> None:
        """`emit_nowait`, with flags."""
        encoded = self.encode_event(event, args, compress=compress)
        if self.passport is None or self.state is State.CONNECTING:
            self.send_packet_nowait(encoded, event, args)
        elif self.alive and not self.conn.has_room(encoded):
            raise trio.WouldBlock
        else:
            self._send_kept(self.passport, encoded, event, args)

    def _send_kept(self, passport: Passport, encoded: EncodedPacket, event: str | int, args: Sequence[Any]) -> None:
        if not passport.is_awaited:
            self._require_alive()
        passport.emit(self, self.namespace.event_packet(event, args), encoded)

    async def send_packet(self, encoded: EncodedPacket, event: str | int, args: Sequence[Any]) -> None:
        """Queue an event, after waiting for room."""
        await self.conn.wait_writable(encoded)
        self._require_alive()
        self._write(encoded, event, args)

    def send_packet_nowait(self, encoded: EncodedPacket, event: str | int, args: Sequence[Any]) -> None:
        """Queue an event, if there is room."""
        self._require_alive()
        if not self.conn.has_room(encoded):
            raise trio.WouldBlock
        self._write(encoded, event, args)

    def send_volatile(self, encoded: EncodedPacket, event: str | int, args: Sequence[Any]) -> None:
        """Queue an event if it leaves at once; else, or if the socket has ended, drop it."""
        if self._outgoing and self.alive:
            self.tell_outgoing(event, args)
        if self.conn.writable and self.alive:
            self.conn.write(encoded)

    def _write(self, encoded: EncodedPacket, event: str | int, args: Sequence[Any]) -> None:
        if self._outgoing:
            self.tell_outgoing(event, args)
            self._require_alive()  # one that failed may have cost the socket its life
        if not self.conn.write(encoded):
            raise SocketDisconnected(self._why[0] or "forced close")

    @property
    def alive(self) -> bool:
        """Whether anything may still be sent or started for it."""
        return self.state is State.CONNECTED or self.state is State.CONNECTING

    def _require_alive(self) -> None:
        if not self.alive:
            raise SocketDisconnected(self._why[0])

    @property
    def volatile(self) -> SocketOperator:
        """For packets that may be dropped if the client cannot take them at once."""
        return SocketOperator(self, BroadcastOptions(volatile=True))

    def compress(self, compress: bool) -> SocketOperator:
        """For packets that a transport may, or may not, compress."""
        return SocketOperator(self, BroadcastOptions(compress=compress))

    def timeout(self, seconds: float) -> SocketOperator:
        """For acknowledgements with a time limit, in seconds: `AckTimeout` is raised when it has passed."""
        return SocketOperator(self, BroadcastOptions(timeout=seconds))

    # Everybody else

    @property
    def broadcast(self) -> BroadcastOperator:
        """Everybody in the namespace but this socket."""
        return BroadcastOperator(self.namespace, BroadcastOptions(except_rooms=frozenset((self.id,))))

    def to(self, rooms: str | Iterable[str]) -> BroadcastOperator:
        """Everybody in these rooms but this socket."""
        return self.broadcast.to(rooms)

    def in_(self, rooms: str | Iterable[str]) -> BroadcastOperator:
        """The same as `to`."""
        return self.broadcast.to(rooms)

    def except_(self, rooms: str | Iterable[str]) -> BroadcastOperator:
        """Everybody but those in these rooms, and but this socket."""
        return self.broadcast.except_(rooms)

    @property
    def local(self) -> BroadcastOperator:
        """Everybody on this server but this socket."""
        return self.broadcast.local

    # Rooms

    async def join(self, rooms: str | Iterable[str]) -> None:
        """Join a room, or several.

        Raises:
            SocketDisconnected: The socket has ended.
        """
        self._require_alive()
        await self.namespace.adapter.add_all(self.id, one_or_more(rooms))

    async def leave(self, room: str) -> None:
        """Leave a room; no matter if it is not in it."""
        await self.namespace.adapter.delete(self.id, room)

    # What the client sends

    def acknowledge(self, id: int, args: list[Any]) -> None:
        """Answer an event of the client's; dropped if the socket has ended."""
        if self.state is State.CONNECTED:
            self._connection.send(Packet(PacketType.ACK, self.namespace.name, args, id))

    def on_event(self, packet: Packet) -> None:
        """An event has come."""
        name, *args = packet.data
        ack = None if packet.id is None else EventAck(self, packet.id)
        if self._middlewares:
            check = Event(name, ([name, *args], ack), None, Listener(self._check_event, True, 2, 2))
            self._events.put_checked(Event(name, args), check)
        else:
            self._events.put(Event(name, args, ack))

    async def _check_event(self, event: list[Any], ack: EventAck | None) -> None:
        for middleware in self._middlewares:
            if middleware.is_async:
                await middleware.fn(event)
            else:
                middleware.call_sync(event)
        name, *args = event
        self._events.put(Event(name, args, ack, told=True))

    def on_ack(self, packet: Packet) -> None:
        """An acknowledgement has come; one that nobody waits for is ignored."""
        pending = None if packet.id is None else self.acks.pop(packet.id, None)
        if pending is not None:
            pending.on_answer(unpack(packet.data))

    # Catch-all listeners

    def on_tapped(self) -> None:
        """The catch-all listeners for outgoing events have changed."""
        if self._outgoing and self.alive:
            self.namespace.tapped.add(self.id)
        else:
            self.namespace.tapped.discard(self.id)

    def on_outgoing_error(self, error: Exception, event: str | int) -> None:
        """One of them has failed."""
        self.namespace.server.on_handler_error(error, self, event)

    # Its event queue's host

    def take_listeners(self, name: str | int) -> Sequence[Listener]:
        # The life of the socket is not the client's to tell; the parser refuses these names, other parsers may not.
        if name in ENDINGS:
            return ()
        listeners = self._listeners.take(name)
        handlers = self.namespace.handlers.get(name)
        return (*handlers, *listeners) if handlers else listeners

    def spawn(self, fn: Callable[..., Awaitable[Any]], *args: Any) -> None:
        self.conn.spawn(fn, *args)

    def on_queued(self, change: int) -> None:
        self._connection.on_queued(change)

    def flush(self) -> None:
        self.conn.end_batch()

    def on_error(self, error: Exception, event: Event) -> None:
        self.namespace.server.on_handler_error(error, self, event.name)
        if event.opening and self.state is State.CONNECTED:
            # A socket whose `connection` handler failed has perhaps half of its handlers.
            self.begin_disconnect()

    # Its life

    def open(self, missed: Sequence[EncodedPacket] = ()) -> None:
        """The middlewares have let it in: it is connected, and the client is told before anything else.

        Only what the client has missed while it was away comes before that.
        """
        self._change(State.CONNECTED)
        self.namespace.sockets[self.id] = self
        answer = {"sid": self.id}
        if self.passport is not None:
            answer["pid"] = self.passport.pid
            self.passport.stamp(self)
        for encoded in missed:
            self.conn.write(encoded)
        self._connection.send(Packet(PacketType.CONNECT, self.namespace.name, answer))
        if self.alive:  # the packet may have been one too many for the client's outbox
            self._events.open(self.namespace.take_listeners("connection"), (self,))

    def refuse(self) -> None:
        """It was not let in, or left before it was."""
        self._change(State.ENDED)
        self._why = self.conn.closed_because or (SERVER_DISCONNECTED, "refused")
        self._connection.release(self)
        self._drop_everything()
        self.ended.set()

    async def disconnect(self, close: bool = False) -> None:
        """Disconnect from the namespace; reason ``server namespace disconnect`` on this side.

        Returns when the socket's tasks are over, its ``disconnecting`` and ``disconnect`` handlers included; called in
        one of these tasks, at once, and that task goes on. No matter if it is disconnected already. When cancelled, the
        disconnect takes place all the same.

        Args:
            close: Close the session underneath, and with it the client's sockets in other namespaces. Every task of
                the session is cancelled by that, the calling one too if it is one of them.
        """
        self.begin_disconnect(close)
        await trio.lowlevel.checkpoint()
        await self.wait_ended()

    def begin_disconnect(self, close: bool = False, description: str | None = None) -> None:
        """Tell the client, and end the socket; with `close`, all sockets of the session, and the session."""
        if close:
            self._connection.disconnect(description)
        elif self.state is State.CONNECTED:
            # In this order, because the packet may be one too many for the outbox, which ends all that have not ended.
            self.begin_end(SERVER_DISCONNECTED, description)
            self._connection.dismiss(self)
            self.conn.spawn(self.finish_end)

    async def wait_ended(self) -> None:
        """Wait until a socket that is ending has ended; not in one of its own tasks, which would wait for itself."""
        own_task = self._events.is_mine() or trio.lowlevel.current_task() is self._finisher
        if self.state is not State.CONNECTING and not own_task:
            await self.ended.wait()

    def begin_end(self, reason: str, description: str | None = None) -> None:
        """Nothing is sent or started for it any more, and nobody waits for it; whoever calls this runs `finish_end`."""
        self._change(State.ENDING)
        self._why = (reason, description)
        if self.passport is not None:
            self.passport.lose(reason)
        self._connection.release(self)
        self._drop_everything()

    def _drop_everything(self) -> None:
        self.namespace.tapped.discard(self.id)
        acks, self.acks = self.acks, {}
        for ack in acks.values():
            ack.on_leave()
        self._events.cancel()

    async def finish_end(self) -> None:
        """Say goodbye: shielded, each step within ``disconnect_timeout``."""
        self._finisher = trio.lowlevel.current_task()
        with self._grace():
            await self._events.wait_idle()
        with self._grace():
            await self._tell_end("disconnecting")
        if self.passport is not None:
            with self._grace():
                await self.passport.keep(self)
        # No wait between these, because with the same id the client may come back from now on.
        self.namespace.sockets.pop(self.id, None)
        with self._grace():
            await self.namespace.adapter.delete_all(self.id)
        self._change(State.ENDED)
        with self._grace():
            await self._tell_end("disconnect")
        with self._grace():
            await self.namespace.on_departure()
        self._connection.forget(self)
        self.ended.set()

    def _grace(self) -> trio.CancelScope:
        return trio.CancelScope(deadline=trio.current_time() + self._config.disconnect_timeout, shield=True)

    async def _tell_end(self, event: str) -> None:
        for listener in (*self.namespace.handlers.get(event), *self._listeners.take(event)):
            try:
                result = listener.fn(*listener.select(self, self._why))
                if listener.is_async:
                    await result
                else:
                    refuse_coroutine(result, listener)
            except Exception as error:
                self.namespace.server.on_handler_error(error, self, event)
            except BaseExceptionGroup as group:
                raise_cancellations(group, lambda error: self.namespace.server.on_handler_error(error, self, event))

    def _change(self, state: State) -> None:
        if state not in TRANSITIONS[self.state]:
            raise LocalProtocolError(f"a socket cannot become {state.name} when it is {self.state.name}")
        self.state = state

    def __repr__(self) -> str:
        return f"<Socket {self.id} in {self.namespace.name}, {self.state.name.lower()}>"
