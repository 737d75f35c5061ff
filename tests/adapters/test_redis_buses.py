"""What the classic and the sharded adapter are to Redis, to other software on it, and when it is in trouble."""

from __future__ import annotations

import json
import re
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import msgpack
import pytest
import trio

from trio_socketio import AckTimeout, Server
from trio_socketio._redis.client import Redis
from trio_socketio.redis import Health, RedisAdapter, RedisReplyError, RedisUnavailable, ShardedRedisAdapter

from ..redis_server import free_port, start_server
from .cluster_suite import KINDS, LIMIT, Kind, Place, assert_idle, eventually, heard, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ..redis_server import RedisServer
    from .cluster_suite import Member, User

BY_NAME = {kind.name: kind for kind in KINDS}
CLASSIC, SHARDED = BY_NAME["classic"], BY_NAME["sharded-dynamic"]
IMPATIENT: dict[str, Any] = {"ping_idle": 0.1, "ping_limit": 0.2, "connect_timeout": 0.5, "backoff_most": 0.05}

each_kind = pytest.mark.parametrize("kind", [CLASSIC, SHARDED], ids=["classic", "sharded"])


class Stranger:
    """Other software on the same Redis.

    Attributes:
        heard: What came on the channels that it listens to, and their names.
    """

    def __init__(self, client: Redis, prefix: str) -> None:
        self.client = client
        self.prefix = prefix
        self.heard: list[tuple[str, bytes]] = []

    def channel(self, suffix: str) -> str:
        return self.prefix + suffix

    async def publish(self, suffix: str, payload: Any, word: str = "PUBLISH") -> None:
        """Publish bytes as they are, and everything else in JSON."""
        data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        await self.client.execute(word, self.channel(suffix), data)

    async def listen(self, *suffixes: str) -> None:
        def note(channel: bytes, payload: bytes) -> None:
            self.heard.append((channel.decode().removeprefix(self.prefix), payload))

        await self.client.subscribe(note, channels=[self.channel(suffix) for suffix in suffixes])

    async def ask(self, request: Any) -> Any:
        """Publish a request of the classic protocol; the response to it."""
        before = len(self.heard)
        await self.publish("-request#/#", request)
        await until(lambda: len(self.heard) > before)
        return json.loads(self.heard[before][1])


@asynccontextmanager
async def stranger(server: RedisServer, place: Place) -> AsyncIterator[Stranger]:
    async with Redis(server.url).running() as client:
        yield Stranger(client, place.prefix)


def dropped(user: User) -> int:
    return user.member.adapter.statistics().dropped


async def channels(client: Redis) -> list[Any]:
    """Everything that anybody has subscribed."""
    found: Any = [await client.execute("PUBSUB", word) for word in ("CHANNELS", "SHARDCHANNELS", "NUMPAT")]
    return [*found[0], *found[1], *([] if not found[2] else [found[2]])]


# Options


@pytest.mark.parametrize("make", [RedisAdapter, ShardedRedisAdapter])
@pytest.mark.parametrize(
    "options",
    [{"name": ""}, {"name": "a#b"}, {"name": "emitter"}, {"request_timeout": 0}, {"ping_idle": -1}],
    ids=["no name", "a name with a separator", "the name of emitters", "request_timeout", "ping_idle"],
)
def test_a_value_out_of_its_range_is_refused(make: Any, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"must be|cannot be called"):
        make("redis://127.0.0.1", **options)


def test_a_wrong_url_or_mode_is_refused() -> None:
    with pytest.raises(ValueError, match="the scheme 'http'"):
        RedisAdapter("http://127.0.0.1")
    with pytest.raises(ValueError, match="subscription_mode"):
        ShardedRedisAdapter(subscription_mode="lively")  # type: ignore[arg-type]


def test_servers_have_different_names_by_themselves() -> None:
    one, two = RedisAdapter(), RedisAdapter()
    assert one.uid != two.uid
    assert one.uid in repr(one)


