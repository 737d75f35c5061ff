"""Several servers in one process: who answers, who does not, and what is left afterwards. The clock is virtual."""

from __future__ import annotations

from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio

from trio_socketio import AckTimeout, LocalProtocolError, RemoteSocket, Server, Socket
from trio_socketio.abc import ClusterAdapter, HeartbeatBus, MemoryBus, MemoryCluster
from trio_socketio.testing import open_client

from ..wire_client import settle
from .support import open_servers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trio_socketio.abc import Directory
    from trio_socketio.testing import MemoryClient


def adapter_of(io: Server) -> ClusterAdapter:
    assert isinstance(io.adapter, ClusterAdapter)
    return io.adapter


def only_socket(io: Server) -> Socket:
    (socket,) = io.sockets.sockets.values()
    return socket


# Server-side emits


async def test_all_other_servers_get_an_emit_and_the_sender_does_not() -> None:
    got: list[Any] = []
    async with open_servers(3) as cluster:
        for number, io in enumerate(cluster):
            io.on("news", lambda *args, number=number: got.append((number, args)))

        await cluster[0].server_side_emit("news", 1, b"\x02")
        await settle()

        assert sorted(got) == [(1, (1, b"\x02")), (2, (1, b"\x02"))]


async def test_all_others_answer_and_the_answers_come_as_they_arrive() -> None:
    async with open_servers(3) as cluster:
        cluster.bus.delay = lambda sender, receiver: {"s1": 1.0, "s2": 3.0}.get(sender, 0.0)
        one, two, three = cluster
        two.on("question", lambda value: ["two", value])

        @three.on("question")
        async def answer(value: int) -> list[Any]:
            await trio.sleep(0.5)
            return ["three", value]

        begun, arrived = trio.current_time(), []
        async with one.server_side_acks("question", 7) as replies:
            async for reply in replies:
                arrived.append((reply, trio.current_time() - begun))

        assert arrived == [(["two", 7], 1.0), (["three", 7], 3.5)]
        assert await one.timeout(4).server_side_emit_with_ack("question", 8) == [["two", 8], ["three", 8]]


async def test_one_that_is_silent_is_named_and_what_the_others_said_is_kept() -> None:
    async with open_servers(3) as cluster:
        cluster[1].on("question", lambda: "here")
        begun = trio.current_time()

        with pytest.raises(AckTimeout) as caught:
            await cluster[0].server_side_emit_with_ack("question")

        assert trio.current_time() - begun == 5
        assert caught.value.responses == ["here"]
        assert (caught.value.servers, caught.value.missing) == (("s2",), 1)
        assert "silent: s2" in str(caught.value)


async def test_one_that_leaves_meanwhile_is_not_waited_for() -> None:
    async with open_servers(2) as cluster, trio.open_nursery() as nursery:
        leaving = Server(adapter=cluster.bus.adapter("leaving"))
        leaving.on("question", trio.sleep_forever)

        async def leave(*, task_status: trio.TaskStatus[None]) -> None:
            async with leaving.running():
                task_status.started()
                await trio.sleep(2)

        await nursery.start(leave)
        one, two = cluster
        two.on("question", lambda: "here")
        begun = trio.current_time()
        assert await one.server_side_emit_with_ack("question") == ["here"]
        assert trio.current_time() - begun == 2


async def test_with_nobody_else_there_the_answer_is_empty_and_immediate() -> None:
    async with open_servers(1) as (io,):
        begun = trio.current_time()
        assert await io.server_side_emit_with_ack("question") == []
        assert await io.local.server_side_emit_with_ack("question") == []
        assert trio.current_time() == begun


async def test_servers_are_in_no_rooms() -> None:
    async with open_servers(2) as (io, _):
        with pytest.raises(LocalProtocolError, match="not in rooms"):
            await io.to("room").server_side_emit("news")


async def test_a_caller_that_is_cancelled_leaves_nothing_behind() -> None:
    async with open_servers(3) as (io, _, _):
        for operation in (
            lambda: io.server_side_emit_with_ack("question"),
            lambda: io.fetch_sockets(),
            lambda: io.emit_with_ack("question"),
        ):
            with trio.move_on_after(0.001):
                await operation()
            assert adapter_of(io).statistics().requests == 0


