"""What a socket sends: to its own client, and, by operators, to others.

A packet for the client is encoded first, so what cannot be encoded leaves no trace; then it is queued whole, in one
synchronous block with the checks that it may be. With connection state recovery an event goes through the socket's own
room instead, where it is kept in case the client is away.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import TYPE_CHECKING, Any, overload

import trio

from .._adapters.contract import BroadcastOptions
from .._errors import AckTimeout, SocketDisconnected
from .acks import SingleAck
from .catch_all import CatchAllListening
from .event_types import AnswerT, ArgsT, EventType, event_name
from .operator import BroadcastOperator, SocketOperator

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .._adapters.contract import PendingAck
    from .._engine.session import Session
    from .._wire.encoded import EncodedPacket
    from .._wire.packets import Packet
    from .events import EventQueue
    from .namespace import Namespace
    from .recovery import Passport


class Emitting(CatchAllListening):
    """The emits of a `Socket`."""

    id: str
    namespace: Namespace
    conn: Session
    acks: dict[int, PendingAck]
    passport: Passport | None
    _events: EventQueue
    _why: tuple[str, str | None]

    @property
    @abstractmethod
    def alive(self) -> bool:
        """Whether anything may still be sent or started for it."""

    @property
    @abstractmethod
    def keeper(self) -> Passport | None:
        """By which events are kept for its client, if they are."""

    def require_alive(self) -> None:
        """Raise `SocketDisconnected` if it is not alive."""
        if not self.alive:
            raise SocketDisconnected(self._why[0])

    # To its client

    @overload
    async def emit(self, event: EventType[Any, *ArgsT], *args: *ArgsT) -> None: ...
    @overload
    async def emit(self, event: str | int, *args: Any) -> None: ...
    async def emit(self, event: Any, *args: Any) -> None:  # type: ignore[misc]  # mypy does not see that Any takes *ArgsT
        """Send an event to this client.

        Waits while more than half of the session's outbox is in use; the packet is queued when this returns, and leaves
        at the end of the scheduler's tick, or with the client's next poll. When cancelled, nothing has been sent.

        Always a checkpoint. It gives way to other tasks as well, but for the first time that a handler of this client's
        emits: others have just had their turn before the handler began.

        Args:
            event: Not one of the protocol's own names.
            args: JSON values, with bytes anywhere in them.

        Raises:
            EncodeError: A value that cannot be encoded; nothing was queued.
            ReservedEventError: The name is the protocol's own.
            SocketDisconnected: The socket has ended, and with ``connection_state_recovery``: its client cannot come
                back any more.
        """
        if type(event) is EventType:
            event = event.name
        if self.passport is not None:
            await self.send_event(event, args)
            return
        # The same without three calls, each of which would be an object more that lives through the checkpoint: of 27
        # microseconds for an event with 16 in flight, this and the same in `EventQueue` save 5.
        encoded = self.namespace.encode_event(event, args)
        await trio.lowlevel.checkpoint_if_cancelled()
        conn = self.conn
        if self._outgoing or not self.alive or not conn.write_at_once(encoded):
            if conn.must_wait(encoded):
                await conn.wait_writable(encoded)
            self.require_alive()
            self._write(encoded, event, args)
        events = self._events
        if events.fresh is not None and events.fresh is trio.lowlevel.current_task():
            events.fresh = None  # others have just had their turn, and it has been asked whether it is cancelled
            return
        conn.flush_if_alone()
        await trio.lowlevel.cancel_shielded_checkpoint()

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
        self.require_alive()
        id = self.namespace.next_ack_id()
        encoded = self.encode_event(event, args, id, options.compress)
        await trio.lowlevel.checkpoint_if_cancelled()
        ack = self.acks[id] = SingleAck()
        try:
            with trio.move_on_after(math.inf if options.timeout is None else options.timeout):
                if options.volatile:
                    self.send_volatile(encoded, event, args)
                elif self.conn.must_wait(encoded):
                    await self.send_packet(encoded, event, args)
                else:  # without a wait, so that no time at all is enough to ask
                    self._write(encoded, event, args)
                return await ack.wait()
        except trio.EndOfChannel:
            raise SocketDisconnected(self._why[0]) from None
        finally:
            self.acks.pop(id, None)
        raise AckTimeout

    def encode_event(
        self, event: str | int, args: Sequence[Any], id: int | None = None, compress: bool = True
    ) -> EncodedPacket:
        """An event for this socket's namespace, encoded."""
        return self.namespace.encode_event(event, args, id, compress)

    async def send_event(self, event: str | int, args: Sequence[Any], compress: bool = True) -> None:
        """`emit`, with flags."""
        encoded = self.encode_event(event, args, compress=compress)
        if self.keeper is None:
            await self.send_packet(encoded, event, args)
        else:
            keeper = self.keeper
            await self.conn.wait_writable(encoded)
            await keeper.emit(self.id, self._kept_packet(keeper, event, args), encoded)

    def send_event_nowait(self, event: str | int, args: Sequence[Any], compress: bool = True) -> None:
        """`emit_nowait`, with flags."""
        encoded = self.encode_event(event, args, compress=compress)
        if self.keeper is None:
            self.send_packet_nowait(encoded, event, args)
        elif self.alive and not self.conn.has_room(encoded):
            raise trio.WouldBlock
        else:
            self.keeper.emit_nowait(self.id, self._kept_packet(self.keeper, event, args), encoded)

    def _kept_packet(self, keeper: Passport, event: str | int, args: Sequence[Any]) -> Packet:
        if not keeper.is_awaited:
            self.require_alive()
        return self.namespace.event_packet(event, args)

    async def send_packet(self, encoded: EncodedPacket, event: str | int, args: Sequence[Any]) -> None:
        """Queue an event, after waiting for room."""
        await self.conn.wait_writable(encoded)
        self.require_alive()
        self._write(encoded, event, args)

    def send_packet_nowait(self, encoded: EncodedPacket, event: str | int, args: Sequence[Any]) -> None:
        """Queue an event, if there is room."""
        self.require_alive()
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
            self.require_alive()  # one that failed may have cost the socket its life
        if not self.conn.write(encoded):
            raise SocketDisconnected(self._why[0] or "forced close")

    @property
    def volatile(self) -> SocketOperator:
        """For packets that may be dropped if the client cannot take them at once."""
        return SocketOperator(self, BroadcastOptions(volatile=True))

    def compress(self, compress: bool) -> SocketOperator:
        """For packets that a transport may, or may not, compress."""
        return SocketOperator(self, BroadcastOptions(compress=compress))

    def timeout(self, seconds: float) -> SocketOperator:
        """For acknowledgements with a time limit: `AckTimeout` is raised after so many seconds. 0 asks all the same."""
        return SocketOperator(self, BroadcastOptions(timeout=seconds))

    # To everybody else

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
