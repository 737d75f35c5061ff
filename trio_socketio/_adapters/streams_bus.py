"""The streams of Redis: what ``createAdapter`` of ``@socket.io/redis-streams-adapter`` speaks (version 0.3).

What has to arrive goes into a stream, which every server reads from entry to entry, each at its own pace: broadcasts,
joins, leaves and disconnects. What asks for an answer is of no use later, and is published; so are the answers. Between
the two there is no order.

With several streams, a namespace belongs to one of them. For about half of all names that is one which the servers in
Node.js write to and never read (see `stream_of`). Here it is read like any other, so servers with this library have all
of such a namespace, and Node's have what they do themselves; the log says so.
"""

from __future__ import annotations

from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, TypeAlias

from .._errors import EncodeError, RedisError, RemoteProtocolError
from .._wire.cluster import Message, MessageType
from .._wire.cluster_newer import ClusterChannels, ClusterCodec
from .._wire.cluster_streams import StreamCodec, StreamEntry
from .redis_shared import Interest, Post, PubSub, RedisBus

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence

    from .._redis.commands import OnReply
    from .bus import Receiver
    from .stream_reader import StreamReader

#: What goes into the stream, unless an answer of clients is wanted.
KEPT = frozenset(
    {
        MessageType.BROADCAST,
        MessageType.SOCKETS_JOIN,
        MessageType.SOCKETS_LEAVE,
        MessageType.DISCONNECT_SOCKETS,
    }
)

#: The fields of an entry, each name before its value.
Fields: TypeAlias = "list[bytes]"


class StreamsBus(RedisBus):
    """One namespace of one server; implements `Bus`.

    Args:
        pubsub: Where requests and answers are published.
        namespace: The namespace.
        uid: The name of this server.
        prefix: What the names of channels begin with.
        reader: Its stream; called when that is to be read.
        stream: The stream's name.
        max_len: How many entries the stream keeps, at least.
        only_plaintext: Whether bytes are refused.

    Attributes:
        offset: The id of the entry that the adapter is being told of; None while it is told of anything else.
        on_echo: Called with each entry of our own, in the order of the stream.
        on_doubt: Called when entries of our own may not come back.
    """

    def __init__(
        self,
        pubsub: PubSub,
        namespace: str,
        uid: str,
        prefix: str,
        *,
        reader: Callable[[str], StreamReader],
        stream: str,
        max_len: int,
        only_plaintext: bool,
    ) -> None:
        super().__init__(pubsub, namespace, uid, prefix)
        self.offset: bytes | None = None
        self._taps: dict[int, list[tuple[bytes, StreamEntry]]] = {}
        self.on_echo: Callable[[bytes, StreamEntry, Sequence[bytes]], None] = _ignore_echo
        self.on_doubt: Callable[[], None] = _ignore_doubt
        self.stream = stream
        self._make_reader = reader
        self._reader: StreamReader | None = None
        self._uid = uid.encode()
        self._max_len = max_len
        self._only_plaintext = only_plaintext
        self._channels = ClusterChannels(namespace, prefix)
        self._codec = ClusterCodec(namespace)
        self._entries = StreamCodec(self._codec.values)
        self._own_ends = self._codec.own_ends(uid)

    @property
    def reader(self) -> StreamReader:
        """Who reads the stream, while the bus is open."""
        assert self._reader is not None, "the bus is open"
        return self._reader

    @asynccontextmanager
    async def opened(self, receiver: Receiver) -> AsyncIterator[None]:
        """See `RedisBus.opened`.

        Raises:
            RedisReplyError: The server refuses what has to be subscribed or read.
        """
        reader = self._make_reader(self.stream)
        await reader.wait_ready()
        async with super().opened(receiver):
            self._reader = reader
            reader.add(self._namespace, self)
            try:
                yield
            finally:
                reader.remove(self._namespace)

    # Out

    def encode(self, message: Message) -> Post | Fields:
        if message.type in ANSWERS:
            return Post(None, self._codec.pack(message))
        if message.type not in KEPT or (message.type is MessageType.BROADCAST and message.request_id is not None):
            return Post(self._channels.main, self._codec.pack(message))
        fields = self._entries.encode(message)
        if self._only_plaintext and not fields[-1].startswith(b"{"):
            raise EncodeError("there are bytes in it, and the adapter was told only_plaintext")
        return fields

    def publish(self, encoded: Post | Fields) -> bool:
        if isinstance(encoded, Post):
            assert encoded.channel is not None, "only answers go to whoever has asked"
            return self._pubsub.publish(encoded.channel, encoded.payload)
        return self.append(encoded)

    def append(self, fields: Fields, on_reply: OnReply | None = None) -> bool:
        """Add an entry to the stream; false if it is lost for certain, and then `on_reply` is not called."""
        limit = ("MAXLEN", "~", self._max_len)
        try:
            self._pubsub.client.execute_nowait("XADD", self.stream, *limit, "*", *fields, on_reply=on_reply)
        except RedisError:
            return False
        return True

    def answer(self, requester: str | None, encoded: Post) -> bool:
        if requester is None:
            return False  # it has not said where it listens
        return self._pubsub.publish(self._channels.answers(requester), encoded.payload)

    # In

    def _interests(self) -> list[Interest]:
        # Requests last: from then on others wait for our answers.
        return [
            Interest(self._on_published, [self._channels.answers(self.uid)]),
            Interest(self._on_published, [self._channels.main]),
        ]

    def _counted_channel(self) -> bytes:
        return self._channels.main

    async def _names(self) -> set[str]:
        return await self._pubsub.names(self._channels.main)

    def _on_published(self, channel: bytes, payload: bytes) -> None:
        if not payload.endswith(self._own_ends):
            self._hand_over(self._codec.decode_untrusted, payload)

    def on_entry(self, id: bytes, entry: StreamEntry, fields: Sequence[bytes]) -> None:
        """See `Sink.on_entry`."""
        for tap in self._taps.values():
            tap.append((id, entry))
        if entry.uid == self._uid:
            self.on_echo(id, entry, fields)
        elif self._receiver is not None:
            self.offset = id
            try:
                message = self.decode_untrusted(entry)
            except RemoteProtocolError as error:
                self._receiver.on_bad_message(error)
            else:
                self._receiver.receive(message)
            finally:
                self.offset = None

    @contextmanager
    def tapped(self) -> Iterator[list[tuple[bytes, StreamEntry]]]:
        """Inside, the entries that come, with their ids, are added to the list."""
        entries: list[tuple[bytes, StreamEntry]] = []
        self._taps[id(entries)] = entries
        try:
            yield entries
        finally:
            del self._taps[id(entries)]

    def decode_untrusted(self, entry: StreamEntry) -> Message:
        """The message of an entry.

        Raises:
            RemoteProtocolError: It is none.
        """
        return self._entries.decode_untrusted(entry)


def _ignore_echo(id: bytes, entry: StreamEntry, fields: Sequence[bytes]) -> None:
    """Without recovery, what we send is delivered to our own clients when it is sent."""


def _ignore_doubt() -> None:
    """Without recovery, nobody waits for them."""


ANSWERS = frozenset(
    {
        MessageType.FETCH_SOCKETS_RESPONSE,
        MessageType.SERVER_SIDE_EMIT_RESPONSE,
        MessageType.BROADCAST_CLIENT_COUNT,
        MessageType.BROADCAST_ACK,
        MessageType.APPLIED,
    }
)
