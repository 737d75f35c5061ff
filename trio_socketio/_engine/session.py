"""One client's Engine.IO session: its phase, its transports, what waits to be sent, and its nursery.

State changes are synchronous: every method that is not ``async`` decides and acts in one block, so nothing can come
between. Two things leave a session: calls down to its transport (a pending poll, or a `WebSocket`), and calls up to its
one sink. Its tasks all live in its nursery, which `Session.run` holds open from the handshake to the end.
"""

from __future__ import annotations

import enum
import logging
from typing import TYPE_CHECKING, Any

import trio

from .._errors import RemoteProtocolError, SessionClosed
from .._latch import Latch
from .._wire.encoded import CLOSE, NOOP, PING, PONG, EncodedPacket
from .._wire.engine_packets import EnginePacket, EnginePacketType
from .._wire.phases import Change, Phase, next_phase
from .heartbeat import Due, Heartbeat
from .outbox import Outbox
from .sinks import Inbox

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from contextvars import Context

    from .._wire.dialects import Dialect
    from .alarms import Alarms
    from .batch import Batch
    from .config import EngineConfig
    from .contract import Request, WebSocket
    from .flusher import Flushable, Flusher
    from .sinks import Sink

logger = logging.getLogger("trio_socketio.engine")

#: What the sink is told at the end; Engine.IO protocol, and Socket.IO's "disconnect reasons".
TRANSPORT_CLOSE = "transport close"
TRANSPORT_ERROR = "transport error"
PING_TIMEOUT = "ping timeout"
PARSE_ERROR = "parse error"
FORCED_CLOSE = "forced close"


class PendingPoll:
    """A GET that waits for something to send."""

    __slots__ = ("answered", "packets")

    def __init__(self) -> None:
        self.packets: list[EncodedPacket] = []
        self.answered: trio.Event = trio.Event()

    def answer(self, packets: list[EncodedPacket]) -> None:
        self.packets = packets
        self.answered.set()


class Flow(enum.Enum):
    """How what is queued gets out."""

    IDLE = "queued packets, if any, wait for the client's next poll"
    NOTED = "the flusher will call `flush` at the end of this tick"
    DRAINING = "a task is writing what the kernel did not take"


_IDLE, _NOTED, _DRAINING = Flow  # an attribute of an enum's class costs 60 nanoseconds


