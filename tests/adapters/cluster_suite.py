"""What the tests of cluster adapters share: servers that meet over any bus, and clients of the testing kit.

A `Kind` is a way to meet; `KINDS` are all of them, and `test_cluster_suite.py` runs with each. All of this is in real
time, because Redis is; `until` waits for what no event tells of.
"""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import trio

from trio_socketio import Server, ServerStatistics
from trio_socketio._adapters.cluster import ClusterAdapter
from trio_socketio._adapters.memory_bus import MemoryCluster
from trio_socketio._errors import plain_exceptions
from trio_socketio.redis import RedisAdapter, RedisStreamsAdapter, ShardedRedisAdapter
from trio_socketio.testing import open_client
from trio_socketio.testing._holder import Holder

from ..redis_server import unique
from ..wire_client import count_tasks

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from trio_socketio import Socket
    from trio_socketio.testing import MemoryClient

#: Seconds of real time, within which something has to have happened.
LIMIT = 5.0

#: Makes the option `adapter` of the server with this name; with more options of the adapter.
MakeFactory: TypeAlias = "Callable[..., Any]"


class Kind(NamedTuple):
    """A way to meet.

    Attributes:
        name: What tests call it.
        meet: Called with the URL of a Redis server and a prefix of its own; what it returns makes the servers' option
            `adapter`.
        has_all_rooms: Whether there is a message for `ClusterAdapter.all_rooms`.
    """

    name: str
    meet: Callable[[str, str], MakeFactory]
    has_all_rooms: bool = False


def in_memory(url: str, prefix: str) -> MakeFactory:
    return MemoryCluster().adapter


def classic(**options: Any) -> Callable[[str, str], MakeFactory]:
    return lambda url, prefix: lambda name, **more: RedisAdapter(url, key=prefix, name=name, **(options | more))


def sharded(**options: Any) -> Callable[[str, str], MakeFactory]:
    return lambda url, prefix: (
        lambda name, **more: ShardedRedisAdapter(url, channel_prefix=prefix, name=name, **(options | more))
    )


def streams(**options: Any) -> Callable[[str, str], MakeFactory]:
    return lambda url, prefix: (
        lambda name, **more: RedisStreamsAdapter(
            url, stream_name=prefix, channel_prefix=prefix, name=name, **(options | more)
        )
    )


KINDS = [
    Kind("memory", in_memory),
    Kind("classic", classic(), has_all_rooms=True),
    Kind("classic-specific", classic(publish_on_specific_response_channel=True), has_all_rooms=True),
    Kind("sharded-static", sharded(subscription_mode="static")),
    Kind("sharded-dynamic", sharded()),
    Kind("sharded-private", sharded(subscription_mode="dynamic-private")),
    Kind("streams", streams()),
    Kind("streams-several", streams(stream_count=5, read_count=1, use_sharded_pub_sub=True)),
]


async def until(condition: Callable[[], object]) -> None:
    """Wait for something that another server's message will make true."""
    with trio.fail_after(LIMIT):
        while not condition():  # noqa: ASYNC110 - there is no event for what others do
            await trio.sleep(0.001)


async def eventually(condition: Callable[[], Awaitable[object]]) -> None:
    """The same for what has to be asked for."""
    with trio.fail_after(LIMIT):
        while not await condition():  # noqa: ASYNC110 - likewise
            await trio.sleep(0.002)


class Place:
    """Where servers meet.

    Args:
        kind: How.
        url: That of a Redis server.
        prefix: Of all names there; by default one that nobody else has.

    Attributes:
        server_options: Those of the servers that are made from now on.
    """

    def __init__(self, kind: Kind, url: str, prefix: str | None = None) -> None:
        self.kind = kind
        self.server_options: dict[str, Any] = {}
        self.prefix = prefix or unique("cluster")
        self._make = kind.meet(url, self.prefix)

    @asynccontextmanager
    async def member(self, name: str, **options: Any) -> AsyncIterator[Member]:
        """A server; at its end, nothing may be left of what it and its clients have done.

        Args:
            name: What it is called in the cluster.
            options: The adapter's.
        """
        factory = self._make(name, **options)
        io = Server(adapter=factory, **self.server_options)
        with plain_exceptions():
            async with trio.open_nursery() as nursery, io.running():
                clients = Holder(nursery)
                yield Member(name, io, clients, factory)
                await clients.leave_all()
                await until(lambda: io.statistics() == ServerStatistics())
                for namespace in io.namespaces.values():
                    assert_idle(namespace.adapter)
                if self.kind.name != "memory":
                    assert factory.statistics().handler_errors == 0
                nursery.cancel_scope.cancel()

    @asynccontextmanager
    async def joined(self, *names: str, **options: Any) -> AsyncIterator[list[Member]]:
        """Several servers; after their end there are as many tasks as before."""
        tasks = count_tasks()
        async with AsyncExitStack() as stack:
            yield [await stack.enter_async_context(self.member(name, **options)) for name in names]
        await until(lambda: count_tasks() <= tasks)

    @asynccontextmanager
    async def crowd(self, *names: str, **options: Any) -> AsyncIterator[list[User]]:
        """Several servers, each with one client."""
        async with self.joined(*names, **options) as members:
            yield [await member.connect() for member in members]


class Member(NamedTuple):
    """A server of the cluster, and its clients."""

    name: str
    io: Server
    clients: Holder
    factory: Any

    @property
    def adapter(self) -> ClusterAdapter:
        return adapter_of(self.io)

    async def connect(self, namespace: str = "/", auth: Any = None) -> User:
        """A new client."""
        client = await self.clients.enter(open_client(self.io, namespace, auth=auth))
        return User(self, client, self.io.of(namespace).sockets[client.id])


class User(NamedTuple):
    """A client, its socket, and the server to which it is connected."""

    member: Member
    client: MemoryClient
    socket: Socket

    @property
    def io(self) -> Server:
        return self.member.io

    async def hear(self) -> list[Any]:
        """The next event, of which it is not known whether it is to be acknowledged."""
        with trio.fail_after(LIMIT):
            return list(await self.client.receive())

    async def hear_until(self, last: str) -> list[list[Any]]:
        """All events until one of this name, which is left out."""
        events = []
        while (event := await self.hear())[0] != last:
            events.append(event)
        return events

    async def reply(self, *answers: Any) -> None:
        """Acknowledge the next event."""
        with trio.fail_after(LIMIT):
            event = await self.client.receive()
        await event.ack(*answers)


async def heard(users: list[User], sender: Server) -> list[list[list[Any]]]:
    """What each of them has heard until now: messages of one server arrive in their order."""
    last = unique("end")
    await sender.emit(last)
    return [await user.hear_until(last) for user in users]


def adapter_of(io: Server, namespace: str = "/") -> ClusterAdapter:
    adapter = io.of(namespace).adapter
    assert isinstance(adapter, ClusterAdapter)
    return adapter


def assert_idle(adapter: Any) -> None:
    """Nobody waits, and nothing is kept for anybody."""
    figures = adapter.statistics()
    assert (figures.requests, figures.collecting) == (0, 0)
