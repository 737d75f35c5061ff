"""Fixtures for pytest-trio, not active unless asked for.

A test suite does so with ``pytest_plugins = ["trio_socketio.testing.pytest_plugin"]`` in its ``conftest.py``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import pytest
import trio

from . import MemoryClient, open_client
from ._holder import Holder

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from .. import Server


class OpenClient(Protocol):
    """What the fixture `memory_client` is: `open_client`, to be awaited instead of entered."""

    async def __call__(self, io: Server[Any], namespace: str = "/", **options: Any) -> MemoryClient:
        """Connect a client.

        Args:
            io: The server.
            namespace: Where to connect.
            options: As for `open_client`.
        """


@pytest.fixture
async def memory_client() -> AsyncIterator[OpenClient]:
    """``client = await memory_client(io)``: clients that stay until the end of the test, and then say goodbye."""
    async with trio.open_nursery() as nursery:
        holder = Holder(nursery)

        async def open_until_the_end(io: Server[Any], namespace: str = "/", **options: Any) -> MemoryClient:
            return await holder.enter(open_client(io, namespace, **options))

        yield open_until_the_end
        await holder.leave_all()