class Session(trio.abc.Channel["str | bytes"]):
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

    # fmt: off
    __slots__ = (
        "_config", "_context", "_description", "_flow", "_flusher", "_heartbeat", "_on_closed", "_outbox", "_resumed",
        "_sink", "_writable", "batch", "closed_because", "dialect", "ended", "id", "nursery", "phase", "poll", "post",
        "probe", "remote_address", "request", "started", "websocket", "websocket_scope",
    )
    # fmt: on

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
        self.id: str = id
        self.request: Request = request
        self.remote_address: str = request.client[0] if request.client else ""
        self.dialect: Dialect = dialect
        self.closed_because: tuple[str, str | None] | None = None
        #: Where it is in its life: `trio_socketio._wire.phases`.
        self.phase: Phase = phase
        self.started: Latch = Latch()
        self.ended: Latch = Latch()
        self.nursery: trio.Nursery | None = None
        # The transports' own: the GET that waits, the POST and the WebSockets that are being served.
        self.poll: PendingPoll | None = None
        self.post: trio.CancelScope | None = None
        self.probe: trio.CancelScope | None = None
        self.websocket: WebSocket | None = None
        self.websocket_scope: trio.CancelScope | None = None
        self._config = config
        # That of `running()`: no task of a session inherits the context variables of the request that it happens in.
        self._context = context
        self._flusher = flusher
        self._on_closed = on_closed
        self._sink: Sink = Inbox(config.max_inbox_messages)
        self._outbox = Outbox(config.max_outbox_bytes, config.max_outbox_packets)
        #: Where what is queued for it is, while that is the same as what is queued for others.
        self.batch: Batch | None = None
        self._flow = Flow.IDLE
        self._writable: trio.lowlevel.ParkingLot | None = None
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

    @property
    def buffered_bytes(self) -> int:
        """Bytes of content that wait to be sent."""
        return self._outbox.size + (0 if self.batch is None else self.batch.outbox.size)

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

    # Sending

    def write(self, packet: EncodedPacket) -> bool:
        """Queue a unit; it leaves at the end of the tick, or with the next poll. Never waits.

        Returns:
            False if the session takes nothing any more; a unit that exceeds the outbox's bounds closes the session.
        """
        if not self.phase.open:
            return False
        if self.batch is not None:
            self.leave_batch()
        box = self._outbox
        if box.count and not box.fits(packet):
            self.finish(
                TRANSPORT_ERROR,
                f"the client does not keep up: {box.size} bytes in {box.count} packets wait for it "
                f"(max_outbox_bytes={box.max_bytes}, max_outbox_packets={box.max_packets})",
            )
            return False
        self._put(packet)
        return True

    def _put(self, packet: EncodedPacket) -> None:
        self._outbox.put(packet)
        if self._flow is _IDLE and (self.websocket is not None or self.poll is not None):
            self._flow = _NOTED
            self._flusher.note(self)

    def write_at_once(self, packet: EncodedPacket) -> bool:
        """Queue a unit, unless there is something to wait for.

        Returns:
            False if nothing was queued: `must_wait` says whether that is for now, or for ever.
        """
        if self.batch is not None:
            self.leave_batch()
        if not self.phase.open or not self._outbox.takes_at_once(packet):
            return False
        self._put(packet)
        return True

    def has_room(self, packet: EncodedPacket) -> bool:
        """Whether `write` would take this unit without closing the session."""
        if self.batch is not None:
            self.leave_batch()
        return self._outbox.fits(packet)

    @property
    def writable(self) -> bool:
        """Whether a packet would leave at once: no write is under way, nothing is queued (for volatile packets)."""
        return (
            self.phase.open
            and self._flow is Flow.IDLE
            and not self._outbox
            and self.batch is None
            and (self.websocket is not None or self.poll is not None)
        )

    def must_wait(self, packet: EncodedPacket) -> bool:
        """Whether `wait_writable` has something to wait for."""
        if self.batch is not None:
            self.leave_batch()
        box = self._outbox
        return self.phase.open and not box.takes_at_once(packet)

    async def wait_writable(self, packet: EncodedPacket) -> None:
        """Wait until no more than half of the outbox is in use, and a unit fits into it.

        Always a checkpoint; returns at once after the close.
        """
        await trio.lowlevel.checkpoint()
        while self.must_wait(packet):
            if self._writable is None:
                self._writable = trio.lowlevel.ParkingLot()
            await self._writable.park()

    def note(self, dirty: Flushable) -> None:
        """Have something flushed at the end of this tick."""
        self._flusher.note(dirty)

    def flush_if_alone(self) -> None:
        """Flush before whoever has written waits, if no other client has been read from or written to in this tick.

        A client that is alone has its answer a tick earlier, after 75 microseconds instead of 97. With many it would
        cost all of them a tenth more: their answers to the first would come before the others are written to.
        """
        if self._flow is _NOTED and self._flusher.is_quiet:
            self.flush()

    def enter(self, batch: Batch) -> bool:
        """Have what is put into a batch instead of an outbox; False if something else is to be sent before."""
        if self.websocket is None or self.batch is not None or self._flow is not _IDLE or not self.phase.open:
            return False
        self.batch = batch
        return True

    def leave_batch(self) -> None:
        """Go on with an outbox of its own, which begins with what is in the batch."""
        assert self.batch is not None, "asked before"
        batch, self.batch = self.batch, None
        batch.on_leave(self)
        if batch.outbox.count:
            self._outbox.copy(batch.outbox)
            self._flow = _NOTED
            self._flusher.note(self)

    def send_batch(self, packets: Sequence[EncodedPacket]) -> None:
        """Write what is in its batch, at the end of the tick."""
        assert self.websocket is not None, "else it would not be in a batch"
        self.batch = None
        self._send(self.websocket, packets)

    def flush(self) -> None:
        """Hand over what is queued, as far as the transport takes it."""
        if self._flow is _DRAINING:
            return
        if self.batch is not None:
            self.leave_batch()
        self._flow = _IDLE
        if not self._outbox:
            return
        if self.websocket is not None:
            self._send(self.websocket, self._outbox.take())
        elif self.poll is not None:
            self._answer_poll(self._outbox.take())
            self._wake_writers()

    def _send(self, websocket: WebSocket, packets: Sequence[EncodedPacket]) -> None:
        try:
            complete = websocket.send_nowait(packets)
        except trio.BrokenResourceError:
            self.finish(TRANSPORT_ERROR, "write error")
            return
        if complete:
            if self._writable is not None or not self.phase.open:
                self._sent()
        else:
            self._flow = Flow.DRAINING
            if websocket.drain is not None:
                self.spawn(self.drain, websocket, websocket.drain)

    async def drain(self, websocket: WebSocket, drain: Callable[[], Awaitable[None]]) -> None:
        """Wait until a WebSocket has written what it has taken; then go on, if it carries the session."""
        try:
            await drain()
        except trio.BrokenResourceError:
            if self.websocket is websocket:
                self.finish(TRANSPORT_ERROR, "write error")
            return
        if self.websocket is websocket:
            self.on_drained()

    def on_drained(self) -> None:
        """The WebSocket has written what it has taken."""
        if self.phase is Phase.CLOSED or self.websocket is None:
            return
        self._flow = Flow.IDLE
        if self._outbox:
            self._send(self.websocket, self._outbox.take())
        else:
            self._sent()

    def _sent(self) -> None:
        if self._writable is not None:
            self._wake_writers()
        if self.phase is Phase.CLOSING_WEBSOCKET:
            self.finish(FORCED_CLOSE)

    def _wake_writers(self) -> None:
        if self._writable is not None and not self._outbox.above_high_water:
            self._writable.unpark_all()
            self._writable = None

    def _answer_poll(self, packets: list[EncodedPacket]) -> None:
        assert self.poll is not None, "only a pending poll can be answered"
        poll, self.poll = self.poll, None
        poll.answer(packets)

    def release_poll(self) -> None:
        """Answer a pending poll, with nothing if need be, so that the client can go on to its WebSocket."""
        if self.poll is not None:
            self._answer_poll(self._outbox.take() or [NOOP])

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

    def end_batch(self) -> None:
        """Write the replies to what has just been read, unless others are being read from as well."""
        self._flusher.reads += 1
        if self._flow is _NOTED and self._flusher.is_quiet:
            self.flush()

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

    def carry(self, websocket: WebSocket, scope: trio.CancelScope, flow: Flow = Flow.IDLE) -> None:
        """Use a WebSocket from now on."""
        self.websocket = websocket
        self.websocket_scope = scope
        self._flow = flow
        self.flush()
        if self.phase is Phase.CLOSING_WEBSOCKET and not self._outbox and self._flow is Flow.IDLE:
            self.finish(FORCED_CLOSE)

    def __repr__(self) -> str:
        return f"<Session {self.remote_address} {self.phase.name.lower()}, {self._outbox.size} bytes queued>"
