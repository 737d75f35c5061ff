"""The older Redis protocol: that of ``createAdapter`` in ``@socket.io/redis-adapter``, and of most emitters.

A server hears every broadcast of its namespace, by a pattern. The channel says for which room it is, so most of what is
for others is dropped unread. Requests and responses have a channel each, which every server hears; what it has sent
itself comes back to it, and is dropped, because the adapter does to its own sockets what it asks others to do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._errors import RemoteProtocolError
from .._wire.cluster import Message, MessageType
from .._wire.cluster_classic import ClassicChannels, ClassicCodec
from .redis_shared import Interest, Post, PubSub, RedisBus, RedisFactory

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .._redis.config import RedisOptions


class ClassicBus(RedisBus):
    """One namespace of one server; implements `Bus`.

    Args:
        pubsub: Where the others are.
        namespace: The namespace.
        uid: The name of this server.
        key: What the names of all channels begin with.
        to_requester: Whether to answer on the channel of the one who has asked; see `RedisAdapter`.
    """

    def __init__(self, pubsub: PubSub, namespace: str, uid: str, key: str, to_requester: bool) -> None:
        super().__init__(pubsub, namespace, uid, key)
        self._channels = ClassicChannels(namespace, key)
        self._codec = ClassicCodec(namespace)
        self._own_starts = self._codec.own_starts(uid)
        self._to_requester = to_requester

    def encode(self, message: Message) -> Post:
        payload = self._codec.encode(message)
        if self._to_requester and message.type in TO_REQUESTER:
            return Post(None, payload)
        return Post(self._channels.of(message), payload)

    def publish(self, encoded: Post) -> bool:
        assert encoded.channel is not None, "only answers go to whoever has asked"
        return self._pubsub.publish(encoded.channel, encoded.payload)

    def answer(self, requester: str | None, encoded: Post) -> bool:
        channel = encoded.channel
        if channel is None:
            channel = self._channels.response if requester is None else self._channels.answers(requester)
        return self._pubsub.publish(channel, encoded.payload)

    def _interests(self) -> list[Interest]:
        # Requests last: from then on others wait for our answers.
        return [
            Interest(self._on_response, [self._channels.response, self._channels.answers(self.uid)]),
            Interest(self._on_broadcast, patterns=[self._channels.pattern]),
            Interest(self._on_request, [self._channels.request]),
        ]

    def _counted_channel(self) -> bytes:
        return self._channels.request

    async def _names(self) -> set[str]:
        return await self._pubsub.names(self._channels.response)

    def _on_broadcast(self, channel: bytes, payload: bytes) -> None:
        if payload.startswith(self._own_starts) or self._receiver is None:
            return
        try:
            room = self._channels.room_untrusted(channel)
        except RemoteProtocolError as error:
            self._receiver.on_bad_message(error)
            return
        if not room or self._receiver.has_room(room):
            self._hand_over(self._codec.decode_broadcast_untrusted, payload)

    def _on_request(self, channel: bytes, payload: bytes) -> None:
        if not payload.startswith(self._own_starts):
            self._hand_over(self._codec.decode_request_untrusted, payload)

    def _on_response(self, channel: bytes, payload: bytes) -> None:
        self._hand_over(self._codec.decode_response_untrusted, payload)


#: Answers that may go to the requester's own channel; those to a server-side emit never do.
TO_REQUESTER = frozenset(
    {
        MessageType.SOCKET_IDS_RESPONSE,
        MessageType.ALL_ROOMS_RESPONSE,
        MessageType.FETCH_SOCKETS_RESPONSE,
        MessageType.BROADCAST_CLIENT_COUNT,
        MessageType.BROADCAST_ACK,
        MessageType.APPLIED,
    }
)


class RedisAdapter(RedisFactory):
    """Several servers as one, over Redis's publish and subscribe::

        io = Server(adapter=RedisAdapter("redis://127.0.0.1:6379"))

    The others may be servers in Node.js that use ``createAdapter`` of ``@socket.io/redis-adapter`` (version 5 and
    later), and emitters in any language. One `RedisAdapter` belongs to one `Server`.

    Redis delivers what is published to whoever is connected at that moment. While a server has lost its connection, it
    goes on with its own clients, and misses what others publish (see `on_health`).

    Args:
        url: ``redis://[[user]:password@]host[:port][/db]``, ``rediss://...`` for TLS, or ``unix://path``. A single
            server; of a Redis Cluster, only its members' own subscribers would be counted.
        key: What the names of all channels begin with, the same for all servers.
        request_timeout: Seconds that other servers have for an answer, where the caller does not say.
        publish_on_specific_response_channel: Whether to answer on a channel that only the requester hears. Servers may
            differ in this; very old ones do not have such a channel.
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
        key: str = "socket.io",
        request_timeout: float = 5.0,
        publish_on_specific_response_channel: bool = False,
        name: str | None = None,
        **options: Unpack[RedisOptions],
    ) -> None:
        super().__init__(url, name, request_timeout, options)
        self._key = key
        self._to_requester = publish_on_specific_response_channel

    def _bus(self, namespace: str) -> ClassicBus:
        return ClassicBus(PubSub(self._client), namespace, self.uid, self._key, self._to_requester)
