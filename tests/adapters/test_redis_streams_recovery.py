"""Connection state recovery over a stream: a client may come back to any server."""

from __future__ import annotations

import base64
import random
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgpack
import pytest
import trio

from trio_socketio import SocketDisconnected
from trio_socketio._adapters import stream_reader
from trio_socketio._redis.health import Health

from .cluster_suite import eventually, until
from .streams import Cluster, claim, recovery, until_ready

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..redis_server import RedisServer
    from .streams import Guest, Node


@pytest.fixture
def cluster(valkey_server: RedisServer) -> Cluster:
    return Cluster(valkey_server)


async def without_offsets(guest: Guest, count: int) -> list[list[Any]]:
    return [(await guest.hear())[:-1] for _ in range(count)]


# What is delivered


async def test_every_server_gives_an_event_the_same_offset(cluster: Cluster) -> None:
    async with cluster.nodes(2) as (one, two):
        guests = [await one.come(), await two.come()]
        await one.io.emit("event", 1, b"bytes")
        first, second = [await guest.hear() for guest in guests]
        assert first == second
        name, number, content, offset = first
        assert (name, number, content) == ("event", 1, b"bytes")
        milliseconds, _, sequence = offset.partition("-")
        assert milliseconds.isdigit()
        assert sequence.isdigit()


async def test_events_of_all_servers_come_in_one_order(cluster: Cluster) -> None:
    async with cluster.nodes(2) as (one, two):
        guests = [await one.come(), await two.come()]

        async def emit(node: Node, name: str) -> None:
            for number in range(50):
                await node.io.emit(name, number)

        async with trio.open_nursery() as nursery:
            for node, name in ((one, "a"), (one, "b"), (two, "c")):
                nursery.start_soon(emit, node, name)
        await one.io.emit("end")
        first, second = [await guest.heard() for guest in guests]
        assert first == second
        for name in "abc":
            assert [event[1] for event in first if event[0] == name] == list(range(50))


async def test_an_awaited_emit_is_delivered_when_it_returns(cluster: Cluster) -> None:
    async with cluster.nodes(1) as (one,):
        guest, told = await one.come(), []
        guest.socket.on_any_outgoing(lambda *event: told.append(event))
        await one.io.emit("everybody")
        await guest.socket.emit("one")
        assert told == [("everybody",), ("one",)]


async def test_what_is_emitted_before_a_disconnect_comes_before_it(cluster: Cluster) -> None:
    async with cluster.nodes(1) as (one,):
        first, second = await one.come(), await one.come()
        first.socket.emit_nowait("bye")
        await first.socket.disconnect()
        assert await first.hear() == ["bye"]
        await second.socket.emit("bye")
        await one.io.disconnect_sockets()
        assert (await second.hear())[0] == "bye"


async def test_what_is_changed_after_an_emit_was_not_emitted(cluster: Cluster) -> None:
    async with cluster.nodes(2) as (one, two):
        here, there = await one.come(), await two.come()
        for guest in (here, there):
            await guest.socket.join("room")
        message = {"text": "first"}
        here.socket.emit_nowait("event", message)
        message["text"] = "second"
        assert (await here.hear())[1] == {"text": "first"}
        await until(lambda: not one.adapter.kept()[1])


async def test_volatile_local_and_acknowledged_events_have_no_offset(cluster: Cluster) -> None:
    async with cluster.nodes(2) as (one, two):
        here, there = await one.come(), await two.come()
        await one.io.volatile.emit("volatile")
        assert [await here.hear(), await there.hear()] == [["volatile"]] * 2
        await one.io.local.emit("local")
        assert await here.hear() == ["local"]
        async with trio.open_nursery() as nursery:

            async def answer(guest: Guest) -> None:
                event = await guest.client.receive()
                assert (event.name, event.args) == ("ask", ())
                await event.ack("yes")

            nursery.start_soon(answer, here)
            nursery.start_soon(answer, there)
            assert await one.io.timeout(5).emit_with_ack("ask") == ["yes", "yes"]


# Coming back