@each_kind
async def test_a_redis_that_cannot_be_reached_is_named(kind: Kind) -> None:
    port = free_port()
    io = Server(adapter=kind.meet(f"redis://:secret@127.0.0.1:{port}", "x")("one"))
    with pytest.raises(RedisUnavailable, match=f"redis://127.0.0.1:{port}/0") as caught:
        async with io.running():
            raise AssertionError("it does not run")
    assert "secret" not in str(caught.value)


@each_kind
async def test_a_factory_belongs_to_one_server_at_a_time(kind: Kind, valkey_server: RedisServer) -> None:
    factory = kind.meet(valkey_server.url, "x")("one")
    async with Server(adapter=factory).running():
        with pytest.raises(RuntimeError, match="running already"):
            async with Server(adapter=factory).running():
                raise AssertionError("it does not run")


@each_kind
async def test_a_server_can_run_again(kind: Kind, valkey_server: RedisServer) -> None:
    place = Place(kind, valkey_server.url)
    factory = kind.meet(valkey_server.url, place.prefix)("one")
    io = Server(adapter=factory)
    for _ in range(2):
        async with io.running():
            assert factory.statistics().health is Health.READY
            assert await io.sockets.adapter.server_count() == 1
        assert factory.health is Health.CLOSED


@each_kind
async def test_nothing_stays_subscribed_when_a_server_has_stopped(kind: Kind, own_server: RedisServer) -> None:
    place = Place(kind, own_server.url)
    async with stranger(own_server, place) as other:
        async with place.crowd("one") as (one,):
            await one.socket.join("room")
            assert await channels(other.client)

        async def none_are_left() -> bool:
            return await channels(other.client) == []

        await eventually(none_are_left)  # Redis learns of the end of a connection when it comes to that


@each_kind
async def test_nothing_stays_subscribed_for_a_namespace_that_has_gone(kind: Kind, own_server: RedisServer) -> None:
    place = Place(kind, own_server.url)
    place.server_options["cleanup_empty_child_namespaces"] = True
    async with stranger(own_server, place) as other, place.joined("one") as (one,):
        one.io.of(re.compile("^/sometimes$"))
        before = await channels(other.client)
        user = await one.connect("/sometimes")
        await user.socket.join("room")
        assert len(await channels(other.client)) > len(before)
        await user.client.disconnect()

        async def are_gone() -> bool:
            return sorted(await channels(other.client), key=repr) == sorted(before, key=repr)

        await eventually(are_gone)


@each_kind
async def test_a_server_that_is_cancelled_leaves_the_cluster_in_order(kind: Kind, own_server: RedisServer) -> None:
    place = Place(kind, own_server.url)
    async with stranger(own_server, place) as other:
        with trio.CancelScope() as scope:
            async with place.joined("one", "two"):
                assert await channels(other.client)
                scope.cancel()
                await trio.sleep_forever()

        async def are_gone() -> bool:
            return not await channels(other.client)

        await eventually(are_gone)


@pytest.mark.slow  # the client does not answer the server's closing of its WebSocket
async def test_what_the_last_handlers_of_a_cancelled_server_emit_reaches_the_others(valkey_server: RedisServer) -> None:
    place = Place(CLASSIC, valkey_server.url)
    async with place.crowd("two") as (two,):
        with trio.CancelScope() as scope:
            async with place.crowd("one") as (one,):

                async def say_goodbye() -> None:
                    await one.io.emit("gone")

                one.socket.on("disconnect", say_goodbye)
                scope.cancel()
                await trio.sleep_forever()
        assert await two.hear() == ["gone"]


@each_kind
async def test_what_was_emitted_last_is_sent_before_the_connection_ends(kind: Kind, valkey_server: RedisServer) -> None:
    place = Place(kind, valkey_server.url)
    async with place.crowd("one") as (one,):
        async with place.joined("two") as (two,):
            for number in range(100):
                await two.io.emit("last", number)
        assert [await one.hear() for _ in range(100)] == [["last", number] for number in range(100)]


