"""Dynamic namespaces: parents, whose children are made when a client asks for them.

Socket.IO server API, "dynamic namespaces". A parent is a pattern or a predicate, with middlewares and listeners that
each child starts out with. Resolving a name is the only part of a CONNECT that may wait for the application, so it
keeps no state: who waits is told which parent wants the name, and makes the child (or finds that somebody has, while it
waited) in one synchronous block with the socket that enters it.
"""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Any, TypeAlias

from .._adapters.memory import MemoryAdapter
from .._errors import ConnectionRefused, LocalProtocolError
from .._listeners import inspect_listener, raise_cancellations
from .._wire.parser import MAX_NAMESPACE_LENGTH
from .namespace import Namespace

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from .._adapters.answers import AckStream
    from .._adapters.contract import Adapter, BroadcastOptions, SocketDetails
    from .._wire.encoded import EncodedPacket
    from .._wire.packets import Packet
    from .server import Server

logger = logging.getLogger("trio_socketio.server")

NamespacePredicate: TypeAlias = "Callable[[str, Any], bool | Awaitable[bool]]"
Matcher: TypeAlias = "re.Pattern[str] | NamespacePredicate"

# A comma ends a name in a packet, U+001E ends a packet in a polling body, and surrogates have no UTF-8.
_CAN_TRAVEL = re.compile(rf"/[^,\x1e\ud800-\udfff]{{0,{MAX_NAMESPACE_LENGTH - 1}}}")


def can_travel(name: str) -> bool:
    """Whether a packet can carry a namespace's name."""
    return _CAN_TRAVEL.fullmatch(name) is not None


class ParentNamespace(Namespace):
    """Namespaces that are made when clients ask for them; from `Server.of` with a pattern or a predicate.

    What is registered here with `on` (``connection``), `use`, `handle` and `add_handlers` each child starts out with,
    as it is when the child is made: what comes later it does not get. Emits reach every child, each by its own rooms,
    and so do `sockets_join`, `sockets_leave` and `disconnect_sockets`; one that is cancelled has reached each child
    either wholly or not at all. Everything that would need an answer of several namespaces raises
    `LocalProtocolError`. It has no sockets of its own.

    Attributes:
        matcher: The pattern or predicate.
        children: Its namespaces by name; not to be changed.
    """

    def __init__(self, name: str, server: Server, matcher: Matcher) -> None:
        super().__init__(name, server)
        self.matcher = matcher
        self.children: dict[str, Namespace] = {}
        self._predicate = (
            None if isinstance(matcher, re.Pattern) else inspect_listener(matcher, what="namespace predicate", given=2)
        )

    def _make_adapter(self) -> Adapter:
        return ChildrenAdapter(self)

    def _make_recovery(self) -> None:
        """Its children have theirs."""

    def matches(self, name: str) -> bool:
        """Whether its pattern is found in a name; a predicate decides about clients only."""
        # `search` begins at the name's beginning each time: a compiled pattern keeps no position.
        return isinstance(self.matcher, re.Pattern) and self.matcher.search(name) is not None

    async def allows(self, name: str, auth: Any) -> bool:
        """Whether a client may have a namespace of this name. A predicate that fails has said no."""
        predicate = self._predicate
        if predicate is None:
            return self.matches(name)
        try:
            if predicate.is_async:
                return bool(await predicate.fn(*(name, auth)[: predicate.most]))
            return bool(predicate.call_sync(name, auth))
        except Exception as error:
            self._report(name, error)
        except BaseExceptionGroup as group:
            raise_cancellations(group, lambda error: self._report(name, error))
        return False

    def _report(self, name: str, error: Exception) -> None:
        if isinstance(error, ConnectionRefused):
            logger.info("the namespace %r was refused: %s", name, error)
        else:
            logger.error("the predicate %r failed, so there is no namespace %r", self.matcher, name, exc_info=error)

    def adopt(self, child: Namespace) -> None:
        """Take a new namespace as a child."""
        child.parent = self
        child.inherit(self)
        self.children[child.name] = child

    def __repr__(self) -> str:
        return f"<ParentNamespace {self.matcher!r}, {len(self.children)} children>"


