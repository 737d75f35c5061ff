"""`Server.handle_websocket` inside an application's own trio-websocket server.

Where handshakes, frames and the ends of connections matter, the client is one of trio-websocket's.
"""

from __future__ import annotations

import json
import logging
import ssl
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import pytest
import trio
import trio.testing
import trustme
from trio_websocket import (
    ConnectionClosed,
    ConnectionRejected,
    serve_websocket,
    wrap_client_stream,
    wrap_server_stream,
)

from trio_socketio import Headers, Server, ServerStatistics
from trio_socketio._errors import plain_exceptions
from trio_socketio.engineio import Engine
from trio_socketio.testing import open_client_at

from ..wire_client import open_app, settle

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio_websocket import WebSocketConnection, WebSocketRequest

    from trio_socketio import Socket
    from trio_socketio.engineio import Session

    from ..js_client import Driver

HOST = "127.0.0.1"
TARGET = "/socket.io/?EIO=4&transport=websocket"
PATIENCE = 8.0


@asynccontextmanager
async def embedded(app: Any, handler: Any = None, **options: Any) -> AsyncIterator[int]:
    """The application on a real trio-websocket server; the port. Nothing may be left of it afterwards."""
    async with trio.open_nursery() as nursery, app.running():
        serve = partial(serve_websocket, handler or app.handle_websocket, HOST, 0, options.pop("tls", None), **options)
        server = await nursery.start(serve)
        with trio.fail_after(PATIENCE):
            yield server.port
            if isinstance(app, Server):
                while app.statistics() != ServerStatistics():  # noqa: ASYNC110 - it has no event for its emptiness
                    await trio.sleep(0.01)
        nursery.cancel_scope.cancel()


def url(port: int) -> str:
    return f"http://{HOST}:{port}"


class Refusal(NamedTuple):
    status: int
    headers: dict[bytes, bytes]
    body: bytes


@asynccontextmanager
async def open_websocket(
    port: int, target: str = TARGET, *, tls: ssl.SSLContext | None = None, **options: Any
) -> AsyncIterator[WebSocketConnection]:
    """A real client, whose socket is closed afterwards however the server has answered."""
    tcp = await trio.open_tcp_stream(HOST, port)
    stream = tcp if tls is None else trio.SSLStream(tcp, tls, server_hostname=HOST, https_compatible=True)
    try:
        with plain_exceptions():
            async with trio.open_nursery() as nursery:
                websocket = await wrap_client_stream(nursery, stream, f"{HOST}:{port}", target, **options)
                yield websocket
                await websocket.aclose()
                nursery.cancel_scope.cancel()
    finally:
        await trio.aclose_forcefully(stream)


async def refused(port: int, target: str = TARGET, **options: Any) -> Refusal:
    with pytest.raises(ConnectionRejected) as caught:
        async with open_websocket(port, target, **options):
            pass
    error = caught.value
    return Refusal(error.status_code, dict(error.headers), error.body or b"")


async def connect(websocket: WebSocketConnection) -> str:
    """Say CONNECT to the main namespace; the id of the socket."""
    assert str(await websocket.get_message()).startswith('0{"sid":')
    await websocket.send_message("40")
    answer = str(await websocket.get_message())
    return str(json.loads(answer[2:])["sid"])


class Link(NamedTuple):
    """A client in memory, on whatever clock there is."""

    websocket: WebSocketConnection
    ours: Any
    theirs: Any
    served: trio.Event


async def link(
    nursery: trio.Nursery, app: Any, target: str = TARGET, *, reader: trio.Nursery | None = None, **options: Any
) -> Link:
    """Connect both ends of trio-websocket through memory; the server's end is the application's."""
    ours, theirs = trio.testing.memory_stream_pair()
    served = trio.Event()

    async def serve() -> None:
        async with trio.open_nursery() as inner:
            request = await wrap_server_stream(inner, theirs, **options)
            await app.handle_websocket(request)
            served.set()
            inner.cancel_scope.cancel()

    nursery.start_soon(serve)
    websocket = await wrap_client_stream(reader or nursery, cast("Any", ours), "example.com", target)
    return Link(websocket, ours, theirs, served)


def note_ends(io: Server) -> list[tuple[str, Any]]:
    ends: list[tuple[str, Any]] = []

    @io.on("connection")
    def connected(socket: Socket) -> None:
        socket.on("disconnect", lambda reason, description: ends.append((reason, description)))

    return ends


# On the wire


