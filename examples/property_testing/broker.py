"""Several servers as one, over a message broker of your own: what it takes to write an adapter."""

from __future__ import annotations

from collections import defaultdict
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import msgpack
import trio

from trio_socketio.abc import ClusterAdapter, Message, MessageType, Roll, Target

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from trio_socketio.abc import AdapterFactory, BusReceiver

CAPACITY = 1000  # messages that wait for a server


class Broker:
    """Stands for the one that you have. It has topics, and in each of them an inbox for every server."""

    def __init__(self) -> None:
        self.topics: dict[str, dict[str, trio.MemorySendChannel[bytes]]] = defaultdict(dict)

    def publish(self, topic: str, sender: str, payload: bytes, to: str | None = None) -> bool:
        """Put a message into one inbox, or into those of all others; false if one of them is full."""
        taken = True
        for name, inbox in self.topics[topic].items():
            if name == to or (to is None and name != sender):
                try:
                    inbox.send_nowait(payload)
                except trio.WouldBlock:
                    taken = False
        return taken


class BrokerBus:
    """The way of one server to the others, for one namespace; implements `trio_socketio.abc.Bus`."""

    def __init__(self, broker: Broker, namespace: str, uid: str) -> None:
        self.uid: str = uid
        self._broker = broker
        self._topic = namespace

    @asynccontextmanager
    async def opened(self, receiver: BusReceiver) -> AsyncIterator[None]:
        inbox, payloads = trio.open_memory_channel[bytes](CAPACITY)
        async with trio.open_nursery() as nursery:
            self._broker.topics[self._topic][self.uid] = inbox
            nursery.start_soon(self._listen, payloads, receiver)
            try:
                yield
            finally:
                del self._broker.topics[self._topic][self.uid]
                nursery.cancel_scope.cancel()

    async def _listen(self, payloads: trio.MemoryReceiveChannel[bytes], receiver: BusReceiver) -> None:
        async for payload in payloads:
            message = decode(payload)
            if not is_for_nobody(message, receiver):
                receiver.receive(message)

    def encode(self, message: Message) -> Any:
        return msgpack.packb(message)

    async def writable(self) -> None:
        await trio.lowlevel.checkpoint()

    def publish(self, encoded: bytes) -> bool:
        return self._broker.publish(self._topic, self.uid, encoded)

    def answer(self, requester: str | None, encoded: bytes) -> bool:
        return self._broker.publish(self._topic, self.uid, encoded, requester)

    async def members(self) -> set[str]:
        await trio.lowlevel.checkpoint()
        return self._broker.topics[self._topic].keys() - {self.uid}

    async def peers(self) -> set[str]:
        return await self.members()

    async def roll_call(self) -> Roll:
        others = await self.members()
        return Roll(len(others), others)

    async def follow(self, rooms: Iterable[str]) -> None:
        await trio.lowlevel.checkpoint()  # everything arrives anyway

    def unfollow(self, room: str) -> None:
        pass


def decode(payload: bytes) -> Message:
    """What `BrokerBus.encode` has made of it; if others can write to your broker, look at it more closely."""
    type, uid, namespace, content, target, *ids = msgpack.unpackb(payload)
    return Message(MessageType(type), uid, namespace, content, target and Target(*target), *ids)


def is_for_nobody(message: Message, receiver: BusReceiver) -> bool:
    """Most of what comes is for rooms of other servers; it costs least if nobody looks at it."""
    if message.target is None or message.request_id is not None:  # who asks wants an answer
        return False
    wanted = set(message.target.rooms) - set(message.target.except_rooms)
    return bool(message.target.rooms) and not any(map(receiver.has_room, wanted))


def broker_adapter(broker: Broker, name: str) -> AdapterFactory:
    """For the option ``adapter`` of the server with this name."""
    return lambda directory: ClusterAdapter(directory, BrokerBus(broker, directory.name, name))
