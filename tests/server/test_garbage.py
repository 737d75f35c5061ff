"""What a client leaves behind is freed when it goes, and does not wait for the garbage collector."""

from __future__ import annotations

import gc
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio

from trio_socketio import ConnectionRefused, Server
from trio_socketio.testing import open_client

from ..wire_client import settle
from .support import check_empty

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trio_socketio import Socket
    from trio_socketio.testing import MemoryClient

#: What holds everything else that belongs to a client.
HOLDERS = ("Session", "Connection", "Socket", "EventQueue", "Lane", "LaneWebSocket", "HttpConnection", "Outbox")


@contextmanager
def collecting() -> Iterator[Counter[str]]:
    """How many of them the collector found, at the end."""
    found: Counter[str] = Counter()
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        yield found
        gc.collect()
        kinds = [type(leftover) for leftover in gc.garbage]
        found.update(
            kind.__name__
            for kind in kinds
            if kind.__name__ in HOLDERS and kind.__module__.startswith("trio_socketio._")
        )
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


def make_server(recovery: bool) -> Server:
    io = Server(cors="*", connection_state_recovery=recovery)

    @io.on("connection")
    async def connected(socket: Socket) -> None:
        await socket.join("room")

        @socket.on("echo")
        async def echo(value: Any) -> Any:
            await socket.emit("echo", value)
            await io.to("room").emit("all", value)
            return value

        @socket.on("ask")
        async def ask() -> None:
            await socket.emit_with_ack("never answered")

        socket.start_soon(trio.sleep_forever)

    @io.handle("disconnect")
    async def gone(socket: Socket) -> None:
        await trio.lowlevel.checkpoint()

    @io.of("/closed").use
    async def refuse(socket: Socket) -> None:
        raise ConnectionRefused("closed")

    return io


async def talk(client: MemoryClient) -> None:
    assert await client.emit_with_ack("echo", b"bytes") == b"bytes"
    await client.emit("ask")
    await settle()
    client.receive_all_nowait()
    with pytest.raises(Exception, match="closed"):
        await client.of("/closed")


@pytest.mark.parametrize("ending", ["disconnect", "close", "drop", "server", "session"])
@pytest.mark.parametrize("way", ["websocket", "polling", "upgrade"])
@pytest.mark.parametrize("recovery", [False, True])
async def test_nothing_of_a_client_that_has_gone_waits_for_the_collector(way: str, ending: str, recovery: bool) -> None:
    io = make_server(recovery)
    options: Any = {"transport": "websocket" if way == "websocket" else "polling", "upgrade": way == "upgrade"}
    async with io.running():

        async def visit() -> None:
            async with open_client(io, **options) as client:
                await talk(client)
                if ending in ("server", "session"):
                    await io.sockets.sockets[client.id].disconnect(close=ending == "session")
                else:
                    await getattr(client, ending)()
                await settle()

        await visit()
        await check_empty(io)
        with collecting() as found:
            for _ in range(3):
                await visit()
            await check_empty(io)
        assert not found