async def test_events_attachments_and_acks_go_both_ways() -> None:
    io = Server()

    @io.on("connection")
    def connected(socket: Socket) -> None:
        @socket.on("echo")
        async def echo(*args: Any) -> tuple[Any, ...]:
            await socket.emit("echo", *args)
            return args

    async with embedded(io) as port, open_client_at(url(port)) as client:
        (socket,) = io.sockets.sockets.values()
        assert (socket.id, socket.handshake.address, socket.handshake.secure) == (client.id, HOST, False)
        assert socket.handshake.query == {"EIO": "4", "transport": "websocket"}
        assert socket.handshake.headers["host"] == f"{HOST}:{port}"

        assert await client.emit_with_ack("echo", "é", b"\x00\xff") == ("é", b"\x00\xff")
        assert await client.receive() == ("echo", "é", b"\x00\xff")
        assert [packet.data for packet in client.wire][-4:] == [
            '451-["echo","é",{"_placeholder":true,"num":0}]',
            b"\x00\xff",
            '461-0["é",{"_placeholder":true,"num":0}]',
            b"\x00\xff",
        ]


async def test_the_applications_own_paths_stay_its_own() -> None:
    io = Server()

    async def handler(request: WebSocketRequest) -> None:
        if request.path == "/echo":
            websocket = await request.accept()
            await websocket.send_message(await websocket.get_message())
        else:
            await io.handle_websocket(request)

    async with embedded(io, handler) as port:
        async with open_websocket(port, "/echo") as websocket:
            await websocket.send_message("mine")
            assert await websocket.get_message() == "mine"
        async with open_client_at(url(port)) as client:
            assert client.id in io.sockets.sockets


async def test_a_path_of_nobody_is_rejected_with_a_hint() -> None:
    async with embedded(Server()) as port:
        answer = await refused(port, "/elsewhere")

    assert answer.status == 404
    assert b"compare the `path` options" in answer.body
    assert answer.body.count(b"\n") == 1


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("EIO=4&transport=carrier-pigeon", b"Transport unknown"),
        ("EIO=3&transport=websocket", b"Unsupported protocol version"),
        ("EIO=4&transport=websocket&sid=nobody", b"Session ID unknown"),
    ],
)
async def test_the_engine_judges_the_request(query: str, text: bytes) -> None:
    io = Server()
    async with embedded(io) as port:
        answer = await refused(port, f"/socket.io/?{query}")

    assert (answer.status, answer.body) == (400, text)
    assert answer.headers[b"content-type"] == b"text/html"


async def test_only_pages_of_the_same_origin_may_connect() -> None:
    io = Server()
    async with embedded(io) as port:
        answer = await refused(port, extra_headers=[(b"origin", b"http://evil.example")])
        assert answer.status == 400
        assert b"may not use this server" in answer.body
        async with open_client_at(url(port), headers={"origin": url(port)}) as client:
            assert client.id in io.sockets.sockets


async def test_the_101_has_the_engines_headers_and_the_first_subprotocol() -> None:
    io = Server()

    @io.engine.on("initial_headers")
    def add(headers: Headers, request: Any) -> None:
        headers.add("set-cookie", "a=1")
        headers.add("set-cookie", "b=2")

    async with embedded(io) as port, open_websocket(port, subprotocols=["first", "second"]) as websocket:
        cookies = [value for name, value in websocket.handshake_headers if name == b"set-cookie"]
        assert (cookies, websocket.subprotocol) == ([b"a=1", b"b=2"], "first")


@pytest.mark.parametrize("accepted", [True, False])
async def test_headers_that_cannot_be_sent_are_a_500_and_logged(
    caplog: pytest.LogCaptureFixture, accepted: bool
) -> None:
    io = Server(allow_request=lambda request: accepted)

    @io.engine.use
    async def middleware(request: Any) -> None:
        request.response_headers["x-name"] = "no latin: \u4e00"

    async with embedded(io) as port:
        assert (await refused(port)).status == 500
    assert [r.levelname for r in caplog.records if r.name == "trio_socketio.embedded"] == ["ERROR"]


async def test_over_tls_the_handshake_is_secure() -> None:
    authority = trustme.CA()
    server_context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(HOST).configure_cert(server_context)
    client_context = ssl.create_default_context()
    authority.configure_trust(client_context)
    io = Server()
    async with (
        embedded(io, tls=server_context) as port,
        open_websocket(port, tls=client_context) as websocket,
    ):
        await connect(websocket)
        (socket,) = io.sockets.sockets.values()
        assert socket.handshake.secure


