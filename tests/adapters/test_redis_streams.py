"""What is particular to streams: nothing is lost with a connection, and what is lost all the same is reported."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import trio

from trio_socketio import EncodeError, Server
from trio_socketio._redis.health import Health
from trio_socketio.redis import RedisReplyError, RedisStreamsAdapter, StreamStatistics

from ..redis_server import start_server
from ..wire_client import settle
from .cluster_suite import Kind, Place, eventually, heard, streams, until
from .streams import IMPATIENT, Cluster, claim, until_ready

if TYPE_CHECKING:
    from trio_socketio._redis.client import Redis

    from ..redis_server import RedisServer
    from .cluster_suite import User


@pytest.fixture
def streams_place(valkey_server: RedisServer) -> Place:
    """Where servers meet over a stream, without recovery."""
    return Place(Kind("streams", streams(**IMPATIENT)), valkey_server.url)


async def add(redis: Redis, stream: str, *event: Any, uid: str = "emitter", kind: int = 3, nsp: str = "/") -> None:
    """Write an entry as an emitter does."""
    data: dict[str, Any] = {"packet": {"type": 2, "data": event, "nsp": nsp}, "opts": {"rooms": []}}
    if kind == 9:
        data = {"packet": event}
    fields = ("uid", uid, "nsp", nsp, "type", str(kind), "data", json.dumps(data))
    await redis.execute("XADD", stream, "*", *fields)


async def has_loaded(redis: Redis) -> bool:
    """Whether a server that was started with its data has read it."""
    try:
        await redis.execute("DBSIZE")
    except RedisReplyError:
        return False
    return True


def statistics(user: User) -> StreamStatistics:
    figures: StreamStatistics = user.member.factory.stream_statistics()[0]
    return figures


def redis_of(user: User) -> Redis:
    client: Redis = user.member.factory._client
    return client


# What is read


async def test_entries_of_emitters_are_delivered(streams_place: Place) -> None:
    async with streams_place.crowd("one") as (one,):
        called: list[Any] = []
        one.io.on("said", lambda *args: called.append(args))
        redis = redis_of(one)
        await add(redis, streams_place.prefix, "hello", 1)
        await add(redis, streams_place.prefix, "said", 2, kind=9)
        await add(redis, streams_place.prefix, "elsewhere", nsp="/unknown")
        assert await one.hear() == ["hello", 1]
        await until(lambda: called == [(2,)])


async def test_what_is_no_message_is_dropped_and_counted(
    streams_place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    async with streams_place.crowd("one") as (one,):
        redis, stream = redis_of(one), streams_place.prefix
        bad: list[tuple[bytes | str, ...]] = [
            ("nsp", "/"),
            ("uid", "x", "nsp", "/", "type", "3", "data", "{"),
            ("uid", "x", "nsp", "/", "type", "3", "data", "!!"),
            ("uid", "x", "nsp", "/", "type", "99", "data", "{}"),
            ("uid", "x", "nsp", "/", "type", "3", "data", '{"packet":1}'),
            ("uid", b"\xff", "nsp", "/", "type", "3", "data", "{}"),
            ("uid", "x", "nsp", "/", "type", "3", "data", "[" * 100_000),
        ]
        for fields in bad:
            await redis.execute("XADD", stream, "*", *fields)
        await redis.execute("XADD", stream, "*", "something", "else")
        await one.io.emit("still here")
        assert await one.hear() == ["still here"]
        await until(lambda: one.member.adapter.statistics().dropped == len(bad))
        assert statistics(one).health is Health.READY


async def test_own_events_are_delivered_at_once_and_only_once(streams_place: Place) -> None:
    async with streams_place.crowd("one") as (one,):
        await one.io.emit("event")
        await settle()
        assert one.client is not None
        assert await heard([one], one.io) == [[["event"]]]
        await until(lambda: statistics(one).entries == 2)
        assert one.member.adapter.statistics().received == 0


async def test_namespaces_share_a_reader(streams_place: Place) -> None:
    async with streams_place.joined("one", "two") as (one, two):
        for name in ("/a", "/b"):
            for io in (one.io, two.io):
                io.of(name)
            reader = await two.connect(name)
            await one.connect(name)
            await one.io.of(name).emit("event")
            assert await reader.hear() == ["event"]
        assert len(one.factory.stream_statistics()) == 1


async def test_of_several_streams_those_are_read_that_are_needed(
    valkey_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    place = Place(Kind("streams", streams(stream_count=4)), valkey_server.url)
    async with place.joined("one", "two") as (one, two):
        for io in (one.io, two.io):
            io.of("/notifications")  # whose hash is negative
        await one.connect("/notifications")
        reader = await two.connect("/notifications")
        await one.io.of("/notifications").emit("event")
        assert await reader.hear() == ["event"]
        names = {figures.name for figures in two.factory.stream_statistics()}
        assert names == {f"{place.prefix}-3", f"{place.prefix}--3"}
        assert "do not hear what is sent to /notifications" in caplog.text


async def test_a_stream_keeps_no_more_than_it_should(valkey_server: RedisServer) -> None:
    place = Place(Kind("streams", streams(max_len=100)), valkey_server.url)
    async with place.crowd("one") as (one,):
        for number in range(1000):
            await one.io.emit("event", number)
        length = await redis_of(one).execute("XLEN", place.prefix)
        assert isinstance(length, int)
        assert 100 <= length < 500


async def test_bytes_can_be_refused(valkey_server: RedisServer) -> None:
    place = Place(Kind("streams", streams(only_plaintext=True)), valkey_server.url)
    async with place.crowd("one", "two") as users:
        with pytest.raises(EncodeError, match="only_plaintext"):
            await users[0].io.emit("event", b"bytes")
        await users[0].io.emit("event", "text")
        assert await heard(users, users[0].io) == [[["event", "text"]]] * 2


@pytest.mark.parametrize("option", ["stream_count", "max_len", "read_count", "block_time"])
def test_an_option_out_of_its_range_is_an_error(option: str) -> None:
    options: dict[str, Any] = {option: 0}
    with pytest.raises(ValueError, match=option):
        RedisStreamsAdapter(**options)


async def test_a_key_that_is_no_stream_is_an_error_at_the_start(valkey_server: RedisServer) -> None:
    cluster = Cluster(valkey_server)
    async with cluster.redis() as redis:
        await redis.execute("SET", cluster.stream, "a text")
    io = Server(adapter=RedisStreamsAdapter(valkey_server.url, stream_name=cluster.stream))
    with pytest.raises(RedisReplyError, match="cannot be read: WRONGTYPE"):
        async with io.running():
            raise AssertionError("it runs")


# What is lost, and what is not


async def test_what_is_written_while_connections_are_lost_is_read_later(valkey_server: RedisServer) -> None:
    cluster = Cluster(valkey_server)
    async with cluster.nodes(2) as nodes, cluster.redis() as redis:
        guests = [await node.come() for node in nodes]
        for number in range(60):
            await add(redis, cluster.stream, "event", number)
            if number % 20 == 10:
                await cluster.kill_connections(redis)
        await until_ready(*nodes)
        for guest in guests:
            assert [(await guest.hear())[1] for _ in range(60)] == list(range(60))
        await until(lambda: all(node.factory.stream_statistics()[0].losses for node in nodes))
        assert [node.factory.stream_statistics()[0].gaps for node in nodes] == [0, 0]


async def test_a_server_that_is_restarted_with_its_data_loses_nothing() -> None:
    with start_server("valkey", appendonly="yes", appendfsync="always") as server:
        cluster = Cluster(server)
        async with cluster.nodes(2) as (one, two):
            healths: list[Health] = []
            one.factory.on_health(lambda health, _: healths.append(health))
            here, there = await one.come(), await two.come()
            await one.io.emit("event", 0)
            server.kill()
            await until(lambda: one.factory.health is Health.LOST and two.factory.health is Health.LOST)
            await one.io.emit("meanwhile")  # which is for its own clients only, and says so by having no offset
            server.start()
            async with cluster.redis() as redis:
                await eventually(lambda: has_loaded(redis))
                await add(redis, cluster.stream, "event", 1)
            await until_ready(one, two)
            await one.io.emit("event", 2)
            assert [(await there.hear())[:2] for _ in range(3)] == [["event", number] for number in range(3)]
            events = [await here.hear() for _ in range(4)]
            assert [event[:2] for event in events] == [["event", 0], ["meanwhile"], ["event", 1], ["event", 2]]
            assert healths[-1] is Health.READY
            assert Health.LOST in healths
            assert one.factory.stream_statistics()[0].gaps == 0


async def test_a_frozen_server_is_noticed_and_loses_nothing(own_server: RedisServer) -> None:
    cluster = Cluster(own_server)
    async with cluster.nodes(2) as (one, two):
        here, there = await one.come(), await two.come()
        await one.io.emit("event", 0)
        with own_server.frozen():
            with trio.fail_after(3):
                await one.io.emit("frozen")  # nobody knows whether it will be taken
            assert (await here.hear())[:2] == ["event", 0]
            assert await here.hear() == ["frozen"]
            await until(lambda: one.factory.health is Health.LOST and two.factory.health is Health.LOST)
        await until_ready(one, two)
        await one.io.emit("event", 1)
        events = [(await there.hear())[:-1]]
        while events[-1] != ["event", 1]:
            events.append((await there.hear())[:-1])
        assert events in ([["event", 0], ["event", 1]], [["event", 0], ["frozen"], ["event", 1]])
        assert (await here.hear())[:-1] == ["event", 1]  # and not "frozen" for the second time
        await until(lambda: one.adapter.kept()[1:] == (0, 0))


@pytest.mark.parametrize("was_empty", [True, False])
async def test_a_gap_is_reported(valkey_server: RedisServer, was_empty: bool, caplog: pytest.LogCaptureFixture) -> None:
    cluster = Cluster(valkey_server, backoff_least=0.3, backoff_most=0.3)
    async with cluster.nodes(1) as (one,), cluster.redis() as redis:
        gaps: list[str] = []
        one.factory.on_gap(gaps.append)
        guest = await one.come()
        if not was_empty:
            await one.io.emit("event", "before")
            await guest.hear()
        await cluster.kill_connections(redis)
        for number in range(10):
            await add(redis, cluster.stream, "event", number)
        await redis.execute("XTRIM", cluster.stream, "MAXLEN", 3)
        assert [(await guest.hear())[1] for _ in range(3)] == [7, 8, 9]
        assert gaps == [cluster.stream]
        assert one.factory.stream_statistics()[0].gaps == 1
        assert "were trimmed away" in caplog.text


async def test_a_server_that_has_lost_its_data_is_read_from_its_new_beginning(own_server: RedisServer) -> None:
    cluster = Cluster(own_server)
    async with cluster.nodes(2) as (one, two):
        guest = await two.come()
        await one.io.emit("event", 0)
        await guest.hear()
        own_server.kill()
        await until(lambda: one.factory.health is Health.LOST and two.factory.health is Health.LOST)
        own_server.start()
        await until_ready(one, two)
        await one.io.emit("event", 1)
        assert (await guest.hear())[:2] == ["event", 1]
        assert two.factory.stream_statistics()[0].gaps == 1


async def test_nobody_can_come_back_while_redis_is_lost_which_is_logged_once(
    own_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    cluster = Cluster(own_server)
    async with cluster.nodes(1) as (one,):
        guests = [await one.come() for _ in range(3)]
        own_server.kill()
        await until(lambda: one.factory.health is Health.LOST)
        for guest in guests:
            await guest.go()
            back = await one.come(claim(guest.pid))
            assert not back.socket.recovered
        assert caplog.text.count("cannot come back for now") == 1
        own_server.start()
        await until_ready(one)
        guest = await one.come()
        await guest.go()
        assert (await one.come(claim(guest.pid))).socket.recovered


async def test_an_event_that_redis_refuses_is_delivered_here(own_server: RedisServer) -> None:
    cluster = Cluster(own_server)
    async with cluster.nodes(1) as (one,), cluster.redis() as redis:
        guest = await one.come()
        await redis.execute("CONFIG", "SET", "maxmemory", "1")
        await one.io.emit("event")
        assert await guest.hear() == ["event"]
        assert one.adapter.statistics().lost == 1
        await redis.execute("CONFIG", "SET", "maxmemory", "0")
        await one.io.emit("event")
        assert len(await guest.hear()) == 2


async def test_cancelled_emits_are_delivered_or_have_not_begun(valkey_server: RedisServer) -> None:
    cluster = Cluster(valkey_server)
    async with cluster.nodes(2) as (one, two):
        here, there = await one.come(), await two.come()
        for number in range(50):
            with trio.move_on_after(number / 50_000):
                await one.io.emit("event", number)
        await one.io.emit("end")
        assert await here.heard() == await there.heard()
        assert one.adapter.kept()[1:] == (0, 0)
