"""The servers, and clients of them that notice quickly what goes wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from trio_socketio._redis.client import Redis

from ..redis_server import redis_flavour, redis_server, start_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from ..redis_server import RedisServer

__all__ = ["client", "own_client", "own_server", "redis_flavour", "redis_server"]


@pytest.fixture
async def client(redis_server: RedisServer) -> AsyncIterator[Redis]:
    """A running client of the session's server."""
    async with Redis(redis_server.url).running() as client:
        yield client


@pytest.fixture
def own_server(redis_flavour: str) -> Iterator[RedisServer]:
    """A server that the test may do everything to."""
    with start_server(redis_flavour) as server:
        yield server


@pytest.fixture
async def own_client(own_server: RedisServer) -> AsyncIterator[Redis]:
    """A running, impatient client of the test's own server."""
    client = Redis(own_server.url, ping_idle=0.1, ping_limit=0.2, connect_timeout=0.5, backoff_most=0.1)
    async with client.running():
        yield client
