"""Fixtures for pytest-trio, not active unless asked for.

A test suite does so with ``pytest_plugins = ["trio_socketio.testing.pytest_plugin"]`` in its ``conftest.py``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import pytest
import trio

from . import Cluster, MemoryClient, open_client, open_cluster
from ._holder import Holder

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from .. import Server
    from ..abc import AdapterFactory


class OpenClient(Protocol):
    """What the fixture `memory_client` is: `open_client`, to be awaited instead of entered."""

    async def __call__(self, io: Server[Any], namespace: str = "/", **options: Any) -> MemoryClient:
        """Connect a client.

        Args:
            io: The server.
            namespace: Where to connect.
            options: As for `open_client`.
        """


class OpenCluster(Protocol):
    """What the fixture `cluster` is: `open_cluster`, to be awaited instead of entered."""

    async def __call__(
        self,
        n: int = 2,
        adapter: Callable[[str], AdapterFactory] | None = None,
        *,
        setup: Callable[[Server[Any]], object] | None = None,
        **options: Any,
    ) -> Cluster:
        """Run several servers, which meet on a memory bus.

        Args:
            n: How many.
            adapter: Called with the name of each server for its option ``adapter``, if it is to be another one.
            setup: Called with each server before it runs.
            options: For each `Server`.
        """


@pytest.fixture
async def contexts() -> AsyncIterator[Holder]:
    """What the other fixtures enter until the end of a test; the last one is left first, whichever fixture's it is."""
    async with trio.open_nursery() as nursery:
        holder = Holder(nursery)
        yield holder
        await holder.leave_all()


@pytest.fixture
def memory_client(contexts: Holder) -> OpenClient:
    """``client = await memory_client(io)``: clients that stay until the end of the test, and then say goodbye."""

    async def open_until_the_end(io: Server[Any], namespace: str = "/", **options: Any) -> MemoryClient:
        return await contexts.enter(open_client(io, namespace, **options))

    return open_until_the_end


@pytest.fixture
def cluster(contexts: Holder) -> OpenCluster:
    """``servers = await cluster(2)``: servers that run together until the end of the test.

    The faults between them are ``servers.bus.delay = 0.1``, ``servers.partition([0], [1])`` and so on; see `Cluster`.
    """

    async def run_until_the_end(
        n: int = 2,
        adapter: Callable[[str], AdapterFactory] | None = None,
        *,
        setup: Callable[[Server[Any]], object] | None = None,
        **options: Any,
    ) -> Cluster:
        return await contexts.enter(open_cluster(n, adapter, setup=setup, **options))

    return run_until_the_end
