"""One client's Engine.IO session: its phase, its life, what it receives, and its nursery. How it sends: `sending`.

State changes are synchronous: every method that is not ``async`` decides and acts in one block, so nothing can come
between. Two things leave a session: calls down to its transport (a pending poll, or a `WebSocket`), and calls up to its
one sink. Its tasks all live in its nursery, which `Session.run` holds open from the handshake to the end.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import trio

from .._errors import RemoteProtocolError, SessionClosed
from .._latch import Latch
from .._wire.encoded import CLOSE, NOOP, PING, PONG, EncodedPacket
from .._wire.engine_packets import EnginePacket, EnginePacketType
from .._wire.phases import Change, Phase, next_phase
from .heartbeat import Due, Heartbeat
from .reasons import FORCED_CLOSE, PARSE_ERROR, PING_TIMEOUT, TRANSPORT_CLOSE, TRANSPORT_ERROR
from .sending import Flow, Sending
from .sinks import Inbox

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextvars import Context

    from .._wire.dialects import Dialect
    from .alarms import Alarms
    from .batch import Batch
    from .config import EngineConfig
    from .contract import Request, WebSocket
    from .flusher import Flusher
    from .sinks import Sink

logger = logging.getLogger("trio_socketio.engine")


class Session(Sending, trio.abc.Channel["str | bytes"]):
    """An Engine.IO session: a channel of messages, text or binary, to one client.

    Made by an engine, and given to its ``connection`` listeners. Under a `Server` it is ``socket.conn``, and its
    messages belong to Socket.IO.

    Attributes:
        id: The session's secret id.
        request: The `Request` that opened it.
        remote_address: The client's address (a string), or ``""`` where it is not known.
        dialect: How its packets look on the wire.
        closed_because: ``(reason, description)`` once it has closed, else None.
    """

    __slots__ = (
        "_config", "_context", "_description", "_heartbeat", "_on_closed", "_resumed", "_sink", "closed_because",
        "dialect", "ended", "id", "nursery", "post", "probe", "remote_address", "request", "started",
    )  # fmt: skip

    # Of the sending half, and changed here as well.
    phase: Phase
    batch: Batch | None

    def __init__(
        self,
        id: str,
        request: Request,
        config: EngineConfig,
        *,
        phase: Phase,
        dialect: Dialect,
        flusher: Flusher,
        alarms: Alarms,
        context: Context,
        on_closed: Callable[[Session], None],
    ) -> None:
        super().__init__(config, phase, flusher)
        self.id: str = id
        self.request: Request = request
        self.remote_address: str = request.client[0] if request.client else ""
        self.dialect: Dialect = dialect
        self.closed_because: tuple[str, str | None] | None = None
        self.started: Latch = Latch()
        self.ended: Latch = Latch()
        self.nursery: trio.Nursery | None = None
        # The transports' own: the POST, and the WebSocket that probes, which are being served.
        self.post: trio.CancelScope | None = None
        self.probe: trio.CancelScope | None = None
        self._config = config
        # That of `running()`: no task of a session inherits the context variables of the request that it happens in.
        self._context = context
        self._on_closed = on_closed
        self._sink: Sink = Inbox(config.max_inbox_messages)
        self._resumed: trio.Event | None = None
        self._heartbeat = Heartbeat(
            config.ping_interval,
            config.ping_timeout,
            client_pings=dialect.heartbeat is EnginePacketType.PING,
            alarms=alarms,
            on_due=self._on_due,
        )
        self._description: str | None = None

    # The channel

    async def send(self, value: str | bytes | bytearray | memoryview, *, compress: bool = True) -> None:
        """Send a message, after waiting while more than half of the outbox is in use.

        Args:
            value: Text or bytes. What is like bytes is copied.
            compress: False leaves it as it is where the transport would compress it.

        Raises:
            SessionClosed: The session is closed, or closing.
            EncodeError: It is neither text nor bytes, or a text that has no UTF-8.
        """
        packet = EncodedPacket.message(value, compress)
        await self.wait_writable(packet)
        if not self.write(packet):
            raise SessionClosed(self._reason())

    async def receive(self) -> str | bytes:
        """The next message. What arrived before the close can still be received after it.

        Raises:
            trio.EndOfChannel: The session has closed, and everything has been received.
            RuntimeError: The session's messages go to a Socket.IO server.
        """
        if not isinstance(self._sink, Inbox):
            raise RuntimeError("the messages of this session go to its Socket.IO server: listen on its sockets")
        return await self._sink.get(self)

    async def aclose(self) -> None:
        """Close gracefully, and wait until the client has collected what is queued, or ``close_timeout`` is over.

        When cancelled, the session is closed at once, and what was queued is lost.
        """
        self.close()
        try:
            await self.ended.wait()
        finally:
            self.close(discard=True)

    def close(self, discard: bool = False, description: str | None = None) -> None:
        """Close the session (reason ``forced close``) without waiting for it.

        Args:
            discard: Close at once. Otherwise what is queued is delivered first.
            description: What the ``disconnect`` handlers are told besides the reason.
        """
        if discard:
            self.finish(FORCED_CLOSE, description)
        elif self.phase.open:
            self.flush()
            if not self.phase.open:
                return  # the flush found the connection broken
            if not self._outbox and self._flow is Flow.IDLE and (self.websocket is not None or self.poll is not None):
                self.finish(FORCED_CLOSE, description)
            else:
                # A probing WebSocket stays: its client may have stopped polling, to collect the rest there.
                self._description = description
                self.phase = next_phase(self.phase, Change.CLOSE)
                self._heartbeat.close_in(self._config.close_timeout)

    @property
    def protocol(self) -> int:
        """The revision of Engine.IO that the client speaks: 4, or, with ``allow_eio3``, 3."""
        return self.dialect.protocol

    @property
    def transport(self) -> str | None:
        """``"polling"``, ``"websocket"``, or None after the close."""
        return self.phase.transport

    # The life

    def deliver_to(self, sink: Sink) -> None:
        """Choose who gets the messages: before the session runs, or `NOWHERE` when it is over."""
        self._sink = sink

    def greeted(self) -> None:
        """Told by the engine when the handshake is on its way."""
        self._sink.on_greeted()

    async def run(self) -> None:
        """Hold the session's nursery open until it closes. Nothing but `trio.Cancelled` leaves here."""
        try:
            async with trio.open_nursery() as self.nursery:
                self._sink.on_open()
                self._heartbeat.beat()
                self.started.set()
                if self.phase is Phase.CLOSED:
                    self.nursery.cancel_scope.cancel()
                await trio.sleep_forever()
        except* Exception:
            logger.exception("a task of session %s failed; this is a bug", self.id)
        finally:
            self.finish(FORCED_CLOSE)
            await self._sink.aftermath()  # noqa: ASYNC102 - it shields itself, each of its waits with a deadline
            self.ended.set()

    def spawn(self, fn: Callable[..., Awaitable[Any]], *args: Any) -> None:
        """Start a task that is cancelled when the session closes."""
        assert self.nursery is not None, "the session runs before anything arrives for it"
        self._context.run(self.nursery.start_soon, fn, *args)

    def finish(self, reason: str, description: str | None = None) -> None:
        """Close at once, for whatever reason; the first one counts."""
        if self.phase is Phase.CLOSED:
            return
        self.phase = next_phase(self.phase, Change.END)
        description = description or self._description
        self.closed_because = (reason, description)
        self._on_closed(self)
        if self.poll is not None:
            self._answer_poll([CLOSE])
        for scope in (self.post, self.probe, self.websocket_scope):
            if scope is not None:
                scope.cancel()
        self.resume_reading()
        self._heartbeat.stop()
        self._sink.on_close(reason, description)
        self.batch = None
        self._outbox.take()
        self._wake_writers()
        if self.nursery is not None:
            self.nursery.cancel_scope.cancel()

    def _reason(self) -> str:
        return self.closed_because[0] if self.closed_because else FORCED_CLOSE

    # Receiving: this is the `Receiver` of the session's WebSocket

    @property
    def paused(self) -> bool:
        """Whether the sink is full."""
        return self._sink.full and self.phase.open

    async def resumed(self) -> None:
        """Wait until the sink is not full any more, or the session is closed."""
        while self.paused:
            if self._resumed is None:
                self._resumed = trio.Event()
            await self._resumed.wait()

    def resume_reading(self) -> None:
        """Told by the sink when it is not full any more."""
        if self._resumed is not None:
            self._resumed.set()
            self._resumed = None
            self._heartbeat.be_patient()  # the sign of life is behind what we did not read

    def on_message(self, message: str | bytes) -> None:
        """One WebSocket message."""
        if not self.phase.open:
            return  # a closing session listens no more
        if type(message) is str and message[:1] == "4":  # what nearly everything is: 0.2 us instead of 1.1
            self._sink.on_message(message[1:])
            return
        try:
            packet = self.dialect.decode_message_untrusted(message)
        except RemoteProtocolError as error:
            self.finish(PARSE_ERROR, str(error))
        else:
            self.on_packet(packet)

    def on_packet(self, packet: EnginePacket) -> None:
        """One Engine.IO packet, from either transport."""
        if not self.phase.open:
            if packet.type is EnginePacketType.CLOSE:
                self.finish(FORCED_CLOSE)  # and so does the client, which collects nothing any more
            return
        if packet.type is EnginePacketType.MESSAGE:
            self._sink.on_message("" if packet.data is None else packet.data)
        elif packet.type is self.dialect.heartbeat:
            self._on_heartbeat()
        elif packet.type is EnginePacketType.CLOSE:
            if self.poll is not None:
                self._answer_poll([NOOP])
            self.finish(TRANSPORT_CLOSE)
        elif packet.type in (EnginePacketType.PING, EnginePacketType.PONG):
            self.finish(TRANSPORT_ERROR, "invalid heartbeat direction")

    # The heartbeat

    def _on_heartbeat(self) -> None:
        self._heartbeat.beat()
        if self.dialect.heartbeat is EnginePacketType.PING:
            self.write(PONG)
        self._sink.on_heartbeat()

    def _on_due(self, due: Due) -> None:
        # Its task is that of all alarms, so nothing may leave here either.
        try:
            if due is Due.PING:
                self.write(PING)
            elif due is Due.CLOSE:
                self.finish(FORCED_CLOSE)
            elif due is Due.EXPIRY:
                self._sink.on_expiry()
            elif not self.paused:  # else the sign of life waits behind what we do not read
                self.finish(PING_TIMEOUT)
        except Exception:
            logger.exception("session %s failed when it was due; this is a bug", self.id)

    def expire_in(self, seconds: float) -> None:
        """Tell the sink when this much time has passed; infinity takes it back."""
        self._heartbeat.expire_in(seconds)

    # The upgrade (Engine.IO protocol, "transport upgrading")

    def upgrade(self, websocket: WebSocket, scope: trio.CancelScope, flow: Flow) -> None:
        """Go over to the WebSocket that probed; what is queued goes out there. A poll still pending is told to close.

        Args:
            websocket: The new transport.
            scope: What to cancel when the session closes.
            flow: DRAINING while the answer to the probe is still being written, else IDLE.
        """
        self.phase = next_phase(self.phase, Change.UPGRADE)
        self.probe = None
        if self.poll is not None:
            self._answer_poll([CLOSE])
        self._heartbeat.be_patient()  # a ping in flight on the old transport must not end the session
        self.carry(websocket, scope, flow)

    def __repr__(self) -> str:
        return f"<Session {self.remote_address} {self.phase.name.lower()}, {self._outbox.size} bytes queued>"
