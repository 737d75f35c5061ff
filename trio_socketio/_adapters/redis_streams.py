"""The adapter over Redis's streams, as a server is given it: see `streams_bus` and `redis_streams_recovery`."""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import trio

from .._errors import NotRunning, RedisError
from .._redis.health import Health, worst
from .._wire.cluster_streams import stream_names, stream_of
from .redis_sessions import SessionStore
from .redis_shared import PubSub, RedisFactory
from .redis_streams_recovery import RecoveringStreamsAdapter
from .stream_reader import StreamReader
from .streams_bus import StreamsBus

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from contextlib import AbstractAsyncContextManager

    from typing_extensions import Unpack

    from .._redis.config import RedisOptions
    from .contract import Directory
    from .recovery import ConnectionStateRecovery
    from .stream_reader import StreamStatistics

logger = logging.getLogger("trio_socketio.adapters")


class RedisStreamsAdapter(RedisFactory):
    """Several servers as one, over the streams of Redis::

        io = Server(adapter=RedisStreamsAdapter("redis://127.0.0.1:6379"), connection_state_recovery=True)

    The others may be servers in Node.js that use ``createAdapter`` of ``@socket.io/redis-streams-adapter`` (version
    0.3). One `RedisStreamsAdapter` belongs to one `Server`.

    Broadcasts, joins, leaves and disconnects get to every server, also to one that loses its connection to Redis for a
    while, as long as they have not been trimmed away meanwhile (see `on_gap`). What asks for answers, and server-side
    emits, reach whoever is connected at that moment.

    With ``connection_state_recovery`` a client may come back to any server of the cluster. All events to clients are
    then in one order, that of the stream: an awaited `emit` returns when Redis has told us that it is our event's turn,
    and it is delivered. Events that are volatile, ask for an acknowledgement, or are `local` do not wait for it, are
    not kept, and may overtake others. While Redis is lost, events reach the clients of this server only, and cannot be
    recovered. Of the options' bounds, `max_sessions` has no meaning here. A session that a server in Node.js has
    written does not say of which namespace it is, so middlewares run for it even with `skip_middlewares`.

    Args:
        url: ``redis://[[user]:password@]host[:port][/db]``, ``rediss://...`` for TLS, or ``unix://path``.
        stream_name: The stream; or, if there are several, what their names begin with.
        stream_count: How many streams there are; the same for all servers. With several, about half of all namespaces
            have one that servers in Node.js write to and do not read: a warning names them.
        max_len: Entries that a stream keeps, at least.
        read_count: Entries that are read at once.
        block_time: Seconds that one read waits for entries.
        channel_prefix: What the names of all channels begin with, for requests and answers.
        use_sharded_pub_sub: Whether those are shard channels (Redis 7); the same for all servers.
        session_key_prefix: What the keys of clients that may come back begin with.
        only_plaintext: Whether events with bytes are refused (`EncodeError`), for members that cannot read those.
        request_timeout: Seconds that other servers have for an answer, where the caller does not say.
        name: What this server is called in the cluster, as in `AckTimeout.servers`; no two may have the same. By
            default something random.
        options: Those of the connections, such as ``ssl_context``; see `RedisConfig`.

    Raises:
        ValueError: The URL is wrong, or an option out of its range.
        TypeError: An option that does not exist.

    Attributes:
        uid: What the server is called in the cluster.
    """

    def __init__(
        self,
        url: str = "redis://127.0.0.1:6379",
        *,
        stream_name: str = "socket.io",
        stream_count: int = 1,
        max_len: int = 10_000,
        read_count: int = 100,
        block_time: float = 5.0,
        channel_prefix: str = "socket.io",
        use_sharded_pub_sub: bool = False,
        session_key_prefix: str = "sio:session:",
        only_plaintext: bool = False,
        request_timeout: float = 5.0,
        name: str | None = None,
        **options: Unpack[RedisOptions],
    ) -> None:
        super().__init__(url, name, request_timeout, options)
        limits = {"stream_count": stream_count, "max_len": max_len, "read_count": read_count, "block_time": block_time}
        for limit, value in limits.items():
            if not value > 0:
                raise ValueError(f"{limit} must be positive, not {value!r}")
        self._stream_name, self._stream_count = stream_name, stream_count
        self._max_len, self._read_count, self._block_time = max_len, read_count, block_time
        self._prefix, self._is_sharded = channel_prefix, use_sharded_pub_sub
        self._session_key_prefix, self._only_plaintext = session_key_prefix, only_plaintext
        self._readers: dict[str, StreamReader] = {}
        self._reading: trio.Nursery | None = None
        self._health = Health.CLOSED
        self._health_listeners: list[Callable[[Health, RedisError | None], object]] = []
        self._gap_listeners: list[Callable[[str], object]] = []
        self._client.on_health(lambda _, error: self._on_change(error))

    def _bus(self, namespace: str) -> StreamsBus:
        stream = stream_of(namespace, self._stream_name, self._stream_count)
        if stream not in stream_names(self._stream_name, self._stream_count):
            logger.warning("servers in Node.js do not hear what is sent to %s: they do not read %s", namespace, stream)
        return StreamsBus(
            PubSub(self._client, sharded=self._is_sharded),
            namespace,
            self.uid,
            self._prefix,
            reader=self._reader,
            stream=stream,
            max_len=self._max_len,
            only_plaintext=self._only_plaintext,
        )

    # With recovery

    def with_recovery(self, options: ConnectionStateRecovery) -> RecoveringFactory:
        """The same, for a server with connection state recovery; the server asks for it by itself."""
        return RecoveringFactory(self, options)

    def make_recovering(self, directory: Directory, options: ConnectionStateRecovery) -> RecoveringStreamsAdapter:
        """The adapter of a namespace, if its clients may come back."""
        sessions = SessionStore(self._client, directory.name, self._session_key_prefix)
        return RecoveringStreamsAdapter(
            directory, self._bus(directory.name), sessions, options, request_timeout=self._request_timeout
        )

    # The readers: one for each stream that a namespace has needed so far

    @asynccontextmanager
    async def _companions(self) -> AsyncIterator[None]:
        async with trio.open_nursery() as self._reading:
            try:
                yield
            finally:
                self._reading.cancel_scope.cancel()
                self._reading = None
                self._readers.clear()

    def _reader(self, stream: str) -> StreamReader:
        reader = self._readers.get(stream)
        if reader is None:
            if self._reading is None:
                raise NotRunning("an adapter of a server that does not run")
            reader = self._readers[stream] = StreamReader(
                self._client,
                stream,
                count=self._read_count,
                block=self._block_time,
                max_len=self._max_len,
                on_change=self._on_change,
                on_gap=self._on_gap,
            )
            self._reading.start_soon(reader.run)
        return reader

    # How it is

    @property
    def health(self) -> Health:
        """How the connections to Redis are, those that read streams among them."""
        return worst((self._client.health, *(reader.health for reader in self._readers.values())))

    def on_health(self, listener: Callable[[Health, RedisError | None], object]) -> None:
        """See `RedisAdapter.on_health`. Of what is in streams, nothing is missed unless `on_gap` says so."""
        self._health_listeners.append(listener)

    def on_gap(self, listener: Callable[[str], object]) -> None:
        """Have a plain function called with the name of a stream when entries were trimmed away before they were read.

        It is called in the middle of things, and its exceptions are logged.
        """
        self._gap_listeners.append(listener)

    def stream_statistics(self) -> tuple[StreamStatistics, ...]:
        """The figures of the streams that are read."""
        return tuple(reader.statistics() for reader in self._readers.values())

    def _on_change(self, error: RedisError | None) -> None:
        health = self.health
        if health is not self._health:
            self._health = health
            _tell(self._health_listeners, health, error)

    def _on_gap(self, stream: str) -> None:
        _tell(self._gap_listeners, stream)


@dataclass(frozen=True, slots=True)
class RecoveringFactory:
    """A `RedisStreamsAdapter` for a server with connection state recovery.

    Args:
        factory: The adapter that the user has made.
        options: Of the server.
    """

    factory: RedisStreamsAdapter
    options: ConnectionStateRecovery

    def __call__(self, directory: Directory) -> RecoveringStreamsAdapter:
        return self.factory.make_recovering(directory, self.options)

    def running(self) -> AbstractAsyncContextManager[None]:
        """See `RedisFactory.running`."""
        return self.factory.running()


def _tell(listeners: Sequence[Callable[..., object]], *args: Any) -> None:
    for listener in tuple(listeners):
        try:
            listener(*args)
        except Exception:  # its author's mistake must not end the reader
            logger.exception("a listener of an adapter failed")
