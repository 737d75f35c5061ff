"""What producers of python-socketio publish, executed here: for programs that emit with its ``RedisManager`` already.

Every server of python-socketio hears every message of the one channel, and does what it says to its own clients. A
listener beside each of our servers does the same, so in a cluster everybody gets everything once. What comes is
untrusted: what is no message costs a line in the log and is counted.

The subscription's handler only takes messages in; one task executes them in their order. Only what takes time, which is
the answers of clients and the handlers of those that are disconnected, has tasks of its own.
"""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Protocol

import trio

from .._errors import AckTimeout, TrioSocketIOError, plain_exceptions
from .._redis.client import Redis
from .._wire.cluster import Message, MessageType
from .._wire.cluster_python import CHANNEL, decode_untrusted, encode
from .._wire.packets import Packet, PacketType
from .answers import AckStream
from .contract import Directory
from .targets import read_target

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
    from typing import Self

    from typing_extensions import Unpack

    from .._redis.config import RedisOptions
    from .._redis.health import Health
    from .contract import Adapter, BroadcastOptions

logger = logging.getLogger("trio_socketio.adapters")

#: Messages, and bytes of them, that wait for their execution; what comes on top is dropped.
MAX_WAITING = 10_000
MAX_WAITING_BYTES = 64_000_000
#: Events whose clients may owe a producer an answer at once, and seconds that they have for it.
MAX_CALLBACKS = 1000
CALLBACK_TIMEOUT = 60.0


class Place(Directory, Protocol):
    """A namespace, as a listener sees it."""

    @property
    def adapter(self) -> Adapter: ...


class Host(Protocol):
    """A `Server`, as a listener sees it."""

    @property
    def namespaces(self) -> Mapping[str, Place]: ...


@dataclass(frozen=True, slots=True)
class PythonSocketIOStatistics:
    """The figures of a listener.

    Args:
        received: Messages that came.
        dropped: Of these, what was no message, could not be said to clients, or came faster than it could be executed;
            and answers that could not be given.
        waiting: Messages that wait for their execution.
        callbacks: Events whose clients have not answered yet.
    """

    received: int
    dropped: int
    waiting: int
    callbacks: int