@pytest.mark.parametrize("elsewhere", [False, True], ids=["same server", "other server"])
async def test_a_client_comes_back_as_what_it_was(cluster: Cluster, elsewhere: bool) -> None:
    async with cluster.nodes(2) as nodes:
        guest = await nodes[0].come()
        witness = await nodes[1].come()
        await guest.socket.join(["room", "other"])
        guest.socket.data = {"name": "Ann", "raw": b"\x00"}
        await nodes[0].io.emit("event", 0)
        offset = (await guest.hear())[-1]
        await guest.go()
        await nodes[0].io.emit("event", 1)
        await nodes[1].io.to("room").emit("event", 2)
        await guest.socket.emit("event", 3)
        await nodes[1].io.to("elsewhere").emit("event", "not for it")
        await nodes[1].io.except_("other").emit("event", "nor this")
        await nodes[0].io.of("/other").emit("event", "of another namespace")
        back = await nodes[elsewhere].come(claim(guest.pid, offset))
        assert (back.client.id, back.pid, back.socket.recovered) == (guest.client.id, guest.pid, True)
        assert back.socket.rooms == {guest.client.id, "room", "other"}
        assert back.socket.data == {"name": "Ann", "raw": b"\x00"}
        assert [event[:-1] for event in back.missed] == [["event", 1], ["event", 2], ["event", 3]]
        await nodes[0].io.emit("live")
        assert (await back.hear())[0] == "live"
        assert witness.socket.connected


@pytest.mark.parametrize("heard_before", [False, True], ids=["empty stream", "later"])
async def test_a_client_that_has_received_nothing_comes_back(cluster: Cluster, heard_before: bool) -> None:
    async with cluster.nodes(2) as (one, two):
        if heard_before:
            await one.io.emit("before")
        guest = await one.come()
        await guest.go()
        await one.io.emit("event", 1)
        back = await two.come(claim(guest.pid))
        assert back.client.id == guest.client.id
        assert [event[:-1] for event in back.missed] == [["event", 1]]


async def test_a_client_that_did_not_get_what_was_sent_gets_it_when_it_comes_back(cluster: Cluster) -> None:
    async with cluster.nodes(2) as (one, two):
        guest = await one.come()
        await one.io.emit("event", 1)  # sent, and lost on the way
        await guest.go()
        back = await two.come(claim(guest.pid))
        assert [event[:-1] for event in back.missed] == [["event", 1]]


async def test_what_was_said_in_a_room_before_it_joined_stays_unheard(cluster: Cluster) -> None:
    async with cluster.nodes(2) as (one, two):
        guest, speaker = await one.come(), await two.come()
        await one.io.emit("event", 0)
        offset = (await guest.hear())[-1]
        await two.io.to("room").emit("event", "before")
        await speaker.socket.join("room")
        await one.io.emit("event", 1)
        await guest.socket.join("room")
        await two.io.to("room").emit("event", "after")
        await guest.go()
        back = await two.come(claim(guest.pid, offset))
        assert [event[1] for event in back.missed] == [1, "after"]


async def test_volatile_and_acknowledged_events_are_not_sent_again(cluster: Cluster) -> None:
    async with cluster.nodes(1) as (one,), cluster.redis() as redis:
        guest = await one.come()
        await guest.go()
        await one.io.volatile.emit("volatile")
        fields = ("uid", "0123456789abcdef", "nsp", "/", "type", "3", "data")
        asked = '{"packet":{"type":2,"data":["ask"],"id":0},"opts":{"rooms":[],"except":[],"flags":{}}}'
        await redis.execute("XADD", cluster.stream, "*", *fields, asked)
        await one.io.emit("event")
        back = await one.come(claim(guest.pid))
        assert [event[0] for event in back.missed] == ["event"]


async def test_events_of_emitters_have_offsets_and_are_sent_again(cluster: Cluster) -> None:
    async with cluster.nodes(1) as (one,), cluster.redis() as redis:
        guest = await one.come()
        fields = ("uid", "emitter", "nsp", "/", "type", "3", "data")
        data = '{"packet":{"type":2,"data":["hello",%d],"nsp":"/"},"opts":{"rooms":[],"flags":{},"except":[]}}'
        await redis.execute("XADD", cluster.stream, "*", *fields, data % 1)
        event = await guest.hear()
        assert event[:-1] == ["hello", 1]
        await guest.go()
        await redis.execute("XADD", cluster.stream, "*", *fields, data % 2)
        back = await one.come(claim(guest.pid, event[-1]))
        assert [event[:-1] for event in back.missed] == [["hello", 2]]


@pytest.mark.parametrize(
    "offset", ["", "abc", "1", "1-", "-1", "1-2-3", "0-1", "99999999999999-0", "1-1; DEL", "$", "+"]
)
async def test_an_offset_that_is_none_is_no_recovery(cluster: Cluster, offset: str) -> None:
    async with cluster.nodes(1, request_timeout=0.2) as (one,):
        guest = await one.come()
        await one.io.emit("event")
        await guest.go()
        back = await one.come(claim(guest.pid, offset))
        assert back.client.id != guest.client.id
        assert not back.socket.recovered
        assert not back.missed


