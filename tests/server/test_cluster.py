"""Several servers in one process: who answers, who does not, and what is left afterwards. The clock is virtual."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio

from trio_socketio import AckTimeout, LocalProtocolError, RemoteSocket, Socket
from trio_socketio.abc import ClusterAdapter, HeartbeatBus, MemoryBus, MemoryCluster

from ..wire_client import settle
from .support import MANY_TASKS, Served, received, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio_socketio.abc import Directory

NAMES = ("one", "two", "three")


@asynccontextmanager
async def servers(cluster: MemoryCluster, *names: str, **options: Any) -> AsyncIterator[list[Served]]:
    """Servers of a cluster, by these names."""
    async with AsyncExitStack() as stack:
        started = []
        for name in names:
            started.append(await stack.enter_async_context(serving(adapter=cluster.adapter(name), **options)))
        yield started
        for served in started:
            await served.net.end(MANY_TASKS)  # each counts the tasks of all when it ends
            figures = adapter_of(served).statistics()
            assert (figures.requests, figures.collecting) == (0, 0)


def adapter_of(served: Served) -> ClusterAdapter:
    assert isinstance(served.io.adapter, ClusterAdapter)
    return served.io.adapter


# Server-side emits


async def test_all_other_servers_get_an_emit_and_the_sender_does_not() -> None:
    got: list[Any] = []
    async with servers(MemoryCluster(), *NAMES) as (one, two, three):
        for name, served in zip(NAMES, (one, two, three), strict=True):
            served.io.on("news", lambda *args, name=name: got.append((name, args)))

        await one.io.server_side_emit("news", 1, b"\x02")
        await settle()

        assert sorted(got) == [("three", (1, b"\x02")), ("two", (1, b"\x02"))]


async def test_all_others_answer_and_the_answers_come_as_they_arrive() -> None:
    cluster = MemoryCluster(delay=lambda sender, receiver: {"two": 1.0, "three": 3.0}.get(sender, 0.0))
    async with servers(cluster, *NAMES) as (one, two, three):
        two.io.on("question", lambda value: ["two", value])

        @three.io.on("question")
        async def answer(value: int) -> list[Any]:
            await trio.sleep(0.5)
            return ["three", value]

        begun, arrived = trio.current_time(), []
        async with one.io.server_side_acks("question", 7) as replies:
            async for reply in replies:
                arrived.append((reply, trio.current_time() - begun))

        assert arrived == [(["two", 7], 1.0), (["three", 7], 3.5)]
        assert await one.io.timeout(4).server_side_emit_with_ack("question", 8) == [["two", 8], ["three", 8]]


async def test_one_that_is_silent_is_named_and_what_the_others_said_is_kept() -> None:
    async with servers(MemoryCluster(), *NAMES) as (one, two, _):
        two.io.on("question", lambda: "here")
        begun = trio.current_time()

        with pytest.raises(AckTimeout) as caught:
            await one.io.server_side_emit_with_ack("question")

        assert trio.current_time() - begun == 5
        assert caught.value.responses == ["here"]
        assert (caught.value.servers, caught.value.missing) == (("three",), 1)
        assert "silent: three" in str(caught.value)


async def test_one_that_leaves_meanwhile_is_not_waited_for() -> None:
    cluster = MemoryCluster()
    async with servers(cluster, "one", "two") as (one, two):
        two.io.on("question", lambda: "here")
        async with trio.open_nursery() as nursery, serving(adapter=cluster.adapter("three")) as three:

            @three.io.on("question")
            async def never() -> None:
                await trio.sleep_forever()

            async def leave() -> None:
                await trio.sleep(2)
                await three.io.close()
                await three.io.sockets.stop()

            nursery.start_soon(leave)
            begun = trio.current_time()
            assert await one.io.server_side_emit_with_ack("question") == ["here"]
            assert trio.current_time() - begun == 2
            await three.net.end(MANY_TASKS)


async def test_with_nobody_else_there_the_answer_is_empty_and_immediate() -> None:
    async with servers(MemoryCluster(), "one") as (one,):
        begun = trio.current_time()
        assert await one.io.server_side_emit_with_ack("question") == []
        assert await one.io.local.server_side_emit_with_ack("question") == []
        assert trio.current_time() == begun


async def test_servers_are_in_no_rooms() -> None:
    async with servers(MemoryCluster(), "one", "two") as (one, _):
        with pytest.raises(LocalProtocolError, match="not in rooms"):
            await one.io.to("room").server_side_emit("news")


async def test_a_caller_that_is_cancelled_leaves_nothing_behind() -> None:
    async with servers(MemoryCluster(), *NAMES) as (one, _, _):
        for operation in (
            lambda: one.io.server_side_emit_with_ack("question"),
            lambda: one.io.fetch_sockets(),
            lambda: one.io.emit_with_ack("question"),
        ):
            with trio.move_on_after(0.001):
                await operation()
            assert adapter_of(one).statistics().requests == 0


async def test_the_life_of_a_namespace_is_not_told_by_other_servers(caplog: pytest.LogCaptureFixture) -> None:
    async with servers(MemoryCluster(), "one", "two") as (one, two):
        called: list[Any] = []
        two.io.on("connection", called.append)

        await one.io.adapter.server_side_emit(["connection", 1])
        await settle()

        assert called == []
        assert "which no server may" in caplog.text


async def test_handlers_of_other_servers_events_start_in_their_order_and_their_failures_end_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    started: list[int] = []
    async with servers(MemoryCluster(), "one", "two") as (one, two):

        @two.io.on("count")
        async def count(number: int) -> int:
            started.append(number)
            await trio.lowlevel.checkpoint()
            if number == 3:
                raise ValueError("three")
            return number

        for number in range(10):
            await one.io.server_side_emit("count", number)
        assert await one.io.server_side_emit_with_ack("count", 10) == [10]

        assert started == list(range(11))
    assert "a handler of 'count', emitted by another server" in caplog.text


# Sockets of several servers


async def test_sockets_elsewhere_are_fetched_and_the_silent_server_is_named() -> None:
    cluster = MemoryCluster()
    async with servers(cluster, *NAMES) as (one, two, three):
        near, far = await one.connect(), await two.connect()
        await three.connect()
        cluster.partition(["one", "two"], ["three"])
        begun = trio.current_time()

        with pytest.raises(AckTimeout) as caught:
            await one.io.timeout(2).fetch_sockets()

        assert trio.current_time() - begun == 2
        assert caught.value.servers == ("three",)
        assert {socket.id for socket in caught.value.responses} == {near.socket.id, far.socket.id}
        assert {type(socket) for socket in caught.value.responses} == {Socket, RemoteSocket}
        cluster.heal()
        assert len(await one.io.fetch_sockets()) == 3
        assert await one.io.local.fetch_sockets() == [near.socket]


async def test_acknowledgements_of_clients_of_all_servers_and_of_those_that_are_silent() -> None:
    cluster = MemoryCluster()
    async with servers(cluster, *NAMES) as (one, two, three):
        pairs = [await served.connect() for served in (one, two, three)]

        async def answer_all(count: int) -> None:
            for number, pair in enumerate(pairs[:count]):
                id, _ = await pair.client.recv_event()
                await pair.client.ack(id or 0, number)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer_all, 3)
            assert sorted(await one.io.timeout(5).emit_with_ack("question")) == [0, 1, 2]

        cluster.partition(["one", "two"], ["three"])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer_all, 1)
            with pytest.raises(AckTimeout) as caught:
                await one.io.timeout(3).emit_with_ack("question")
        assert caught.value.responses == [0]
        assert caught.value.servers == ("three",)
        assert caught.value.missing == 2
        await trio.sleep(3)


async def test_a_join_that_waits_returns_when_every_server_has_applied_it() -> None:
    cluster = MemoryCluster(delay=1.0)
    async with servers(cluster, *NAMES) as (one, two, three):
        pairs = [await served.connect() for served in (two, three)]
        begun = trio.current_time()

        await one.io.sockets_join("room", wait=True)

        assert trio.current_time() - begun == 2
        assert all("room" in pair.socket.rooms for pair in pairs)
        await one.io.in_("room").sockets_leave("room", wait=True)
        assert not any("room" in pair.socket.rooms for pair in pairs)
        cluster.partition(["one"], ["two", "three"])
        with pytest.raises(AckTimeout) as caught:
            await one.io.timeout(3).sockets_join("room", wait=True)
        assert caught.value.servers == ("three", "two")


async def test_what_is_said_before_a_disconnect_arrives_before_it_everywhere() -> None:
    async with servers(MemoryCluster(), "one", "two") as (one, two):
        near, far = await one.connect(), await two.connect()

        await one.io.emit("bye")
        await one.io.disconnect_sockets()
        await settle()

        for pair in (near, far):
            assert await received(pair.client) == ['2["bye"]', "1"]
            assert pair.socket.ended.is_set()


async def test_a_cancelled_operation_has_reached_nobody() -> None:
    async with servers(MemoryCluster(), "one", "two") as (one, two):
        pairs = [await one.connect(), await two.connect()]
        operations = (
            lambda: one.io.emit("x"),
            lambda: one.io.sockets_join("room"),
            lambda: one.io.disconnect_sockets(),
            lambda: one.io.emit_with_ack("x"),
            lambda: one.io.server_side_emit("x"),
        )
        for operation in operations:
            with trio.CancelScope() as scope:
                scope.cancel()
                await operation()
            await settle()
            assert scope.cancelled_caught
        for pair in pairs:
            assert await received(pair.client) == []
            assert pair.socket.rooms == {pair.socket.id}


async def test_data_that_cannot_be_encoded_is_not_told_and_nobody_waits_for_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with servers(MemoryCluster(), "one", "two") as (one, two):
        far = await two.connect()
        far.socket.data["secret"] = object()

        (remote,) = await one.io.fetch_sockets()

        assert (remote.id, remote.data) == (far.socket.id, {})
    assert "is not told to other servers" in caplog.text


async def test_bytes_on_the_bus_that_are_no_message_are_dropped_with_a_line_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    cluster = MemoryCluster()
    async with servers(cluster, "one", "two") as (one, two):
        for garbage in (b"", b"\xff\xfe", b'{"type":99}', b"[" * 100_000, b'{"type":3,"uid":"one","nsp":"/","data":7}'):
            cluster.members("/")["two"].take("one", garbage)
        await settle()

        assert adapter_of(two).statistics().dropped == 5
        assert caplog.text.count("was dropped") == 5
        two.io.on("question", lambda: "alive")
        assert await one.io.server_side_emit_with_ack("question") == ["alive"]


async def test_two_servers_of_one_name_are_refused() -> None:
    cluster = MemoryCluster()
    async with servers(cluster, "one"):
        with pytest.raises(RuntimeError, match="a server 'one' in this cluster already"):
            async with serving(adapter=cluster.adapter("one")):
                pass


# Membership by heartbeats


def with_heartbeats(cluster: MemoryCluster, name: str) -> Any:
    def make_adapter(directory: Directory) -> ClusterAdapter:
        bus = HeartbeatBus(MemoryBus(cluster, directory.name, name), directory.name)
        return ClusterAdapter(directory, bus, request_timeout=30.0)

    return make_adapter


async def test_with_heartbeats_a_server_that_falls_silent_is_gone_after_the_timeout() -> None:
    cluster = MemoryCluster()
    async with (
        serving(adapter=with_heartbeats(cluster, "one")) as one,
        serving(adapter=with_heartbeats(cluster, "two")) as two,
    ):
        two.io.on("question", lambda: "here")
        assert await one.io.adapter.server_count() == 2
        assert await one.io.server_side_emit_with_ack("question") == ["here"]

        cluster.partition(["one"], ["two"])
        begun = trio.current_time()
        assert await one.io.timeout(60).server_side_emit_with_ack("question") == []
        assert 5 <= trio.current_time() - begun <= 15
        assert await one.io.adapter.server_count() == 1

        cluster.heal()
        await trio.sleep(6)
        assert await one.io.adapter.server_count() == 2
        await one.net.end(MANY_TASKS)


async def test_with_heartbeats_a_server_that_says_goodbye_is_gone_at_once() -> None:
    cluster = MemoryCluster()
    async with serving(adapter=with_heartbeats(cluster, "one")) as one:
        async with serving(adapter=with_heartbeats(cluster, "two")):
            await settle()
            assert await one.io.adapter.server_count() == 2
            await one.net.end(MANY_TASKS)
        await settle()
        assert await one.io.adapter.server_count() == 1


@pytest.mark.parametrize(("interval", "timeout"), [(0, 1), (5, 5), (-1, 1)])
def test_heartbeats_have_times_that_go_together(interval: float, timeout: float) -> None:
    with pytest.raises(ValueError, match="do not go together"):
        HeartbeatBus(MemoryBus(MemoryCluster(), "/", "one"), "/", interval=interval, timeout=timeout)
