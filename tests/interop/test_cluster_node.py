"""Servers of Node.js and of ours in one cluster: every operation, in both directions."""

from __future__ import annotations

import signal
import subprocess
import sys
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio

from trio_socketio import AckTimeout, RemoteSocket

from ..adapters.cluster_suite import KINDS, LIMIT, Place, eventually, until
from ..redis_server import RedisServer, unique, valkey_server
from . import cluster_victim
from .node_server import Protocol, start_node_server, talk_to

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from trio_socketio import AnySocket

    from ..adapters.cluster_suite import User
    from ..js_client import Client
    from .node_server import NodeServer

__all__ = ["valkey_server"]

BY_NAME = {kind.name: kind for kind in KINDS}

#: Milliseconds; none of these tests should have to wait for it, but for those that say so.
TIMEOUT = {"requestsTimeout": 700}

PROTOCOLS = [
    # One of each family comes first.
    Protocol(
        "classic-ioredis",
        BY_NAME["classic-specific"],
        "classic-ioredis",
        TIMEOUT | {"publishOnSpecificResponseChannel": True},
    ),
    Protocol("sharded-dynamic", BY_NAME["sharded-dynamic"], "sharded"),
    Protocol("streams-redis", BY_NAME["streams"], "streams-redis"),
    Protocol("classic-redis", BY_NAME["classic"], "classic-redis", TIMEOUT),
    Protocol("sharded-static", BY_NAME["sharded-static"], "sharded", {"subscriptionMode": "static"}),
    Protocol("sharded-private", BY_NAME["sharded-private"], "sharded", {"subscriptionMode": "dynamic-private"}),
    Protocol("streams-ioredis", BY_NAME["streams"], "streams-ioredis"),
    Protocol(
        "streams-several", BY_NAME["streams-several"], "streams-redis", {"streamCount": 5, "useShardedPubSub": True}
    ),
]

#: For what takes long, and does not depend on more: the processes are those of all other tests.
each_family = pytest.mark.parametrize(
    "running", PROTOCOLS[:3], ids=[protocol.name for protocol in PROTOCOLS[:3]], indirect=True, scope="module"
)

DATA = [1, "zwei ☃", 2.5, None, True, {"a": [{"b": -1}]}]
BYTES = [b"\x00\xff", {"nested": [b"more"]}]


class Running:
    """A Node.js process that several tests use."""

    def __init__(self, protocol: Protocol, url: str, prefix: str, process: subprocess.Popen[bytes]) -> None:
        self.protocol = protocol
        self.process = process
        self.url = url
        self.place = Place(protocol.kind, url, prefix)
        self.has_read = False


@pytest.fixture(scope="module", params=PROTOCOLS, ids=[protocol.name for protocol in PROTOCOLS])
def running(request: pytest.FixtureRequest, node: str, valkey_server: RedisServer) -> Iterator[Running]:
    protocol: Protocol = request.param
    prefix = unique("interop")
    with start_node_server(protocol, valkey_server.url, prefix) as process:
        yield Running(protocol, valkey_server.url, prefix, process)


class Both:
    """A server of each kind, with a client each.

    Attributes:
        node: The one in Node.js.
        node_client: Its client.
        node_id: The id of that client's socket.
        ours: Our client, with its socket and server.
    """

    def __init__(self, node: NodeServer, node_client: Client, node_id: str, ours: User) -> None:
        self.node = node
        self.node_client = node_client
        self.node_id = node_id
        self.ours = ours

    @property
    def io(self) -> Any:
        return self.ours.io

    @property
    def our_id(self) -> str:
        return self.ours.socket.id

    async def node_heard(self) -> list[list[Any]]:
        """What its client has heard, until an event that we emit now."""
        last = unique("end")
        await self.io.emit(last)
        await self.node_client.wait_for(last)
        assert await self.ours.hear_until(last) == []
        known = ("connect", "disconnect")
        return [[event.name, *event.args] for event in self.node_client.events if event.name not in (*known, last)]

    async def we_heard(self) -> list[list[Any]]:
        """What our client has heard, until an event that the other server emits now."""
        last = unique("end")
        await self.node.emit(last)
        return await self.ours.hear_until(last)


