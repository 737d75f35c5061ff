"""One stream of Redis, read from beginning to end by one task of the server.

Socket.IO's streams adapter, "reading". Where the stream ends is asked once; from then on the reader goes from entry to
entry by their ids, so what is written while its connection is lost is read when there is one again. Only what has been
trimmed away by then is gone, and that is a **gap**, which is said to whoever listens.

How a gap is noticed without a question of its own: whatever is not simply the next entry is read as a range that begins
with the last entry that is known. If that is not its first, something in between may have been trimmed away.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import trio

from .._errors import RedisError, RedisReplyError
from .._redis.health import Health
from .._wire.cluster_streams import StreamEntry, read_entry

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .._redis.blocking import BlockingConnection
    from .._redis.client import Redis
    from .._redis.resp import Reply

logger = logging.getLogger("trio_socketio.adapters")

#: The two numbers of an entry's id, by which entries are ordered.
Position: TypeAlias = tuple[int, int]
RawEntry: TypeAlias = "tuple[bytes, list[bytes]]"

#: Before the first entry.
BEGINNING = b"0-0"
#: Seconds between attempts when Redis answers with an error, such as when it is still loading its data.
PAUSE = 0.5
#: Seconds without a connection after which nobody should wait for what is in the stream.
A_WHILE = 3.0
#: Entries of the first page of a range, and bytes that those after it should have.
FIRST_PAGE, PAGE_BYTES = 32, 4_000_000
MOST_IN_A_PAGE = 1000


def position_of(id: bytes) -> Position:
    """The position of an entry."""
    milliseconds, _, number = id.partition(b"-")
    return int(milliseconds), int(number)


class Sink(Protocol):
    """Who gets the entries of one namespace; every call is made by the reader, and does not wait."""

    def on_entry(self, id: bytes, entry: StreamEntry, fields: Sequence[bytes]) -> None:
        """The next entry."""

    def on_doubt(self) -> None:
        """What is in the stream after the last entry has been lost, or has not come for a while."""


@dataclass(frozen=True, slots=True)
class StreamStatistics:
    """The figures of one stream.

    Args:
        name: The stream.
        health: How its connection is.
        position: The id of the last entry that was read.
        entries: How many were read.
        losses: How often the connection was lost.
        gaps: How often entries were trimmed away before they were read.
    """

    name: str
    health: Health
    position: str
    entries: int
    losses: int
    gaps: int


class StreamReader:
    """Reads one stream, on a connection of its own.

    Args:
        client: Makes the connection.
        name: The stream.
        count: Entries that are read at once.
        block: Seconds that one read waits for entries.
        max_len: How many entries are kept, at least; after that they may be trimmed away.
        on_change: Called after each change of its health, with the reason if it is a loss.
        on_gap: Called with its name when entries are lost.

    Attributes:
        last: The id of the last entry that was read; the end of the stream at the beginning.
        health: How its connection is.
    """

    def __init__(
        self,
        client: Redis,
        name: str,
        *,
        count: int,
        block: float,
        max_len: int,
        on_change: Callable[[RedisError | None], None],
        on_gap: Callable[[str], None],
    ) -> None:
        self.name = name
        self.last: bytes = BEGINNING
        self.health: Health = Health.CONNECTING
        self._client = client
        self._count = count
        self._block = block
        self._max_len = max_len
        self._on_change = on_change
        self._report_gap = on_gap
        self._sinks: dict[bytes, Sink] = {}
        self._ready = trio.Event()
        self._moved = trio.Event()
        self._refused: str | None = None
        self._lost_at = 0.0
        self._entries = self._losses = self._gaps = 0

    def statistics(self) -> StreamStatistics:
        """The figures, now."""
        position = self.last.decode()
        return StreamStatistics(self.name, self.health, position, self._entries, self._losses, self._gaps)

    # Who gets it

    async def wait_ready(self) -> None:
        """Wait until its position is known.

        Raises:
            RedisReplyError: Redis does not let it read.
        """
        await self._ready.wait()
        if self._refused is not None:
            raise RedisReplyError(self._refused)

    def add(self, namespace: str, sink: Sink) -> None:
        """Give the entries of a namespace to a sink, from now on."""
        self._sinks[namespace.encode("utf-8", "replace")] = sink

    def remove(self, namespace: str) -> None:
        """The entries of a namespace concern nobody any more."""
        del self._sinks[namespace.encode("utf-8", "replace")]

    @property
    def position(self) -> Position:
        """That of the last entry that was read."""
        return position_of(self.last)

    async def reached(self, position: Position) -> None:
        """Wait until everything up to a position has been read."""
        while self.position < position:
            await self._moved.wait()

    # Reading

    async def run(self) -> None:
        """Read until cancelled, or refused at the beginning."""
        async with self._client.blocking() as connection:
            try:
                await self._find_end(connection)
            except RedisReplyError as error:
                self._refused = f"the stream {self.name} cannot be read: {error}"
                return
            finally:
                self._ready.set()
            count, is_behind = self._count, False
            while True:
                try:
                    if is_behind:
                        entries = await self._catch_up(connection, count)
                    else:
                        entries = await self._wait(connection, count)
                except RedisError as error:
                    # What was too much for one reply may fit into a smaller one.
                    count, is_behind = max(1, count // 2), True
                    await self._on_lost(error)
                else:
                    is_behind = len(entries) >= count
                    count = self._count
                    self._change(Health.READY)
                    self._hand_over(entries)

    async def _find_end(self, connection: BlockingConnection) -> None:
        while True:
            try:
                self.last = await self._newest(connection)
            except RedisReplyError:
                raise
            except RedisError as error:
                await self._on_lost(error)
            else:
                self._change(Health.READY)
                return

    async def _newest(self, connection: BlockingConnection) -> bytes:
        entries = read_range(await connection.execute("XREVRANGE", self.name, "+", "-", "COUNT", 1))
        return entries[0][0] if entries else BEGINNING

    async def _wait(self, connection: BlockingConnection, count: int) -> list[RawEntry]:
        milliseconds = max(1, round(self._block * 1000))
        words = ("XREAD", "COUNT", count, "BLOCK", milliseconds, "STREAMS", self.name, self.last)
        reply: Any = await connection.execute(*words, blocks=self._block)
        if not reply:
            return []
        return read_range(next(iter(reply.values())) if isinstance(reply, dict) else reply[0][1])

    async def _catch_up(self, connection: BlockingConnection, count: int) -> list[RawEntry]:
        entries = read_range(await connection.execute("XRANGE", self.name, self.last, "+", "COUNT", count + 1))
        if entries and entries[0][0] == self.last:
            return entries[1:]
        if self.last == BEGINNING and await self._was_never_trimmed(connection.execute):
            return entries
        # Perhaps it is not the same stream: a server that has lost its data may begin with smaller ids.
        newest = await self._newest(connection)
        if position_of(newest) < self.position:
            self.last, entries = newest, []
        self._on_gap()
        return entries

    async def _was_never_trimmed(self, execute: Callable[..., Any]) -> bool:
        """Whether the stream has all entries that it ever had."""
        try:
            reply = await execute("XINFO", "STREAM", self.name)
        except RedisReplyError:
            return True  # there is none
        info = reply if isinstance(reply, dict) else dict(zip(reply[::2], reply[1::2], strict=False))
        if b"entries-added" in info:
            return bool(info[b"entries-added"] == info[b"length"])
        return bool(info[b"length"] < self._max_len)  # before Redis 7

    def _hand_over(self, entries: list[RawEntry]) -> None:
        if not entries:
            return
        for id, fields in entries:
            self.last = id
            entry = read_entry(fields)
            sink = None if entry.namespace is None else self._sinks.get(entry.namespace)
            if sink is not None:
                try:
                    sink.on_entry(id, entry, fields)
                except Exception:  # of a parser, or of an adapter: the entries after it are for others
                    logger.exception("the entry %s of the stream %s could not be handled", id.decode(), self.name)
        self._entries += len(entries)
        self._wake()

    def _wake(self) -> None:
        self._moved.set()
        self._moved = trio.Event()

    # What goes wrong

    async def _on_lost(self, error: RedisError) -> None:
        self._losses += self.health is Health.READY
        if self.health is not Health.LOST:
            self._lost_at = trio.current_time()
            logger.warning("the stream %s is not read at the moment: %s", self.name, error)
        elif trio.current_time() >= self._lost_at + A_WHILE:
            self._tell_doubt()
        self._change(Health.LOST, error)
        if isinstance(error, RedisReplyError):
            await trio.sleep(PAUSE)  # for all else, the connection waits by itself

    def _on_gap(self) -> None:
        self._gaps += 1
        logger.warning("entries of the stream %s were trimmed away before they were read: they are lost", self.name)
        self._tell_doubt()
        self._report_gap(self.name)

    def _tell_doubt(self) -> None:
        for sink in list(self._sinks.values()):
            sink.on_doubt()

    def _change(self, health: Health, error: RedisError | None = None) -> None:
        if health is not self.health:
            if self.health is Health.LOST:
                logger.info("the stream %s is read again", self.name)
            self.health = health
            self._on_change(error)

    # What was before

    async def read_back(
        self, start: bytes, namespace: bytes, max_entries: int, max_bytes: int
    ) -> list[tuple[bytes, StreamEntry]] | None:
        """The entries of a namespace after `start` and up to the last one that the reader has read at this moment.

        Args:
            start: The id of an entry, or `BEGINNING`.
            namespace: Which.
            max_entries: How many there may be.
            max_bytes: How many bytes of data they may have together.

        Returns:
            None if there are more, or some of them have been trimmed away.

        Raises:
            RedisError: They cannot be read.
        """
        found: list[tuple[bytes, StreamEntry]] = []
        size, count, cursor, end = 0, FIRST_PAGE, start, self.last
        while position_of(cursor) < position_of(end):
            page = read_range(await self._client.execute("XRANGE", self.name, cursor, end, "COUNT", count + 1))
            if page and page[0][0] == cursor:
                del page[0]
            elif cursor != BEGINNING or not await self._was_never_trimmed(self._client.execute):
                return None
            if not page:
                return found
            bytes_of_page = 0
            for id, fields in page:
                entry = read_entry(fields)
                bytes_of_page += len(entry.data)
                if entry.namespace == namespace:
                    found.append((id, entry))
                    size += len(entry.data)
            if len(found) > max_entries or size > max_bytes:
                return None
            cursor = page[-1][0]
            count = max(1, min(MOST_IN_A_PAGE, len(page) * PAGE_BYTES // (bytes_of_page + 1)))
        return found


def read_range(reply: Reply) -> list[RawEntry]:
    """The entries in the reply of XRANGE, and in that of XREAD for one stream."""
    entries: Any = reply
    return [(id, fields) for id, fields in entries or ()]
