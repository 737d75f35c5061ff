"""Commands: their replies, their order, and what becomes of those that nobody waits for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio

from trio_socketio._errors import RedisBufferFull, RedisConnectionLost, RedisError, RedisReplyError
from trio_socketio._redis.client import Redis

from ..redis_server import unique
from .support import until

if TYPE_CHECKING:
    from ..redis_server import RedisServer


async def test_a_command_has_its_reply(client: Redis) -> None:
    key = unique("key")
    assert await client.execute("SET", key, bytes(range(256))) == b"OK"
    assert await client.execute("GET", key) == bytes(range(256))
    assert await client.execute("DEL", key) == 1
    assert await client.execute("GET", key) is None


async def test_numbers_and_large_values_arrive_as_they_are(client: Redis) -> None:
    key, value = unique("key"), b"x" * (2 * 1024 * 1024)
    await client.execute("RPUSH", key, 1, 2.5, value)
    assert await client.execute("LRANGE", key, 0, -1) == [b"1", b"2.5", value]


async def test_a_map_is_a_dict(client: Redis) -> None:
    key = unique("key")
    await client.execute("HSET", key, "field", "value")
    assert await client.execute("HGETALL", key) == {b"field": b"value"}


async def test_an_error_is_raised_with_its_code_and_the_connection_is_kept(client: Redis) -> None:
    key = unique("key")
    await client.execute("SET", key, "text")
    with pytest.raises(RedisReplyError, match="wrong kind of value") as caught:
        await client.execute("LPUSH", key, "x")
    assert caught.value.code == "WRONGTYPE"
    assert await client.execute("PING") == b"PONG"
    assert client.statistics().losses == 0


@pytest.mark.parametrize("word", [None, True, ["list"]])
async def test_a_word_of_a_wrong_type_is_refused_before_anything_is_sent(client: Redis, word: Any) -> None:
    before = client.statistics().commands
    with pytest.raises(TypeError):
        await client.execute("SET", "key", word)
    with pytest.raises(TypeError):
        client.execute_nowait("SET", "key", word)
    assert client.statistics().commands == before


async def test_replies_of_many_tasks_are_each_its_own(client: Redis) -> None:
    async def echo(number: int) -> None:
        for step in range(20):
            text = f"{number}-{step}".encode()
            replies[text] = await client.execute("ECHO", text)

    replies: dict[bytes, bytes] = {}
    async with trio.open_nursery() as nursery:
        for number in range(50):
            nursery.start_soon(echo, number)
    assert len(replies) == 1000
    assert all(text == reply for text, reply in replies.items())


async def test_cancelling_a_command_does_not_shift_the_replies_of_others(client: Redis) -> None:
    for number in range(100):
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(client.execute, "ECHO", f"cancelled {number}")
                await trio.lowlevel.checkpoint()
                await trio.lowlevel.checkpoint()
                scope.cancel()
        assert await client.execute("ECHO", number) == str(number).encode()
    assert client.statistics().awaiting == 0


async def test_a_cancelled_task_sends_nothing(client: Redis) -> None:
    key = unique("key")
    with trio.CancelScope() as scope:
        scope.cancel()
        await client.execute("SET", key, "x")
    assert scope.cancelled_caught
    assert await client.execute("GET", key) is None


async def test_the_replies_of_submitted_commands_come_in_order(client: Redis) -> None:
    key = unique("key")
    replies: list[Any] = []
    for _ in range(100):
        client.execute_nowait("INCR", key, on_reply=replies.append)
    assert await client.execute("INCR", key) == 101
    assert replies == list(range(1, 101))


async def test_a_submitted_command_is_answered_by_its_error(client: Redis) -> None:
    replies: list[Any] = []
    client.execute_nowait("NONSENSE", on_reply=replies.append)
    await client.execute("PING")
    (error,) = replies
    assert isinstance(error, RedisReplyError)


async def test_errors_for_which_nobody_waits_are_counted_and_logged_once(
    client: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(10):
        client.execute_nowait("NONSENSE")
    await client.execute("PING")
    assert client.statistics().error_replies == 10
    assert len([record for record in caplog.records if "nobody waits" in record.message]) == 1


async def test_a_callback_that_fails_is_logged_and_harms_nobody(
    client: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(reply: Any) -> None:
        raise ValueError("the callback's mistake")

    client.execute_nowait("PING", on_reply=fail)
    assert await client.execute("ECHO", "x") == b"x"
    assert client.statistics().handler_errors == 1
    assert "the callback's mistake" in caplog.text


async def test_a_transaction_has_one_reply_and_others_keep_theirs(client: Redis) -> None:
    key, replies = unique("key"), list[Any]()
    client.execute_nowait("SET", key, "value", on_reply=replies.append)
    client.transaction_nowait(("GET", key), ("DEL", key), on_reply=replies.append)
    client.transaction_nowait(("NO-SUCH-COMMAND",), ("GET", key), on_reply=replies.append)
    assert await client.execute("GET", key) is None
    assert replies[:2] == [b"OK", [b"value", 1]]
    assert isinstance(replies[2], RedisReplyError)
    assert replies[2].code == "EXECABORT"
    assert client.statistics().awaiting == 0


async def test_a_transaction_without_a_connection_is_not_begun(redis_server: RedisServer) -> None:
    client = Redis(redis_server.url)
    with pytest.raises(RedisConnectionLost):
        client.transaction_nowait(("GET", "key"), on_reply=lambda _: None)
    assert client.statistics().commands == 0


async def test_what_is_submitted_in_one_tick_is_sent_at_once(client: Redis) -> None:
    key = unique("key")
    for number in range(1000):
        client.execute_nowait("RPUSH", key, number)
    assert client.statistics().buffered > 0
    assert await client.execute("LLEN", key) == 1000
    assert client.statistics().buffered == 0


async def fill(client: Redis) -> int:
    """Submit until there is an error; how much was."""
    for submitted in range(100_000):
        try:
            client.execute_nowait("PUBLISH", "channel", b"x" * 10_000)
        except RedisBufferFull:
            return submitted
        await trio.lowlevel.checkpoint()
    raise AssertionError("the buffer never fills")


async def test_a_frozen_server_fills_a_buffer_that_is_bounded(own_server: RedisServer) -> None:
    async with Redis(own_server.url, max_buffer_bytes=100_000).running() as client:
        with own_server.frozen():
            submitted = await fill(client)
            assert client.statistics().buffered <= 100_000
            with trio.move_on_after(0.05) as scope:
                await client.execute("PUBLISH", "channel", b"x" * 10_000)
            assert scope.cancelled_caught, "it waits for room"
        assert await client.execute("PING") == b"PONG"
        assert client.statistics().commands == submitted + 1
        assert client.statistics().losses == 0


async def test_a_task_that_waits_for_room_goes_on_when_there_is_some(own_server: RedisServer) -> None:
    async with Redis(own_server.url, max_buffer_bytes=100_000).running() as client:
        replies = 0

        async def publish() -> None:
            nonlocal replies
            for _ in range(200):
                await client.execute("PUBLISH", "channel", b"x" * 20_000)
                replies += 1

        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(publish)
        assert replies == 2000


async def test_a_command_larger_than_the_buffer_goes_alone(redis_server: RedisServer) -> None:
    async with Redis(redis_server.url, max_buffer_bytes=1000).running() as client:
        assert await client.execute("ECHO", b"x" * 50_000) == b"x" * 50_000


async def test_the_end_waits_for_what_was_submitted(redis_server: RedisServer) -> None:
    key = unique("key")
    client = Redis(redis_server.url)
    async with client.running():
        for _ in range(1000):
            client.execute_nowait("INCR", key)
    async with client.running():
        assert await client.execute("GET", key) == b"1000"


async def test_who_still_waits_at_the_end_is_told(redis_server: RedisServer) -> None:
    client = Redis(redis_server.url, close_timeout=0.01)
    errors: list[RedisError] = []

    async def pop() -> None:
        try:
            await client.execute("BLPOP", unique("empty"), 10)
        except RedisError as error:
            errors.append(error)

    async with trio.open_nursery() as nursery, client.running():
        nursery.start_soon(pop)
        await until(lambda: client.statistics().awaiting)
    assert isinstance(errors[0], RedisConnectionLost)
    with pytest.raises(RedisConnectionLost, match="closed"):
        await client.execute("PING")