@asynccontextmanager
async def both_in(running: Running) -> AsyncIterator[Both]:
    async with talk_to(running.process) as node, running.place.crowd("ours") as (ours,):
        client = await node.user()
        both = Both(node, client, await node.id_of(client), ours)
        if not running.has_read:
            await wait_until_it_reads(both)
            running.has_read = True
        yield both


async def wait_until_it_reads(both: Both) -> None:
    """A server in Node.js reads a stream from wherever that ends whenever it asks, until it has read something."""

    async def has_read() -> bool:
        await both.io.to(both.node_id).sockets_join("warm")
        return "warm" in await both.node.rooms_of(both.node_client)

    await eventually(has_read)
    await both.io.sockets_leave("warm")
    await eventually(lambda: in_rooms(both, set()))


# Broadcasts


@pytest.mark.parametrize("args", [DATA, BYTES, []], ids=["data", "bytes", "nothing"])
async def test_broadcasts_arrive_with_all_that_is_in_them(running: Running, args: list[Any]) -> None:
    async with both_in(running) as both:
        await both.io.emit("hello", *args)
        assert await both.node_client.wait_for("hello") == tuple(args)
        assert await both.ours.hear() == ["hello", *args]
        await both.node.emit("hello", *args)
        assert await both.ours.hear() == ["hello", *args]
        assert await both.node_client.wait_for("hello") == tuple(args)


async def test_rooms_exceptions_and_local_broadcasts_are_respected(running: Running) -> None:
    async with both_in(running) as both:
        await both.io.sockets_join(["a", "b"])
        await eventually(lambda: in_rooms(both, {"a", "b"}))
        await settled(both, "a")
        await both.node.call("io.socketsJoin", target={"rooms": [both.our_id]}, rooms=["c"])
        await until(lambda: "c" in both.ours.socket.rooms)

        await both.io.to("a").emit("room")
        await both.io.to(["a", "b", "c"]).emit("once")
        await both.io.to("a").except_(both.node_id).emit("not you")
        await both.io.to(both.node_id).emit("you")
        await both.io.local.emit("local")
        await both.ours.socket.broadcast.emit("others")
        assert [await both.ours.hear() for _ in range(4)] == [["room"], ["once"], ["not you"], ["local"]]
        assert await both.node_heard() == [["warm"], ["room"], ["once"], ["you"], ["others"]]

        await both.node.emit("room", rooms=["a"])
        await both.node.emit("once", rooms=["a", "b", "c"])
        await both.node.emit("not you", rooms=["a"], **{"except": ["c"]})
        await both.node.emit("you", rooms=[both.our_id])
        await both.node.emit("local", local=True)
        assert await both.we_heard() == [["room"], ["once"], ["you"]]


async def in_rooms(both: Both, rooms: set[str]) -> bool:
    return await both.node.rooms_of(both.node_client) == rooms


async def settled(both: Both, room: str) -> None:
    """Servers in Node.js do not wait until they have subscribed a room: wait until something arrives there."""

    def arrived() -> bool:
        return any(event.name == "warm" for event in both.node_client.events)

    with trio.fail_after(LIMIT):
        while not arrived():
            await both.io.to(room).except_(both.our_id).emit("warm")
            with trio.move_on_after(0.05):
                await both.node_client.wait_for("warm")


async def test_another_namespace_is_another_cluster(running: Running) -> None:
    async with both_in(running) as both:
        await both.node.call("of", namespace="/news")
        both.io.of("/news")
        reader = await both.ours.member.connect("/news")
        node_reader = await both.node.connect(both.node.url, "/news", transports=["websocket"])
        await eventually(lambda: counts(both, "/news", 2))
        await both.io.of("/news").emit("ours")
        assert await node_reader.wait_for("ours") == ()
        assert await reader.hear() == ["ours"]
        await both.node.emit("theirs", namespace="/news")
        assert await reader.hear() == ["theirs"]
        assert await both.we_heard() == []


