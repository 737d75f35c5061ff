"""What has to be known of sockets for the time when they come back, whatever a position is.

Since when a socket has been in which room, and what was sent to it last: so nothing that was said somewhere before it
joined is sent to it later. A position is one in what everybody is sent: a number of a log, or an id of a stream.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar

import trio

if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Set as AbstractSet

    from .contract import PersistedSession, Room

PositionT = TypeVar("PositionT", bound=Any)
SentT = TypeVar("SentT")
TraceT = TypeVar("TraceT", bound="BaseTrace[Any, Any]")


class BaseTrace(Generic[PositionT, SentT]):
    """What has to be known of one socket.

    Attributes:
        opened: The position when the client connected first.
        joined: The position when it joined a room, for those that it joined since.
        last_sent: What was the last event for it.
        replayed: What that will be when the socket is connected again.
        left: The position when it lost its connection.
        expires: Until when it may come back, on Trio's clock.
    """

    __slots__ = ("expires", "joined", "last_sent", "left", "opened", "replayed")

    def __init__(self, opened: PositionT, nothing_sent: SentT) -> None:
        self.opened: PositionT = opened
        self.joined: dict[Room, PositionT] = {}
        self.last_sent: SentT = nothing_sent
        self.replayed: SentT = nothing_sent
        self.left: PositionT = opened
        self.expires: float = 0.0

    def is_meant(
        self,
        position: PositionT,
        wanted: AbstractSet[Room],
        unwanted: AbstractSet[Room],
        rooms: AbstractSet[Room],
    ) -> bool:
        """Whether an event at a position, for these rooms but not those, was for a socket that is in `rooms`."""
        since = {room for room in rooms if self.joined.get(room, self.opened) < position}
        return (not wanted or not since.isdisjoint(wanted)) and since.isdisjoint(unwanted)


class Traces(Generic[TraceT]):
    """The traces of the connected sockets.

    Args:
        make: A new trace, opened at a position.
        position: The position now.
    """

    def __init__(self, make: Callable[[Any], TraceT], position: Callable[[], Any]) -> None:
        self._make = make
        self._position = position
        self._traces: dict[str, TraceT] = {}

    def __len__(self) -> int:
        return len(self._traces)

    def get(self, id: str) -> TraceT | None:
        """That of a socket, if it is connected."""
        return self._traces.get(id)

    def connected(self, id: str, session: PersistedSession | None, rooms: AbstractSet[Room]) -> None:
        """A socket in these rooms is connected; if it has come back, as the one that left this session."""
        position = self._position()
        if session is None:
            self._traces[id] = self._make(position)
            return
        trace: TraceT = session.trace
        self._traces[id] = trace
        trace.last_sent = trace.replayed
        # Rooms that a middleware has put it into: what was said there before is not for it.
        trace.joined.update(dict.fromkeys(rooms - session.rooms, position))

    def on_join(self, room: Room, id: str) -> None:
        """A socket has joined a room."""
        trace = self._traces.get(id)
        if trace is not None:
            trace.joined[room] = self._position()

    def forget(self, id: str) -> None:
        """A socket is gone."""
        self._traces.pop(id, None)

    def depart(self, id: str, seconds: float) -> TraceT:
        """A socket has lost its connection, and may come back for some seconds."""
        position = self._position()
        trace = self._traces.pop(id, None) or self._make(position)
        trace.left = position
        trace.expires = trio.current_time() + seconds
        return trace
