"""Compressed messages between the JavaScript client and our own listener: told by the bytes on the wire."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio

from trio_socketio import PerMessageDeflate, Server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio_socketio import Socket

    from ..js_client import Driver


class Counting(trio.abc.Stream):
    """A stream that counts the bytes in both directions."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self.received = self.sent = 0

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        data = bytes(await self._stream.receive_some(max_bytes))
        self.received += len(data)
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        self.sent += len(data)
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self._stream.aclose()


@asynccontextmanager
async def counted(io: Server) -> AsyncIterator[tuple[str, list[Counting]]]:
    """Serve; the address, and the connections so far."""
    streams: list[Counting] = []

    async def handle(stream: trio.SocketStream) -> None:
        streams.append(Counting(stream))
        await io.handle_stream(streams[-1])

    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with io.running(), trio.open_nursery() as nursery:
        await nursery.start(partial(trio.serve_listeners, handle, listeners))
        yield f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}", streams
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("transports", [["websocket"], ["polling", "websocket"]])
@pytest.mark.parametrize(
    ("on_the_server", "on_the_client"), [(True, True), (PerMessageDeflate(level=1), True), (False, True), (True, False)]
)
async def test_large_events_of_a_javascript_client_are_compressed_both_ways_if_both_sides_want_it(
    js: Driver, on_the_server: bool | PerMessageDeflate, on_the_client: bool, transports: list[str]
) -> None:
    io = Server(per_message_deflate=on_the_server)

    @io.on("connection")
    def connected(socket: Socket) -> None:
        @socket.on("echo")
        def echo(*args: Any) -> tuple[Any, ...]:
            return args

    args = ("text " * 20_000, "ünïcödé " * 5000, b"bytes" * 20_000, "small")
    size = sum(len(arg) for arg in args)
    async with counted(io) as (url, streams):
        client = await js.connect(url, transports=transports, perMessageDeflate=on_the_client and {"threshold": 1024})
        if "polling" in transports:
            await client.wait_for("engine.upgrade")
        assert await client.emit_with_ack("echo", *args) == args
        received, sent = (sum(stream.received for stream in streams), sum(stream.sent for stream in streams))
        if on_the_server and on_the_client:
            assert received < size / 20
            assert sent < size / 20
        else:
            assert received > size
            assert sent > size


async def test_a_broadcast_reaches_compressing_and_other_clients_alike(js: Driver) -> None:
    io = Server(per_message_deflate=True)
    text = "broadcast " * 10_000
    async with counted(io) as (url, streams):
        clients = [
            await js.connect(url, transports=["websocket"], perMessageDeflate=deflate)
            for deflate in ({"threshold": 1024}, False, {"threshold": 1024})
        ]
        await io.emit("news", text)
        await io.compress(False).emit("plain", text)
        for client in clients:
            assert await client.wait_for("news") == (text,)
            assert await client.wait_for("plain") == (text,)
        compressed, plain, _ = (stream.sent for stream in streams)
        assert len(text) < compressed < 1.2 * len(text)
        assert plain > 2 * len(text)