@pytest.mark.parametrize("limit", [50, 5000])  # below and above that of the application's server
async def test_a_message_over_either_limit_closes_with_1009(limit: int) -> None:
    io = Server(max_http_buffer_size=500)
    ends = note_ends(io)
    async with (
        embedded(io, max_message_size=limit) as port,
        open_websocket(port) as websocket,
    ):
        await connect(websocket)
        await websocket.send_message('42["' + "é" * 300 + '"]')
        with pytest.raises(ConnectionClosed) as caught:
            await websocket.get_message()
        assert caught.value.reason is not None
        assert caught.value.reason.code == 1009
    ((reason, description),) = ends
    assert reason == "transport error"
    assert str(min(limit, 500)) in description


async def test_a_client_that_closes_ends_its_session() -> None:
    io = Server()
    ends = note_ends(io)
    async with embedded(io) as port:
        async with open_client_at(url(port)):
            pass
        while not ends:  # noqa: ASYNC110
            await trio.sleep(0.01)
    assert ends == [("transport close", None)]


async def test_a_disconnect_by_the_server_closes_the_connection() -> None:
    io = Server()
    async with (
        embedded(io) as port,
        open_websocket(port) as websocket,
    ):
        sid = await connect(websocket)
        await io.in_(sid).disconnect_sockets(close=True)
        assert await websocket.get_message() == "41"
        with pytest.raises(ConnectionClosed) as caught:
            await websocket.get_message()
        assert caught.value.reason is not None
        assert caught.value.reason.code == 1000


async def test_a_server_that_is_not_running_answers_503() -> None:
    io = Server()
    async with trio.open_nursery() as nursery:
        server = await nursery.start(partial(serve_websocket, io.handle_websocket, HOST, 0, None))
        answer = await refused(server.port)
        nursery.cancel_scope.cancel()
    assert (answer.status, answer.body) == (503, b"the server is not running")


# In memory, on a virtual clock


async def test_a_polling_session_that_is_served_elsewhere_can_be_upgraded(
    autojump_clock: trio.testing.MockClock,
) -> None:
    io = Server()
    async with open_app(io) as net, trio.open_nursery() as nursery:
        client = await net.polling()
        client_link = await link(nursery, io, f"{TARGET}&sid={client.sid}")
        await client_link.websocket.send_message("2probe")
        assert await client_link.websocket.get_message() == "3probe"
        await client_link.websocket.send_message("5")
        await client_link.websocket.send_message("40")
        assert str(await client_link.websocket.get_message()).startswith("40{")
        (session,) = io.engine.sessions.values()
        assert session.transport == "websocket"

        await client_link.websocket.aclose()
        await client_link.served.wait()
        nursery.cancel_scope.cancel()


async def test_an_engine_of_its_own_is_served_just_so(autojump_clock: trio.testing.MockClock) -> None:
    engine = Engine()

    @engine.on("connection")
    async def connected(session: Session) -> None:
        async for message in session:
            await session.send(message)

    async with open_app(engine), trio.open_nursery() as nursery:
        client = await link(nursery, engine, "/engine.io/?EIO=4&transport=websocket")
        await client.websocket.get_message()
        await client.websocket.send_message("4hello")
        await client.websocket.send_message(b"bytes")
        assert [await client.websocket.get_message() for _ in range(2)] == ["4hello", b"bytes"]

        await client.websocket.aclose()
        await client.served.wait()
        nursery.cancel_scope.cancel()


async def test_a_client_that_floods_is_not_read_until_its_events_are_handled(
    autojump_clock: trio.testing.MockClock,
) -> None:
    io = Server(max_concurrent_events=1, max_queued_events=2)
    go_on = trio.Event()
    handled: list[int] = []

    @io.on("connection")
    def connected(socket: Socket) -> None:
        @socket.on("work")
        async def work(number: int) -> None:
            await go_on.wait()
            handled.append(number)

    async with open_app(io), trio.open_nursery() as nursery:
        client = await link(nursery, io, message_queue_size=1)
        await connect(client.websocket)
        for number in range(50):
            await client.websocket.send_message(f'42["work",{number}]')
        await settle()
        assert io.statistics().queued_events == 2

        go_on.set()
        await settle()
        assert handled == list(range(50))
        await client.websocket.aclose()
        await client.served.wait()
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("full", [True, False])
async def test_a_client_that_reads_nothing_more_is_cut_within_the_deadline(
    autojump_clock: trio.testing.MockClock, full: bool
) -> None:
    """With its network full in the middle of a message, and with a close frame that it never answers."""
    io = Server()
    async with open_app(io), trio.open_nursery() as nursery, trio.open_nursery() as reader:
        client = await link(nursery, io, reader=reader)
        sid = await connect(client.websocket)
        reader.cancel_scope.cancel()  # its reader is gone, its connection is not
        await settle()
        if full:
            client.theirs.send_stream.send_all_hook = trio.Event().wait
            await io.in_(sid).emit("news")
            await settle()
        start = trio.current_time()
        await io.in_(sid).disconnect_sockets(close=True)
        await client.served.wait()

        assert trio.current_time() - start <= (45 if full else 2)
        assert io.statistics() == ServerStatistics()
        with pytest.raises(trio.ClosedResourceError):
            await client.theirs.send_all(b"x")
        nursery.cancel_scope.cancel()