class PythonSocketIOListener:
    """Executes what producers of python-socketio publish, such as ``socketio.RedisManager(url, write_only=True)``::

        async with io.running(), PythonSocketIOListener(io, "redis://localhost").running():
            ...

    Emits (with attachments, rooms and ``skip_sid``), disconnects, and joins, leaves and closed rooms. An emit with a
    ``callback`` is answered with the first acknowledgement that comes within 60 s. Pickled messages of old versions are
    not read. Only namespaces that the server has are meant. What is published while Redis is lost does not arrive.

    Args:
        io: The `Server`.
        url: ``redis://[[user]:password@]host[:port][/db]``, ``rediss://...`` for TLS, or ``unix://path``.
        channel: The producers' option of this name.
        local: Whether only clients of this server are meant. True is for a listener beside every server, which is how
            producers expect it: each of them hears the channel. False reaches the whole cluster by way of the server's
            adapter: then **one** server must have a listener, or clients get everything several times.
        options: Those of the connection; `RedisConfig` documents each.

    Raises:
        TypeError: An option that does not exist.
        ValueError: The URL is wrong, or an option out of its range.
    """

    def __init__(
        self,
        io: Host,
        url: str,
        channel: str = CHANNEL,
        *,
        local: bool = True,
        **options: Unpack[RedisOptions],
    ) -> None:
        self._io = io
        self._channel = channel
        self._local = local
        self._client = Redis(url, **options)
        self._nursery: trio.Nursery | None = None
        self._put, self._waiting = trio.open_memory_channel[bytes](0)
        self._waiting_bytes = self._received = self._dropped = self._callbacks = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        """Listen inside this context; the channel is subscribed when it begins.

        Raises:
            RedisUnavailable: The server cannot be used; the text names the address and the reason.
            RuntimeError: It runs already.
        """
        with plain_exceptions():
            async with self._client.running(), trio.open_nursery() as nursery:
                self._nursery = nursery
                self._put, self._waiting = trio.open_memory_channel[bytes](MAX_WAITING)
                self._waiting_bytes = 0
                try:
                    await self._client.subscribe(self._take, channels=[self._channel])
                    nursery.start_soon(self._execute_all)
                    yield self
                finally:
                    self._nursery = None
                    nursery.cancel_scope.cancel()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run until cancelled; the same as `running`, for ``await nursery.start(listener.run)``."""
        async with self.running():
            task_status.started()
            await trio.sleep_forever()

    @property
    def health(self) -> Health:
        """How the connections to Redis are."""
        return self._client.health

    def statistics(self) -> PythonSocketIOStatistics:
        """The figures, now."""
        return PythonSocketIOStatistics(
            received=self._received,
            dropped=self._dropped,
            waiting=self._waiting.statistics().current_buffer_used,
            callbacks=self._callbacks,
        )

    def _take(self, _channel: bytes, payload: bytes) -> None:
        self._received += 1
        if self._waiting_bytes and self._waiting_bytes + len(payload) > MAX_WAITING_BYTES:
            self._drop("too many bytes wait already")
            return
        try:
            self._put.send_nowait(payload)
        except trio.WouldBlock:
            self._drop("too many wait already")
        else:
            self._waiting_bytes += len(payload)

    def _drop(self, why: object) -> None:
        self._dropped += 1
        logger.warning("a message on the channel %r of python-socketio was dropped: %s", self._channel, why)

    async def _execute_all(self) -> None:
        async for payload in self._waiting:
            self._waiting_bytes -= len(payload)
            await self._reporting(self._execute, payload)

    async def _reporting(self, fn: Callable[..., Awaitable[None]], *args: object) -> None:
        try:
            await fn(*args)
        except (TrioSocketIOError, ConnectionError) as error:
            self._drop(error)

    async def _execute(self, payload: bytes) -> None:
        message = decode_untrusted(payload)
        place = self._io.namespaces.get(message.namespace)
        if place is not None and message.type in EXECUTORS:
            options = replace(read_target(message.target), local=self._local)
            await EXECUTORS[message.type](self, place, message, options)

    async def _emit(self, place: Place, message: Message, options: BroadcastOptions) -> None:
        packet = Packet(PacketType.EVENT, place.name, message.content)
        if message.request_id is None or message.uid is None or self._nursery is None:
            await place.adapter.broadcast(packet, place.encode(packet), options)
        elif self._callbacks >= MAX_CALLBACKS:
            await place.adapter.broadcast(packet, place.encode(packet), options)
            self._drop(f"{MAX_CALLBACKS} callbacks are owed already, so another one will not be called")
        else:
            answers = AckStream(CALLBACK_TIMEOUT)
            try:
                await place.adapter.broadcast_with_ack(packet, options, answers)
            except BaseException:
                answers.abandon()
                raise
            self._callbacks += 1
            self._nursery.start_soon(self._answer, message, answers)

    async def _answer(self, message: Message, answers: AckStream) -> None:
        try:
            answer = await answers.receive()
        except (trio.EndOfChannel, AckTimeout):
            return  # nobody has one, which is as much as python-socketio would say
        finally:
            self._callbacks -= 1
            answers.abandon()
        await self._reporting(self._call_back, message, answer)

    async def _call_back(self, message: Message, answer: object) -> None:
        arguments = [] if answer is None else list(answer) if isinstance(answer, tuple) else [answer]
        payload = encode(message._replace(type=MessageType.BROADCAST_ACK, content=arguments))
        await self._client.execute("PUBLISH", self._channel, payload)

    async def _join(self, place: Place, message: Message, options: BroadcastOptions) -> None:
        await place.adapter.add_sockets(options, message.content)

    async def _leave(self, place: Place, message: Message, options: BroadcastOptions) -> None:
        await place.adapter.delete_sockets(options, message.content)

    async def _disconnect(self, place: Place, message: Message, options: BroadcastOptions) -> None:
        if self._nursery is not None:
            # It waits for the handlers of the one who goes, and others should not have to.
            self._nursery.start_soon(self._reporting, partial(place.adapter.disconnect_sockets, options, False))
            await trio.lowlevel.checkpoint()  # with that of the next receive, it has begun before anything else does

    def __repr__(self) -> str:
        return f"<PythonSocketIOListener on {self._channel!r} at {self._client.address}, {self.health.value}>"


#: Not for BROADCAST_ACK: callbacks are for the producer that wants them.
EXECUTORS: Mapping[
    MessageType, Callable[[PythonSocketIOListener, Place, Message, BroadcastOptions], Awaitable[None]]
] = {
    MessageType.BROADCAST: PythonSocketIOListener._emit,
    MessageType.SOCKETS_JOIN: PythonSocketIOListener._join,
    MessageType.SOCKETS_LEAVE: PythonSocketIOListener._leave,
    MessageType.DISCONNECT_SOCKETS: PythonSocketIOListener._disconnect,
}
