"""Subscriptions: who gets which message, from when until when, and over which protocol."""

from __future__ import annotations

import contextvars
from typing import TYPE_CHECKING, Any

import pytest
import trio

from trio_socketio._errors import NotRunning, RedisReplyError
from trio_socketio._redis.client import Redis
from trio_socketio._redis.health import Health

from ..redis_server import start_server, unique
from .support import Inbox, until

if TYPE_CHECKING:
    from ..redis_server import RedisServer


async def publish(client: Redis, channel: str, message: bytes | str) -> int:
    count: int = await client.execute("PUBLISH", channel, message)
    return count


async def test_a_channel_is_subscribed_when_subscribe_returns(client: Redis) -> None:
    channel, inbox = unique("channel"), Inbox()
    await client.subscribe(inbox, channels=[channel])
    assert await publish(client, channel, bytes(range(256))) == 1
    assert await inbox.wait(1) == [(channel.encode(), bytes(range(256)))]


async def test_a_pattern_gives_the_channel(client: Redis) -> None:
    channel, inbox = unique("channel"), Inbox()
    await client.subscribe(inbox, patterns=[f"{channel}#*"])
    await publish(client, f"{channel}#room", "x")
    assert await inbox.wait(1) == [(f"{channel}#room".encode(), b"x")]


async def test_all_kinds_share_one_connection(client: Redis) -> None:
    channel, inbox = unique("channel"), Inbox()
    await client.subscribe(inbox, channels=[channel], patterns=[f"{channel}?"], shard_channels=[channel])
    assert client.statistics().connections == 2
    await publish(client, channel, "1")
    await publish(client, f"{channel}x", "2")
    await client.execute("SPUBLISH", channel, "3")
    assert [message for _, message in await inbox.wait(3)] == [b"1", b"2", b"3"]


async def test_a_name_may_be_any_bytes(client: Redis) -> None:
    channel, inbox = unique("channel").encode() + b"\xff\x00\r\n", Inbox()
    await client.subscribe(inbox, channels=[channel])
    await client.execute("PUBLISH", channel, "x")
    assert await inbox.wait(1) == [(channel, b"x")]


async def test_without_a_subscription_there_is_one_connection(client: Redis) -> None:
    await client.execute("PING")
    assert client.statistics().connections == 1


async def test_thousands_of_names_are_confirmed_at_once(client: Redis) -> None:
    names = [unique("channel") for _ in range(2000)]
    inbox = Inbox()
    await client.subscribe(inbox, channels=names, shard_channels=names[:100])
    assert client.statistics().subscriptions == 2100
    assert await publish(client, names[-1], "x") == 1


async def test_messages_come_in_order_whatever_their_size(client: Redis) -> None:
    channel, inbox = unique("channel"), Inbox()
    await client.subscribe(inbox, channels=[channel])
    sent = [b"%d:" % number + b"x" * size for number, size in enumerate([0, 1, 300_000, 5, 70_000] * 10)]
    for message in sent:
        client.execute_nowait("PUBLISH", channel, message)
    assert [message for _, message in await inbox.wait(len(sent))] == sent
    assert client.statistics().messages == len(sent)


async def test_two_handlers_of_a_name_both_get_its_messages(client: Redis) -> None:
    channel, first, second = unique("channel"), Inbox(), Inbox()
    await client.subscribe(first, channels=[channel])
    await client.subscribe(second, channels=[channel])
    assert await publish(client, channel, "1") == 1, "the server is told of a name once"
    await second.wait(1)
    await client.unsubscribe(first, channels=[channel])
    await publish(client, channel, "2")
    assert len(await second.wait(2)) == 2
    assert len(first.messages) == 1


async def test_a_handler_that_is_subscribed_twice_is_called_once(client: Redis) -> None:
    channel, inbox = unique("channel"), Inbox()
    await client.subscribe(inbox, channels=[channel, channel])
    await client.subscribe(inbox, channels=[channel])
    await publish(client, channel, "1")
    await publish(client, channel, "2")
    assert [message for _, message in await inbox.wait(2)] == [b"1", b"2"]


async def test_unsubscribing_takes_effect_in_the_middle_of_a_batch(client: Redis) -> None:
    channel, end, finished = unique("channel"), unique("end"), Inbox()
    got: list[bytes] = []

    def once(_: bytes, message: bytes) -> None:
        got.append(message)
        client.unsubscribe_nowait(once, channels=[channel])

    await client.subscribe(once, channels=[channel])
    await client.subscribe(finished, channels=[end])
    for number in range(10):
        client.execute_nowait("PUBLISH", channel, number)
    client.execute_nowait("PUBLISH", end, "")
    await finished.wait(1)
    assert got == [b"0"]


