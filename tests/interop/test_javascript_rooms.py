"""Broadcasts, rooms and the operations on many sockets, with several JavaScript clients on different transports."""

from __future__ import annotations

from itertools import cycle
from typing import TYPE_CHECKING, Any

import pytest
import trio

from trio_socketio import AckTimeout, ServerStatistics

from .serving import MODES, Record, until

if TYPE_CHECKING:
    from trio_socketio import Socket

    from ..js_client import Client, Driver
    from .serving import Served

CROWD = 4


class Crowd:
    """Clients on all kinds of transports, and the server's ends of them."""

    def __init__(self, served: Served) -> None:
        self.served = served
        self.clients: list[Client] = []
        self.sockets: list[Socket] = []

    async def gather(self, js: Driver, size: int) -> None:
        for _, mode in zip(range(size), cycle(MODES), strict=False):
            client, socket = await self.served.pair(js, mode)
            self.clients.append(client)
            self.sockets.append(socket)

    async def heard(self, event: str) -> list[list[tuple[Any, ...]]]:
        """What each of them has got of an event so far: whatever was sent before this call has arrived."""
        await self.served.io.emit("so far")
        for client in self.clients:
            await client.wait_for("so far")
        return [[entry.args for entry in client.events if entry.name == event] for client in self.clients]


@pytest.fixture
async def crowd(js: Driver, served: Served) -> Crowd:
    crowd = Crowd(served)
    await crowd.gather(js, CROWD)
    return crowd


async def test_broadcast_is_the_same_on_every_transport(crowd: Crowd) -> None:
    args = ("é", {"deep": [b"\x00\x01", 1.5]}, b"")
    await crowd.served.io.emit("news", *args)
    assert await crowd.heard("news") == [[args]] * CROWD


async def test_rooms_add_up_and_each_socket_gets_one_copy(crowd: Crowd) -> None:
    io, (a, b, c, _) = crowd.served.io, crowd.sockets
    await a.join("x")
    await b.join(["x", "y"])
    await c.join("y")
    await io.to("x").to("y").emit("news", "x or y")
    await io.to("x").except_("y").emit("news", "x but not y")
    await io.except_(["x", "nobody"]).emit("news", "not x")
    await b.leave("x")
    await io.in_("x").emit("news", "x")
    await io.to(b.id).emit("news", "b")
    await io.to("nobody").emit("news", "never")
    assert await crowd.heard("news") == [
        [("x or y",), ("x but not y",), ("x",)],
        [("x or y",), ("b",)],
        [("x or y",), ("not x",)],
        [("not x",)],
    ]


async def test_broadcast_of_a_socket_leaves_it_out(crowd: Crowd) -> None:
    a, b, c, d = crowd.sockets
    for socket in (a, b, c):
        await socket.join("x")
    await a.broadcast.emit("news", "all others")
    await a.to("x").emit("news", "others in x")
    await a.except_(b.id).emit("news", "neither a nor b")
    await d.to("x").emit("news", "d to x")
    assert await crowd.heard("news") == [
        [("d to x",)],
        [("all others",), ("others in x",), ("d to x",)],
        [("all others",), ("others in x",), ("neither a nor b",), ("d to x",)],
        [("all others",), ("neither a nor b",)],
    ]


async def test_volatile_broadcast_reaches_those_who_are_ready(crowd: Crowd) -> None:
    await until(lambda: all(socket.conn.writable for socket in crowd.sockets), "writable")
    await crowd.served.io.volatile.emit("news", b"x")
    assert await crowd.heard("news") == [[(b"x",)]] * CROWD


async def test_broadcast_collects_an_ack_of_everybody(crowd: Crowd) -> None:
    for number, client in enumerate(crowd.clients):
        await client.reply("question", number, bytes([number]))
    replies = await crowd.served.io.timeout(5).emit_with_ack("question", "how many?")
    assert sorted(replies) == [(number, bytes([number])) for number in range(CROWD)]
    assert await crowd.served.io.to("nobody").timeout(5).emit_with_ack("question") == []


async def test_silent_client_leaves_the_answers_of_the_others(crowd: Crowd) -> None:
    for number, client in enumerate(crowd.clients[1:], 1):
        await client.reply("question", number)
    with pytest.raises(AckTimeout) as caught:
        await crowd.served.io.timeout(0.5).emit_with_ack("question")
    assert (sorted(caught.value.responses), caught.value.missing) == ([1, 2, 3], 1)
    assert crowd.served.io.statistics().pending_acks == 0


async def test_answers_stream_in_and_nobody_waits_for_one_who_leaves(crowd: Crowd) -> None:
    silent, *others = crowd.clients
    for number, client in enumerate(others, 1):
        await client.reply("question", number)
    seen = []
    async with crowd.served.io.timeout(20).acks("question") as replies:
        async for reply in replies:
            seen.append(reply)
            if len(seen) == len(others):
                await silent.disconnect()
    assert sorted(seen) == [1, 2, 3]


async def test_many_sockets_are_fetched_moved_and_disconnected_at_once(crowd: Crowd) -> None:
    io, (a, b, c, d) = crowd.served.io, crowd.sockets
    assert {socket.id for socket in await io.fetch_sockets()} == {a.id, b.id, c.id, d.id}
    await io.to([a.id, b.id]).sockets_join(["x", "y"])
    await io.in_("x").except_(b.id).sockets_leave("y")
    assert a.rooms == {a.id, "x"}
    assert b.rooms == {b.id, "x", "y"}
    assert [socket.id for socket in await io.in_("y").fetch_sockets()] == [b.id]

    reasons = Record()
    for socket in crowd.sockets:
        socket.on("disconnect", reasons.add)
    await io.in_("x").disconnect_sockets()
    assert [reason for reason, _ in reasons] == ["server namespace disconnect"] * 2
    for client in crowd.clients[:2]:
        reason, _ = await client.wait_for("disconnect")
        assert reason == "io server disconnect"
    assert {socket.id for socket in await io.fetch_sockets()} == {c.id, d.id}


async def test_hundred_clients_that_come_and_go_leave_nothing(js: Driver, served: Served) -> None:
    chat = served.io.of("/chat")
    reasons = Record()

    @chat.on("connection")
    async def connected(socket: Socket) -> None:
        await socket.join("lobby")
        socket.on("disconnect", reasons.add)
        await chat.to("lobby").emit("joined")

    async def come_and_go(number: int) -> None:
        client = await js.connect(served.url, "/chat", transports=MODES[modes[number % 3]])
        await client.emit("hello", b"x")
        await (client.close_engine if number % 5 == 0 else client.disconnect)()

    modes = list(MODES)
    for batch in range(0, 100, 20):
        async with trio.open_nursery() as nursery:
            for number in range(batch, batch + 20):
                nursery.start_soon(come_and_go, number)
    await served.empty()
    assert served.io.statistics() == ServerStatistics()
    assert len(reasons) == 100
    assert {reason for reason, _ in reasons} <= {"client namespace disconnect", "transport close", "transport error"}
