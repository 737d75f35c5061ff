"""Servers that meet over a stream, and clients that lose their connection and come back to any of them."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import trio

from trio_socketio import ConnectionStateRecovery, Server, ServerStatistics
from trio_socketio._errors import plain_exceptions
from trio_socketio._redis.client import Redis
from trio_socketio._redis.health import Health
from trio_socketio.redis import RecoveringStreamsAdapter, RedisError, RedisStreamsAdapter
from trio_socketio.testing import open_client
from trio_socketio.testing._holder import Holder

from ..redis_server import unique
from ..wire_client import count_tasks
from .cluster_suite import LIMIT, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio_socketio import Socket
    from trio_socketio.testing import MemoryClient

    from ..redis_server import RedisServer

#: So that a lost or frozen server is noticed within a fraction of a second.
IMPATIENT: dict[str, Any] = {
    "ping_idle": 0.1,
    "ping_limit": 0.2,
    "connect_timeout": 0.5,
    "backoff_most": 0.1,
    "block_time": 0.1,
}


class Node(NamedTuple):
    """One server, and its clients."""

    io: Server
    clients: Holder
    factory: RedisStreamsAdapter

    @property
    def adapter(self) -> RecoveringStreamsAdapter:
        adapter = self.io.adapter
        assert isinstance(adapter, RecoveringStreamsAdapter)
        return adapter

    async def come(self, auth: Any = None, namespace: str = "/") -> Guest:
        """Connect a client, with whatever comes before the answer."""
        with trio.fail_after(2 * LIMIT):
            client = await self.clients.enter(open_client(self.io, namespace, auth=auth))
        packets = [str(packet.data)[:2] for packet in client.wire if packet.sender == "server"]
        missed = [list(await client.receive()) for kind in packets[: packets.index("40")] if kind in ("42", "45")]
        assert client.pid is not None
        return Guest(self, client, self.io.of(namespace).sockets[client.id], client.pid, missed)


class Guest(NamedTuple):
    """A client, and what it has missed."""

    node: Node
    client: MemoryClient
    socket: Socket
    pid: str
    missed: list[list[Any]]

    async def hear(self) -> list[Any]:
        """The next event."""
        with trio.fail_after(LIMIT):
            return list(await self.client.receive())

    async def go(self) -> None:
        """Lose the connection, and wait until the server has noticed it, and Redis knows."""
        await self.client.drop()
        with trio.fail_after(LIMIT):
            await self.socket.ended.wait()
            with suppress(RedisError):
                await self.node.factory._client.execute("PING")

    async def heard(self, name: str = "end") -> list[list[Any]]:
        """All events until one of this name, which is left out."""
        events = []
        while (event := await self.hear())[0] != name:
            events.append(event)
        return events


class Cluster:
    """Servers over streams of their own."""

    def __init__(self, server: RedisServer, **options: Any) -> None:
        self.server = server
        self.stream = unique("stream")
        self._options = options

    @asynccontextmanager
    async def node(self, recovery: Any = True, **options: Any) -> AsyncIterator[Node]:
        """A server; at its end nothing of its clients may be left."""
        names = {"stream_name": self.stream, "channel_prefix": self.stream, "session_key_prefix": f"{self.stream}:"}
        chosen: dict[str, Any] = names | IMPATIENT | self._options | options
        factory = RedisStreamsAdapter(self.server.url, **chosen)
        io = Server(adapter=factory, connection_state_recovery=recovery)
        with plain_exceptions():
            async with trio.open_nursery() as nursery, io.running():
                clients = Holder(nursery)
                yield Node(io, clients, factory)
                await clients.leave_all()
                await until(lambda: io.statistics() == ServerStatistics())
                if isinstance(io.adapter, RecoveringStreamsAdapter):
                    assert io.adapter.kept() == (0, 0, 0)
                nursery.cancel_scope.cancel()

    @asynccontextmanager
    async def nodes(self, count: int, **options: Any) -> AsyncIterator[list[Node]]:
        """Several servers; after their end there are as many tasks as before."""
        tasks = count_tasks()
        async with AsyncExitStack() as stack:
            yield [await stack.enter_async_context(self.node(**options)) for _ in range(count)]
        await until(lambda: count_tasks() <= tasks)

    @asynccontextmanager
    async def redis(self) -> AsyncIterator[Redis]:
        """A client of the Redis server."""
        async with Redis(self.server.url).running() as client:
            yield client

    async def kill_connections(self, redis: Redis) -> None:
        """End every connection but that of this client."""
        for kind in ("normal", "pubsub"):
            await redis.execute("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")


def claim(pid: str, offset: str | None = None) -> dict[str, str]:
    """What a client says when it comes back."""
    return {"pid": pid} | ({} if offset is None else {"offset": offset})


async def until_ready(*nodes: Node) -> None:
    """Wait until all connections to Redis are there again."""
    await until(lambda: all(node.factory.health is Health.READY for node in nodes))


def recovery(**options: Any) -> ConnectionStateRecovery:
    return ConnectionStateRecovery(**options)