async def test_an_unknown_session_is_no_recovery(cluster: Cluster) -> None:
    async with cluster.nodes(1) as (one,):
        guest = await one.come()
        await one.io.emit("event")
        offset = (await guest.hear())[-1]
        assert not (await one.come(claim("unknown", offset))).socket.recovered


async def test_a_session_cannot_be_claimed_in_another_namespace(cluster: Cluster) -> None:
    async with cluster.nodes(1) as (one,):
        entered: list[str] = []
        one.io.of("/admin").use(lambda socket: entered.append(socket.id))
        guest = await one.come()
        await guest.go()
        back = await one.come(claim(guest.pid), "/admin")
        assert back.client.id != guest.client.id
        assert entered == [back.client.id]


async def test_a_session_that_does_not_name_its_namespace_does_not_pass_without_middlewares(cluster: Cluster) -> None:
    async with cluster.nodes(1) as (one,), cluster.redis() as redis:
        entered: list[str] = []
        one.io.use(lambda socket: entered.append(socket.id))
        guest = await one.come()
        await one.io.emit("event")
        offset = (await guest.hear())[-1]
        await one.io.emit("event", "missed")
        session = {"sid": "s" * 20, "pid": "p" * 20, "rooms": ["s" * 20], "data": {"role": "user"}}
        packed: Any = msgpack.packb(session)
        value = base64.b64encode(packed)
        await redis.execute("SET", f"{cluster.stream}:{session['pid']}", value, "PX", 10_000)
        back = await one.come(claim("p" * 20, offset))
        assert back.socket.recovered
        assert [event[1] for event in back.missed] == ["missed"]
        assert entered == [guest.client.id, "s" * 20]
        await back.go()
        assert (await one.come(claim("p" * 20, offset))).socket.recovered
        assert len(entered) == 2  # it has passed them here, which is known from now on


@pytest.mark.parametrize("pid", ["", "x" * 101, "\ud800", "p\r\nDEL x"])
async def test_a_strange_private_id_is_no_recovery(cluster: Cluster, pid: str) -> None:
    async with cluster.nodes(1) as (one,):
        assert not (await one.come(claim(pid, "1-1"))).socket.recovered
        assert one.factory.health is Health.READY


async def test_a_session_is_given_to_one_of_those_who_ask(cluster: Cluster) -> None:
    async with cluster.nodes(3) as nodes:
        guest = await nodes[0].come()
        await nodes[0].io.emit("event")
        offset = (await guest.hear())[-1]
        await guest.go()
        found: list[Guest] = []

        async def come(node: Node) -> None:
            found.append(await node.come(claim(guest.pid, offset)))

        async with trio.open_nursery() as nursery:
            for node in nodes:
                nursery.start_soon(come, node)
        assert sorted(back.socket.recovered for back in found) == [False, False, True]
        assert sum(back.client.id == guest.client.id for back in found) == 1


async def test_a_client_that_is_too_late_is_a_new_one(cluster: Cluster) -> None:
    async with cluster.nodes(1, recovery=recovery(max_disconnection_duration=0.05)) as (one,):
        guest = await one.come()
        await guest.go()
        await trio.sleep(0.1)
        assert not (await one.come(claim(guest.pid))).socket.recovered


@pytest.mark.parametrize("knows", [True, False], ids=["with offset", "without"])
async def test_a_client_is_a_new_one_when_what_it_missed_was_trimmed(cluster: Cluster, knows: bool) -> None:
    async with cluster.nodes(1) as (one,), cluster.redis() as redis:
        guest = await one.come()
        await one.io.emit("event", 0)
        offset = (await guest.hear())[-1]
        await guest.go()
        for number in range(5):
            await one.io.emit("event", number)
        await redis.execute("XTRIM", cluster.stream, "MAXLEN", 2)
        assert not (await one.come(claim(guest.pid, offset if knows else None))).socket.recovered


async def test_who_has_the_last_event_for_it_does_not_need_it_to_be_there(cluster: Cluster) -> None:
    async with cluster.nodes(2) as (one, two), cluster.redis() as redis:
        guest = await one.come()
        await guest.socket.emit("event", 0)
        offset = (await guest.hear())[-1]
        for number in range(5):
            await one.io.to("elsewhere").emit("event", number)
        await guest.go()
        await redis.execute("XTRIM", cluster.stream, "MAXLEN", 2)
        await one.io.emit("event", 1)
        back = await two.come(claim(guest.pid, offset))
        assert [event[:-1] for event in back.missed] == [["event", 1]]