async def test_the_server_is_told_when_nobody_wants_a_name_any_more(client: Redis) -> None:
    channel, inbox = unique("channel"), Inbox()
    names: dict[str, Any] = {"channels": [channel], "patterns": [channel], "shard_channels": [channel]}
    await client.subscribe(inbox, **names)
    await client.unsubscribe(inbox, **names)
    other = unique("other")
    await client.subscribe(inbox, channels=[other])  # comes after, on the same connection
    assert await client.execute("PUBSUB", "NUMSUB", channel) in ([channel.encode(), 0], {channel.encode(): 0})
    assert await client.execute("SPUBLISH", channel, "x") == 0
    assert client.statistics().subscriptions == 1


async def test_unsubscribing_and_subscribing_again_is_confirmed_for_the_last_time(client: Redis) -> None:
    channel, inbox = unique("channel"), Inbox()
    for number in range(50):
        client.subscribe_nowait(inbox, channels=[channel])
        client.unsubscribe_nowait(inbox, channels=[channel])
        await client.subscribe(inbox, channels=[channel])
        assert await publish(client, channel, str(number)) == 1
        client.unsubscribe_nowait(inbox, channels=[channel])
    await client.subscribe(inbox, channels=[channel])
    assert client.statistics().losses == 0


async def test_unsubscribing_what_was_never_subscribed_does_nothing(client: Redis) -> None:
    await client.unsubscribe(Inbox(), channels=["nothing"], patterns=["nothing"])
    assert client.statistics().subscriptions == 0


async def test_a_handler_that_fails_is_logged_and_counted_and_the_others_hear_on(
    client: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(channel: bytes, message: bytes) -> None:
        raise ValueError("the handler's mistake")

    channel, inbox = unique("channel"), Inbox()
    await client.subscribe(fail, channels=[channel])
    await client.subscribe(inbox, channels=[channel])
    await publish(client, channel, "1")
    await publish(client, channel, "2")
    await inbox.wait(2)
    assert client.statistics().handler_errors == 2
    assert client.health is Health.READY
    assert "the handler's mistake" in caplog.text


async def test_cancelling_a_subscription_takes_it_back(client: Redis) -> None:
    channel, inbox = unique("channel"), Inbox()
    with trio.CancelScope() as scope:
        scope.cancel()
        await client.subscribe(inbox, channels=[channel])
    assert scope.cancelled_caught
    assert client.statistics().subscriptions == 0
    await client.subscribe(inbox, channels=[unique("other")])
    assert await publish(client, channel, "x") == 0


async def test_what_was_subscribed_before_stays_when_a_second_subscription_is_cancelled(client: Redis) -> None:
    channel, inbox = unique("channel"), Inbox()
    await client.subscribe(inbox, channels=[channel])
    with trio.CancelScope() as scope:
        scope.cancel()
        await client.subscribe(inbox, channels=[channel, unique("other")])
    await publish(client, channel, "x")
    assert await inbox.wait(1)
    assert client.statistics().subscriptions == 1


async def test_a_name_that_the_server_refuses_is_said_and_the_others_stay(own_server: RedisServer) -> None:
    async with Redis(own_server.url).running() as admin:
        await admin.execute("ACL", "SETUSER", "limited", "on", ">secret", "+@all", "resetchannels", "&allowed*")
        limited = Redis(f"redis://limited:secret@127.0.0.1:{own_server.port}")
        async with limited.running():
            inbox = Inbox()
            await limited.subscribe(inbox, channels=["allowed 1"])
            with pytest.raises(RedisReplyError, match="NOPERM"):
                await limited.subscribe(inbox, channels=["forbidden"])
            with pytest.raises(RedisReplyError, match="NOPERM"):
                await limited.subscribe(inbox, channels=["allowed 2", "forbidden"])
            limited.subscribe_nowait(inbox, channels=["forbidden"])
            await limited.subscribe(inbox, channels=["allowed 3"])
            assert limited.statistics().subscriptions == 2
            assert limited.statistics().error_replies == 4
            assert limited.health is Health.READY
            await publish(admin, "allowed 1", "x")
            assert await inbox.wait(1)


async def test_the_first_subscription_may_be_refused(own_server: RedisServer) -> None:
    async with Redis(own_server.url).running() as admin:
        await admin.execute("ACL", "SETUSER", "limited", "on", ">secret", "+@all", "resetchannels", "&allowed*")
        async with Redis(f"redis://limited:secret@127.0.0.1:{own_server.port}").running() as limited:
            with pytest.raises(RedisReplyError, match="NOPERM"):
                await limited.subscribe(Inbox(), channels=["forbidden"])
            await limited.subscribe(Inbox(), channels=["allowed"])
            assert limited.health is Health.READY
            assert limited.statistics().losses == 0


async def test_many_tasks_that_subscribe_at_once_share_the_first_connection(client: Redis) -> None:
    inbox = Inbox()
    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(lambda: client.subscribe(inbox, channels=[unique("channel")]))
    assert client.statistics().connections == 2
    assert client.statistics().subscriptions == 20


async def test_handlers_do_not_run_in_the_context_of_who_subscribed_first(client: Redis) -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="nobody")
    channel, seen = unique("channel"), Inbox()

    def handler(channel: bytes, message: bytes) -> None:
        seen(channel, variable.get().encode())

    variable.set("the subscriber")
    await client.subscribe(handler, channels=[channel])
    await publish(client, channel, "x")
    assert await seen.wait(1) == [(channel.encode(), b"nobody")]


