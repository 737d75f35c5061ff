"""What real servers do to their clients: they cut connections, die, come back, and stand still."""

from __future__ import annotations

import random
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
import trio

from trio_socketio._errors import RedisConnectionLost, RedisError, RedisUnavailable
from trio_socketio._redis.client import Redis
from trio_socketio._redis.health import Health

from ..redis_server import free_port, start_server
from .support import LIMIT, Inbox, until, until_lost_and_ready

if TYPE_CHECKING:
    from ..redis_server import RedisServer


async def test_ten_kills_of_each_connection_are_healed(own_server: RedisServer) -> None:
    async with Redis(own_server.url).running() as admin, Redis(own_server.url, client_name="me").running() as client:
        inbox = Inbox()
        await client.subscribe(inbox, channels=["channel"])
        for number in range(10):
            for line in (await admin.execute("CLIENT", "LIST")).splitlines():
                if b"name=me" in line:
                    await admin.execute("CLIENT", "KILL", "ID", line.split()[0].removeprefix(b"id="))
            await until_lost_and_ready(client, 2 * (number + 1))
            assert await client.execute("PUBLISH", "channel", number) == 1
        assert [message for _, message in await inbox.wait(10)] == [b"%d" % number for number in range(10)]
        statistics = client.statistics()
        assert (statistics.losses, statistics.connections, statistics.awaiting) == (20, 2, 0)


async def test_a_loss_and_its_end_are_told(own_client: Redis, own_server: RedisServer) -> None:
    told: list[tuple[Health, RedisError | None]] = []
    await own_client.subscribe(Inbox(), channels=["channel"])
    await until(lambda: own_client.health is Health.READY)
    own_client.on_health(lambda health, error: told.append((health, error)))
    own_server.kill()
    await until(lambda: own_client.health is Health.LOST)
    own_server.start()
    await until(lambda: own_client.health is Health.READY)
    assert [health for health, _ in told] == [Health.LOST, Health.READY]
    assert isinstance(told[0][1], RedisError)
    assert own_client.error is not None


