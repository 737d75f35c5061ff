"""Whom a broadcast reaches: immutable operators. Every step returns a new one, so any of them can be kept and reused.

`Broadcasting` has the steps and what can be done at their end; servers, namespaces and operators share it. They only
differ in where they begin.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, overload

import trio

from .._adapters.answers import AckStream
from .._adapters.contract import BroadcastOptions
from .._adapters.targets import one_or_more
from .._errors import AckTimeout, LocalProtocolError, ReservedEventError
from .._wire.packets import RESERVED_SERVER_EVENTS
from .event_types import AnswerT, ArgsT, event_name

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from .emitting import Emitting
    from .event_types import EventType
    from .namespace import Namespace
    from .remote import AnySocket

#: Seconds that other servers have to answer a server-side emit, where the caller does not say.
SERVERS_TIMEOUT = 5.0


class Broadcasting(ABC):
    """The operations on many sockets at once, and the filters before them."""

    __slots__ = ()

    @abstractmethod
    def _operator(self) -> BroadcastOperator:
        """Where the steps begin."""

    # Filters and flags

    def to(self, rooms: str | Iterable[str]) -> BroadcastOperator:
        """Only sockets in this room, or in any of these; several calls add up."""
        return self._operator().to(rooms)

    def in_(self, rooms: str | Iterable[str]) -> BroadcastOperator:
        """The same as `to`."""
        return self._operator().to(rooms)

    def except_(self, rooms: str | Iterable[str]) -> BroadcastOperator:
        """Not sockets in this room, or in any of these; several calls add up. A socket's id is a room."""
        return self._operator().except_(rooms)

    @property
    def local(self) -> BroadcastOperator:
        """Only sockets of this server."""
        return self._operator().local

    @property
    def volatile(self) -> BroadcastOperator:
        """Drop the packet for those who cannot take it at once."""
        return self._operator().volatile

    def compress(self, compress: bool) -> BroadcastOperator:
        """Whether a transport may compress the packet; it may by default."""
        return self._operator().compress(compress)

    def timeout(self, seconds: float) -> BroadcastOperator:
        """How long, in seconds, answers are waited for; then `AckTimeout` is raised with what arrived."""
        return self._operator().timeout(seconds)

    # Emitting

    @overload
    async def emit(self, event: EventType[Any, *ArgsT], *args: *ArgsT) -> None: ...
    @overload
    async def emit(self, event: str | int, *args: Any) -> None: ...
    async def emit(self, event: Any, *args: Any) -> None:  # type: ignore[misc]  # mypy does not see that Any takes *ArgsT
        """Send an event to everybody who is meant.

        Encoded once. The local part is done in one synchronous block: atomic towards joins and leaves, and it waits for
        nobody; a client whose outbox is full loses its session (``transport error``). When cancelled, nobody has been
        sent anything, or every local socket has.

        Raises:
            EncodeError: A value that cannot be encoded; nothing was sent.
            ReservedEventError: The name is the protocol's own.
        """
        event = event_name(event)
        operator = self._operator()
        namespace, options = operator.namespace, operator.options
        packet = namespace.event_packet(event, args)
        encoded = namespace.encode(packet, options.compress)
        await namespace.adapter.broadcast(packet, encoded, options)

    @overload
    async def emit_with_ack(self, event: EventType[AnswerT, *ArgsT], *args: *ArgsT) -> list[AnswerT]: ...
    @overload
    async def emit_with_ack(self, event: str | int, *args: Any) -> list[Any]: ...
    async def emit_with_ack(self, event: Any, *args: Any) -> list[Any]:  # type: ignore[misc]  # mypy does not see that Any takes *ArgsT
        """Send an event to everybody who is meant, and wait for their acknowledgements.

        A client that leaves is not waited for any longer. Without `timeout`, the time is the caller's own
        (`trio.fail_after`), and then what did arrive is lost with the cancellation.

        Returns:
            The acknowledgements in the order of their arrival: each None, a value, or a tuple of several.

        Raises:
            AckTimeout: The operator's `timeout` has passed; ``.responses`` are those that arrived.
        """
        event = event_name(event)
        async with self.acks(event, *args) as replies:
            return [reply async for reply in replies]

    @asynccontextmanager
    async def acks(self, event: str | int | EventType[Any, *tuple[Any, ...]], *args: Any) -> AsyncIterator[AckStream]:
        """Send an event to everybody who is meant; inside the context, get the acknowledgements as they arrive::

            async with io.to("room").timeout(5).acks("question") as replies:
                async for reply in replies:
                    ...

        The iteration ends when everybody has answered or left, and raises `AckTimeout` when the operator's `timeout`
        has passed. Leaving the context early is fine: later acknowledgements are ignored.
        """
        operator = self._operator()
        namespace, options = operator.namespace, operator.options
        packet = namespace.event_packet(event_name(event), args)
        replies = AckStream(options.timeout)
        try:
            await namespace.adapter.broadcast_with_ack(packet, options, replies)
            yield replies
        finally:
            replies.abandon()

    # The utility methods

    async def sockets_join(self, rooms: str | Iterable[str], *, wait: bool = False) -> None:
        """Put everybody who is meant into a room, or several.

        Here that is done when this returns; other servers of a cluster do it when they hear of it.

        Args:
            rooms: Their names.
            wait: Return when every other server with this library has done it as well. Servers of Node.js do not
                confirm it. The time is that of `timeout`, or else the adapter's (5 s).

        Raises:
            AckTimeout: With `wait`: servers have not confirmed it in time; ``.servers`` are their names.
            ConnectionError: With `wait`: the other servers cannot be reached.
        """
        operator = self._operator()
        await operator.namespace.adapter.add_sockets(operator.options, one_or_more(rooms), wait)

    async def sockets_leave(self, rooms: str | Iterable[str], *, wait: bool = False) -> None:
        """Take everybody who is meant out of a room, or several; see `sockets_join`."""
        operator = self._operator()
        await operator.namespace.adapter.delete_sockets(operator.options, one_or_more(rooms), wait)

    async def disconnect_sockets(self, close: bool = False) -> None:
        """Disconnect everybody who is meant; see `Socket.disconnect`. Does not wait for other servers to do so."""
        operator = self._operator()
        await operator.namespace.adapter.disconnect_sockets(operator.options, close)

    async def fetch_sockets(self) -> list[AnySocket]:
        """Everybody who is meant: a `Socket` for each that is connected here, a `RemoteSocket` for each elsewhere.

        Raises:
            AckTimeout: Other servers have not answered within `timeout`, or else the adapter's time (5 s);
                ``.responses`` are the sockets that are known, ``.servers`` the names of the silent ones.
            ConnectionError: The other servers cannot be reached.
        """
        operator = self._operator()
        namespace = operator.namespace
        try:
            found = await namespace.adapter.fetch_sockets(operator.options)
        except AckTimeout as error:
            known = [namespace.socket_of(details) for details in error.responses]
            raise AckTimeout(known, error.missing, error.servers) from None
        return [namespace.socket_of(details) for details in found]

    # Other servers

    async def server_side_emit(self, event: str, *args: Any) -> None:
        """Emit to the same namespace of all other servers of the cluster; not to clients, and not to this server.

        There a listener of `Namespace.on` gets it. A server that stands alone has nobody to emit to.

        Raises:
            ValueError: The name is one of a namespace's own events.
            LocalProtocolError: Rooms were chosen, which servers are not in.
        """
        operator = self._to_servers(event)
        if not operator.options.local:
            await operator.namespace.adapter.server_side_emit([event, *args])

    async def server_side_emit_with_ack(self, event: str, *args: Any) -> list[Any]:
        """Like `server_side_emit`, and collect one answer of each other server; without any, ``[]`` at once.

        Returns:
            The answers in the order of their arrival.

        Raises:
            AckTimeout: Servers have not answered within `timeout`, or else 5 s; ``.responses`` are the answers that
                arrived, ``.servers`` the names of the silent ones. One that leaves meanwhile is not waited for.
            ConnectionError: The other servers cannot be reached.
        """
        async with self.server_side_acks(event, *args) as replies:
            return [reply async for reply in replies]

    @asynccontextmanager
    async def server_side_acks(self, event: str, *args: Any) -> AsyncIterator[AckStream]:
        """Like `server_side_emit`; inside the context, get the answers of the other servers as they arrive.

        See `acks`. Without `timeout`, they have 5 s.
        """
        operator = self._to_servers(event)
        options = operator.options
        replies = AckStream(SERVERS_TIMEOUT if options.timeout is None else options.timeout)
        try:
            if options.local:
                replies.all_asked()
            else:
                await operator.namespace.adapter.server_side_emit_with_ack([event, *args], replies)
            yield replies
        finally:
            replies.abandon()

    def _to_servers(self, event: str) -> BroadcastOperator:
        if event in RESERVED_SERVER_EVENTS:
            raise ReservedEventError(event)
        operator = self._operator()
        if operator.options.rooms or operator.options.except_rooms:
            raise LocalProtocolError("servers are not in rooms: a server-side emit is for all of them")
        return operator


