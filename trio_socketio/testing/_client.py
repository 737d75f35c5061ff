"""A Socket.IO client in the same process, for tests: everything between it and the server is as it is on a network."""

from __future__ import annotations

import inspect
from collections import deque
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar, overload

import trio
import trio.testing

from .._errors import ConnectionRefused, SessionClosed, SocketDisconnected
from .._wire.encoded import EncodedPacket
from .._wire.packets import Packet, PacketType, check_event_name
from ._events import ReceivedEvent, collapse, expand
from ._link import IO_CLIENT_DISCONNECT, Connection, Link, Member, State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from ._session import Transport, WirePacket

F = TypeVar("F", bound="Callable[..., Any]")

#: Events that a client keeps until they are asked for; one more is an error, because nothing is dropped in silence.
MAX_EVENTS = 100_000


class MemoryClient(Member):
    """A client of one namespace; made by `open_client`, and by `of` on the same connection.

    What it gets is kept for `receive`, in order, except for events that have a handler (`on`).

    Attributes:
        namespace: Where it is.
        auth: What it says with CONNECT; may be assigned before `reconnect`.
        id: Of its socket, as long as it is connected, and after that the last one.
        recovered: Whether the server took it for the one that it was before `reconnect`.
        pid: What it shows for that, if the server has connection state recovery; else None.
        offset: Of the last event that it has got with one.
    """

    def __init__(self, link: Link, namespace: str, auth: Mapping[str, Any] | None) -> None:
        self.namespace: str = namespace
        self.auth: Mapping[str, Any] | None = auth
        self.id: str = ""
        self.recovered: bool = False
        self.pid: str | None = None
        self.offset: str | None = None
        self._link = link
        self._connection: Connection | None = None
        self._state = State.DISCONNECTED
        self._reason = "not connected yet"
        self._events: deque[ReceivedEvent] = deque()
        self._changed = trio.lowlevel.ParkingLot()
        self._handlers: dict[str | int, Callable[..., Any]] = {}
        self._next_id = 0
        self._acks: dict[int, trio.MemorySendChannel[Any]] = {}
        self._answer: Packet | None = None

    # What it is

    @property
    def connected(self) -> bool:
        """Whether it is."""
        return self._state is State.CONNECTED

    @property
    def transport(self) -> Transport | None:
        """``"websocket"`` or ``"polling"``; None without a connection."""
        return None if self._connection is None else self._connection.session.transport

    @property
    def session_id(self) -> str | None:
        """The id of the Engine.IO session; None without a connection."""
        return None if self._connection is None else self._connection.session.sid

    @property
    def wire(self) -> Sequence[WirePacket]:
        """Every Engine.IO packet of this client's connections, in both directions: the last 100 000."""
        return self._link.wire

    def __repr__(self) -> str:
        return f"<MemoryClient {self.namespace} {self.id} {self._state.value}>"

    # Events

    async def emit(self, event: str | int, *args: Any) -> None:
        """Emit an event; waits while the server does not read.

        Args:
            event: Its name.
            args: Whatever the server's parser can encode; bytes are sent as such.

        Raises:
            SocketDisconnected: It is not connected.
            EncodeError: An argument cannot be encoded.
            ReservedEventError: The name is one of the protocol's own.

        If it is cancelled while it waits, the connection is lost, as nobody knows how much of the event has been sent.
        """
        await self._emit(event, args)

    async def emit_with_ack(self, event: str | int, *args: Any) -> Any:
        """Emit an event, and wait for the acknowledgement.

        Returns:
            None, the value, or a tuple of several.

        Raises:
            SocketDisconnected: It is not connected, or the connection ends before the answer has come.

        May be cancelled (``with trio.fail_after(1): ...``); an answer that comes later is ignored.
        """
        ack_id, self._next_id = self._next_id, self._next_id + 1
        send_channel, receive_channel = trio.open_memory_channel[Any](1)
        self._acks[ack_id] = send_channel
        try:
            await self._emit(event, args, ack_id)
            return await receive_channel.receive()
        except trio.EndOfChannel:
            raise SocketDisconnected(self._reason) from None
        finally:
            self._acks.pop(ack_id, None)

    async def _emit(self, event: str | int, args: Sequence[Any], ack_id: int | None = None) -> None:
        check_event_name(event)
        await self._send(Packet(PacketType.EVENT, self.namespace, [event, *args], ack_id))

    async def send_raw(self, *packets: str | bytes) -> None:
        """Send Engine.IO packets as they are: text with its type digit, such as ``'42["chat"]'``, or binary messages.

        They arrive together: on long-polling, in the body of one request.

        Raises:
            SocketDisconnected: There is no connection.
        """
        units = [EncodedPacket(p.encode()) if isinstance(p, str) else EncodedPacket(None, (p,)) for p in packets]
        await self._require_connection().send_encoded(*units)

    async def send_bytes(self, *chunks: bytes) -> None:
        """Send bytes on the WebSocket as they are, such as frames that are none; each chunk arrives by itself.

        Raises:
            RuntimeError: It is on long-polling, or behind an ASGI app.
            SocketDisconnected: There is no connection.
        """
        session = self._require_connection().session
        with _as_disconnected():
            for chunk in chunks:
                await session.send_bytes(chunk)
                await trio.testing.wait_all_tasks_blocked()

    async def receive(self) -> ReceivedEvent:
        """The next event; waits for it, for as long as the caller's cancel scope lets it.

        Raises:
            SocketDisconnected: The connection is over, and all events of it have been received.
        """
        await trio.lowlevel.checkpoint()
        while not self._events:
            if self._state is State.DISCONNECTED:
                raise SocketDisconnected(self._reason)
            await self._changed.park()
        return self._events.popleft()

    async def receive_all(self) -> list[ReceivedEvent]:
        """What has come, when all tasks of the process wait for something: nothing more is coming by itself."""
        await trio.testing.wait_all_tasks_blocked()
        return self.receive_all_nowait()

    def receive_all_nowait(self) -> list[ReceivedEvent]:
        """What has come so far."""
        events = list(self._events)
        self._events.clear()
        return events

    @overload
    def on(self, event: str | int, fn: None = None) -> Callable[[F], F]: ...
    @overload
    def on(self, event: str | int, fn: F) -> F: ...
    def on(self, event: str | int, fn: F | None = None) -> Any:
        """Call a function for an event, instead of keeping it for `receive`; a decorator, or with the function.

        Args:
            event: The name.
            fn: Sync or async, called with the arguments. What it returns is the acknowledgement, if the server has
                asked for one. Async ones run in tasks of their own and start in the order of the events. An exception
                ends the context of `open_client`. It takes the place of one that is there already.
        """
        if fn is None:
            return lambda fn: self.on(event, fn)
        self._handlers[event] = fn
        return fn

    # Connections

    async def of(self, namespace: str, auth: Mapping[str, Any] | None = None) -> MemoryClient:
        """Connect to another namespace on the same connection.

        Raises:
            ConnectionRefused: The server does not want it.
            SocketDisconnected: The connection is over.
        """
        client = MemoryClient(self._link, namespace, auth)
        await client.reconnect()
        return client

    async def reconnect(self) -> None:
        """Connect again, showing ``pid`` and ``offset``: on the connection that there is, or else on a new one.

        Raises:
            RuntimeError: It is connected.
            ConnectionRefused: The server does not want it: with the message and the data of its middleware; or, if it
                refused the session, with its text, and the status and code in ``data``. A connection on which it is in
                no other namespace is closed.
            SocketDisconnected: The connection was lost before there was an answer.
        """
        if self._state is not State.DISCONNECTED:
            raise RuntimeError(f"it is {self._state.value} already")
        with _as_disconnected():
            connection = await self._link.connect()
        if self.namespace in connection.members:
            raise RuntimeError(f"there is a client of {self.namespace} on this connection already")
        self._connection, self._state, self._answer = connection, State.CONNECTING, None
        connection.members[self.namespace] = self
        claim = {} if self.pid is None else {"pid": self.pid, "offset": self.offset}
        auth = {name: value for name, value in claim.items() if value is not None} | dict(self.auth or {})
        try:
            await connection.send(Packet(PacketType.CONNECT, self.namespace, auth or None))
            while self._answer is None:
                if connection.members.get(self.namespace) is not self:
                    raise SocketDisconnected(self._reason)
                await self._changed.park()
        finally:
            if self._state is State.CONNECTING:  # cancelled, or the connection is gone
                connection.members.pop(self.namespace, None)
                self.end("not connected")
        if self._answer.type is PacketType.CONNECT_ERROR:
            raise _refusal(self._answer.data)

    async def upgrade(self) -> None:
        """Go over from long-polling to a WebSocket, as clients do; nothing is lost on the way.

        Raises:
            RuntimeError: It is on a WebSocket already.
            ConnectionRefused: The server does not want it.
            SocketDisconnected: There is no connection.
        """
        if self.transport == "websocket":
            raise RuntimeError("it is on a WebSocket already")
        with _as_disconnected():
            await self._require_connection().session.upgrade()

    async def disconnect(self) -> None:
        """Leave the namespace; with the last one, the connection is closed. Does nothing if it is over already."""
        await trio.lowlevel.checkpoint()
        connection = self._connection
        if connection is not None and self._state is not State.DISCONNECTED:
            await connection.send(Packet(PacketType.DISCONNECT, self.namespace))
            await connection.leave(self.namespace, IO_CLIENT_DISCONNECT)

    async def close(self) -> None:
        """Close the connection, in all namespaces, as a page does that is left: the server sees a "transport close".

        Returns when the client knows. Does nothing if it is over already.
        """
        await trio.lowlevel.checkpoint()
        await self._link.close()

    async def drop(self) -> None:
        """Lose the connection without a word, in all namespaces; returns when the client knows.

        A server on long-polling sees that a request has lost its client. If none was pending (see `stop_reading`), it
        finds out when an answer to its ping is missing.
        """
        await self._link.drop()

    async def wait_disconnected(self) -> str:
        """Wait until it is not connected any more.

        Returns:
            Why, as in JavaScript: ``"io server disconnect"``, ``"io client disconnect"``, ``"transport close"`` or
            ``"transport error"``.
        """
        await trio.lowlevel.checkpoint()
        while self._state is not State.DISCONNECTED:
            await self._changed.park()
        return self._reason

    def stop_reading(self) -> None:
        """Be a client that does not read: what the server sends piles up in 64 KiB of buffer, and then at the server.

        On long-polling, be one that does not poll any more.
        """
        self._require_connection().session.stop_reading()

    def resume_reading(self) -> None:
        """Read again."""
        self._require_connection().session.resume_reading()

    def _require_connection(self) -> Connection:
        connection = self._connection
        if connection is None or connection.over.is_set():
            raise SocketDisconnected(self._reason)
        return connection

    async def _send(self, packet: Packet) -> None:
        if self._state is not State.CONNECTED:
            raise SocketDisconnected(self._reason)
        await self._require_connection().send(packet)

    # What comes

    async def take(self, packet: Packet) -> None:
        if packet.type is PacketType.EVENT:
            await self._take_event(packet)
        elif packet.type is PacketType.ACK:
            channel = self._acks.pop(-1 if packet.id is None else packet.id, None)
            if channel is not None:
                channel.send_nowait(collapse(packet.data))
        elif packet.type is not PacketType.DISCONNECT:
            self._take_answer(packet)

    def _take_answer(self, packet: Packet) -> None:
        self._answer = packet
        if packet.type is PacketType.CONNECT:
            pid = packet.data.get("pid")
            self.id = packet.data["sid"]
            self.recovered = pid is not None and pid == self.pid
            self.pid, self.offset = pid, self.offset if self.recovered else None
            self._state = State.CONNECTED
        self._changed.unpark_all()

    async def _take_event(self, packet: Packet) -> None:
        name, *args = packet.data
        if self.pid is not None and args and isinstance(args[-1], str):
            self.offset = args[-1]
        handler = self._handlers.get(name)
        if handler is not None:
            # It has started when this returns, so handlers start in the order of their events.
            await self._link.nursery.start(self._handle, handler, args, packet.id)
            return
        if len(self._events) >= MAX_EVENTS:
            raise RuntimeError(f"{self!r} has got {MAX_EVENTS} events that nobody has received")
        ack_id = packet.id
        send_ack = None if ack_id is None else lambda *values: self._send_ack(ack_id, values)
        self._events.append(ReceivedEvent(packet.data, send_ack))
        self._changed.unpark_all()

    async def _handle(
        self,
        handler: Callable[..., Any],
        args: Sequence[Any],
        ack_id: int | None,
        *,
        task_status: trio.TaskStatus[None],
    ) -> None:
        task_status.started()
        result = handler(*args)
        if inspect.isawaitable(result):
            result = await result
        if ack_id is not None:
            with suppress(SocketDisconnected):  # whoever has asked is gone, or is going while this is sent
                await self._send_ack(ack_id, expand(result))

    async def _send_ack(self, ack_id: int, values: Sequence[Any]) -> None:
        await self._send(Packet(PacketType.ACK, self.namespace, list(values), ack_id))

    def end(self, reason: str) -> None:
        self._state, self._reason = State.DISCONNECTED, reason
        acks, self._acks = self._acks, {}
        for channel in acks.values():
            channel.close()
        self._changed.unpark_all()


@contextmanager
def _as_disconnected() -> Iterator[None]:
    """Let the end of the session be that of the socket."""
    try:
        yield
    except SessionClosed as closed:
        raise SocketDisconnected(closed.reason) from closed


def _refusal(data: Any) -> ConnectionRefused:
    if isinstance(data, dict):
        return ConnectionRefused(str(data.get("message", "")), data.get("data"))
    return ConnectionRefused(str(data))
