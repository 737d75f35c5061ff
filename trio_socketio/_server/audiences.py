"""Who gets what is broadcast in a namespace, remembered from one broadcast to the next.

An adapter that is asked for the same recipients gives the same tuple of ids for as long as nobody joins or leaves. The
sessions behind it are remembered until a socket of the namespace connects or ends; and what is broadcast to them within
a tick is queued once for all (`trio_socketio._engine.batch`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .socket import State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from collections.abc import Set as AbstractSet

    from .._engine.batch import Batch
    from .._engine.session import Session
    from .._wire.encoded import EncodedPacket
    from .socket import Socket

#: Audiences that are remembered.
MAX_REMEMBERED = 32
#: So few recipients are written to one by one.
FEW = 4

_CONNECTED = State.CONNECTED


class _Audience:
    __slots__ = ("batch", "ids", "sessions")

    def __init__(self, ids: tuple[str, ...], sessions: list[Session]) -> None:
        self.ids = ids  # kept, so that no other tuple can have its identity
        self.sessions = sessions
        self.batch: Batch | None = None


class Audiences:
    """The audiences of one namespace.

    Args:
        sockets: Those of the namespace, by id; live.
        open_batch: Makes a `Batch` for sessions.
    """

    __slots__ = ("_audiences", "_open_batch", "_sockets")

    def __init__(self, sockets: Mapping[str, Socket], open_batch: Callable[[Iterable[Session]], Batch]) -> None:
        self._sockets = sockets
        self._open_batch = open_batch
        self._audiences: dict[int, _Audience] = {}

    def send(self, ids: tuple[str, ...], encoded: EncodedPacket, left_out: AbstractSet[str]) -> None:
        """Send to each of these sockets that is connected, and not left out."""
        audience = self._audiences.get(id(ids))
        if audience is None:
            audience = self._remember(ids)
        batch = audience.batch
        if batch is None or not batch.is_open:
            batch = audience.batch = self._open_batch(audience.sessions)
        batch.put(encoded, [self._sockets[id].conn for id in left_out if id in self._sockets])

    def _remember(self, ids: tuple[str, ...]) -> _Audience:
        if len(self._audiences) >= MAX_REMEMBERED:
            self._audiences.clear()
        sockets = self._sockets
        found = [sockets[id] for id in ids if id in sockets]
        audience = _Audience(ids, [socket.conn for socket in found if socket.state is _CONNECTED])
        self._audiences[id(ids)] = audience
        return audience

    def forget(self) -> None:
        """A socket has connected, or is not connected any more."""
        self._audiences.clear()