async def test_the_life_of_a_namespace_is_not_told_by_other_servers(caplog: pytest.LogCaptureFixture) -> None:
    async with open_servers(2) as (one, two):
        called: list[Any] = []
        two.on("connection", called.append)

        await one.adapter.server_side_emit(["connection", 1])
        await settle()

        assert called == []
        assert "which no server may" in caplog.text


async def test_handlers_of_other_servers_events_start_in_their_order_and_their_failures_end_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    started: list[int] = []
    async with open_servers(2) as (one, two):

        @two.on("count")
        async def count(number: int) -> int:
            started.append(number)
            await trio.lowlevel.checkpoint()
            if number == 3:
                raise ValueError("three")
            return number

        for number in range(10):
            await one.server_side_emit("count", number)
        assert await one.server_side_emit_with_ack("count", 10) == [10]

        assert started == list(range(11))
    assert "a handler of 'count', emitted by another server" in caplog.text


# Sockets of several servers


async def test_sockets_elsewhere_are_fetched_and_the_silent_server_is_named() -> None:
    async with (
        open_servers(3) as cluster,
        open_client(cluster[0]) as near,
        open_client(cluster[1]) as far,
        open_client(cluster[2]),
    ):
        io = cluster[0]
        cluster.partition([0, 1], [2])
        begun = trio.current_time()

        with pytest.raises(AckTimeout) as caught:
            await io.timeout(2).fetch_sockets()

        assert trio.current_time() - begun == 2
        assert caught.value.servers == ("s2",)
        assert {socket.id for socket in caught.value.responses} == {near.id, far.id}
        assert {type(socket) for socket in caught.value.responses} == {Socket, RemoteSocket}
        cluster.heal()
        assert len(await io.fetch_sockets()) == 3
        assert await io.local.fetch_sockets() == [only_socket(io)]


async def test_acknowledgements_of_clients_of_all_servers_and_of_those_that_are_silent() -> None:
    async def answer_all(clients: Sequence[MemoryClient]) -> None:
        for number, client in enumerate(clients):
            await (await client.receive()).ack(number)

    async with open_servers(3) as cluster, AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(open_client(io)) for io in cluster]

        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer_all, clients)
            assert sorted(await cluster[0].timeout(5).emit_with_ack("question")) == [0, 1, 2]

        cluster.partition([0, 1], [2])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer_all, clients[:1])
            with pytest.raises(AckTimeout) as caught:
                await cluster[0].timeout(3).emit_with_ack("question")
        assert caught.value.responses == [0]
        assert caught.value.servers == ("s2",)
        assert caught.value.missing == 2
        await trio.sleep(3)


async def test_a_join_that_waits_returns_when_every_server_has_applied_it() -> None:
    async with open_servers(3) as cluster, open_client(cluster[1]), open_client(cluster[2]):
        cluster.bus.delay = 1.0
        io, *others = cluster
        sockets = [only_socket(other) for other in others]
        begun = trio.current_time()

        await io.sockets_join("room", wait=True)

        assert trio.current_time() - begun == 2
        assert all("room" in socket.rooms for socket in sockets)
        await io.in_("room").sockets_leave("room", wait=True)
        assert not any("room" in socket.rooms for socket in sockets)
        cluster.partition([0], [1, 2])
        with pytest.raises(AckTimeout) as caught:
            await io.timeout(3).sockets_join("room", wait=True)
        assert caught.value.servers == ("s1", "s2")


async def test_what_is_said_before_a_disconnect_arrives_before_it_everywhere() -> None:
    async with open_servers(2) as cluster, open_client(cluster[0]) as near, open_client(cluster[1]) as far:
        sockets = [only_socket(io) for io in cluster]

        await cluster[0].emit("bye")
        await cluster[0].disconnect_sockets()
        await settle()

        for client in (near, far):
            assert await client.receive_all() == [("bye",)]
            assert await client.wait_disconnected() == "io server disconnect"
        assert all(socket.ended.is_set() for socket in sockets)


