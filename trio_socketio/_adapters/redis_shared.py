"""What all adapters over Redis have in common: a client for each server, and a place in the cluster for each namespace.

Besides the channels of its protocol, every server with this library subscribes its presence channel,
``{prefix}-trio#{namespace}#{uid}#``, on which nothing is ever published. No other software knows of it, so a list of
these channels is a list of the servers that confirm what they are asked to.

How many servers there are is how many have subscribed the channel on which requests are made: Redis knows that at any
moment, and forgets a server with its connection.
"""

from __future__ import annotations

import logging
import re
import secrets
from abc import ABC, abstractmethod
from contextlib import asynccontextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import trio

from .._errors import RedisConnectionLost, RedisError, RemoteProtocolError, plain_exceptions
from .._redis.client import Redis
from .._redis.health import Health
from .._wire.cluster import EMITTER
from .._wire.cluster_newer import ClusterChannels
from .answers import Roll
from .cluster import ClusterAdapter

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Sequence
    from collections.abc import Set as AbstractSet
    from contextlib import AbstractAsyncContextManager

    from .._redis.config import RedisOptions
    from .._redis.health import RedisStatistics
    from .._redis.subscriptions import Handler
    from .._wire.cluster import Message
    from .bus import Bus, Receiver
    from .contract import Directory

logger = logging.getLogger("trio_socketio.adapters")


class Post(NamedTuple):
    """An encoded message, and where it is published; None if that is up to who has asked for it."""

    channel: bytes | None
    payload: bytes


class Interest(NamedTuple):
    """What is subscribed for the life of a bus."""

    handler: Handler
    channels: Sequence[bytes] = ()
    patterns: Sequence[bytes] = ()


class PubSub:
    """Redis's publish and subscribe, in one of its two kinds.

    Args:
        client: Runs for as long as this is used.
        sharded: Whether to use shard channels, which Redis has since version 7; they have no patterns.
    """

    def __init__(self, client: Redis, *, sharded: bool = False) -> None:
        self.client = client
        self._channels = "shard_channels" if sharded else "channels"
        self._publish = "SPUBLISH" if sharded else "PUBLISH"
        self._count = "SHARDNUMSUB" if sharded else "NUMSUB"
        self._list = "SHARDCHANNELS" if sharded else "CHANNELS"

    def publish(self, channel: bytes, payload: bytes) -> bool:
        """Publish without waiting; false if it was not even sent."""
        try:
            self.client.execute_nowait(self._publish, channel, payload)
        except RedisError:
            return False
        return True

    async def subscribe(self, handler: Handler, channels: Sequence[bytes], patterns: Sequence[bytes] = ()) -> None:
        """Subscribe, and wait until the server has confirmed it.

        What is done is done: when cancelled, or while the connection is lost, it is subscribed in the background.

        Raises:
            RedisReplyError: The server refuses.
            RedisConnectionLost: It will be subscribed when there is a connection again.
        """
        self.subscribe_nowait(handler, channels, patterns)
        names: Any = {self._channels: channels, "patterns": patterns}
        await self.client.subscribe(handler, **names)  # of which only its waiting is left

    def subscribe_nowait(self, handler: Handler, channels: Sequence[bytes], patterns: Sequence[bytes] = ()) -> None:
        """The same without waiting; what the server refuses is logged."""
        names: Any = {self._channels: channels, "patterns": patterns}
        self.client.subscribe_nowait(handler, **names)

    def unsubscribe(self, handler: Handler, channels: Sequence[bytes], patterns: Sequence[bytes] = ()) -> None:
        """End it at once; the server is told in the background."""
        names: Any = {self._channels: channels, "patterns": patterns}
        self.client.unsubscribe_nowait(handler, **names)

    async def count(self, channel: bytes) -> int:
        """How many connections have subscribed a channel.

        Raises:
            RedisConnectionLost: A connection is lost; if it is that of our own subscriptions, no count would be right.
        """
        reply = await self._ask(self._count, channel)
        return int(reply[channel] if isinstance(reply, dict) else reply[1])

    async def names(self, start: bytes, name: bytes = b"*") -> set[str]:
        """What stands in place of the pattern `name` in those channels ``{start}{name}#`` that somebody has subscribed.

        Raises:
            RedisConnectionLost: A connection is lost.
        """
        channels = await self._ask(self._list, escape_pattern(start) + name + b"#")
        return {channel[len(start) : -1].decode(errors="replace") for channel in channels}

    async def _ask(self, word: str, channel: bytes) -> Any:
        if self.client.health is Health.LOST:
            await trio.lowlevel.checkpoint()
            raise RedisConnectionLost(f"a connection to {self.client.address} is lost")
        return await self.client.execute("PUBSUB", word, channel)