async def test_subscriptions_end_with_the_client(redis_server: RedisServer) -> None:
    client, channel, inbox = Redis(redis_server.url), unique("channel"), Inbox()
    async with client.running():
        await client.subscribe(inbox, channels=[channel])
    async with client.running():
        assert await publish(client, channel, "x") == 0
        assert client.statistics().subscriptions == 0
        await client.subscribe(inbox, channels=[channel])
        assert await publish(client, channel, "y") == 1
        assert [message for _, message in await inbox.wait(1)] == [b"y"]


async def test_a_client_that_does_not_run_subscribes_nothing(redis_server: RedisServer) -> None:
    client = Redis(redis_server.url)
    with pytest.raises(NotRunning):
        await client.subscribe(Inbox(), channels=["x"])
    with pytest.raises(NotRunning):
        client.subscribe_nowait(Inbox(), channels=["x"])


async def test_a_name_instead_of_a_list_of_names_is_a_mistake(client: Redis) -> None:
    with pytest.raises(TypeError, match="list of names"):
        await client.subscribe(Inbox(), channels="channel")


async def test_a_server_that_speaks_resp2_only_is_spoken_to_in_resp2(redis_flavour: str) -> None:
    with start_server(redis_flavour, rename_command='HELLO ""') as server:
        client = Redis(f"{server.url}/3", client_name="old", ping_idle=0.05, ping_limit=1.0)
        async with client.running():
            inbox = Inbox()
            await client.subscribe(inbox, channels=["channel"], patterns=["p*"], shard_channels=["shard"])
            await publish(client, "channel", "1")
            await publish(client, "pattern", "2")
            await client.execute("SPUBLISH", "shard", "3")
            assert [message for _, message in await inbox.wait(3)] == [b"1", b"2", b"3"]
            await client.execute("HSET", "hash", "field", "value")
            assert await client.execute("HGETALL", "hash") == [b"field", b"value"]
            assert b"db=3" in await client.execute("CLIENT", "INFO")
            assert b"name=old" in await client.execute("CLIENT", "INFO")
            await trio.sleep(0.2)  # some pings, which have an answer of their own there
            await client.unsubscribe(inbox, channels=["channel"], patterns=["p*"], shard_channels=["shard"])
            await client.subscribe(inbox, channels=["another"])
            await publish(client, "another", "4")
            assert (await inbox.wait(4))[-1] == (b"another", b"4")
            assert client.statistics().losses == 0


async def test_the_handlers_hear_the_same_after_a_loss(client: Redis) -> None:
    channel, inbox = unique("channel"), Inbox()
    await client.subscribe(inbox, channels=[channel], patterns=[f"{channel}?"], shard_channels=[channel])
    await client.execute("CLIENT", "KILL", "TYPE", "pubsub")
    await until(lambda: client.statistics().losses == 1 and client.health is Health.READY)
    assert await publish(client, channel, "1") == 1
    assert await publish(client, f"{channel}x", "2") == 1
    assert await client.execute("SPUBLISH", channel, "3") == 1
    assert [message for _, message in await inbox.wait(3)] == [b"1", b"2", b"3"]