async def counts(both: Both, namespace: str, count: int) -> bool:
    return bool(await both.io.of(namespace).adapter.server_count() == count)


# Acknowledgements


@pytest.mark.parametrize("value", [{"a": 1}, b"\x01\x02", None], ids=["data", "bytes", "null"])
async def test_the_answers_of_all_clients_are_collected(running: Running, value: Any) -> None:
    async with both_in(running) as both, trio.open_nursery() as nursery:
        await both.node_client.reply("ask", value)
        nursery.start_soon(both.ours.reply, "ours")
        assert await both.io.timeout(LIMIT).emit_with_ack("ask", b"?") in ([value, "ours"], ["ours", value])
        nursery.start_soon(both.ours.reply, value)
        answers, error = await both.node.emit_with_ack("ask", timeout=3000)
        assert (sorted(map(repr, answers)), error) == (sorted([repr(value)] * 2), None)


async def test_late_answers_are_missing(running: Running) -> None:
    async with both_in(running) as both, trio.open_nursery() as nursery:
        nursery.start_soon(both.ours.reply, "ours")
        with pytest.raises(AckTimeout) as caught:
            await both.io.timeout(0.2).emit_with_ack("ask")
        assert (caught.value.responses, caught.value.missing) == (["ours"], 1)
        await both.node_client.reply("ask", "theirs")
        answers, error = await both.node.emit_with_ack("ask", timeout=200)
        assert (answers, error) == (["theirs"], "operation has timed out")
        assert await both.ours.hear() == ["ask"]


async def test_a_client_that_goes_is_missing(running: Running) -> None:
    async with both_in(running) as both, trio.open_nursery() as nursery:
        await both.node_client.reply("ask", "theirs")

        async def leave() -> None:
            assert await both.ours.hear() == ["ask"]
            await both.ours.client.disconnect()

        nursery.start_soon(leave)
        answers, error = await both.node.emit_with_ack("ask", timeout=150)
        assert (answers, error) == (["theirs"], "operation has timed out")


async def test_nobody_asked_means_no_answers(running: Running) -> None:
    async with both_in(running) as both:
        assert await both.io.to("empty").timeout(LIMIT).emit_with_ack("ask") == []
        assert await both.node.emit_with_ack("ask", rooms=["empty"], timeout=3000) == ([], None)


# What is done to sockets


async def test_sockets_join_and_leave_rooms_from_either_side(running: Running) -> None:
    async with both_in(running) as both:
        await both.node.call("io.socketsJoin", target={}, rooms=["a", "b"])
        await until(lambda: set(both.ours.socket.rooms) == {both.our_id, "a", "b"})
        await eventually(lambda: in_rooms(both, {"a", "b"}))
        await both.io.to("a").sockets_leave("b")
        await eventually(lambda: in_rooms(both, {"a"}))
        await both.node.call("io.socketsLeave", target={"rooms": ["a"], "except": [both.node_id]}, rooms=["a"])
        await until(lambda: set(both.ours.socket.rooms) == {both.our_id})
        await both.io.to(both.node_id).sockets_join("c", wait=True)  # there is nobody who would confirm it
        await eventually(lambda: in_rooms(both, {"a", "c"}))


@pytest.mark.parametrize("close", [False, True])
async def test_sockets_are_disconnected_from_either_side(running: Running, close: bool) -> None:
    async with both_in(running) as both:
        await both.io.to(both.node_id).emit("bye")
        await both.io.to(both.node_id).disconnect_sockets(close)
        assert (await both.node_client.wait_for("disconnect"))[0] in ("io server disconnect", "transport close")
        assert both.node_client.events[-2].name == "bye"
        await both.node.emit("bye", rooms=[both.our_id])
        await both.node.call("io.disconnectSockets", target={"rooms": [both.our_id]}, close=close)
        assert await both.ours.hear() == ["bye"]
        await until(lambda: not both.ours.socket.connected)


