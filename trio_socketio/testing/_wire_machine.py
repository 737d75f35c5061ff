"""The state machine for servers that are somewhere else, of whatever make."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, ClassVar

import trio

from .. import SocketDisconnected
from .._errors import plain_exceptions
from ._machine import WorldMachine
from ._wire_server import ECHO, PATIENCE, WireServer
from ._world import World

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from ._client import MemoryClient
    from ._under_test import Difference


class WireMachine(WorldMachine):
    """`AdapterMachine` for any Socket.IO servers at URLs, which implement a small control protocol for it.

    ::

        class NodeMachine(WireMachine):
            urls = ["http://127.0.0.1:3000", "http://127.0.0.1:3001"]

        TestNode = NodeMachine.TestCase

    The rules are the same, but for faults between the servers. Clients speak to the servers over TCP, in real time.
    What a server cannot tell is not looked at: whether its other index agrees, its room events and its statistics.

    All examples use the same servers, and each begins when those of the one before have gone. A failure that leaves
    something behind makes the next ones fail at their start: then let `make_urls` start new servers.

    Attributes:
        urls: Of the servers of one cluster; for a class to assign.
        differences: What is known to be different about them, and allowed for; for a class to assign.
        max_clients: How many there are at most; for a class to assign.
        world: The servers, the clients and the model.
    """

    urls: ClassVar[Sequence[str]] = ()
    differences: ClassVar[Collection[Difference]] = ()
    real_time: ClassVar[bool] = True
    step_limit: ClassVar[float] = 60.0

    async def make_urls(self) -> Sequence[str]:
        """The URLs of the servers to test; they run. Called for each example; `urls`, unless it is overridden."""
        await trio.lowlevel.checkpoint()
        if not self.urls:
            raise NotImplementedError("a WireMachine needs servers to test: assign urls, or define make_urls()")
        return self.urls

    async def make_world(self) -> World:
        self._servers = [WireServer(url) for url in await self.make_urls()]
        return World(self._servers, self.enter, self.settle, differences=self.differences)

    async def settle(self) -> None:
        """Wait until everything that was sent has arrived.

        Each server says when the others have got what it sent, and then all clients make a round trip, behind which
        there is nothing left on their way.
        """
        for server in self._servers:
            await server.settle()
        with plain_exceptions():
            async with trio.open_nursery() as nursery:
                for name, client in self.world.clients.items():
                    nursery.start_soon(_make_round_trip, name, client)


async def _make_round_trip(name: str, client: MemoryClient) -> None:
    with trio.move_on_after(PATIENCE):
        with suppress(SocketDisconnected):  # known only now, because it came behind everything else
            await client.emit_with_ack(ECHO)
        return
    raise TimeoutError(f"{name} has not had an answer to {ECHO!r} within {PATIENCE:g} seconds")