@pytest.mark.parametrize("bound", [{"max_packets": 10}, {"max_bytes": 1000}])
async def test_a_client_that_has_missed_too_much_is_a_new_one(cluster: Cluster, bound: dict[str, int]) -> None:
    async with cluster.nodes(1, recovery=recovery(**bound)) as (one,):
        for missed, recovered in ((5, True), (20, False)):
            guest = await one.come()
            await guest.go()
            for number in range(missed):
                await one.io.emit("event", number)
            back = await one.come(claim(guest.pid))
            assert back.socket.recovered is recovered
            assert len(back.missed) == (missed if recovered else 0)


async def test_what_was_missed_is_read_page_by_page(cluster: Cluster) -> None:
    async with cluster.nodes(2) as (one, two):
        guest = await one.come()
        await guest.go()
        async with trio.open_nursery() as nursery:
            for number in range(500):
                nursery.start_soon(one.io.emit, "event", number)
        back = await two.come(claim(guest.pid))
        assert sorted(event[1] for event in back.missed) == list(range(500))
        assert len({event[2] for event in back.missed}) == 500


async def test_a_client_that_goes_while_it_comes_back_may_try_again(cluster: Cluster) -> None:
    async with cluster.nodes(2) as (one, two):
        guest = await one.come()
        await guest.go()
        await one.io.emit("event", 1)
        entered = trio.Event()

        @two.io.use
        async def wait(socket: Any) -> None:
            entered.set()
            await trio.sleep_forever()

        adapter = two.adapter
        restored = await adapter.restore_session(guest.pid, None)
        assert restored is not None
        assert await adapter.restore_session(guest.pid, None) is None
        await adapter.persist_session(restored)
        back = await one.come(claim(guest.pid))
        assert back.socket.recovered
        assert [event[:-1] for event in back.missed] == [["event", 1]]
        assert not entered.is_set()


async def test_who_gives_up_taking_a_session_leaves_it_to_others(cluster: Cluster) -> None:
    async with cluster.nodes(1) as (one,):
        guest = await one.come()
        await guest.go()
        taken = []

        async def take() -> None:
            taken.append(await one.adapter.restore_session(guest.pid, None))

        async with trio.open_nursery() as nursery:
            with cluster.server.frozen():  # so that it is asked, and cannot have answered
                nursery.start_soon(take)
                await trio.sleep(0.02)
                nursery.cancel_scope.cancel()
        assert not taken
        async with cluster.redis() as redis:

            async def is_back() -> bool:
                return bool(await redis.execute("EXISTS", f"{cluster.stream}:{guest.pid}"))

            await eventually(is_back)
        assert (await one.come(claim(guest.pid))).socket.recovered


async def test_data_that_cannot_be_encoded_makes_a_client_a_new_one(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    async with cluster.nodes(1) as (one,):
        guest = await one.come()
        guest.socket.data = {"secret": object()}
        await guest.go()
        assert "cannot be recovered" in caplog.text
        assert not (await one.come(claim(guest.pid))).socket.recovered


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"!",
        b"gA==",
        b"hKNzaWQBo3BpZAKlcm9vbXOQpGRhdGGA",
        b"k6Fh",
        b"haNzaWSjYWJjo3BpZKFwpXJvb21zkKRkYXRhwKR0cmlvgaFhAQ==",
    ],
)
async def test_what_is_no_session_is_no_recovery(cluster: Cluster, value: bytes) -> None:
    async with cluster.nodes(1) as (one,), cluster.redis() as redis:
        await one.io.emit("event")
        await redis.execute("SET", f"{cluster.stream}:p", value, "PX", 10_000)
        assert not (await one.come(claim("p"))).socket.recovered


# The law


