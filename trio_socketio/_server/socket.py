"""One client in one namespace."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

import trio

from .._adapters.contract import SocketDetails
from .._adapters.targets import one_or_more
from .._errors import LocalProtocolError, SocketDisconnected
from .._listeners import Listener, Listeners, inspect_listener, raise_cancellations, refuse_coroutine
from .._wire.packets import Packet, PacketType
from .acks import EventAck, unpack
from .data import DataT
from .emitting import Emitting
from .event_types import AnswerT, ArgsT, event_name
from .events import EventQueue
from .handlers import ENDINGS, with_decoder
from .handshake import Handshake
from .queued import Event
from .statistics import SocketStatistics

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from .._adapters.contract import PendingAck
    from .._engine.contract import Request
    from .._engine.session import Session
    from .._wire.encoded import EncodedPacket
    from .connection import Connection
    from .event_types import Decorator, EventType
    from .namespace import Namespace
    from .recovery import Passport

F = TypeVar("F", bound="Callable[..., Any]")

CLIENT_LEFT = "client namespace disconnect"
SERVER_DISCONNECTED = "server namespace disconnect"

#: Tasks of one socket that stay for the next events; each holds 3 KiB, until the second heartbeat without an event.
MAX_PARKED = 16


class State(enum.Enum):
    """The life of a socket."""

    CONNECTING = "its middlewares are running"
    CONNECTED = "connected"
    ENDING = "its tasks are being cancelled; it is still in its rooms"
    ENDED = "disconnected"


_CONNECTED = State.CONNECTED  # an attribute of an enum's class costs 60 nanoseconds

TRANSITIONS = {
    State.CONNECTING: (State.CONNECTED, State.ENDED),
    State.CONNECTED: (State.ENDING,),
    State.ENDING: (State.ENDED,),
    State.ENDED: (),
}


class Socket(Emitting, Generic[DataT]):
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
        self._events = EventQueue(self, connection.backlog, connection.config.max_concurrent_events, MAX_PARKED)
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
            tasks=self._events.at_work,
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
        self.require_alive()
        self.spawn(self._events.run_task, fn, *args)

    @property
    def alive(self) -> bool:
        """Whether anything may still be sent or started for it."""
        return self.state is _CONNECTED or self.state is State.CONNECTING

    @property
    def keeper(self) -> Passport | None:
        """By which events are kept for its client; those that middlewares emit are not."""
        return None if self.state is State.CONNECTING else self.passport

    # Rooms

    async def join(self, rooms: str | Iterable[str]) -> None:
        """Join a room, or several.

        Raises:
            SocketDisconnected: The socket has ended.
        """
        self.require_alive()
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

    def on_heartbeat(self) -> None:
        """The client has given a sign of life."""
        self._events.rest()

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
        handlers, listeners = self.namespace.handlers.get(name), self._listeners.take(name)
        return (*handlers, *listeners) if handlers and listeners else handlers or listeners

    def spawn(self, fn: Callable[..., Awaitable[Any]], *args: Any) -> None:
        self.conn.spawn(fn, *args)

    def flush(self) -> None:
        self.conn.flush_if_alone()

    def note(self, queue: EventQueue) -> None:
        self.conn.note(queue)

    def on_error(self, error: Exception, event: Event) -> None:
        if not self.alive and _tells_of_an_end(error):
            return  # what it waited for will not come: it has heard it before it could be cancelled
        self.namespace.server.on_handler_error(error, self, event.name)
        if event.opening and self.state is State.CONNECTED:
            # A socket whose `connection` handler failed has perhaps half of its handlers.
            self.begin_disconnect()

    # Its life

    def open(self, missed: Sequence[EncodedPacket] = ()) -> bool:
        """The middlewares have let it in: it is connected, and the client is told before anything else.

        Only what the client has missed while it was away comes before that.

        Returns:
            Whether `work` must be called.
        """
        self._change(State.CONNECTED)
        self.namespace.sockets[self.id] = self
        self.namespace.on_change()
        answer = {"sid": self.id}
        if self.passport is not None:
            answer["pid"] = self.passport.pid
            self.passport.stamp(self)
        for encoded in missed:
            self.conn.write(encoded)
        self._connection.send(Packet(PacketType.CONNECT, self.namespace.name, answer))
        # The packet may have been one too many for the client's outbox.
        return self.alive and self._events.open(self.namespace.take_listeners("connection"), (self,))

    async def work(self) -> None:
        """Be the task of its first handlers, and perhaps of others."""
        await self._events.work()

    def refuse(self) -> None:
        """It was not let in, or left before it was."""
        self._change(State.ENDED)
        self._why = self.conn.closed_because or (SERVER_DISCONNECTED, "refused")
        self._connection.release(self)
        self._drop_everything()
        self._release()
        self.ended.set()

    async def disconnect(self, close: bool = False) -> None:
        """Disconnect from the namespace; reason ``server namespace disconnect`` on this side.

        Returns when the socket's tasks are over, its ``disconnecting`` and ``disconnect`` handlers included; called in
        one of these tasks, at once, and that task goes on. Does nothing if the socket is not connected (yet, or any
        more). When cancelled, the disconnect takes place all the same.

        Args:
            close: Close the session underneath, and with it the client's sockets in other namespaces. Every task of
                the session is cancelled by that, the calling one too if it is one of them.
        """
        self.begin_disconnect(close)
        await trio.lowlevel.checkpoint()
        await self.wait_ended()

    def begin_disconnect(self, close: bool = False, description: str | None = None) -> None:
        """Tell the client, and end the socket; with `close`, all sockets of the session, and the session."""
        if not self.connected:
            return  # the client may be in its middlewares, or have come back as another socket
        if close:
            self._connection.disconnect(description)
        elif self.state is State.CONNECTED:
            if self.passport is not None:
                self.passport.hasten(self.id)
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
        self.namespace.on_change()
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

    def _release(self) -> None:
        """Nothing will be called any more: let go of functions, which as a rule know the socket themselves."""
        self._events.release()
        self._events.catch_alls = self._outgoing = ()
        self._listeners.off()
        self._middlewares = ()

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
        self._release()
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


def _tells_of_an_end(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return error.split(SocketDisconnected)[1] is None
    return isinstance(error, SocketDisconnected)