class BroadcastOperator(Broadcasting):
    """A choice of sockets in a namespace. Immutable; made by the steps of `Broadcasting`."""

    __slots__ = ("namespace", "options")

    def __init__(self, namespace: Namespace, options: BroadcastOptions) -> None:
        self.namespace: Namespace = namespace
        self.options: BroadcastOptions = options

    def _operator(self) -> BroadcastOperator:
        return self

    def _with(self, **changes: Any) -> BroadcastOperator:
        return BroadcastOperator(self.namespace, replace(self.options, **changes))

    def to(self, rooms: str | Iterable[str]) -> BroadcastOperator:
        return self._with(rooms=self.options.rooms.union(one_or_more(rooms)))

    def in_(self, rooms: str | Iterable[str]) -> BroadcastOperator:
        return self.to(rooms)

    def except_(self, rooms: str | Iterable[str]) -> BroadcastOperator:
        return self._with(except_rooms=self.options.except_rooms.union(one_or_more(rooms)))

    @property
    def local(self) -> BroadcastOperator:
        return self._with(local=True)

    @property
    def volatile(self) -> BroadcastOperator:
        return self._with(volatile=True)

    def compress(self, compress: bool) -> BroadcastOperator:
        return self._with(compress=compress)

    def timeout(self, seconds: float) -> BroadcastOperator:
        return self._with(timeout=seconds)

    def __repr__(self) -> str:
        return f"<BroadcastOperator in {self.namespace.name}: {self.options}>"