async def test_sockets_are_found_with_what_is_known_of_them(running: Running) -> None:
    async with both_in(running) as both:
        both.ours.socket.data = {"name": "bob", "list": [1, None]}
        await both.ours.socket.join("room")
        found = {details["id"]: details for details in await both.node.fetch_sockets()}
        assert set(found) == {both.our_id, both.node_id}
        ours = found[both.our_id]
        assert (ours["data"], set(ours["rooms"])) == ({"name": "bob", "list": [1, None]}, {both.our_id, "room"})
        assert set(ours["handshake"]) == set(found[both.node_id]["handshake"])
        assert ours["handshake"]["issued"] == round(both.ours.socket.handshake.issued * 1000)
        assert [details["id"] for details in await both.node.fetch_sockets(rooms=["room"])] == [both.our_id]
        assert [details["id"] for details in await both.node.fetch_sockets(local=True)] == [both.node_id]

        theirs = await the_remote(both, len(found))
        assert theirs.data == {"node": True}
        assert theirs.rooms == {both.node_id}
        assert theirs.handshake.query["EIO"] == "4"
        assert theirs.handshake.headers["host"] in both.node.url
        assert [socket.id for socket in await both.io.local.fetch_sockets()] == [both.our_id]


async def the_remote(both: Both, count: int) -> RemoteSocket:
    found: list[AnySocket] = await both.io.fetch_sockets()
    assert len(found) == count
    (remote,) = (socket for socket in found if isinstance(socket, RemoteSocket))
    assert remote.id == both.node_id
    return remote


async def test_a_remote_socket_can_be_used_from_either_side(running: Running) -> None:
    async with both_in(running) as both, trio.open_nursery() as nursery:
        theirs = await the_remote(both, 2)
        await theirs.emit("hi", 1)
        assert await both.node_client.wait_for("hi") == (1,)
        await both.node_client.reply("ask", "theirs")
        assert await theirs.timeout(LIMIT).emit_with_ack("ask") == "theirs"
        await theirs.join("a")
        await eventually(lambda: in_rooms(both, {"a"}))
        await theirs.leave("a")
        await eventually(lambda: in_rooms(both, set()))

        ours = {"rooms": [both.our_id]}
        await both.node.call("remote.emit", target=ours, event="hi", args=[2])
        assert await both.ours.hear() == ["hi", 2]
        nursery.start_soon(both.ours.reply, "ours")
        assert await both.node.call("remote.emitWithAck", target=ours, event="ask", args=[], timeout=3000) == "ours"
        await both.node.call("remote.join", target=ours, rooms=["b", "c"])
        await until(lambda: set(both.ours.socket.rooms) == {both.our_id, "b", "c"})
        await both.node.call("remote.leave", target=ours, room="b")
        await until(lambda: set(both.ours.socket.rooms) == {both.our_id, "c"})

        await theirs.disconnect()
        assert (await both.node_client.wait_for("disconnect"))[0] == "io server disconnect"
        await both.node.call("remote.disconnect", target=ours, close=True)
        await until(lambda: not both.ours.socket.connected)


# Servers among themselves


@pytest.mark.parametrize("args", [DATA, BYTES], ids=["data", "bytes"])
async def test_servers_emit_to_each_other_and_not_to_themselves(running: Running, args: list[Any]) -> None:
    async with both_in(running) as both:
        calls: list[Any] = []
        both.io.on("event", lambda *args: calls.append(args))
        await both.node.listen("event")
        await both.io.server_side_emit("event", *args)
        await both.node.call("io.serverSideEmit", event="event", args=[3, {"x": "y"}])
        await until(lambda: calls)
        assert calls == [(3, {"x": "y"})]
        noted: list[Any] = []

        async def has_seen() -> bool:
            noted.extend(await both.node.seen())
            return bool(noted)

        await eventually(has_seen)
        assert noted == [["event", *args]]


@pytest.mark.parametrize("answer", [{"r": 7}, [1, "zwei"]], ids=["object", "array"])
async def test_servers_answer_each_other(running: Running, answer: Any) -> None:
    async with both_in(running) as both:
        both.io.on("ask", lambda number: {"ours": number})
        await both.node.listen("ask", answer)
        assert await both.io.server_side_emit_with_ack("ask", 1) == [answer]
        assert await both.node.server_side_emit_with_ack("ask", 2) == ([{"ours": 2}], None)