def escape_pattern(name: bytes) -> bytes:
    """A pattern that matches this name and no other."""
    return re.sub(rb"[*?\[\]\\^-]", rb"\\\g<0>", name)


class RedisBus(ABC):
    """What is the same for all protocols; implements `Bus` but for what is abstract here.

    Args:
        pubsub: Where the others are.
        namespace: The namespace.
        uid: The name of this server.
        prefix: What the names of all channels begin with.
    """

    def __init__(self, pubsub: PubSub, namespace: str, uid: str, prefix: str) -> None:
        self.uid: str = uid
        self._pubsub = pubsub
        self._namespace = namespace
        self._presence = ClusterChannels(namespace, f"{prefix}-trio")
        self._receiver: Receiver | None = None

    @abstractmethod
    def encode(self, message: Message) -> Any:
        """See `Bus.encode`."""

    @abstractmethod
    def publish(self, encoded: Any) -> bool:
        """See `Bus.publish`."""

    @abstractmethod
    def answer(self, requester: str | None, encoded: Any) -> bool:
        """See `Bus.answer`."""

    @abstractmethod
    def _interests(self) -> list[Interest]:
        """What is to be subscribed from the beginning to the end."""

    @abstractmethod
    def _counted_channel(self) -> bytes:
        """The channel that every server subscribes, each once."""

    @abstractmethod
    async def _names(self) -> set[str]:
        """The names of all servers, this one included; of some, if not all have channels that tell."""

    @asynccontextmanager
    async def opened(self, receiver: Receiver) -> AsyncIterator[None]:
        """See `Bus.opened`. While the connection is lost, membership begins when there is one again.

        Raises:
            RedisReplyError: The server refuses what has to be subscribed.
        """
        self._receiver = receiver
        interests = [*self._interests(), Interest(ignore, [self._presence.answers(self.uid)])]
        try:
            for interest in interests:
                try:
                    await self._pubsub.subscribe(*interest)
                except RedisConnectionLost as error:
                    logger.warning("%s is no member of its cluster until Redis is back: %s", self._namespace, error)
            await self._look_for_namesakes()
            yield
        finally:
            # Before anything else: whoever asks from now on does not count on our answer.
            for interest in interests:
                self._pubsub.unsubscribe(*interest)
            self._receiver = None

    async def _look_for_namesakes(self) -> None:
        with suppress(RedisConnectionLost):
            if await self._pubsub.count(self._presence.answers(self.uid)) > 1:
                # No error: it may be this server's own last life, of which Redis has not noticed that it is over.
                logger.error(
                    "another server is called %r in the cluster of %s: they do not hear each other",
                    self.uid,
                    self._namespace,
                )

    def _hand_over(self, decode: Callable[[bytes], Message], payload: bytes) -> None:
        if self._receiver is None:
            return
        try:
            message = decode(payload)
        except RemoteProtocolError as error:
            self._receiver.on_bad_message(error)
            return
        if message.namespace == self._namespace:
            self._receiver.receive(message)

    async def writable(self) -> None:
        """See `Bus.writable`."""
        await self._pubsub.client.writable()

    async def roll_call(self) -> Roll:
        """See `Bus.roll_call`."""
        return Roll(max(0, await self._pubsub.count(self._counted_channel()) - 1))

    async def members(self) -> AbstractSet[str] | None:
        """See `Bus.members`. It cannot tell while there are servers, such as old ones, that do not show their names."""
        count = await self._pubsub.count(self._counted_channel())
        names = await self._names() | {self.uid}
        return names - {self.uid} if len(names) >= count else None

    async def peers(self) -> AbstractSet[str]:
        """See `Bus.peers`."""
        return await self._pubsub.names(self._presence.main) - {self.uid}

    async def follow(self, rooms: Iterable[str]) -> None:
        """See `Bus.follow`. Everything arrives anyway, if the protocol does not say otherwise."""
        await trio.lowlevel.checkpoint()

    def unfollow(self, room: str) -> None:  # noqa: B027 - not every bus has something to do
        """See `Bus.unfollow`."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._namespace} as {self.uid}>"


def ignore(channel: bytes, payload: bytes) -> None:
    """The handler of a channel on which there are no messages."""


class RedisFactory(ABC):
    """What makes the adapters of one server, and runs what they share.

    Args:
        url: Where Redis is.
        name: What the server is called in the cluster; None for something random.
        request_timeout: Seconds that other servers have for an answer, where the caller does not say.
        options: The client's.

    Raises:
        ValueError: A value out of its range.

    Attributes:
        uid: What the server is called in the cluster.
    """

    def __init__(self, url: str, name: str | None, request_timeout: float, options: RedisOptions) -> None:
        if not request_timeout > 0:
            raise ValueError(f"request_timeout must be positive, not {request_timeout!r}")
        if name is not None and (not name or "#" in name or name == EMITTER):
            raise ValueError(f"a server cannot be called {name!r}")
        self.uid: str = secrets.token_hex(8) if name is None else name
        self._client = Redis(url, **options)
        self._request_timeout = request_timeout

    @abstractmethod
    def _bus(self, namespace: str) -> Bus:
        """The bus of a namespace."""

    def __call__(self, directory: Directory) -> ClusterAdapter:
        """The adapter of a namespace."""
        return ClusterAdapter(directory, self._bus(directory.name), self._request_timeout)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The life of the connections to Redis; the server enters it before its first adapter begins.

        At its end, what was published is on its way.

        Raises:
            RedisUnavailable: Redis cannot be used; the text names the address and the reason.
            RuntimeError: Another server has this factory already.
        """
        over = trio.Event()
        with plain_exceptions():
            async with trio.open_nursery() as nursery:
                await nursery.start(self._keep_client, over)
                try:
                    yield
                finally:
                    over.set()

    async def _keep_client(self, over: trio.Event, *, task_status: trio.TaskStatus[None]) -> None:
        with trio.CancelScope() as scope:
            async with self._client.running(), self._companions():
                # A cancellation from outside ends the adapters first, and what the last handlers emit goes through
                # them. It is the end of the context that ends this, and that waits a bounded time.
                scope.shield = True
                task_status.started()
                await over.wait()

    def _companions(self) -> AbstractAsyncContextManager[None]:
        """What else lives as long as the client does, and under the same shield."""
        return nullcontext()

    @property
    def health(self) -> Health:
        """How the connections to Redis are."""
        return self._client.health

    def on_health(self, listener: Callable[[Health, RedisError | None], object]) -> None:
        """Have a plain function called after each change of `health`, with it and the reason, if it is a loss.

        What other servers have published between `Health.LOST` and the next `Health.READY` may not have arrived here.
        It is called in the middle of things, and its exceptions are logged.
        """
        self._client.on_health(listener)

    def statistics(self) -> RedisStatistics:
        """The figures of the connections to Redis."""
        return self._client.statistics()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.uid} at {self._client.address}, {self.health.value}>"
