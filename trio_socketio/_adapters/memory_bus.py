"""Several servers in one process, on memory channels; with delays and losses, if a test wants them.

What travels is bytes, as it would be elsewhere: nothing that one server changes afterwards changes for another.
Messages of one server arrive in their order, those of several in any.
"""

from __future__ import annotations

import heapq
import itertools
import math
import secrets
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import trio

from .._errors import RemoteProtocolError, plain_exceptions
from .._wire.cluster_newer import ClusterCodec
from .answers import Roll
from .cluster import ClusterAdapter

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable
    from collections.abc import Set as AbstractSet

    from .._wire.cluster import Message
    from .bus import Receiver
    from .contract import AdapterFactory, Directory

#: What may depend on the names of the server that sends and the one that receives.
Delay: TypeAlias = "float | Callable[[str, str], float]"
Loss: TypeAlias = "bool | Callable[[str, str], bool]"

#: Messages that may be under way to one server; what comes on top of that is lost.
CAPACITY = 10_000


class MemoryCluster:
    """Where the servers of one process meet::

        cluster = MemoryCluster()
        one, two = Server(adapter=cluster.adapter("one")), Server(adapter=cluster.adapter("two"))

    Args:
        delay: Seconds that a message travels; or a function of the names of its sender and its receiver.
        lose: Whether messages are lost, without anybody noticing; likewise.

    Attributes:
        delay: May be changed at any time, for what is sent from then on; a link stays in order.
        lose: Likewise.
    """

    def __init__(self, *, delay: Delay = 0.0, lose: Loss = False) -> None:
        self.delay: Delay = delay
        self.lose: Loss = lose
        self._members: dict[str, dict[str, MemoryBus]] = {}

    def adapter(self, name: str | None = None, *, request_timeout: float = 5.0) -> AdapterFactory:
        """For the option ``adapter`` of one server.

        Args:
            name: What the server is called in the cluster; by default something random.
            request_timeout: Seconds that other servers have for an answer, where the caller does not say.
        """
        uid = secrets.token_hex(8) if name is None else name

        def make_adapter(directory: Directory) -> ClusterAdapter:
            return ClusterAdapter(directory, MemoryBus(self, directory.name, uid), request_timeout)

        return make_adapter

    def partition(self, *groups: Iterable[str]) -> None:
        """Lose everything between servers of different groups; what a server that is in none sends gets everywhere."""
        sides = {name: number for number, group in enumerate(groups) for name in group}
        self.lose = lambda sender, receiver: sender in sides and receiver in sides and sides[sender] != sides[receiver]

    def heal(self) -> None:
        """No delays, no losses."""
        self.delay, self.lose = 0.0, False

    def members(self, namespace: str) -> dict[str, MemoryBus]:
        """The servers that have a namespace now, by name; not to be changed but by themselves."""
        return self._members.setdefault(namespace, {})

    def __repr__(self) -> str:
        return f"<MemoryCluster of {sorted(self.members('/'))}>"


class Parcel(NamedTuple):
    """What travels, in the order of its arrival: a message, or nothing, which is the sender's farewell."""

    arrives: float
    number: int
    sender: str
    encoded: bytes | None


class MemoryBus:
    """One server's part of a `MemoryCluster`, for one namespace; implements `Bus`.

    Args:
        cluster: Where it meets the others.
        namespace: The namespace.
        uid: The server's name.
    """

    def __init__(self, cluster: MemoryCluster, namespace: str, uid: str) -> None:
        self.uid: str = uid
        self._cluster = cluster
        self._namespace = namespace
        self._codec = ClusterCodec(namespace)
        self._receiver: Receiver | None = None
        self._parcels: list[Parcel] = []
        self._latest: dict[str, float] = {}
        self._sent = itertools.count()
        self._changed = trio.Event()

    @asynccontextmanager
    async def opened(self, receiver: Receiver) -> AsyncIterator[None]:
        """See `Bus.opened`.

        Raises:
            RuntimeError: There is a server of this name already.
        """
        members = self._cluster.members(self._namespace)
        if self.uid in members:
            raise RuntimeError(f"there is a server {self.uid!r} in this cluster already")
        with plain_exceptions():
            async with trio.open_nursery() as nursery:
                self._receiver = receiver
                members[self.uid] = self
                nursery.start_soon(self._deliver)
                try:
                    yield
                finally:
                    del members[self.uid]
                    for other in members.values():
                        other.take(self.uid, None)
                    self._receiver = None
                    self._parcels.clear()
                    self._latest.clear()
                    nursery.cancel_scope.cancel()

    def encode(self, message: Message) -> bytes:
        return self._codec.encode(message)

    async def writable(self) -> None:
        await trio.lowlevel.checkpoint()

    def publish(self, encoded: bytes) -> bool:
        others = [bus for uid, bus in self._cluster.members(self._namespace).items() if uid != self.uid]
        taken = [other.take(self.uid, encoded) for other in others]  # by every one of them, whatever the first says
        return all(taken)

    def answer(self, requester: str | None, encoded: bytes) -> bool:
        other = self._cluster.members(self._namespace).get(requester or "")
        return other is None or other.take(self.uid, encoded)

    def take(self, sender: str, encoded: bytes | None) -> bool:
        """Have something delivered here; false if too much is under way."""
        if encoded is not None and _choose(self._cluster.lose, sender, self.uid):
            return True
        if len(self._parcels) >= CAPACITY:
            return False
        arrives = trio.current_time() + _choose(self._cluster.delay, sender, self.uid)
        self._latest[sender] = arrives = max(arrives, self._latest.get(sender, arrives))
        heapq.heappush(self._parcels, Parcel(arrives, next(self._sent), sender, encoded))
        self._changed.set()
        return True

    async def _deliver(self) -> None:
        while True:
            with trio.move_on_at(self._parcels[0].arrives if self._parcels else math.inf):
                self._changed = trio.Event()
                await self._changed.wait()
            while self._parcels and self._parcels[0].arrives <= trio.current_time():
                parcel = heapq.heappop(self._parcels)
                if parcel.encoded is None:
                    self._bid_farewell(parcel.sender)
                else:
                    self._hand_over(parcel.encoded)

    def _bid_farewell(self, sender: str) -> None:
        if self._receiver is not None:
            self._receiver.on_member_left(sender)

    def _hand_over(self, encoded: bytes) -> None:
        if self._receiver is None:
            return
        try:
            message = self._codec.decode_untrusted(encoded)
        except RemoteProtocolError as error:
            self._receiver.on_bad_message(error)
        else:
            self._receiver.receive(message)

    async def roll_call(self) -> Roll:
        others = await self.members()
        return Roll(len(others), others)

    async def members(self) -> AbstractSet[str]:
        await trio.lowlevel.checkpoint()
        return self._cluster.members(self._namespace).keys() - {self.uid}

    async def peers(self) -> AbstractSet[str]:
        return await self.members()

    async def follow(self, rooms: Iterable[str]) -> None:
        """Everything arrives anyway."""
        await trio.lowlevel.checkpoint()

    def unfollow(self, room: str) -> None:
        """Everything arrives anyway."""


def _choose(option: Any, sender: str, receiver: str) -> Any:
    return option(sender, receiver) if callable(option) else option
