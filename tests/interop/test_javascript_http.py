"""What HTTP itself does for the JavaScript client: compressed polls, and the client's own files."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from trio_socketio import Server
from trio_socketio._server.client_files import CONTENT_TYPES

from ..js_client import PROJECT
from ..wire_http import Exchange
from .serving import HOST, record

if TYPE_CHECKING:
    from ..js_client import Driver
    from ..wire_http import HttpResponse
    from .serving import Serve, Served

CLIENT = PROJECT / "node_modules" / "socket.io-client" / "dist"
TEXT = "snow ☃ 日本語 " * 20_000


async def request(served: Served, method: str, target: str, **headers: str) -> HttpResponse:
    """Ask on a connection of its own."""
    exchange = Exchange(await trio.open_tcp_stream(HOST, served.port))
    lines = {name.replace("_", "-"): value for name, value in headers.items()}
    await exchange.ask(method, target, {"host": f"{HOST}:{served.port}", **lines})
    response = await exchange.response()
    await exchange.drop()
    return response


async def test_long_answers_to_polls_are_compressed_and_understood(js: Driver, serve: Serve) -> None:
    io = Server()
    codings: list[str | None] = []
    io.engine.on("headers", lambda headers, request: codings.append(headers.get("content-encoding")))
    served = await serve(io)
    client = await js.connect(served.url, transports=["fetch"])
    socket = await served.socket_of(client)
    heard = record(socket, "up")
    await client.echo("down")

    for args in [(TEXT,), (TEXT, b"\x00\xff" * 50_000, {"deep": [b"x" * 5_000]}), ("short",)]:
        assert await socket.emit_with_ack("down", *args) == (args[0] if len(args) == 1 else args)
        await client.emit("up", *args)
    assert [len(args) for args in await heard.reach(3)] == [1, 3, 1]
    assert socket.conn.transport == "polling"
    assert codings.count("gzip") == 2


async def test_client_that_does_not_ask_for_compression_gets_none(js: Driver, serve: Serve) -> None:
    io = Server()
    codings: list[str | None] = []
    io.engine.on("headers", lambda headers, request: codings.append(headers.get("content-encoding")))
    served = await serve(io)
    client, socket = await served.pair(js, "polling")
    await socket.emit("down", TEXT)
    assert await client.wait_for("down") == (TEXT,)
    assert codings
    assert set(codings) == {None}


@pytest.mark.js
@pytest.mark.skipif(not CLIENT.is_dir(), reason="socket.io-client is not installed")
async def test_files_of_the_client_are_served_byte_for_byte(serve: Serve) -> None:
    served = await serve(Server(serve_client=CLIENT))
    for name in CONTENT_TYPES:
        file = (CLIENT / name).read_bytes()
        plain = await request(served, "GET", f"/socket.io/{name}?buster=1")
        assert (plain.status, plain.body) == (200, file)
        packed = await request(served, "GET", f"/socket.io/{name}", accept_encoding="gzip, deflate, br")
        assert gzip.decompress(packed.body) == file
        assert packed.headers["content-encoding"] == "gzip"
        head = await request(served, "HEAD", f"/socket.io/{name}")
        assert (head.status, head.body, head.headers["content-length"]) == (200, b"", str(len(file)))
        same = await request(served, "GET", f"/socket.io/{name}", if_none_match=f"W/{plain.headers['etag']}")
        assert (same.status, same.body) == (304, b"")


async def test_file_that_is_not_the_clients_is_400(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "socket.io.js").write_text("x")
    served = await serve(Server(serve_client=tmp_path))
    for name in ("socket.io.esm.js", "socket.io.min.js", "%2e%2e/socket.io.js"):
        assert (await request(served, "GET", f"/socket.io/{name}")).status == 400
    assert (await request(served, "GET", "/socket.io.js")).status == 404
