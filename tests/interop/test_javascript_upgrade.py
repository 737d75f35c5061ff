"""The upgrade from polling to WebSocket while messages are under way: none is lost, none overtakes another."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from .serving import MODES, record

if TYPE_CHECKING:
    from trio_socketio import Socket

    from ..js_client import Driver
    from .serving import Record, Served

COUNT = 400
CLIENTS = 4


@pytest.mark.parametrize("interval", [None, 0.001], ids=["at once", "one by one"])
async def test_upgrade_under_traffic_loses_and_reorders_nothing(
    js: Driver, served: Served, interval: float | None
) -> None:
    heard: dict[str, Record] = {}
    transports: set[str | None] = set()

    @served.io.on("connection")
    async def connected(socket: Socket) -> None:
        heard[socket.id] = record(socket, "up")
        socket.on("up", lambda number: transports.add(socket.conn.transport))
        for number in range(COUNT):
            transports.add(socket.conn.transport)
            await socket.emit("down", number)
            if interval is not None:
                await trio.sleep(interval)

    async def talk() -> None:
        # What is emitted before the connection waits in the client, so the traffic begins on polling.
        client = await js.open(served.url, transports=MODES["upgrade"])
        await client.bulk("up", COUNT, interval=interval)
        await client.wait_for("engine.upgrade")
        assert await client.wait_for_many("down", COUNT) == [(number,) for number in range(COUNT)]
        socket = await served.socket_of(client)
        assert await heard[socket.id].reach(COUNT) == [(number,) for number in range(COUNT)]

    async with trio.open_nursery() as nursery:
        for _ in range(CLIENTS):
            nursery.start_soon(talk)
    assert len(heard) == CLIENTS
    assert "polling" in transports
    assert interval is None or "websocket" in transports


async def test_binary_packets_stay_whole_across_the_upgrade(js: Driver, served: Served) -> None:
    @served.io.on("connection")
    async def connected(socket: Socket) -> None:
        for number in range(COUNT):
            await socket.emit("down", number, b"%d" % number, [b"second", b"%d" % number])
            await trio.sleep(0.0005)

    client = await js.open(served.url, transports=MODES["upgrade"])
    await client.wait_for("engine.upgrade")
    expected = [(number, b"%d" % number, [b"second", b"%d" % number]) for number in range(COUNT)]
    assert await client.wait_for_many("down", COUNT) == expected


async def test_acks_under_way_survive_the_upgrade(js: Driver, served: Served) -> None:
    slow = trio.Event()

    @served.io.on("connection")
    async def connected(socket: Socket) -> None:
        @socket.on("slow")
        async def answer(number: int) -> int:
            await slow.wait()
            return number * 2

    client = await js.open(served.url, transports=MODES["upgrade"])
    async with trio.open_nursery() as nursery:

        async def ask(number: int) -> None:
            assert await client.emit_with_ack("slow", number) == (number * 2,)

        for number in range(5):
            nursery.start_soon(ask, number)
        await client.wait_for("engine.upgrade")
        slow.set()
    assert (await client.state()).transport == "websocket"