async def test_a_listener_that_fails_does_not_keep_the_client_from_healing(
    own_client: Redis, own_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(health: Health, error: RedisError | None) -> None:
        raise ValueError("the listener's mistake")

    own_client.on_health(fail)
    own_server.kill()
    own_server.start()
    await until_lost_and_ready(own_client, 1)
    assert "the listener's mistake" in caplog.text


async def test_a_restarted_server_is_subscribed_again(own_client: Redis, own_server: RedisServer) -> None:
    inbox = Inbox()
    await own_client.subscribe(inbox, channels=["channel"], patterns=["p*"], shard_channels=["shard"])
    own_server.kill()
    await until(lambda: own_client.statistics().connections == 0)
    own_server.start()
    await until_lost_and_ready(own_client, 2)
    assert await own_client.execute("PUBLISH", "channel", "1") == 1
    assert await own_client.execute("PUBLISH", "pattern", "2") == 1
    assert await own_client.execute("SPUBLISH", "shard", "3") == 1
    assert [message for _, message in await inbox.wait(3)] == [b"1", b"2", b"3"]


async def test_what_is_subscribed_and_unsubscribed_meanwhile_counts_afterwards(
    own_client: Redis, own_server: RedisServer
) -> None:
    inbox = Inbox()
    await own_client.subscribe(inbox, channels=["old"])
    own_server.kill()
    await until(lambda: own_client.statistics().connections == 0)
    own_client.subscribe_nowait(inbox, channels=["new"])
    await own_client.unsubscribe(inbox, channels=["old"])
    own_server.start()
    await until_lost_and_ready(own_client, 2)
    assert await own_client.execute("PUBLISH", "old", "1") == 0
    assert await own_client.execute("PUBLISH", "new", "2") == 1
    assert await inbox.wait(1) == [(b"new", b"2")]


async def test_while_there_is_no_connection_everything_fails_fast(own_client: Redis, own_server: RedisServer) -> None:
    await own_client.subscribe(Inbox(), channels=["channel"])
    own_server.kill()
    await until(lambda: own_client.statistics().connections == 0)
    with trio.fail_after(0.5):
        with pytest.raises(RedisConnectionLost, match="was lost"):
            await own_client.execute("PUBLISH", "channel", "x")
        with pytest.raises(RedisConnectionLost, match="was lost"):
            own_client.execute_nowait("PUBLISH", "channel", "x")
        with pytest.raises(RedisConnectionLost, match="is lost"):
            await own_client.subscribe(Inbox(), channels=["another"])
    assert own_client.statistics().subscriptions == 1


async def test_a_command_whose_reply_is_lost_is_not_repeated(own_client: Redis, own_server: RedisServer) -> None:
    replies: list[object] = []
    errors: list[RedisError] = []

    async def push() -> None:
        try:
            await own_client.execute("RPUSH", "list", "waited for")
        except RedisConnectionLost as error:
            errors.append(error)

    async with Redis(own_server.url).running() as admin:
        number = await own_client.execute("CLIENT", "ID")
        await admin.execute("CLIENT", "PAUSE", 100, "WRITE")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(push)
            await until(lambda: own_client.statistics().awaiting)
            own_client.execute_nowait("RPUSH", "list", "submitted", on_reply=replies.append)
            await admin.execute("CLIENT", "KILL", "ID", number)
        await until_lost_and_ready(own_client, 1)
        await admin.execute("CLIENT", "UNPAUSE")
        assert len(errors) == 1
        assert [type(reply) for reply in replies] == [RedisConnectionLost]
        assert await own_client.execute("LLEN", "list") <= 2
        assert own_client.statistics().awaiting == 0


async def test_a_frozen_server_is_noticed_on_both_connections(own_client: Redis, own_server: RedisServer) -> None:
    inbox = Inbox()
    await own_client.subscribe(inbox, channels=["channel"])
    with own_server.frozen():
        start = trio.current_time()
        await until(lambda: own_client.statistics().losses == 2)
        assert 0.2 <= trio.current_time() - start < 2.0
        with trio.fail_after(0.5), pytest.raises(RedisConnectionLost):
            await own_client.execute("PING")
    await until(lambda: own_client.health is Health.READY)
    assert await own_client.execute("PUBLISH", "channel", "x") == 1
    assert await inbox.wait(1) == [(b"channel", b"x")]


async def test_an_idle_connection_to_a_healthy_server_is_kept(own_client: Redis) -> None:
    await own_client.subscribe(Inbox(), channels=["channel"])
    await trio.sleep(0.6)  # several pings long
    assert own_client.statistics().losses == 0
    assert own_client.health is Health.READY


async def test_a_server_that_cannot_be_reached_at_the_start_is_named() -> None:
    address = f"redis://127.0.0.1:{free_port()}"
    with pytest.raises(RedisUnavailable, match=f"cannot use the Redis server at {address}/0"):
        async with Redis(address).running():
            raise AssertionError("never reached")


async def test_a_client_that_could_not_start_can_be_started_again(own_server: RedisServer) -> None:
    client = Redis(own_server.url)
    own_server.kill()
    with pytest.raises(RedisUnavailable):
        async with client.running():
            raise AssertionError("never reached")
    assert client.health is Health.CLOSED
    own_server.start()
    async with client.running():
        assert await client.execute("PING") == b"PONG"


async def test_a_server_that_is_frozen_at_the_start_is_given_up(own_server: RedisServer) -> None:
    with own_server.frozen(), trio.fail_after(2.0), pytest.raises(RedisUnavailable, match="no answer in time"):
        async with Redis(own_server.url, connect_timeout=0.1).running():
            raise AssertionError("never reached")


async def test_what_answers_but_is_not_redis_is_given_up() -> None:
    async def serve(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        port = listener.socket.getsockname()[1]
        with pytest.raises(RedisUnavailable, match=r'no reply begins with|got "H"'):
            async with Redis(f"redis://127.0.0.1:{port}").running():
                raise AssertionError("never reached")
        nursery.cancel_scope.cancel()


async def test_a_client_runs_once_at_a_time(own_client: Redis) -> None:
    with pytest.raises(RuntimeError, match="running already"):
        async with own_client.running():
            raise AssertionError("never reached")
    assert await own_client.execute("PING") == b"PONG"


async def test_the_bodys_exception_leaves_as_itself(redis_server: RedisServer) -> None:
    async def run() -> None:
        async with Redis(redis_server.url).running() as client:
            await client.subscribe(Inbox(), channels=["channel"])
            raise KeyError("the body's")

    with pytest.raises(KeyError, match="the body's"):
        await run()


async def test_a_client_is_started_in_a_nursery_and_ends_when_cancelled(own_server: RedisServer) -> None:
    client = Redis(own_server.url)
    async with trio.open_nursery() as nursery:
        await nursery.start(client.run)
        assert client.health is Health.READY
        await client.subscribe(Inbox(), channels=["channel"])
        nursery.cancel_scope.cancel()
    assert client.statistics().health is Health.CLOSED
    async with Redis(own_server.url).running() as other:
        lines: list[bytes] = []
        with trio.fail_after(5.0):
            while len(lines) != 1:
                lines = (await other.execute("CLIENT", "LIST")).splitlines()


@pytest.mark.parametrize("checkpoints", range(12))
async def test_starting_can_be_cancelled_at_every_step(redis_server: RedisServer, checkpoints: int) -> None:
    client = Redis(redis_server.url)

    async def start() -> None:
        async with client.running():
            await client.subscribe(Inbox(), channels=["channel"])
            await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(start)
        for _ in range(checkpoints):
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    assert client.health is Health.CLOSED
    assert client.statistics().connections == 0


@pytest.mark.parametrize("seed", range(3))
async def test_after_any_history_the_server_and_the_table_agree(redis_server: RedisServer, seed: int) -> None:
    chance = random.Random(seed)
    names = [f"name {number}" for number in range(6)]
    handlers = [Inbox(), Inbox()]
    wanted: set[tuple[str, int]] = set()
    async with Redis(redis_server.url).running() as admin, Redis(redis_server.url).running() as client:
        for _ in range(150):
            name, number = chance.choice(names), chance.randrange(2)
            handler, topics = handlers[number], {"channels": [name], "shard_channels": [name]}
            match chance.randrange(20):
                case 0:
                    await admin.execute("CLIENT", "KILL", "TYPE", "pubsub")
                case 1:
                    await trio.sleep(0.01)
                case 2 | 3 | 4 | 5:
                    client.subscribe_nowait(handler, **topics)
                    wanted.add((name, number))
                case 6 | 7 | 8 | 9 if (name, number) not in wanted:
                    with trio.move_on_after(chance.choice([0.0, 0.0003, 1.0])), suppress(RedisConnectionLost):
                        await client.subscribe(handler, **topics)
                        wanted.add((name, number))
                case _:
                    client.unsubscribe_nowait(handler, **topics)
                    wanted.discard((name, number))
        client.subscribe_nowait(Inbox(), channels=["last"])
        await until(lambda: client.health is Health.READY)
        with suppress(RedisConnectionLost):
            await client.subscribe(Inbox(), channels=["the last"])  # is confirmed after all others
        await until(lambda: client.health is Health.READY)
        for name in names:
            is_wanted = any(name == other for other, _ in wanted)
            assert await admin.execute("PUBLISH", name, "to all") == is_wanted
            assert await admin.execute("SPUBLISH", name, "to all") == is_wanted
        await until(lambda: sum(len(inbox.messages) for inbox in handlers) >= 2 * len(wanted))
        for number, inbox in enumerate(handlers):
            expected = [other.encode() for other, which in wanted if which == number for _ in range(2)]
            assert sorted(channel for channel, _ in inbox.messages) == sorted(expected)


@pytest.mark.slow  # a cluster's node waits for two seconds before it serves anybody
async def test_a_cluster_that_ends_a_shard_channel_is_asked_until_it_serves_it_again(redis_flavour: str) -> None:
    options = {"cluster_enabled": "yes", "cluster_require_full_coverage": "no"}
    with start_server(redis_flavour, **options) as server:
        async with Redis(server.url).running() as admin, Redis(server.url, backoff_most=0.1).running() as client:
            await admin.execute("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
            await until_cluster_serves(admin)
            inbox = Inbox()
            names = [f"room {number}" for number in range(20)]  # in different slots
            await client.subscribe(inbox, shard_channels=names)
            await until(lambda: client.health is Health.READY)
            slot = await admin.execute("CLUSTER", "KEYSLOT", names[0])
            await admin.execute("CLUSTER", "DELSLOTS", slot)
            await until(lambda: client.health is Health.LOST)
            await trio.sleep(0.15)
            assert client.health is Health.LOST, "it says so for as long as one of its channels is not served"
            await admin.execute("CLUSTER", "ADDSLOTS", slot)
            await until(lambda: client.statistics().health is Health.READY)
            for name in names:
                assert await admin.execute("SPUBLISH", name, "x") == 1
            assert len(await inbox.wait(20)) == 20


async def until_cluster_serves(admin: Redis) -> None:
    with trio.fail_after(LIMIT):
        info = b""
        while b"cluster_state:ok" not in info:
            info = await admin.execute("CLUSTER", "INFO")