async def test_the_end_of_the_applications_server_ends_its_sessions(autojump_clock: trio.testing.MockClock) -> None:
    io = Server()
    ends = note_ends(io)
    async with open_app(io):
        async with trio.open_nursery() as nursery:
            client = await link(nursery, io)
            await connect(client.websocket)
            await settle()
            nursery.cancel_scope.cancel()
        await settle()
        assert ends == [("forced close", None)]
        assert io.statistics() == ServerStatistics()


async def test_a_client_that_vanishes_ends_its_session(autojump_clock: trio.testing.MockClock) -> None:
    io = Server()
    ends = note_ends(io)
    async with open_app(io), trio.open_nursery() as nursery:
        client = await link(nursery, io)
        await connect(client.websocket)
        await client.ours.aclose()
        await client.served.wait()
        await settle()
        assert ends == [("transport close", None)]
        nursery.cancel_scope.cancel()


async def test_a_violation_ends_the_session_and_the_connection(autojump_clock: trio.testing.MockClock) -> None:
    io = Server()
    async with open_app(io), trio.open_nursery() as nursery:
        client = await link(nursery, io)
        await connect(client.websocket)
        await client.ours.send_all(b"\x81\x02hi")  # a client has to mask
        await client.served.wait()
        await settle()

        assert io.statistics() == ServerStatistics()
        with pytest.raises(trio.ClosedResourceError):
            await client.theirs.send_all(b"x")
        nursery.cancel_scope.cancel()


async def test_a_client_that_leaves_before_its_answer_disturbs_nobody(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def slow(request: Any) -> bool:
        await trio.sleep(5)
        return True

    io = Server(allow_request=slow)
    ours, theirs = trio.testing.memory_stream_pair()
    async with open_app(io), trio.open_nursery() as nursery:
        lines = ["GET " + TARGET + " HTTP/1.1", "host: a", "connection: upgrade", "upgrade: websocket"]
        lines += ["sec-websocket-version: 13", "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==", "", ""]
        await ours.send_all("\r\n".join(lines).encode())
        request = await wrap_server_stream(nursery, theirs)
        nursery.start_soon(ours.aclose)
        await io.handle_websocket(request)

        assert io.statistics() == ServerStatistics()
        nursery.cancel_scope.cancel()
    assert [r for r in caplog.records if r.levelno >= logging.WARNING and r.name.startswith("trio_socketio")] == []


async def test_drain_waits_until_embedded_clients_have_been_told(autojump_clock: trio.testing.MockClock) -> None:
    io = Server()
    async with open_app(io), trio.open_nursery() as nursery:
        client = await link(nursery, io)
        await connect(client.websocket)
        await io.emit("last words")
        await io.drain(5)

        assert client.served.is_set()
        assert await client.websocket.get_message() == '42["last words"]'
        nursery.cancel_scope.cancel()


# The ordinary client


async def test_the_javascript_client_works_with_websocket_only(js: Driver) -> None:
    io = Server()

    @io.on("connection")
    def connected(socket: Socket) -> None:
        socket.on("echo", lambda *args: args)

    async with embedded(io) as port:
        clients = [await js.connect(url(port), transports=["websocket"]) for _ in range(2)]
        assert await clients[0].emit_with_ack("echo", "é", b"\x00", {"a": [b"\xff"]}) == (
            "é",
            b"\x00",
            {"a": [b"\xff"]},
        )
        await io.emit("news", b"x" * 100_000, 1)
        for client in clients:
            assert await client.wait_for("news") == (b"x" * 100_000, 1)
        await clients[0].disconnect()
        await io.disconnect_sockets()
        assert (await clients[1].wait_for("disconnect"))[0] == "io server disconnect"
        await clients[1].close_engine()
