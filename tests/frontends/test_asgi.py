"""`ASGIApp` under a real hypercorn, with a small application of the contract; and called directly where that will do.

hypercorn runs in the test's own Trio loop, on a port of the kernel's choice; its clients use real sockets.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import h11
import pytest
import trio
import trio.testing
import trio_websocket
from hypercorn.config import Config
from hypercorn.trio import serve
from starlette.applications import Starlette
from starlette.routing import Mount

from trio_socketio._engine.contract import Headers, Request, Response
from trio_socketio._errors import BodyTooLarge, ClientDisconnected, MessageTooLarge
from trio_socketio._frontends.asgi import _path_below_mount
from trio_socketio._wire.encoded import EncodedPacket
from trio_socketio.asgi import ASGIApp, with_lifespan

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, MutableMapping
    from pathlib import Path

    from trio_socketio._engine.contract import Verdict, WebSocket

    Message = MutableMapping[str, Any]
    ASGI = Callable[[Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]]

LIMIT = 1000
UPGRADE = (
    b"GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)

#: Seconds for what takes none on a machine that is not busy.
PATIENCE = 20.0


class EchoReceiver:
    """Sends back what it gets, when it is told that what went before is sent."""

    def __init__(self, websocket: WebSocket) -> None:
        self.websocket = websocket
        self.queue: list[EncodedPacket] = []
        self.draining = False
        self.paused = False

    def on_message(self, message: str | bytes) -> None:
        self.queue.append(
            EncodedPacket(message.encode()) if isinstance(message, str) else EncodedPacket.message(message)
        )

    def end_batch(self) -> None:
        if self.queue and not self.draining:
            packets, self.queue = self.queue, []
            self.draining = not self.websocket.send_nowait(packets)

    def on_drained(self) -> None:
        self.draining = False
        self.end_batch()

    async def resumed(self) -> None:
        await trio.lowlevel.checkpoint()


class EchoAcceptance:
    max_message_size = LIMIT
    per_message_deflate = None

    def __init__(self, application: Echo, headers: Headers) -> None:
        self.application = application
        self.headers = headers

    async def run(self, websocket: WebSocket) -> None:
        self.application.websockets += 1
        code = 1000
        with trio.CancelScope() as self.application.pumping:
            try:
                await websocket.pump(EchoReceiver(websocket))
            except MessageTooLarge as error:
                self.application.errors.append(str(error))
                code = 1009
        with trio.move_on_after(0.3):
            await websocket.aclose(code)


class Echo:
    """An `Application`: POST echoes, wait never answers, slow reads no body, big is more than any buffer takes."""

    def __init__(self) -> None:
        self.is_running = False
        self.websockets = 0
        self.waiting = trio.Event()
        self.abandoned = trio.Event()
        self.lost = trio.Event()
        self.body_lost = trio.Event()
        self.pumping = trio.CancelScope()
        self.crash = trio.Event()
        self.errors: list[str] = []
        self.requests: list[Request] = []
        self.log: list[str] = []

    def owns(self, path: str) -> bool:
        return path.startswith("/io/")

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        self.log.append("application starts")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._crash)
            self.is_running = True
            try:
                yield
            finally:
                self.is_running = False
                self.log.append("application stops")
                nursery.cancel_scope.cancel()

    async def _crash(self) -> None:
        await self.crash.wait()
        raise RuntimeError("a session failed")

    async def handle_request(self, request: Request) -> Response:
        self.requests.append(request)
        if not self.is_running:
            return Response(503)
        if request.path == "/io/wait":
            self.waiting.set()
            try:
                await trio.sleep_forever()
            finally:
                self.abandoned.set()
        if request.path == "/io/slow":
            await trio.sleep(0.1)  # for the server's queue to fill: its client is a real one
            return Response(413)
        if request.path == "/io/big":
            return Response(200, bytes(20_000_000), on_lost=self.lost.set)
        try:
            body = await request.read_body(LIMIT)
        except BodyTooLarge:
            return Response(413)
        except ClientDisconnected:
            self.body_lost.set()
            return Response(400)
        headers = Headers([("set-cookie", "a=1"), ("set-cookie", "b=2")])
        return Response(200, body or request.path.encode(), headers, on_lost=self.lost.set)

    async def open_websocket(self, request: Request) -> Verdict:
        self.requests.append(request)
        await trio.lowlevel.checkpoint()
        if request.path == "/io/no":
            return Response(400, b"Session ID unknown", Headers({"content-type": "text/html"}))
        return EchoAcceptance(self, Headers({"x-extra": "yes"}))


class Hypercorn:
    """A running hypercorn."""

    def __init__(self, port: int) -> None:
        self.port = port

    async def connect(self) -> trio.SocketStream:
        return await trio.open_tcp_stream("127.0.0.1", self.port)

    async def request(self, method: str, target: str, body: bytes = b"") -> tuple[int, h11.Response, bytes]:
        client = h11.Connection(h11.CLIENT)
        headers = [("Host", "localhost"), ("Connection", "close"), ("Content-Length", str(len(body)))]
        async with await self.connect() as stream:
            for event in (
                h11.Request(method=method, target=target, headers=headers),
                h11.Data(data=body),
                h11.EndOfMessage(),
            ):
                await stream.send_all(client.send(event) or b"")
            return await read_response(client, stream)


async def read_response(client: h11.Connection, stream: trio.abc.ReceiveStream) -> tuple[int, h11.Response, bytes]:
    response, body = None, b""
    while True:
        event = client.next_event()
        if event is h11.NEED_DATA:
            client.receive_data(bytes(await stream.receive_some(65536)))
        elif isinstance(event, h11.Response):
            response = event
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage):
            assert response is not None
            return response.status_code, response, body


@asynccontextmanager
async def hypercorn(app: ASGI) -> AsyncIterator[Hypercorn]:
    """Serve `app`; at the end stop, which must not take much longer than two seconds, whatever clients do."""
    config = Config()
    config.bind = ["127.0.0.1:0"]
    config.graceful_timeout = 0.2
    stop = trio.Event()
    async with trio.open_nursery() as nursery:
        run = partial(serve, cast("Any", app), config, shutdown_trigger=stop.wait)
        binds = await nursery.start(run)
        await trio.testing.wait_all_tasks_blocked()
        with trio.fail_after(2 * PATIENCE):  # noqa: ASYNC100  # the test has them
            yield Hypercorn(int(binds[0].rpartition(":")[2]))
        stop.set()
        nursery.cancel_scope.deadline = trio.current_time() + 5
    assert not nursery.cancel_scope.cancelled_caught, "hypercorn did not stop in time"


@asynccontextmanager
async def websocket_client(
    server: Hypercorn, target: str, subprotocols: Iterable[str] = ()
) -> AsyncIterator[trio_websocket.WebSocketConnection]:
    """A WebSocket whose TCP connection is closed for certain."""
    async with await server.connect() as stream, trio.open_nursery() as nursery:
        websocket = await trio_websocket.wrap_client_stream(
            nursery, stream, "localhost", target, subprotocols=list(subprotocols)
        )
        yield websocket
        await websocket.aclose()
        nursery.cancel_scope.cancel()


def reset(stream: trio.SocketStream) -> None:
    """Close with a RST instead of a FIN."""
    stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stream.socket.close()


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that happens inside hypercorn, and that it does not tell."""
    with trio.fail_after(PATIENCE):
        while not condition():  # noqa: ASYNC110
            await trio.sleep(0.005)