async def test_a_silent_server_in_node_is_named(running: Running) -> None:
    async with both_in(running) as both:
        await both.node.listen("ask")
        with pytest.raises(AckTimeout) as caught:
            await both.io.timeout(0.15).server_side_emit_with_ack("ask")
        assert len(caught.value.servers) == 1
        assert caught.value.servers[0] in await both.io.sockets.adapter.bus.members()


async def test_rooms_of_all_servers_are_found(running: Running) -> None:
    if not running.protocol.kind.has_all_rooms:
        pytest.skip("this protocol has no message for it")
    async with both_in(running) as both:
        await both.ours.socket.join("room")
        everything = {both.our_id, both.node_id, "room"}
        assert set(await both.node.call("io.allRooms")) == everything
        assert await both.io.sockets.adapter.all_rooms() == everything


async def test_servers_are_counted_and_named(running: Running) -> None:
    async with talk_to(running.process) as node:
        assert await node.server_count() == 1
        async with running.place.joined("ours", "other") as (ours, _):
            assert await node.server_count() == 3
            assert await ours.adapter.server_count() == 3
            members = await ours.adapter.bus.members()
            assert members is not None
            assert len(members) == 2
            assert await ours.adapter.bus.peers() == {"other"}
        await eventually(lambda: are(node, 1))


async def are(node: NodeServer, count: int) -> bool:
    return await node.server_count() == count


# Ends


@asynccontextmanager
async def victims_in(running: Running, *names: str) -> AsyncIterator[list[subprocess.Popen[bytes]]]:
    """Servers of ours, each in a process of its own."""
    root = Path(__file__).parent.parent.parent
    pipe = subprocess.PIPE
    with ExitStack() as stack:
        processes = []
        for name in names:
            arguments = (running.protocol.kind.name, running.url, running.place.prefix, name)
            command = [sys.executable, "-m", cluster_victim.__name__, *arguments]
            # Not Trio's: a process that was killed is waited for when the test's own time may be over.
            process = stack.enter_context(subprocess.Popen(command, stdin=pipe, stdout=pipe, cwd=root))  # noqa: ASYNC220
            stack.callback(process.kill)
            processes.append(process)
        for process in processes:
            assert process.stdout is not None
            assert await trio.to_thread.run_sync(process.stdout.readline) == b"ready\n"
        yield processes


async def assert_healthy(node: NodeServer) -> None:
    """Nothing waits for a server that is not there any more."""
    await eventually(lambda: are(node, 1))
    client = await node.user()
    await client.reply("ask", 1)
    with trio.fail_after(LIMIT):
        assert len(await node.fetch_sockets()) == 1
        assert await node.server_side_emit_with_ack("ask") == ([], None)
        assert await node.emit_with_ack("ask", timeout=3000) == ([1], None)


@each_family
@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGSTOP")
async def test_node_stays_healthy_when_servers_of_ours_freeze_die_or_stop(running: Running) -> None:
    async with talk_to(running.process) as node, victims_in(running, "killed", "stopped") as (killed, stopped):

        async def answers(*names: str) -> bool:
            found, error = await node.server_side_emit_with_ack("ask")
            return (sorted(found), error) == (list(names), None)

        assert await answers("killed", "stopped")
        killed.send_signal(signal.SIGSTOP)
        client = await node.user()
        assert await node.emit_with_ack("ask", rooms=["empty"], timeout=100) == ([], "operation has timed out")
        await node.emit("hello")
        assert await client.wait_for("hello") == ()
        await client.disconnect()
        killed.send_signal(signal.SIGCONT)
        assert await answers("killed", "stopped")
        killed.kill()
        await eventually(lambda: are(node, 2))
        assert await answers("stopped")
        assert stopped.stdin is not None
        stopped.stdin.close()
        await assert_healthy(node)
