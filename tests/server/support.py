"""What the tests of the Socket.IO layer share: a server that is served, and both ends of a client."""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import trio
from trio.testing import MockClock

from trio_socketio import Server, ServerStatistics

from ..wire_client import PATIENCE, open_app, settle

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    import pytest

    from trio_socketio import Socket

    from ..wire_client import Net, SioClient

TRANSPORTS = ("websocket", "polling")
MANY_TASKS = 1_000_000


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
        with trio.move_on_after(PATIENCE):
            while io.statistics() != ServerStatistics():  # noqa: ASYNC110 - there is no event for the end of everything
                await trio.sleep(0.1)
        assert io.statistics() == ServerStatistics()
        assert not [nsp for nsp in io.namespaces.values() if nsp.sockets or nsp.adapter.rooms or nsp.adapter.sids]


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