class SocketOperator:
    """One socket, with flags for what is emitted to it. Immutable; from `Socket.volatile`, `compress` and `timeout`."""

    __slots__ = ("_options", "_socket")

    def __init__(self, socket: Emitting, options: BroadcastOptions) -> None:
        self._socket = socket
        self._options = options

    def _with(self, **changes: Any) -> SocketOperator:
        return SocketOperator(self._socket, replace(self._options, **changes))

    @property
    def volatile(self) -> SocketOperator:
        """Drop the packet if the client cannot take it at once: between polls, or while a write is under way."""
        return self._with(volatile=True)

    def compress(self, compress: bool) -> SocketOperator:
        """Whether a transport may compress the packet."""
        return self._with(compress=compress)

    def timeout(self, seconds: float) -> SocketOperator:
        """Seconds for `emit_with_ack`."""
        return self._with(timeout=seconds)

    @property
    def broadcast(self) -> BroadcastOperator:
        """Everybody in the namespace but this socket, with the flags so far."""
        return BroadcastOperator(
            self._socket.namespace, replace(self._options, except_rooms=frozenset((self._socket.id,)))
        )

    @property
    def local(self) -> BroadcastOperator:
        """Everybody on this server but this socket, with the flags so far."""
        return self.broadcast.local

    def to(self, rooms: str | Iterable[str]) -> BroadcastOperator:
        """Everybody in these rooms but this socket, with the flags so far."""
        return self.broadcast.to(rooms)

    in_ = to

    def except_(self, rooms: str | Iterable[str]) -> BroadcastOperator:
        """Everybody but those in these rooms, and but this socket, with the flags so far."""
        return self.broadcast.except_(rooms)

    @overload
    async def emit(self, event: EventType[Any, *ArgsT], *args: *ArgsT) -> None: ...
    @overload
    async def emit(self, event: str | int, *args: Any) -> None: ...
    async def emit(self, event: Any, *args: Any) -> None:  # type: ignore[misc]  # mypy does not see that Any takes *ArgsT
        """Send an event; see `Socket.emit`. A volatile one never waits."""
        event = event_name(event)
        socket = self._socket
        if self._options.volatile:
            encoded = socket.encode_event(event, args, compress=self._options.compress)
            await trio.lowlevel.checkpoint_if_cancelled()
            socket.send_volatile(encoded, event, args)
            await trio.lowlevel.cancel_shielded_checkpoint()
        else:
            await socket.send_event(event, args, self._options.compress)

    @overload
    def emit_nowait(self, event: EventType[Any, *ArgsT], *args: *ArgsT) -> None: ...
    @overload
    def emit_nowait(self, event: str | int, *args: Any) -> None: ...
    def emit_nowait(self, event: Any, *args: Any) -> None:  # type: ignore[misc]  # mypy does not see that Any takes *ArgsT
        """Send an event without waiting; see `Socket.emit_nowait`."""
        event = event_name(event)
        socket = self._socket
        if self._options.volatile:
            socket.send_volatile(socket.encode_event(event, args, compress=self._options.compress), event, args)
        else:
            socket.send_event_nowait(event, args, self._options.compress)

    @overload
    async def emit_with_ack(self, event: EventType[AnswerT, *ArgsT], *args: *ArgsT) -> AnswerT: ...
    @overload
    async def emit_with_ack(self, event: str | int, *args: Any) -> Any: ...
    async def emit_with_ack(self, event: Any, *args: Any) -> Any:  # type: ignore[misc]  # mypy does not see that Any takes *ArgsT
        """Send an event and wait for the acknowledgement; see `Socket.emit_with_ack`.

        Raises:
            AckTimeout: The `timeout` has passed.
        """
        event = event_name(event)
        return await self._socket.ask(event, args, self._options)
