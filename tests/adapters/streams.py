"""Servers that meet over a stream, and clients that lose their connection and come back to any of them."""

from __future__ import annotations

import json
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import trio

from trio_socketio import ConnectionStateRecovery, Server
from trio_socketio._errors import plain_exceptions
from trio_socketio._redis.client import Redis
from trio_socketio._redis.health import Health
from trio_socketio.redis import RecoveringStreamsAdapter, RedisError, RedisStreamsAdapter

from ..redis_server import unique
from ..wire_client import Net, count_tasks
from .cluster_suite import ANY_NUMBER, LIMIT, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio_socketio import Socket

    from ..redis_server import RedisServer
    from ..wire_client import SioClient

#: So that a lost or frozen server is noticed within a fraction of a second.
IMPATIENT: dict[str, Any] = {
    "ping_idle": 0.1,
    "ping_limit": 0.2,
    "connect_timeout": 0.5,
    "backoff_most": 0.1,
    "block_time": 0.1,
}


class Node(NamedTuple):
    """One server, and the way to it."""

    io: Server
    net: Net
    factory: RedisStreamsAdapter

    @property
    def adapter(self) -> RecoveringStreamsAdapter:
        adapter = self.io.adapter
        assert isinstance(adapter, RecoveringStreamsAdapter)
        return adapter

    async def come(self, auth: Any = None) -> Guest:
        """Connect a client, with whatever comes before the answer."""
        client = await self.net.open_socketio()
        await client.send_raw("0" + ("" if auth is None else json.dumps(auth)))
        missed: list[list[Any]] = []
        with trio.fail_after(2 * LIMIT):
            while (packet := str(await client.recv()))[0] == "2":
                missed.append(json.loads(packet[1:]))
        assert packet[0] == "0", packet
        answer = json.loads(packet[1:])
        client.sid = answer["sid"]
        return Guest(self, client, self.io.sockets.sockets[client.sid], answer["pid"], missed)


class Guest(NamedTuple):
    """A client, and what it has missed."""

    node: Node
    client: SioClient
    socket: Socket
    pid: str
    missed: list[list[Any]]

    async def hear(self) -> list[Any]:
        """The next event."""
        with trio.fail_after(LIMIT):
            return (await self.client.recv_event())[1]

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
                net = Net(io, nursery)
                yield Node(io, net, factory)
                await net.end(ANY_NUMBER)
                if isinstance(io.adapter, RecoveringStreamsAdapter):
                    await until(lambda: not io.sockets.sockets)
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
