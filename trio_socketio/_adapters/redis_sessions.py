"""Those who are away: what is left of a socket, under a key of Redis that expires.

It is what servers in Node.js write and read, and under one more name, which they ignore, what a `Trace` knows, and the
namespace. A session that does not name its namespace may be claimed in any by the client that has its private id; so
nobody vouches for it, and it does not pass without the middlewares of the one where it is claimed.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import trio

from .._errors import RedisError, RemoteProtocolError
from .._wire.cluster_streams import StreamCodec, WireSession, parse_stream_id, session_key
from .contract import PersistedSession
from .stream_reader import position_of
from .traces import BaseTrace

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from .._redis.client import Redis
    from .._redis.resp import Reply
    from .contract import BroadcastOptions, Room
    from .stream_reader import Position

logger = logging.getLogger("trio_socketio.adapters")

#: The name of what is added to a session.
TRACE = "trio"
#: Characters of a private id, of which clients may say anything; real ones have 20.
LONGEST_PID = 100


class Trace(BaseTrace["Position", "str | None"]):
    """What has to be known of a socket when it comes back; what was sent last is the offset of an event, or None."""

    __slots__ = ()

    def __init__(self, opened: Position) -> None:
        super().__init__(opened, None)

    def start(self, offset: str | None) -> Position | None:
        """After which position its client has missed something; None if what it says is no offset."""
        if offset == self.last_sent:
            return self.left  # nothing between that and its departure was for it
        return self.opened if offset is None else parse_stream_id(offset)

    def concerns(self, id: bytes, options: BroadcastOptions, rooms: AbstractSet[Room]) -> bool:
        """Whether an entry was for a socket that is in these rooms."""
        return self.is_meant(position_of(id), options.rooms, options.except_rooms, rooms)

    def to_wire(self, rooms: AbstractSet[Room]) -> dict[str, Any]:
        """What is kept of it for a socket in these rooms."""
        joined = {room: _text(position) for room, position in self.joined.items() if room in rooms}
        return {"opened": _text(self.opened), "left": _text(self.left), "last": self.last_sent, "joined": joined}

    @classmethod
    def from_wire_untrusted(cls, fields: Any, offset: str | None) -> Trace | None:
        """The trace in a session; without one, all that is known is the last event that the client has received."""
        if fields is None:
            position = None if offset is None else parse_stream_id(offset)
            return None if position is None else cls(position)
        if type(fields) is not dict:
            raise RemoteProtocolError("invalid session")
        opened, left = _position_untrusted(fields.get("opened")), _position_untrusted(fields.get("left"))
        last, joined = fields.get("last"), fields.get("joined")
        if not isinstance(last, str | None) or type(joined) is not dict:
            raise RemoteProtocolError("invalid session")
        trace = cls(opened)
        trace.left, trace.last_sent = left, last
        trace.joined = {str(room): _position_untrusted(position) for room, position in joined.items()}
        return trace


def _text(position: Position) -> str:
    return f"{position[0]}-{position[1]}"


def _position_untrusted(text: Any) -> Position:
    position = parse_stream_id(text) if isinstance(text, str) else None
    if position is None:
        raise RemoteProtocolError("invalid session")
    return position


class SessionStore:
    """The sessions of one namespace.

    When Redis is lost, nobody can come back, which is logged once.

    Args:
        client: Redis.
        namespace: The namespace.
        prefix: What the names of keys begin with.
    """

    def __init__(self, client: Redis, namespace: str, prefix: str) -> None:
        self._client = client
        self._namespace = namespace
        self._prefix = prefix
        self._codec = StreamCodec()
        self._is_lost = False

    def put(self, session: PersistedSession, trace: Trace) -> None:
        """Keep a session until its trace expires; without waiting.

        Raises:
            EncodeError: Its data cannot be encoded.
        """
        remaining = round((trace.expires - trio.current_time()) * 1000)
        if remaining <= 0:
            return
        extra = {TRACE: trace.to_wire(session.rooms) | {"nsp": self._namespace}} if session.is_vouched_for else {}
        wire = WireSession(session.sid, session.pid, tuple(session.rooms), session.data, extra)
        self.set(session_key(session.pid, self._prefix), self._codec.encode_session(wire), remaining)

    def set(self, key: bytes, value: bytes, milliseconds: int) -> None:
        """Keep a session's value."""
        try:
            self._client.execute_nowait("SET", key, value, "PX", milliseconds, on_reply=self.on_reply)
        except RedisError as error:
            self.on_reply(error)

    def on_reply(self, reply: Reply) -> None:
        """Redis has answered, or not."""
        if isinstance(reply, RedisError) and not self._is_lost:
            logger.warning("clients that have lost their connection cannot come back for now: %s", reply)
        self._is_lost = isinstance(reply, RedisError)

    async def take(self, pid: str, offset: str | None) -> PersistedSession | None:
        """Take a session out, if there is one; of several who ask, one gets it.

        Args:
            pid: Its private id.
            offset: That of the last event that its client says to have received.
        """
        if len(pid) > LONGEST_PID:
            return None
        key = session_key(pid, self._prefix)
        answer = Taken(self, key)
        try:
            self._client.transaction_nowait(("PTTL", key), ("GET", key), ("DEL", key), on_reply=answer)
        except RedisError as error:
            self.on_reply(error)
            return None
        value, remaining = await answer.wait()
        return None if value is None else self._read(value, remaining, pid, offset)

    def _read(self, value: bytes, remaining: int, pid: str, offset: str | None) -> PersistedSession | None:
        try:
            wire = self._codec.decode_session_untrusted(value)
            fields = wire.extra.get(TRACE)
            trace = Trace.from_wire_untrusted(fields, offset)
        except RemoteProtocolError as error:
            logger.warning("a session was dropped: %s", error)
            return None
        if trace is None or wire.pid != pid or (fields is not None and fields.get("nsp") != self._namespace):
            return None
        trace.expires = trio.current_time() + remaining / 1000
        return PersistedSession(wire.sid, pid, frozenset(wire.rooms), wire.data, trace, fields is not None)


class Taken:
    """The answer to who takes a session; should nobody wait for it any more, it is put back."""

    def __init__(self, store: SessionStore, key: bytes) -> None:
        self._store = store
        self._key = key
        self._reply: Reply = None
        self._event = trio.Event()
        self._is_abandoned = False

    def __call__(self, reply: Reply) -> None:
        self._reply = reply
        self._store.on_reply(reply)
        self._event.set()
        if self._is_abandoned:
            self._put_back()

    async def wait(self) -> tuple[bytes | None, int]:
        """The session's value, if there is one, and for how many milliseconds it would have been kept."""
        try:
            await self._event.wait()
        except trio.Cancelled:
            self._is_abandoned = True
            self._put_back()  # the answer may have come in the same tick
            raise
        return self._read()

    def _put_back(self) -> None:
        value, remaining = self._read()
        if value is not None and remaining > 0:
            self._store.set(self._key, value, remaining)

    def _read(self) -> tuple[bytes | None, int]:
        replies: Any = self._reply
        if not isinstance(replies, list) or len(replies) != 3:
            return None, 0
        remaining, value, _ = replies
        return (value, remaining) if isinstance(value, bytes) and isinstance(remaining, int) else (None, 0)