@pytest.mark.parametrize("seed", range(6))
async def test_whoever_comes_and_goes_hears_every_event_once_and_in_order(cluster: Cluster, seed: int) -> None:
    dice = random.Random(seed)
    async with cluster.nodes(2) as nodes:
        witness = await nodes[0].come()
        guest = await nodes[1].come()
        for member in (witness, guest):
            await member.socket.join("room")
        count = 60

        async def emit(node: Node, name: str) -> None:
            for number in range(count):
                to: Callable[..., Any] = dice.choice([node.io.emit, node.io.to("room").emit])
                await to(name, number)
                await node.io.to("elsewhere").emit(name, number)
                await trio.sleep(dice.random() * 0.01)

        async with trio.open_nursery() as nursery:
            for node, name in ((nodes[0], "a"), (nodes[0], "b"), (nodes[1], "c")):
                nursery.start_soon(emit, node, name)
            heard: list[list[Any]] = []
            returns = 0
            while len(heard) < 3 * count:
                for _ in range(min(dice.randrange(12), 3 * count - len(heard))):
                    heard.append(await guest.hear())
                await guest.go()
                await trio.sleep(dice.random() * 0.01)
                offset = heard[-1][-1] if heard else None
                guest = await dice.choice(nodes).come(claim(guest.pid, offset))
                assert guest.socket.recovered
                heard += guest.missed
                returns += 1
        await nodes[0].io.emit("end")
        assert heard + await guest.heard() == await witness.heard()
        assert returns > 5
        for name in "abc":
            assert [event[1] for event in heard if event[0] == name] == list(range(count))


@pytest.mark.parametrize("seed", range(3))
async def test_whoever_is_recovered_has_everything_also_when_connections_are_lost(cluster: Cluster, seed: int) -> None:
    dice = random.Random(seed)
    async with cluster.nodes(2) as nodes, cluster.redis() as redis:
        fields = ("uid", "emitter", "nsp", "/", "type", "3", "data")
        data = '{"packet":{"type":2,"data":["event",%d]},"opts":{"rooms":[],"except":[],"flags":{}}}'
        count, returns = 150, 0

        async def come_back(auth: Any) -> Guest:
            while True:
                with suppress(SocketDisconnected):  # Redis was lost while it was asked what the client has missed
                    return await dice.choice(nodes).come(auth)

        async def write() -> None:
            for number in range(count):
                await redis.execute("XADD", cluster.stream, "*", *fields, data % number)
                await trio.sleep(dice.random() * 0.01)
                if number % 50 == 25:
                    await cluster.kill_connections(redis)

        async with trio.open_nursery() as nursery:
            guest = await nodes[0].come()
            nursery.start_soon(write)
            heard = [await guest.hear()]
            while heard[-1][1] < count - 1:
                for _ in range(min(dice.randrange(12), count - 1 - heard[-1][1])):
                    heard.append(await guest.hear())
                await guest.go()
                guest = await come_back(claim(guest.pid, heard[-1][2]))
                if guest.socket.recovered:
                    heard += guest.missed
                    returns += 1
                else:  # while Redis was lost; it begins anew with what comes next
                    await until_ready(*nodes)
                    heard = [await guest.hear()]
                assert [event[1] for event in heard] == list(range(heard[0][1], heard[-1][1] + 1))
        assert returns > 5


async def test_what_is_emitted_while_redis_is_lost_is_delivered_here_without_an_offset(
    valkey_server: RedisServer,
) -> None:
    cluster = Cluster(valkey_server, backoff_least=0.3, backoff_most=0.3)
    async with cluster.nodes(1) as (one,), cluster.redis() as redis:
        guest = await one.come()
        await one.io.emit("event", 0)
        offset = (await guest.hear())[-1]
        await cluster.kill_connections(redis)
        await until(lambda: one.factory.statistics().losses)
        await one.io.emit("event", 1)
        guest.socket.emit_nowait("event", 2)
        assert [await guest.hear(), await guest.hear()] == [["event", 1], ["event", 2]]
        await until_ready(one)
        await one.io.emit("event", 3)
        assert len(await guest.hear()) == 3
        await guest.go()
        back = await one.come(claim(guest.pid, offset))
        assert [event[1] for event in back.missed] == [3]


async def test_nobody_waits_for_a_stream_that_cannot_be_read(
    own_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_reader, "PAUSE", 0.05)
    monkeypatch.setattr(stream_reader, "A_WHILE", 0.2)
    cluster = Cluster(own_server)
    async with cluster.nodes(1) as (one,), cluster.redis() as redis:
        guest = await one.come()
        await redis.execute("ACL", "SETUSER", "default", "-xread", "-xrange")
        await until(lambda: one.factory.health is Health.LOST)
        with trio.fail_after(3):
            await one.io.emit("event", 1)
        assert await guest.hear() == ["event", 1]
        await redis.execute("ACL", "SETUSER", "default", "+xread", "+xrange")
        await until_ready(one)
        await one.io.emit("event", 2)
        assert (await guest.hear())[:2] == ["event", 2]  # and not the first for the second time
