"""What the tests of the Socket.IO layer share: a server that runs, and both ends of its clients.

Most tests act on the level of events, and use the clients that applications are tested with: `open_server`. Those that
are about packets and frames, or send what no client should, speak for themselves: `serving`.
"""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import trio
from trio.testing import MockClock

from trio_socketio import Server, ServerStatistics
from trio_socketio._errors import plain_exceptions
from trio_socketio.abc import ClusterAdapter
from trio_socketio.testing import open_client, open_cluster
from trio_socketio.testing._holder import Holder

from ..wire_client import PATIENCE, count_tasks, open_app, settle

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    import pytest

    from trio_socketio import Socket
    from trio_socketio.testing import Cluster, MemoryClient, ReceivedEvent

    from ..wire_client import Net, SioClient

TRANSPORTS: tuple[Literal["websocket"], Literal["polling"]] = ("websocket", "polling")
MANY_TASKS = 1_000_000
#: Seconds, of virtual time: who waits for longer waits for what never comes.
FOREVER = 10_000.0


class Served(NamedTuple):
    """A server, and the way to it."""

    io: Server
    net: Net

    async def connect(self, namespace: str = "/", auth: Any = None, transport: str = "websocket") -> Pair:
        """A new client, and its socket."""
        client = await self.net.connect_socketio(namespace, auth, transport)
        return Pair(client, self.socket_of(client))

    async def connect_many(self, count: int, namespace: str = "/") -> list[Pair]:
        return [await self.connect(namespace) for _ in range(count)]

    def socket_of(self, client: SioClient) -> Socket:
        return self.io.of(client.namespace).sockets[client.sid]


class Pair(NamedTuple):
    """Both ends of a connection to a namespace."""

    client: SioClient
    socket: Socket


@asynccontextmanager
async def serving(io: Server | None = None, **options: Any) -> AsyncIterator[Served]:
    """A server, made from options if it is not given.

    When its clients have gone, and before it stops, nothing may be left of them; `open_app` looks at tasks.
    """
    io = Server(**options) if io is None else io
    async with open_app(io) as net:
        yield Served(io, net)
        await net.end(MANY_TASKS)
        await check_empty(io)


async def check_empty(io: Server) -> None:
    """Make sure that nothing is left of a server's clients, who have gone."""
    with trio.move_on_after(PATIENCE):
        while io.statistics() != ServerStatistics():  # noqa: ASYNC110 - there is no event for the end of everything
            await trio.sleep(0.1)
    assert io.statistics() == ServerStatistics()
    assert not [nsp for nsp in io.namespaces.values() if nsp.sockets or nsp.adapter.rooms or nsp.adapter.sids]


class Connected(NamedTuple):
    """Both ends of a connection to a namespace, the client's being one of the testing kit."""

    client: MemoryClient
    socket: Socket


class OpenServer:
    """A server that runs, and its clients.

    Attributes:
        io: The server.
        net: The way to it for what is not said by clients of the testing kit.
    """

    def __init__(self, served: Served, holder: Holder) -> None:
        self.io: Server = served.io
        self.net: Net = served.net
        self._holder = holder

    async def client(self, namespace: str = "/", **options: Any) -> MemoryClient:
        """A new client, until the end of the test; options as for `open_client`."""
        return await self._holder.enter(open_client(self.io, namespace, **options))

    async def connect(self, namespace: str = "/", **options: Any) -> Connected:
        """The same, and its socket."""
        client = await self.client(namespace, **options)
        return Connected(client, self.socket_of(client))

    async def connect_many(self, count: int, namespace: str = "/") -> list[Connected]:
        return [await self.connect(namespace) for _ in range(count)]

    def socket_of(self, client: MemoryClient) -> Socket:
        return self.io.of(client.namespace).sockets[client.id]


@asynccontextmanager
async def open_server(io: Server | None = None, **options: Any) -> AsyncIterator[OpenServer]:
    """A server, made from options if it is not given; at the end its clients say goodbye.

    Nothing may be left of them then: what `serving` looks at is looked at here.
    """
    # Clients are outside of the server: when it fails, they see how it stops.
    with plain_exceptions(), trio.fail_after(FOREVER):
        async with trio.open_nursery() as nursery, serving(io, **options) as served:
            holder = Holder(nursery)
            yield OpenServer(served, holder)
            await holder.leave_all()


@asynccontextmanager
async def open_servers(count: int = 2, **options: Any) -> AsyncIterator[Cluster]:
    """The cluster of the testing kit; when its clients have gone, nothing may be left of them.

    Nor may there be anything left of what the servers have asked each other. Namespaces, which have tasks of their own,
    are made before the servers run (``setup``).
    """
    async with open_cluster(count, **options) as cluster:
        await settle()
        tasks = count_tasks()
        yield cluster
        for io in cluster:
            await check_empty(io)
            assert isinstance(io.adapter, ClusterAdapter)
            figures = io.adapter.statistics()
            assert (figures.requests, figures.collecting) == (0, 0)
        await settle()
        assert count_tasks() <= tasks


async def unanswered(client: MemoryClient, event: str | int, *args: Any) -> bool:
    """Whether nothing comes within a second for an event that asks for an acknowledgement."""
    with trio.move_on_after(1) as scope:
        await client.emit_with_ack(event, *args)
    return scope.cancelled_caught and client.receive_all_nowait() == []


async def dismissed(client: MemoryClient) -> bool:
    """Whether the server has disconnected it without another word."""
    return await client.receive_all() == [] and await client.wait_disconnected() == "io server disconnect"


async def stop_polling(client: MemoryClient, socket: Socket) -> None:
    """Have a client on long-polling poll no more, and the server know of no poll that pends."""
    await settle()
    client.stop_reading()
    await socket.emit("for the poll that pends")
    await settle()


async def resume_polling(client: MemoryClient) -> list[ReceivedEvent]:
    """Have it poll again, after `stop_polling`, and get what has waited for that."""
    client.resume_reading()
    first, *others = await client.receive_all()
    assert first.name == "for the poll that pends"
    return others


async def received(client: SioClient) -> list[str | bytes]:
    """What has come to a client, raw."""
    await settle()
    found: list[str | bytes] = []
    with trio.move_on_after(0.01):
        while True:
            found.append(await client.recv())
    return found


def run(fn: Callable[..., Awaitable[Any]], *args: Any) -> Any:
    """Run on a clock of its own; for property tests, each of whose examples is a run of Trio."""
    return trio.run(fn, *args, clock=MockClock(autojump_threshold=0))


def at_least(caplog: pytest.LogCaptureFixture, level: int) -> list[str]:
    """What the library logged."""
    return [r.getMessage() for r in caplog.records if r.name.startswith("trio_socketio") and r.levelno >= level]


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return at_least(caplog, logging.WARNING)