async def test_a_cancelled_operation_has_reached_nobody() -> None:
    async with open_servers(2) as cluster, open_client(cluster[0]) as near, open_client(cluster[1]) as far:
        io = cluster[0]
        operations = (
            lambda: io.emit("x"),
            lambda: io.sockets_join("room"),
            lambda: io.disconnect_sockets(),
            lambda: io.emit_with_ack("x"),
            lambda: io.server_side_emit("x"),
        )
        for operation in operations:
            with trio.CancelScope() as scope:
                scope.cancel()
                await operation()
            await settle()
            assert scope.cancelled_caught
        for server, client in zip(cluster, (near, far), strict=True):
            assert await client.receive_all() == []
            assert only_socket(server).rooms == {client.id}
            assert client.connected


async def test_data_that_cannot_be_encoded_is_not_told_and_nobody_waits_for_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with open_servers(2) as (one, two), open_client(two) as far:
        only_socket(two).data["secret"] = object()

        (remote,) = await one.fetch_sockets()

        assert (remote.id, remote.data) == (far.id, {})
    assert "is not told to other servers" in caplog.text


async def test_bytes_on_the_bus_that_are_no_message_are_dropped_with_a_line_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with open_servers(2) as cluster:
        one, two = cluster
        for garbage in (b"", b"\xff\xfe", b'{"type":99}', b"[" * 100_000, b'{"type":3,"uid":"s0","nsp":"/","data":7}'):
            cluster.bus.members("/")["s1"].take("s0", garbage)
        await settle()

        assert adapter_of(two).statistics().dropped == 5
        assert caplog.text.count("was dropped") == 5
        two.on("question", lambda: "alive")
        assert await one.server_side_emit_with_ack("question") == ["alive"]


async def test_two_servers_of_one_name_are_refused() -> None:
    async with open_servers(1) as cluster:
        with pytest.raises(RuntimeError, match="a server 's0' in this cluster already"):
            async with Server(adapter=cluster.bus.adapter("s0")).running():
                raise AssertionError("it is not running")


# Membership by heartbeats


def with_heartbeats(cluster: MemoryCluster, name: str) -> Any:
    def make_adapter(directory: Directory) -> ClusterAdapter:
        bus = HeartbeatBus(MemoryBus(cluster, directory.name, name), directory.name)
        return ClusterAdapter(directory, bus, request_timeout=30.0)

    return make_adapter


async def test_with_heartbeats_a_server_that_falls_silent_is_gone_after_the_timeout() -> None:
    bus = MemoryCluster()
    async with open_servers(2, adapter=partial(with_heartbeats, bus)) as (one, two):
        two.on("question", lambda: "here")
        assert await one.adapter.server_count() == 2
        assert await one.server_side_emit_with_ack("question") == ["here"]

        bus.partition(["s0"], ["s1"])
        begun = trio.current_time()
        assert await one.timeout(60).server_side_emit_with_ack("question") == []
        assert 5 <= trio.current_time() - begun <= 15
        assert await one.adapter.server_count() == 1

        bus.heal()
        await trio.sleep(6)
        assert await one.adapter.server_count() == 2


async def test_with_heartbeats_a_server_that_says_goodbye_is_gone_at_once() -> None:
    make = partial(with_heartbeats, MemoryCluster())
    async with open_servers(1, adapter=make) as (io,):
        async with Server(adapter=make("leaving")).running():
            await settle()
            assert await io.adapter.server_count() == 2
        await settle()
        assert await io.adapter.server_count() == 1


@pytest.mark.parametrize(("interval", "timeout"), [(0, 1), (5, 5), (-1, 1)])
def test_heartbeats_have_times_that_go_together(interval: float, timeout: float) -> None:
    with pytest.raises(ValueError, match="do not go together"):
        HeartbeatBus(MemoryBus(MemoryCluster(), "/", "one"), "/", interval=interval, timeout=timeout)
