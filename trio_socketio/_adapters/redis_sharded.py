"""The sharded Redis adapter: that of ``createShardedAdapter`` in ``@socket.io/redis-adapter``, for Redis 7 and later.

All is on shard channels: one for the namespace, one for the answers to each server, and, depending on a mode that is
each server's own choice, one for each room with somebody in it. Nobody can tell which mode others have chosen. So what
is published here goes by the mode, and what is subscribed does not: every room that has somebody here, be it a socket's
own, has its channel. Who publishes in whichever mode is heard.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, get_args

import trio

from .._errors import RedisError
from .._wire.cluster_newer import ClusterChannels, ClusterCodec, SubscriptionMode
from .redis_shared import Interest, Post, PubSub, RedisBus, RedisFactory

if TYPE_CHECKING:
    from collections.abc import Iterable

    from typing_extensions import Unpack

    from .._redis.config import RedisOptions
    from .._wire.cluster import Message

#: Seconds that somebody who joins a room waits for Redis to confirm it. It takes less than one, or something is wrong:
#: then the socket is in the room, and what others send there arrives as soon as Redis is itself again.
LONGEST_CONFIRMATION = 1.0

#: What other servers call themselves, as a pattern of Redis: without it, rooms would be among them.
UID_PATTERN = b"[0-9a-f]" * 16


class ShardedBus(RedisBus):
    """One namespace of one server; implements `Bus`.

    Args:
        pubsub: Where the others are; a sharded one.
        namespace: The namespace.
        uid: The name of this server.
        prefix: What the names of all channels begin with.
        mode: Which broadcasts are published on the channels of rooms.
    """

    def __init__(self, pubsub: PubSub, namespace: str, uid: str, prefix: str, mode: SubscriptionMode) -> None:
        super().__init__(pubsub, namespace, uid, prefix)
        self._channels = ClusterChannels(namespace, prefix)
        self._codec = ClusterCodec(namespace)
        self._own_ends = self._codec.own_ends(uid)
        self._mode: SubscriptionMode = mode

    def encode(self, message: Message) -> Post:
        return Post(self._channels.of(message, self._mode), self._codec.encode(message))

    def publish(self, encoded: Post) -> bool:
        assert encoded.channel is not None, "every message has a channel"
        return self._pubsub.publish(encoded.channel, encoded.payload)

    def answer(self, requester: str | None, encoded: Post) -> bool:
        """See `Bus.answer`. Emitters, which have no name, cannot be answered; they do not ask."""
        return requester is not None and self._pubsub.publish(self._channels.answers(requester), encoded.payload)

    def _interests(self) -> list[Interest]:
        # The main channel last: from then on others wait for our answers.
        return [
            Interest(self._on_message, [self._channels.answers(self.uid)]),
            Interest(self._on_message, [self._channels.main]),
        ]

    def _counted_channel(self) -> bytes:
        return self._channels.main

    async def _names(self) -> set[str]:
        return await self._pubsub.names(self._channels.main, UID_PATTERN) | await self.peers()

    def _on_message(self, channel: bytes, payload: bytes) -> None:
        if not payload.endswith(self._own_ends):
            self._hand_over(self._codec.decode_untrusted, payload)

    async def follow(self, rooms: Iterable[str]) -> None:
        """See `Bus.follow`. While the connection is lost, nobody waits for it."""
        wanted = [room for room in rooms if self._is_followed(room)]
        channels = [self._channels.room(room) for room in wanted]
        if channels:
            self._pubsub.subscribe_nowait(self._on_message, channels)
        await trio.lowlevel.checkpoint()
        with trio.move_on_after(LONGEST_CONFIRMATION):
            for room, channel in zip(wanted, channels, strict=True):
                # It may be empty by now, and must then not be subscribed again; and the client logs what is wrong.
                if self._is_followed(room):
                    with suppress(RedisError):
                        await self._pubsub.subscribe(self._on_message, [channel])

    def unfollow(self, room: str) -> None:
        """See `Bus.unfollow`."""
        if room != self.uid:
            self._pubsub.unsubscribe(self._on_message, [self._channels.room(room)])

    def _is_followed(self, room: str) -> bool:
        # The channel of a room with the name of this server is subscribed anyway, and has to stay so.
        return room != self.uid and self._receiver is not None and self._receiver.has_room(room)


class ShardedRedisAdapter(RedisFactory):
    """Several servers as one, over the shard channels of Redis 7 and later::

        io = Server(adapter=ShardedRedisAdapter("redis://127.0.0.1:6379"))

    The others may be servers in Node.js that use ``createShardedAdapter`` of ``@socket.io/redis-adapter``. One
    `ShardedRedisAdapter` belongs to one `Server`. What is said of lost connections at `RedisAdapter` holds here too.

    Args:
        url: ``redis://[[user]:password@]host[:port][/db]``, ``rediss://...`` for TLS, or ``unix://path``. A single
            server, or all slots of a Redis Cluster on one.
        channel_prefix: What the names of all channels begin with, the same for all servers.
        subscription_mode: Which events to a single room are published on a channel of its own, which only servers with
            somebody in that room hear: ``"static"`` none, ``"dynamic"`` those to rooms that are no socket's own,
            ``"dynamic-private"`` all. Servers in Node.js hear only what is published in their own mode or a lesser one;
            servers with this library hear all.
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
        channel_prefix: str = "socket.io",
        subscription_mode: SubscriptionMode = "dynamic",
        request_timeout: float = 5.0,
        name: str | None = None,
        **options: Unpack[RedisOptions],
    ) -> None:
        if subscription_mode not in get_args(SubscriptionMode):
            raise ValueError(
                f"subscription_mode must be one of {get_args(SubscriptionMode)}, not {subscription_mode!r}"
            )
        super().__init__(url, name, request_timeout, options)
        self._prefix = channel_prefix
        self._mode: SubscriptionMode = subscription_mode

    def _bus(self, namespace: str) -> ShardedBus:
        return ShardedBus(PubSub(self._client, sharded=True), namespace, self.uid, self._prefix, self._mode)
