"""What a session sends: what is queued, and how it gets out, by a pending poll or a `WebSocket`.

Nothing here waits but `Sending.wait_writable`, whose caller wants to, and `Sending.drain`, which is a task of its own
where the kernel does not take all. Everything else is one synchronous block, at the end of a tick as a rule.
"""

from __future__ import annotations

import enum
from abc import abstractmethod
from typing import TYPE_CHECKING, Any

import trio

from .._wire.encoded import NOOP, EncodedPacket
from .._wire.phases import Phase
from .outbox import Outbox
from .reasons import FORCED_CLOSE, TRANSPORT_ERROR

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from .batch import Batch
    from .config import EngineConfig
    from .contract import WebSocket
    from .flusher import Flushable, Flusher


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


class Sending:
    """The sending half of a `Session`."""

    __slots__ = ("_flow", "_flusher", "_outbox", "_writable", "batch", "phase", "poll", "websocket", "websocket_scope")

    def __init__(self, config: EngineConfig, phase: Phase, flusher: Flusher) -> None:
        #: Where it is in its life: `trio_socketio._wire.phases`.
        self.phase: Phase = phase
        #: The GET that waits.
        self.poll: PendingPoll | None = None
        #: What carries the session, and what ends its pump.
        self.websocket: WebSocket | None = None
        self.websocket_scope: trio.CancelScope | None = None
        #: Where what is queued for it is, while that is the same as what is queued for others.
        self.batch: Batch | None = None
        self._outbox = Outbox(config.max_outbox_bytes, config.max_outbox_packets)
        self._flow = Flow.IDLE
        self._flusher = flusher
        self._writable: trio.lowlevel.ParkingLot | None = None

    @abstractmethod
    def spawn(self, fn: Callable[..., Awaitable[Any]], *args: Any) -> None:
        """Start a task that is cancelled when the session closes."""

    @abstractmethod
    def finish(self, reason: str, description: str | None = None) -> None:
        """Close at once, for whatever reason; the first one counts."""

    @property
    def buffered_bytes(self) -> int:
        """Bytes of content that wait to be sent."""
        return self._outbox.size + (0 if self.batch is None else self.batch.outbox.size)

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

    def end_batch(self) -> None:
        """Write the replies to what has just been read, unless others are being read from as well."""
        self._flusher.reads += 1
        self.flush_if_alone()

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

    def carry(self, websocket: WebSocket, scope: trio.CancelScope, flow: Flow = Flow.IDLE) -> None:
        """Use a WebSocket from now on."""
        self.websocket = websocket
        self.websocket_scope = scope
        self._flow = flow
        self.flush()
        if self.phase is Phase.CLOSING_WEBSOCKET and not self._outbox and self._flow is Flow.IDLE:
            self.finish(FORCED_CLOSE)