class Parents:
    """The parents of a server, in the order of their registration."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._parents: list[ParentNamespace] = []

    def __len__(self) -> int:
        return len(self._parents)

    def add(self, matcher: Matcher) -> ParentNamespace:
        """Register a pattern or a predicate.

        Raises:
            TypeError: It is neither, or a function that cannot be called with a name and what the client said.
            ValueError: It is registered already.
        """
        if isinstance(matcher, re.Pattern):
            if isinstance(matcher.pattern, bytes):
                raise TypeError(f"the names of namespaces are text, and {matcher!r} is a pattern of bytes")
        elif not callable(matcher):
            raise TypeError(f"a namespace is a string, a compiled pattern or a function, not {matcher!r}")
        if any(parent.matcher == matcher for parent in self._parents):
            raise ValueError(f"{matcher!r} is registered already; keep what of() returned for it")
        parent = ParentNamespace(f"/_{len(self._parents)}", self._server, matcher)
        self._parents.append(parent)
        return parent

    def by_pattern(self, name: str) -> ParentNamespace | None:
        """The first parent whose pattern is found in a name."""
        return next((parent for parent in self._parents if parent.matches(name)), None)

    async def find(self, name: str, auth: Any) -> ParentNamespace | None:
        """The first parent that wants a client's namespace; each is asked when the one before it has said no."""
        if can_travel(name):
            for parent in tuple(self._parents):
                if await parent.allows(name, auth):
                    return parent
        return None


class ChildrenAdapter(MemoryAdapter):
    """The adapter of a parent: what it is asked to do, it has the adapter of each child do."""

    def __init__(self, parent: ParentNamespace) -> None:
        super().__init__(parent)
        self._parent = parent

    def _adapters(self) -> list[Adapter]:
        return [child.adapter for child in self._parent.children.values()]

    async def broadcast(self, packet: Packet, encoded: EncodedPacket, options: BroadcastOptions) -> None:
        # A packet has its namespace in it, so there is an encoding for each child; the parent's own was the check that
        # it can be encoded.
        for child in list(self._parent.children.values()):
            addressed = packet._replace(namespace=child.name)
            await child.adapter.broadcast(addressed, child.encode(addressed, options.compress), options)
        await super().broadcast(packet, encoded, options)

    async def add_sockets(self, options: BroadcastOptions, rooms: Sequence[str], wait: bool = False) -> None:
        for adapter in self._adapters():
            await adapter.add_sockets(options, rooms, wait)
        await super().add_sockets(options, rooms)

    async def delete_sockets(self, options: BroadcastOptions, rooms: Sequence[str], wait: bool = False) -> None:
        for adapter in self._adapters():
            await adapter.delete_sockets(options, rooms, wait)
        await super().delete_sockets(options, rooms)

    async def disconnect_sockets(self, options: BroadcastOptions, close: bool) -> None:
        for adapter in self._adapters():
            await adapter.disconnect_sockets(options, close)
        await super().disconnect_sockets(options, close)

    async def broadcast_with_ack(self, packet: Packet, options: BroadcastOptions, acks: AckStream) -> None:
        raise _unsupported("emit_with_ack()")

    async def fetch_sockets(self, options: BroadcastOptions) -> list[SocketDetails]:
        raise _unsupported("fetch_sockets()")

    async def server_side_emit(self, args: Sequence[Any]) -> None:
        raise _unsupported("server_side_emit()")

    async def server_side_emit_with_ack(self, args: Sequence[Any], acks: AckStream) -> None:
        raise _unsupported("server_side_emit_with_ack()")


def _unsupported(member: str) -> LocalProtocolError:
    return LocalProtocolError(f"{member} is not supported on parent namespaces")