@each_kind
async def test_a_name_that_is_taken_is_reported(
    kind: Kind, valkey_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    place = Place(kind, valkey_server.url)
    async with place.joined("one"):
        assert not caplog.records
        async with place.joined("one"):
            assert [record.levelname for record in caplog.records] == ["ERROR"]
            assert "another server is called 'one'" in caplog.text


@each_kind
async def test_a_redis_that_refuses_our_channels_is_an_error(kind: Kind, own_server: RedisServer) -> None:
    async with Redis(own_server.url).running() as client:
        await client.execute("ACL", "SETUSER", "default", "resetchannels")
    io = Server(adapter=kind.meet(own_server.url, "x")("one"))
    with pytest.raises(RedisReplyError, match="NOPERM"), trio.fail_after(LIMIT):
        async with io.running():
            raise AssertionError("it does not run")


@each_kind
async def test_waiting_for_a_redis_that_says_nothing_can_be_cancelled(kind: Kind, own_server: RedisServer) -> None:
    io = Server(adapter=kind.meet(own_server.url, "x")("one"))
    with own_server.frozen(), trio.fail_after(LIMIT), trio.move_on_after(0.05) as scope:
        async with io.running():
            raise AssertionError("it does not run")
    assert scope.cancelled_caught
    async with io.running():
        assert await io.sockets.adapter.server_count() == 1


@pytest.mark.slow  # it takes two seconds until it has made up its mind
async def test_shard_channels_work_on_a_cluster_of_one_server() -> None:
    with start_server(cluster_enabled="yes") as server:
        async with Redis(server.url).running() as client:
            await client.execute("CLUSTER", "ADDSLOTSRANGE", 0, 16383)

            async def is_up() -> bool:
                return b"cluster_state:ok" in cast("bytes", await client.execute("CLUSTER", "INFO"))

            await eventually(is_up)
        async with Place(SHARDED, server.url).crowd("one", "two") as (one, two):
            for room in ("a", "b", "c"):
                await two.socket.join(room)
                await one.io.to(room).emit("hear", room)
                assert await two.hear() == ["hear", room]
            assert len(await one.io.fetch_sockets()) == 2


# What is for others


async def test_what_is_for_a_room_without_members_is_dropped_unread(
    valkey_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    place = Place(CLASSIC, valkey_server.url)
    async with place.crowd("one") as (one,), stranger(valkey_server, place) as other:
        await other.publish("#/#nobody#", b"\xc1 undecodable")
        await other.publish("#/#" + one.socket.id + "#", b"\xc1 undecodable")
        await until(lambda: dropped(one))
        assert dropped(one) == 1
        assert len(caplog.records) == 1


@each_kind
async def test_one_s_own_messages_are_not_taken_for_those_of_others(kind: Kind, valkey_server: RedisServer) -> None:
    place = Place(kind, valkey_server.url)
    async with place.crowd("one", "two") as (one, two):
        await two.socket.join("room")
        await one.io.emit("a", b"bytes")
        await one.io.sockets_join("room")
        await one.io.to("room").emit("b")
        await one.io.server_side_emit("c", b"bytes")
        await one.io.to("room").disconnect_sockets()
        await until(lambda: not two.socket.connected)
        await one.member.adapter.server_count()
        figures = [user.member.adapter.statistics() for user in (one, two)]
        assert (figures[0].received, figures[1].received) == (0, 5)


async def test_a_message_of_another_namespace_on_our_channel_is_not_ours(valkey_server: RedisServer) -> None:
    place = Place(CLASSIC, valkey_server.url)
    async with place.crowd("one") as (one,), stranger(valkey_server, place) as other:
        for namespace in ("/other", "/"):
            packet = {"type": 2, "data": ["hi", namespace], "nsp": namespace}
            await other.publish("#/#", msgpack.packb(["emitter", packet, {"rooms": [], "flags": []}]))
        assert await one.hear() == ["hi", "/"]


BAD = [
    b"",
    b"{",
    b"\xc1",
    b"nonsense",
    b"\x00" * 20,
    b"[" * 100_000,
    b"\x91" * 100_000,
    b'{"type":' + b'{"a":' * 50_000 + b"1" + b"}" * 50_001,
    b"\x93\xa1x\x80\x80",
    b'{"type":2.5,"requestId":7}',
    b'{"type":77,"uid":"x"}',
    b'{"type":"5","uid":"x"}',
    b'{"type":5,"uid":"x","data":7,"opts":7}',
    b'{"type":3,"uid":"x","nsp":"/","data":{"packet":{"type":2,"data":["disconnect"]},"opts":{}}}',
    b"\xdf\xff\xff\xff\xff",
    b"\xdd\xff\xff\xff\xff",
    b'{"type":6,"data":' + b"9" * 100_000 + b"}",
]


@each_kind
@pytest.mark.parametrize("payload", BAD, ids=range(len(BAD)))
async def test_what_is_no_message_is_counted_and_logged_once(
    kind: Kind, payload: bytes, valkey_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    place = Place(kind, valkey_server.url)
    suffixes, word = (["#/#", "-request#/#", "-response#/#"], "PUBLISH") if kind is CLASSIC else (["#/#"], "SPUBLISH")
    async with place.crowd("one", "two") as users, stranger(valkey_server, place) as other:
        for suffix in suffixes:
            await other.publish(suffix, payload, word)
        await until(lambda: all(dropped(user) == len(suffixes) for user in users))
        assert len(caplog.records) == len(suffixes) * len(users)
        assert all(len(record.getMessage()) < 500 for record in caplog.records)
        await users[0].io.emit("alive")
        assert await heard(users, users[0].io) == [[["alive"]]] * 2


@pytest.mark.parametrize(
    "answer",
    [
        {"sockets": [7]},
        {"sockets": ["id", 7]},
        {"sockets": [{}]},
        {"sockets": [{"id": 7, "handshake": [], "rooms": {}, "data": 1}]},
        {"sockets": {"a": 1}},
        {"rooms": [[]]},
        {"type": 8, "clientCount": -1},
        {"type": 8, "clientCount": "x"},
        {"type": 8, "clientCount": 10**30},
        {"type": 9},
        {"type": 6},
        {"type": "x", "uid": 7},
        {},
    ],
    ids=str,
)
async def test_answers_that_make_no_sense_harm_nobody(valkey_server: RedisServer, answer: dict[str, Any]) -> None:
    place = Place(CLASSIC, valkey_server.url)
    async with place.crowd("one") as (one,), stranger(valkey_server, place) as other:
        asked = 0

        def mislead(channel: bytes, payload: bytes) -> None:
            nonlocal asked
            asked += 1
            request = json.loads(payload) if payload[:1] == b"{" else msgpack.unpackb(payload)
            bad = json.dumps({"requestId": request["requestId"], **answer})
            for _ in range(3):
                other.client.execute_nowait("PUBLISH", other.channel("-response#/#"), bad)

        await other.client.subscribe(mislead, channels=[other.channel("-request#/#")])
        for ask in (
            one.io.timeout(0.05).fetch_sockets,
            partial(one.io.to("nobody").timeout(0.05).emit_with_ack, "ask"),
            partial(one.io.timeout(0.05).server_side_emit_with_ack, "ask"),
        ):
            with suppress(AckTimeout):
                await ask()
        assert asked == 3
        assert_idle(one.member.adapter)
        await one.io.emit("alive")
        assert await one.hear() == ["alive"]


# The older protocol, as others speak it


async def test_requests_of_old_servers_are_answered(valkey_server: RedisServer) -> None:
    place = Place(CLASSIC, valkey_server.url)
    async with place.crowd("one") as (one,), stranger(valkey_server, place) as other:
        await one.socket.join("room")
        await other.listen("-response#/#")
        sid = one.socket.id
        answer = await other.ask({"requestId": "a", "type": 0, "rooms": ["room"]})
        assert (answer["requestId"], answer["sockets"]) == ("a", [sid])
        answer = await other.ask({"requestId": "b", "type": 1})
        assert (answer["requestId"], set(answer["rooms"])) == ("b", {sid, "room"})
        assert (await other.ask({"requestId": "c", "type": 2, "sid": sid, "room": "new"}))["requestId"] == "c"
        assert "new" in one.socket.rooms
        assert (await other.ask({"requestId": "d", "type": 3, "sid": sid, "room": "new"}))["requestId"] == "d"
        assert "new" not in one.socket.rooms
        assert (await other.ask({"requestId": "e", "type": 4, "sid": sid, "close": False}))["requestId"] == "e"
        assert not one.socket.connected


async def test_who_does_not_have_a_socket_is_silent_about_it(valkey_server: RedisServer) -> None:
    place = Place(CLASSIC, valkey_server.url)
    async with place.crowd("one") as (one,), stranger(valkey_server, place) as other:
        await other.listen("-response#/#")
        for type in (2, 3, 4):
            await other.publish("-request#/#", {"requestId": "x", "type": type, "sid": "absent", "room": "r"})
        assert (await other.ask({"requestId": "last", "type": 0, "rooms": []}))["requestId"] == "last"
        assert one.socket.connected


async def test_emitters_without_a_name_are_obeyed(valkey_server: RedisServer) -> None:
    place = Place(CLASSIC, valkey_server.url)
    async with place.crowd("one") as (one,), stranger(valkey_server, place) as other:
        calls: list[Any] = []
        one.io.on("job", lambda *args: calls.append(args))
        opts: dict[str, Any] = {"rooms": [], "except": []}
        await other.publish("-request#/#", {"type": 2, "opts": opts, "rooms": ["new"]})
        await other.publish("-request#/#", {"uid": "emitter", "type": 6, "data": ["job", 1]})
        await until(lambda: calls)
        assert calls == [(1,)]
        assert "new" in one.socket.rooms
        await other.publish("-request#/#", {"type": 4, "opts": opts, "close": True})
        await until(lambda: not one.socket.connected)


@pytest.mark.parametrize("specific", [False, True])
async def test_answers_go_where_the_option_says_but_for_those_of_servers(
    valkey_server: RedisServer, specific: bool
) -> None:
    place = Place(CLASSIC, valkey_server.url)
    async with (
        place.crowd("one", publish_on_specific_response_channel=specific) as (one,),
        stranger(valkey_server, place) as other,
    ):
        one.io.on("ask", lambda: 7)
        await other.listen("-response#/#", "-response#/#me#")
        await other.ask({"uid": "me", "requestId": "a", "type": 1})
        await other.ask({"uid": "me", "requestId": "b", "type": 6, "data": ["ask"]})
        own = "-response#/#me#" if specific else "-response#/#"
        assert [channel for channel, _ in other.heard] == [own, "-response#/#"]
        assert json.loads(other.heard[1][1])["data"] == 7


async def test_what_others_subscribe_does_not_make_them_confirm_joins(valkey_server: RedisServer) -> None:
    place = Place(CLASSIC, valkey_server.url)
    async with place.joined("one", "two") as (one, _), stranger(valkey_server, place) as other:
        await other.listen("-request#/#", "-response#/#", "-response#/#node01#")
        assert await one.adapter.server_count() == 3
        assert await one.adapter.bus.members() == {"two", "node01"}
        with trio.fail_after(LIMIT):
            await one.io.sockets_join("a", wait=True)
        with pytest.raises(AckTimeout) as caught:
            await one.io.timeout(0.05).fetch_sockets()
        assert caught.value.servers == ("node01",)
        await other.client.subscribe(lambda *_: None, channels=[other.channel("-request#/#")])


async def test_servers_that_do_not_show_their_names_make_all_names_uncertain(valkey_server: RedisServer) -> None:
    place = Place(CLASSIC, valkey_server.url)
    async with place.joined("one", "two") as (one, _), stranger(valkey_server, place) as other:
        await other.listen("-request#/#")
        assert await one.adapter.bus.members() is None
        with pytest.raises(AckTimeout) as caught:
            await one.io.timeout(0.05).fetch_sockets()
        assert (caught.value.servers, caught.value.missing) == ((), 1)


@pytest.mark.parametrize("namespace", ["/a[b]", "/a*", "/a?", "/a\\", "/[^x]", "/a-z"])
@each_kind
async def test_a_namespace_s_name_is_no_pattern(kind: Kind, namespace: str, valkey_server: RedisServer) -> None:
    place = Place(kind, valkey_server.url)
    async with place.joined("one", "two") as members:
        for member in members:
            member.io.of(namespace)
            member.io.of("/ab")
        users = [await member.connect(namespace) for member in members]
        for user in users:
            await user.socket.join("room")
        await members[0].io.of("/ab").emit("not for them")
        await members[0].io.of(namespace).to("room").emit("for them")
        assert [await user.hear() for user in users] == [["for them"]] * 2
        assert await members[0].io.of(namespace).adapter.server_count() == 2
        bus: Any = members[0].io.of(namespace).adapter
        assert await bus.bus.peers() == {"two"}
        assert await bus.bus.members() == {"two"}


# The sharded protocol


@pytest.mark.parametrize("mode", ["static", "dynamic", "dynamic-private"])
@pytest.mark.parametrize("to_mode", ["static", "dynamic", "dynamic-private"])
async def test_servers_hear_each_other_whatever_their_modes(
    valkey_server: RedisServer, mode: str, to_mode: str
) -> None:
    place = Place(SHARDED, valkey_server.url)
    async with (
        place.crowd("one", subscription_mode=mode) as (one,),
        place.crowd("two", subscription_mode=to_mode) as (two,),
    ):
        await two.socket.join("public")
        for room in ("public", two.socket.id):
            await one.io.to(room).emit("hear", room)
            assert await two.hear() == ["hear", room]


async def test_a_room_that_is_called_like_its_server_is_a_room(valkey_server: RedisServer) -> None:
    place = Place(SHARDED, valkey_server.url)
    async with place.crowd("one", "two") as (one, two):
        await two.socket.join("two")
        await one.io.to("two").emit("hear")
        assert await two.hear() == ["hear"]
        await two.socket.leave("two")
        found = await one.io.fetch_sockets()  # whose answer comes from the channel of this name
        assert len(found) == 2
        assert len(await two.io.fetch_sockets()) == 2


# Trouble


async def lose_connections(server: RedisServer, *members: Member) -> None:
    """Have Redis close all connections, and wait until the servers have theirs again."""
    losses = [member.factory.statistics().losses for member in members]
    async with Redis(server.url).running() as client:
        await client.execute("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        await client.execute("CLIENT", "KILL", "TYPE", "pubsub")
    await until(lambda: all(m.factory.statistics().losses > lost for m, lost in zip(members, losses, strict=True)))
    await until_ready(*members)


async def until_ready(*members: Member) -> None:
    await until(lambda: all(member.factory.health is Health.READY for member in members))


async def assert_works(one: User, two: User) -> None:
    """Both hear each other, in rooms and by requests."""
    for sender, hearer in ((one, two), (two, one)):
        await sender.io.to(hearer.socket.id).emit("private", b"x")
        await sender.io.to("room").except_(sender.socket.id).emit("room")
        assert await hearer.hear() == ["private", b"x"]
        assert await hearer.hear() == ["room"]
        assert len(await sender.io.fetch_sockets()) == 2
        await sender.io.sockets_join("room", wait=True)
        assert_idle(sender.member.adapter)


@each_kind
async def test_lost_connections_are_told_and_made_again(kind: Kind, own_server: RedisServer) -> None:
    place = Place(kind, own_server.url)
    async with place.crowd("one", "two", **IMPATIENT) as (one, two):
        changes: list[Health] = []
        one.member.factory.on_health(lambda health, error: changes.append(health))
        await one.io.sockets_join("room", wait=True)
        for _ in range(3):
            await lose_connections(own_server, one.member, two.member)
            await assert_works(one, two)
        assert changes[:2] == [Health.LOST, Health.READY]
        assert changes[-1] is Health.READY


@each_kind
async def test_a_server_goes_on_alone_while_redis_is_away(
    kind: Kind, own_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    place = Place(kind, own_server.url)
    async with place.crowd("one", "two", **IMPATIENT) as (one, two):
        own_server.kill()
        await until(lambda: one.member.factory.health is Health.LOST and two.member.factory.health is Health.LOST)
        caplog.clear()
        with trio.fail_after(LIMIT):
            for number in range(3):
                await one.io.emit("alone", number)
                assert await one.hear() == ["alone", number]
            await one.io.sockets_join("room")
            await two.io.sockets_join("room")
            await one.io.server_side_emit("nobody")
            with pytest.raises(ConnectionError):
                await one.io.fetch_sockets()
            with pytest.raises(ConnectionError):
                await one.io.emit_with_ack("ask")
            with pytest.raises(ConnectionError):
                await one.io.sockets_join("room", wait=True)
        told = [record.getMessage() for record in caplog.records if record.name == "trio_socketio.adapters"]
        assert len([text for text in told if "reaches this server only" in text]) == 2  # one line of each server
        assert one.member.adapter.statistics().lost == 5
        own_server.start()
        await until_ready(one.member, two.member)
        await assert_works(one, two)


@each_kind
async def test_a_frozen_redis_is_noticed_and_forgiven(kind: Kind, own_server: RedisServer) -> None:
    place = Place(kind, own_server.url)
    async with place.crowd("one", "two", **IMPATIENT) as (one, two):
        await one.io.sockets_join("room", wait=True)
        with own_server.frozen():
            with trio.fail_after(LIMIT):
                await one.io.emit("here")
                assert await one.hear() == ["here"]
                with pytest.raises((ConnectionError, AckTimeout)):
                    await one.io.fetch_sockets()
                await two.socket.join("frozen")
            await until(lambda: one.member.factory.health is Health.LOST)
        await until_ready(one.member, two.member)
        with trio.move_on_after(0.05):  # what was sent before may have been kept by the kernel, and come now
            await two.hear()
        await assert_works(one, two)


@each_kind
async def test_a_namespace_that_is_made_while_redis_is_away_joins_later(kind: Kind, own_server: RedisServer) -> None:
    place = Place(kind, own_server.url)
    async with place.joined("one", "two", **IMPATIENT) as (one, two):
        own_server.kill()
        await until(lambda: one.factory.health is Health.LOST and two.factory.health is Health.LOST)
        for member in (one, two):
            member.io.of("/late")
        with trio.fail_after(LIMIT):
            reader = await two.connect("/late")
        own_server.start()
        await until_ready(one, two)
        await one.io.of("/late").to(reader.socket.id).emit("hear")
        assert await reader.hear() == ["hear"]


@each_kind
async def test_requests_that_wait_when_redis_goes_keep_what_they_have(kind: Kind, own_server: RedisServer) -> None:
    place = Place(kind, own_server.url)
    async with place.crowd("one", "two", **IMPATIENT) as (one, two):
        two.io.on("hang", trio.sleep_forever)
        errors: list[AckTimeout] = []

        async def ask(what: Any, *args: Any) -> None:
            with pytest.raises(AckTimeout) as caught:
                await what(*args)
            errors.append(caught.value)

        with trio.fail_after(LIMIT):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ask, one.io.timeout(0.5).emit_with_ack, "ask")
                nursery.start_soon(ask, one.io.timeout(0.4).server_side_emit_with_ack, "hang")
                await two.reply("two")
                await until(lambda: one.member.adapter.statistics().received == 2)
                own_server.kill()
        assert [error.responses for error in errors] == [[], ["two"]]
        assert_idle(one.member.adapter)