# HTTP under hypercorn


async def test_post_body_is_echoed_with_every_header_of_the_answer() -> None:
    async with hypercorn(ASGIApp(Echo())) as server:
        status, response, body = await server.request("POST", "/io/?a=1", b"hello")
    assert (status, body) == (200, b"hello")
    assert [value for name, value in response.headers if name == b"set-cookie"] == [b"a=1", b"b=2"]


async def test_body_over_the_limit_is_refused_as_it_arrives() -> None:
    async with hypercorn(ASGIApp(Echo())) as server, await server.connect() as stream:
        await stream.send_all(b"POST /io/ HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        await stream.send_all(b"400\r\n" + bytes(1024) + b"\r\n")
        assert (await stream.receive_some(100)).startswith(b"HTTP/1.1 413 ")


async def test_body_that_nobody_reads_does_not_hold_its_request() -> None:
    async with hypercorn(ASGIApp(Echo())) as server, await server.connect() as stream:
        await stream.send_all(b"POST /io/slow HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        await stream.send_all((b"100\r\n" + bytes(256) + b"\r\n") * 200)  # many times what the server's queue holds
        answer = b""
        with trio.fail_after(2), suppress(trio.BrokenResourceError):
            while part := await stream.receive_some(1000):
                answer += part
    assert answer.startswith(b"HTTP/1.1 413 ")


async def test_request_shows_target_client_scheme_and_headers() -> None:
    echo = Echo()
    async with hypercorn(ASGIApp(echo)) as server:
        await server.request("GET", "/io/%C3%A9?x=%26&x=2")
    request = echo.requests[0]
    assert (request.target, request.path, dict(request.query)) == ("/io/%C3%A9?x=%26&x=2", "/io/é", {"x": "2"})
    assert request.client is not None
    assert (request.client[0], request.scheme, request.headers["host"]) == ("127.0.0.1", "http", "localhost")


async def test_client_that_leaves_cancels_its_long_poll() -> None:
    echo = Echo()
    async with hypercorn(ASGIApp(echo)) as server:
        stream = await server.connect()
        await stream.send_all(b"GET /io/wait HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await echo.waiting.wait()
        await stream.aclose()
        await echo.abandoned.wait()
    assert echo.abandoned.is_set()


async def test_client_that_leaves_in_the_middle_of_its_body_is_noticed() -> None:
    echo = Echo()
    async with hypercorn(ASGIApp(echo)) as server:
        stream = await server.connect()
        await stream.send_all(b"POST /io/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nhalf")
        reset(stream)
        await echo.body_lost.wait()
    assert echo.body_lost.is_set()


async def test_answer_that_cannot_be_written_is_reported_lost() -> None:
    echo = Echo()
    async with hypercorn(ASGIApp(echo)) as server:
        stream = await server.connect()
        await stream.send_all(b"GET /io/big HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await stream.receive_some(1000)
        reset(stream)
        await echo.lost.wait()
    assert echo.lost.is_set()


async def test_answer_that_is_written_is_not_reported_lost() -> None:
    echo = Echo()
    async with hypercorn(ASGIApp(echo)) as server:
        status, _, body = await server.request("GET", "/io/x")
    assert (status, body, echo.lost.is_set()) == (200, b"/io/x", False)


async def test_client_that_does_not_take_its_response_does_not_hold_the_shutdown() -> None:
    echo = Echo()
    async with hypercorn(ASGIApp(echo)) as server:
        stream = await server.connect()
        await stream.send_all(b"GET /io/big HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await stream.receive_some(1000)
    await stream.aclose()
    assert not echo.is_running


async def test_keep_alive_serves_one_request_after_the_other() -> None:
    async with hypercorn(ASGIApp(Echo())) as server, await server.connect() as stream:
        for number in range(3):
            client = h11.Connection(h11.CLIENT)
            await stream.send_all(b"GET /io/%d HTTP/1.1\r\nHost: localhost\r\n\r\n" % number)
            client.send(h11.Request(method="GET", target="/", headers=[("Host", "localhost")]))
            client.send(h11.EndOfMessage())
            _, _, body = await read_response(client, stream)
            assert body == b"/io/%d" % number


# WebSockets under hypercorn


async def test_websocket_echoes_text_and_bytes_in_order() -> None:
    async with hypercorn(ASGIApp(Echo())) as server, websocket_client(server, "/io/") as websocket:
        sent = [f"é{number}" if number % 3 else b"\x00%d" % number for number in range(200)]
        async with trio.open_nursery() as nursery:

            async def send_all() -> None:
                for message in sent:
                    await websocket.send_message(message)

            nursery.start_soon(send_all)
            received = [await websocket.get_message() for _ in sent]
    assert received == sent


async def test_accepted_websocket_has_the_headers_and_the_first_subprotocol() -> None:
    async with (
        hypercorn(ASGIApp(Echo())) as server,
        websocket_client(server, "/io/", subprotocols=["one", "two"]) as websocket,
    ):
        assert websocket.subprotocol == "one"
        assert (b"x-extra", b"yes") in websocket.handshake_headers


async def test_refused_websocket_gets_status_and_text() -> None:
    async with hypercorn(ASGIApp(Echo())) as server, await server.connect() as stream:
        await stream.send_all(UPGRADE % b"/io/no")
        answer = b"".join([part async for part in stream])
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"content-type: text/html\r\n" in answer
    assert answer.endswith(b"\r\n\r\nSession ID unknown")


async def test_message_over_the_limit_names_both_sizes_and_closes_with_1009() -> None:
    echo = Echo()
    async with hypercorn(ASGIApp(echo)) as server:
        stream = await open_raw_websocket(server)
        payload = "é".encode() * (LIMIT // 2 + 1)
        await stream.send_all(bytes((0x81, 0xFE)) + len(payload).to_bytes(2, "big") + bytes(4) + payload)
        assert await stream.receive_some(100) == b"\x88\x02" + (1009).to_bytes(2, "big")
        await stream.aclose()
    assert echo.errors == [f"message of {LIMIT + 2} bytes exceeds the limit of {LIMIT} bytes"]


async def test_message_of_the_limit_passes() -> None:
    async with hypercorn(ASGIApp(Echo())) as server, websocket_client(server, "/io/") as websocket:
        await websocket.send_message(bytes(LIMIT))
        assert await websocket.get_message() == bytes(LIMIT)


async def test_peer_that_closes_ends_the_run() -> None:
    echo = Echo()
    async with hypercorn(ASGIApp(echo)) as server:
        before = trio.lowlevel.current_statistics().tasks_living
        async with websocket_client(server, "/io/") as websocket:
            await websocket.send_message("hello")
            await websocket.get_message()
        await until(lambda: trio.lowlevel.current_statistics().tasks_living <= before)
    assert echo.websockets == 1


async def open_raw_websocket(server: Hypercorn) -> trio.SocketStream:
    stream = await server.connect()
    await stream.send_all(UPGRADE % b"/io/")
    assert (await stream.receive_some(10_000)).startswith(b"HTTP/1.1 101 ")
    return stream


def client_frame(payload: bytes) -> bytes:
    assert len(payload) < 126
    return bytes((0x82, 0x80 | len(payload), 0, 0, 0, 0)) + payload


async def flood(stream: trio.SocketStream, frames: bytes) -> None:
    """Send without reading until nothing is taken any more."""
    with trio.move_on_after(0.3):
        while True:
            await stream.send_all(frames)


async def test_client_that_does_not_read_its_websocket_does_not_hold_the_shutdown() -> None:
    echo = Echo()
    async with hypercorn(ASGIApp(echo)) as server:
        stream = await open_raw_websocket(server)
        await flood(stream, client_frame(bytes(100)) * 1000)
    await stream.aclose()
    assert not echo.is_running


async def test_client_that_does_not_read_is_cut_when_the_engine_closes() -> None:
    echo = Echo()
    async with hypercorn(ASGIApp(echo)) as server:
        before = trio.lowlevel.current_statistics().tasks_living
        stream = await open_raw_websocket(server)
        await flood(stream, client_frame(bytes(100)) * 1000)
        echo.pumping.cancel()
        await until(lambda: trio.lowlevel.current_statistics().tasks_living <= before)
        await stream.aclose()
    assert echo.websockets == 1


async def test_flood_that_goes_on_after_our_close_leaves_no_task() -> None:
    async with hypercorn(ASGIApp(Echo())) as server:
        before = trio.lowlevel.current_statistics().tasks_living
        for _ in range(3):
            stream = await open_raw_websocket(server)
            too_large = bytes((0x82, 0xFE, 0x04, 0x00, 0, 0, 0, 0)) + bytes(1024)
            await stream.send_all(too_large + client_frame(b"x") * 8000)
            with trio.move_on_after(3), suppress(trio.BrokenResourceError):
                while await stream.receive_some(65536):
                    await stream.send_all(client_frame(b"x") * 1000)
            await stream.aclose()
        await until(lambda: trio.lowlevel.current_statistics().tasks_living <= before)
        status, _, _ = await server.request("GET", "/io/")
    assert status == 200


# Hostile bytes


async def still_serves(server: Hypercorn) -> bool:
    status, _, _ = await server.request("GET", "/io/")
    return status == 200


@pytest.mark.parametrize("target", [b"/io/", b"/io/no", b"/elsewhere"])
async def test_reset_after_each_byte_of_an_upgrade_does_not_end_the_worker(target: bytes) -> None:
    upgrade = UPGRADE % target
    async with hypercorn(ASGIApp(Echo())) as server:
        for length in range(len(upgrade) + 1):
            stream = await server.connect()
            await stream.send_all(upgrade[:length])
            for _ in range(length % 7):
                await trio.lowlevel.checkpoint()
            reset(stream)
        assert await still_serves(server)


@pytest.mark.parametrize("target", [b"/io/", b"/io/no", b"/elsewhere"])
@pytest.mark.parametrize("ticks", range(14))
async def test_byte_after_an_upgrade_does_not_end_the_worker(target: bytes, ticks: int) -> None:
    async with hypercorn(ASGIApp(Echo())) as server:
        for _ in range(4):
            async with await server.connect() as stream:
                if ticks == 0:
                    await stream.send_all(UPGRADE % target + b"x")
                else:
                    await stream.send_all(UPGRADE % target)
                    for _ in range(ticks):
                        await trio.lowlevel.checkpoint()
                    with suppress(trio.BrokenResourceError):
                        await stream.send_all(b"x")
        assert await still_serves(server)


async def test_early_byte_costs_one_line_in_the_log_and_no_traceback(caplog: pytest.LogCaptureFixture) -> None:
    async with hypercorn(ASGIApp(Echo())) as server:
        contained = 0
        for ticks in range(1, 14):
            caplog.clear()
            async with await server.connect() as stream:
                await stream.send_all(UPGRADE % b"/io/")
                for _ in range(ticks):
                    await trio.lowlevel.checkpoint()
                with suppress(trio.BrokenResourceError):
                    await stream.send_all(b"x")
                with trio.move_on_after(0.05), suppress(trio.BrokenResourceError):
                    while await stream.receive_some(1000):
                        pass
            warnings = [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")]
            contained += len(warnings)
            assert len(warnings) <= 1
            assert not any(record.exc_info for record in warnings)
    assert contained > 0, "hypercorn has learnt to live with early bytes: contain_connections() may go"


# Mounts, other apps, files


@pytest.mark.parametrize("mount", ["/ws", "/a/b"])
async def test_mounted_app_serves_http_and_websockets_below_its_mount(mount: str) -> None:
    echo = Echo()
    app = with_lifespan(echo, Starlette(routes=[Mount(mount, app=ASGIApp(echo))]))
    async with hypercorn(app) as server:
        status, _, body = await server.request("GET", f"{mount}/io/x")
        async with websocket_client(server, f"{mount}/io/") as websocket:
            await websocket.send_message("hello")
            assert await websocket.get_message() == "hello"
    assert (status, body) == (200, b"/io/x")


async def test_path_that_is_nobodys_gets_a_hint_on_one_line() -> None:
    echo = Echo()
    app = with_lifespan(echo, Starlette(routes=[Mount("/ws", app=ASGIApp(echo))]))
    async with hypercorn(app) as server:
        status, _, body = await server.request("GET", "/ws/socket.io/")
    assert status == 404
    assert body == (
        b"trio_socketio has nothing at '/socket.io/' below '/ws'; compare the path options of server and client\n"
    )


@pytest.mark.parametrize(
    ("root_path", "path", "expected"),
    [
        ("", "/io/", "/io/"),
        ("/ws", "/ws/io/", "/io/"),
        ("/ws/", "/ws/io/", "/io/"),
        ("/ws", "/io/", "/io/"),  # a framework that takes the mount's path away
        ("/ws", "/ws", "/"),
        ("/ws", "/wsx/io/", "/wsx/io/"),
    ],
)
def test_path_is_the_one_below_the_mount(root_path: str, path: str, expected: str) -> None:
    assert _path_below_mount({"root_path": root_path, "path": path}) == expected


async def test_mounted_app_whose_lifespan_nobody_runs_answers_503() -> None:
    async with hypercorn(cast("Any", Starlette(routes=[Mount("/ws", app=ASGIApp(Echo()))]))) as server:
        status, _, _ = await server.request("GET", "/ws/io/")
    assert status == 503


async def test_other_app_gets_what_is_not_the_applications() -> None:
    async def other(scope: Message, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            raise NotImplementedError
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
        await send({"type": "http.response.body", "body": b"other"})

    async with hypercorn(ASGIApp(Echo(), other)) as server:
        _, _, elsewhere = await server.request("GET", "/elsewhere")
        _, _, ours = await server.request("GET", "/io/x")
    assert (elsewhere, ours) == (b"other", b"/io/x")


async def test_static_files_of_the_application_are_served(tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text("<h1>hello</h1>")

    class EchoWithFiles(Echo):
        static_files = str(tmp_path)

    async with hypercorn(ASGIApp(EchoWithFiles())) as server:
        status, _, body = await server.request("GET", "/page.html")
        missing, _, _ = await server.request("GET", "/missing.html")
    assert (status, body, missing) == (200, b"<h1>hello</h1>", 404)


# Lifespan


class LoggingApp:
    """Another ASGI app, with a lifespan that can fail."""

    def __init__(self, log: list[str], fail_at: str = "") -> None:
        self.log = log
        self.fail_at = fail_at

    async def __call__(self, scope: Message, receive: Any, send: Any) -> None:
        for phase in ("startup", "shutdown"):
            assert await receive() == {"type": f"lifespan.{phase}"}
            if self.fail_at == phase:
                await send({"type": f"lifespan.{phase}.failed", "message": f"no {phase} today"})
                return
            self.log.append(f"other app {phase}")
            await send({"type": f"lifespan.{phase}.complete"})


async def run_lifespan(app: ASGI) -> list[Message]:
    """A server that starts and stops at once."""
    answers: list[Message] = []
    send_channel, receive_channel = trio.open_memory_channel[Any](2)
    send_channel.send_nowait({"type": "lifespan.startup"})
    send_channel.send_nowait({"type": "lifespan.shutdown"})

    async def send(message: Message) -> None:
        answers.append(message)
        await trio.lowlevel.checkpoint()

    await app({"type": "lifespan", "state": {}}, receive_channel.receive, send)
    return answers


STARTED, STOPPED = {"type": "lifespan.startup.complete"}, {"type": "lifespan.shutdown.complete"}


@pytest.mark.parametrize("wrap", [ASGIApp, with_lifespan])
async def test_other_app_starts_before_the_application_and_stops_after_it(wrap: Callable[[Any, Any], ASGI]) -> None:
    echo = Echo()
    answers = await run_lifespan(wrap(echo, LoggingApp(echo.log)))
    assert echo.log == ["other app startup", "application starts", "application stops", "other app shutdown"]
    assert answers == [STARTED, STOPPED]


async def test_other_app_that_cannot_start_keeps_the_application_from_starting() -> None:
    echo = Echo()
    answers = await run_lifespan(with_lifespan(echo, LoggingApp(echo.log, "startup")))
    assert (echo.log, answers) == ([], [{"type": "lifespan.startup.failed", "message": "no startup today"}])


async def test_other_app_that_cannot_stop_is_reported() -> None:
    echo = Echo()
    answers = await run_lifespan(with_lifespan(echo, LoggingApp(echo.log, "shutdown")))
    assert answers == [STARTED, {"type": "lifespan.shutdown.failed", "message": "no shutdown today"}]


@pytest.mark.parametrize("error", [None, NotImplementedError("http only")])
async def test_other_app_without_lifespan_support_does_not_matter(error: Exception | None) -> None:
    async def other(scope: Message, receive: Any, send: Any) -> None:
        await trio.lowlevel.checkpoint()
        if error is not None:
            raise error

    echo = Echo()
    assert await run_lifespan(with_lifespan(echo, other)) == [STARTED, STOPPED]
    assert echo.log == ["application starts", "application stops"]


async def test_application_that_cannot_start_ends_hypercorn_with_its_reason() -> None:
    class Unlucky(Echo):
        @asynccontextmanager
        async def running(self) -> AsyncIterator[None]:
            raise OSError("no bus to ride")
            yield

    with pytest.RaisesGroup(pytest.RaisesExc(Exception, match="no bus to ride"), flatten_subgroups=True):
        async with hypercorn(ASGIApp(Unlucky())):
            pass


async def test_application_that_fails_ends_hypercorn_instead_of_leaving_a_zombie() -> None:
    echo = Echo()
    with pytest.RaisesGroup(pytest.RaisesExc(Exception, match="a session failed"), flatten_subgroups=True):
        async with hypercorn(ASGIApp(echo)):
            echo.crash.set()
            await trio.sleep_forever()


# Without hypercorn


async def call(app: ASGI, scope: Message, *received: Message) -> list[Message]:
    """Call the app with messages that are at hand, and nothing after them."""
    pending = list(received)
    sent: list[Message] = []

    async def receive() -> Message:
        if not pending:
            await trio.sleep_forever()
        return pending.pop(0)

    async def send(message: Message) -> None:  # noqa: ASYNC124  # may run outside Trio
        sent.append(message)

    await app({"headers": [], "query_string": b"", **scope}, receive, send)
    return sent


def test_start_outside_trio_is_refused_with_a_clear_text() -> None:
    answers = asyncio.run(call(ASGIApp(Echo()), {"type": "lifespan"}, {"type": "lifespan.startup"}))
    text = "trio_socketio needs Trio; run hypercorn with --worker-class trio"
    assert answers == [{"type": "lifespan.startup.failed", "message": text}]


def test_request_outside_trio_is_refused_with_a_clear_text() -> None:
    scope = {"type": "http", "method": "GET", "path": "/io/"}
    start, body = asyncio.run(call(ASGIApp(Echo()), scope, {"type": "http.request"}))
    assert (start["status"], body["body"]) == (500, b"trio_socketio needs Trio; run hypercorn with --worker-class trio")


@pytest.mark.parametrize("path", ["/io/no", "/elsewhere"])
async def test_server_without_denial_responses_gets_a_close(path: str) -> None:
    answers = await call(ASGIApp(Echo()), {"type": "websocket", "path": path}, {"type": "websocket.connect"})
    assert answers == [{"type": "websocket.close"}]


async def test_client_that_has_gone_is_answered_all_the_same() -> None:
    echo = Echo()
    scope = {"type": "http", "method": "GET", "path": "/io/wait"}
    echo.is_running = True
    answers = await call(ASGIApp(echo), scope, {"type": "http.request"}, {"type": "http.disconnect"})
    assert (answers[0]["status"], answers[-1]) == (400, {"type": "http.response.body", "body": b""})


async def test_requests_before_the_start_are_answered_503() -> None:
    answers = await call(ASGIApp(Echo()), {"type": "http", "method": "GET", "path": "/io/"}, {"type": "http.request"})
    assert answers[0]["status"] == 503


async def test_receiver_is_told_when_the_server_has_everything_and_not_when_it_never_will() -> None:
    stuck = trio.Event()
    drained: list[int] = []
    sent: list[str] = []
    messages: list[Message] = [{"type": "websocket.connect"}]

    class Receiver(EchoReceiver):
        def on_drained(self) -> None:
            drained.append(len(sent))
            assert not self.websocket.send_nowait([EncodedPacket(b"4third"), EncodedPacket(b"4stuck")])

    class Acceptance(EchoAcceptance):
        async def run(self, websocket: WebSocket) -> None:
            assert not websocket.send_nowait([EncodedPacket(b"4first"), EncodedPacket(b"4second")])
            await websocket.pump(Receiver(websocket))

    class Application(Echo):
        async def open_websocket(self, request: Request) -> Verdict:
            return Acceptance(self, Headers())

    async def receive() -> Message:
        if not messages:
            await stuck.wait()
            return {"type": "websocket.disconnect"}
        return messages.pop(0)

    async def send(message: Message) -> None:
        if message.get("text") == "4stuck":
            stuck.set()
            await trio.sleep_forever()
        if message["type"] == "websocket.send":
            sent.append(message["text"])

    await ASGIApp(Application())({"type": "websocket", "path": "/io/", "headers": []}, receive, send)
    assert sent == ["4first", "4second", "4third"]
    assert drained == [2]
