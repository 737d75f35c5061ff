"""Connections of their own, for commands that block."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from trio_socketio._errors import RedisConnectionLost, RedisReplyError
from trio_socketio._redis.client import Redis

from ..redis_server import unique
from .support import LIMIT, until

if TYPE_CHECKING:
    from trio_socketio._redis.blocking import BlockingConnection

    from ..redis_server import RedisServer


async def clients_of(client: Redis) -> int:
    return len((await client.execute("CLIENT", "LIST")).splitlines())


async def until_clients(client: Redis, count: int) -> None:
    with trio.fail_after(LIMIT):
        present = await clients_of(client)
        while present != count:
            present = await clients_of(client)


async def test_a_blocked_read_returns_what_is_added_and_holds_up_nobody(client: Redis) -> None:
    stream = unique("stream")
    async with client.blocking() as reader, trio.open_nursery() as nursery:

        @nursery.start_soon
        async def add() -> None:
            await until(lambda: True)
            assert await client.execute("PING") == b"PONG"
            await client.execute("XADD", stream, "1-1", "field", "value")

        reply = await reader.execute("XREAD", "BLOCK", 5000, "STREAMS", stream, "0", blocks=5.0)
    assert reply == {stream.encode(): [[b"1-1", [b"field", b"value"]]]}


async def test_a_read_that_times_out_on_the_server_keeps_the_connection(client: Redis) -> None:
    async with client.blocking() as reader:
        own = await reader.execute("CLIENT", "ID")
        assert await reader.execute("XREAD", "BLOCK", 10, "STREAMS", unique("stream"), "0", blocks=0.01) is None
        assert await reader.execute("CLIENT", "ID") == own


async def test_cancelling_a_blocked_read_closes_its_connection_at_once(client: Redis) -> None:
    before = await clients_of(client)
    async with client.blocking() as reader:
        start = trio.current_time()
        with trio.move_on_after(0.05) as scope:
            await reader.execute("XREAD", "BLOCK", 0, "STREAMS", unique("stream"), "0", blocks=60.0)
        assert scope.cancelled_caught
        assert trio.current_time() - start < 1.0
        await until_clients(client, before)
        assert await reader.execute("ECHO", "opened again") == b"opened again"
        assert await clients_of(client) == before + 1
    await until_clients(client, before)
    assert client.statistics().losses == 0


async def test_an_error_is_raised_and_keeps_the_connection(client: Redis) -> None:
    async with client.blocking() as reader:
        own = await reader.execute("CLIENT", "ID")
        with pytest.raises(RedisReplyError):
            await reader.execute("NONSENSE")
        assert await reader.execute("CLIENT", "ID") == own


async def test_two_tasks_cannot_use_it_at_once(client: Redis) -> None:
    async def block(reader: BlockingConnection) -> None:
        await reader.execute("BLPOP", unique("list"), 0, blocks=60.0)

    async with client.blocking() as reader, trio.open_nursery() as nursery:
        nursery.start_soon(block, reader)
        await trio.testing.wait_all_tasks_blocked(0.01)
        with pytest.raises(trio.BusyResourceError):
            await reader.execute("PING")
        nursery.cancel_scope.cancel()


async def test_a_killed_connection_says_so_and_is_opened_again_after_a_wait(client: Redis) -> None:
    async with client.blocking() as reader, trio.open_nursery() as nursery:
        own = await reader.execute("CLIENT", "ID")

        @nursery.start_soon
        async def kill() -> None:
            await trio.sleep(0.01)
            await client.execute("CLIENT", "KILL", "ID", own)

        with pytest.raises(RedisConnectionLost):
            await reader.execute("BLPOP", unique("list"), 0, blocks=60.0)
        start = trio.current_time()
        assert await reader.execute("CLIENT", "ID") != own
        assert trio.current_time() - start >= 0.05, "the first back-off"


async def test_a_server_that_is_silent_for_too_long_counts_as_frozen(own_server: RedisServer) -> None:
    client = Redis(own_server.url, ping_idle=0.05, ping_limit=0.05)
    async with client.running(), client.blocking() as reader:
        await reader.execute("PING")
        with own_server.frozen():
            start = trio.current_time()
            with pytest.raises(RedisConnectionLost, match="no answer in time"):
                await reader.execute("BLPOP", "list", "0.05", blocks=0.05)
            assert 0.15 <= trio.current_time() - start < 2.0
        assert await reader.execute("PING") == b"PONG"


async def test_each_failure_is_followed_by_a_longer_wait(own_server: RedisServer) -> None:
    client = Redis(own_server.url, backoff_least=0.01, backoff_most=0.04)
    async with client.running(), client.blocking() as reader:
        await reader.execute("PING")
        own_server.kill()
        for _ in range(6):
            with pytest.raises(RedisConnectionLost):
                await reader.execute("PING")
        start = trio.current_time()
        with pytest.raises(RedisConnectionLost):
            await reader.execute("PING")
        assert trio.current_time() - start >= 0.02
        own_server.start()
        assert await reader.execute("PING") == b"PONG"
