"""What the tests of the listener share: a client's frames, and a small real application."""

from __future__ import annotations

import socket
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple

import pytest
import trio
import trio.testing

from trio_socketio._engine.contract import Headers, HttpLimits, Response
from trio_socketio._errors import BodyTooLarge, ClientDisconnected, RemoteProtocolError
from trio_socketio._frontends.listener import serve_connection
from trio_socketio._frontends.serving import Serving
from trio_socketio._wire.encoded import EncodedPacket
from trio_socketio._wire.frames import CLOSE, FIN, apply_mask, encode_frame

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from trio_socketio._engine.contract import Request, Verdict, WebSocket
    from trio_socketio._frontends.static import StaticFiles
    from trio_socketio._wire.deflate import PerMessageDeflate

MASK = b"\x01\x80\xff\x7e"
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="  # for this key, in section 1.3 of RFC 6455
UPGRADE = (
    "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n"
    f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n"
).encode()


def client_frame(first: int, payload: bytes, mask: bytes | None = MASK, width: int = 0) -> bytes:
    """A frame as a client sends it, or should not: `width` is the least number of bytes for the length."""
    size = len(payload)
    bit = 0 if mask is None else 0x80
    if size < 126 and width < 2:
        head = bytes((first, bit | size))
    elif size < 65_536 and width < 8:
        head = bytes((first, bit | 126)) + size.to_bytes(2, "big")
    else:
        head = bytes((first, bit | 127)) + size.to_bytes(8, "big")
    return head + payload if mask is None else head + mask + apply_mask(payload, mask)


def text_frame(text: str) -> bytes:
    return client_frame(FIN | 1, text.encode())


CLOSE_FRAME = client_frame(FIN | CLOSE, b"\x03\xe8")
CLOSE_ANSWER = encode_frame(CLOSE, b"\x03\xe8")
TOO_LARGE_ANSWER = encode_frame(CLOSE, b"\x03\xf1")


class Recorder:
    """A `Receiver` that keeps what it gets. While it is paused, nothing more should come."""

    def __init__(self) -> None:
        self.messages: list[str | bytes] = []
        self.batches = 0
        self.paused = False
        self.go_on = trio.Event()

    def on_message(self, message: str | bytes) -> None:
        self.messages.append(message)

    def end_batch(self) -> None:
        self.batches += 1

    def on_drained(self) -> None:
        pass

    async def resumed(self) -> None:
        await self.go_on.wait()


class Talk(Recorder):
    """An `Acceptance` that records, echoes if asked to, and closes when the pump ends."""

    def __init__(
        self,
        *,
        limit: int = 1000,
        echo: bool = False,
        close_deadline: float = 2.0,
        deflate: PerMessageDeflate | None = None,
    ) -> None:
        super().__init__()
        self.per_message_deflate = deflate
        self.headers = Headers([("x-greeting", "hello")])
        self.max_message_size = limit
        self.error: Exception | None = None
        self.started = trio.Event()
        self.ended = trio.Event()
        self.hang_up = trio.CancelScope()
        self.websocket: WebSocket | None = None
        self._nursery: trio.Nursery | None = None
        self._replies: list[EncodedPacket] = []
        self._echo = echo
        self._close_deadline = close_deadline

    async def run(self, websocket: WebSocket) -> None:
        self.websocket = websocket
        self.started.set()
        code = 1000
        try:
            async with trio.open_nursery() as self._nursery:
                try:
                    with self.hang_up:
                        await websocket.pump(self)
                except RemoteProtocolError as error:
                    self.error = error
                    code = 1009
                except trio.BrokenResourceError as error:
                    self.error = error
                self._nursery.cancel_scope.cancel()
        finally:
            with trio.move_on_after(self._close_deadline, shield=True):
                await websocket.aclose(code)
            self.ended.set()

    def on_message(self, message: str | bytes) -> None:
        super().on_message(message)
        if self._echo:
            text, attachments = (message.encode(), ()) if isinstance(message, str) else (None, (message,))
            self._replies.append(EncodedPacket(text, attachments))

    def end_batch(self) -> None:
        super().end_batch()
        if self._replies and self._nursery is not None and self.websocket is not None:
            replies, self._replies = self._replies, []
            if not self.websocket.send_nowait(replies) and self.websocket.drain is not None:
                self._nursery.start_soon(self.websocket.drain)


class App(Serving):
    """Echoes what is posted to /app/echo, waits at /app/wait, and talks at /ws."""

    def __init__(self, limits: HttpLimits | None = None, files: StaticFiles | None = None) -> None:
        self._limits = HttpLimits() if limits is None else limits
        self._static = files
        self._running = 0
        self.verdict: Verdict | None = None
        self.requests: list[Request] = []
        self.cancelled = 0
        self.disconnected = 0
        self.lost = 0
        self.release = trio.Event()

    @property
    def http_limits(self) -> HttpLimits:
        return self._limits

    @property
    def static_files(self) -> StaticFiles | None:
        return self._static

    @property
    def is_running(self) -> bool:
        return self._running > 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[App]:
        self._running += 1
        try:
            yield self
        finally:
            self._running -= 1

    def owns(self, path: str) -> bool:
        return path.startswith("/app/") or path == "/ws"

    async def handle_request(self, request: Request) -> Response:
        self.requests.append(request)
        response = Response(200, on_lost=self._lose)
        response.headers["content-type"] = "text/plain"
        if request.path == "/app/echo":
            try:
                response.body = await request.read_body(1000)
            except ClientDisconnected:
                self.disconnected += 1
            except BodyTooLarge:
                response.status = 413
        elif request.path == "/app/wait":
            try:
                await self.release.wait()
            except trio.Cancelled:
                self.cancelled += 1
                raise
            response.body = b"released"
        else:
            response.body = request.target.encode()
        return response

    def _lose(self) -> None:
        self.lost += 1

    async def open_websocket(self, request: Request) -> Verdict:
        self.requests.append(request)
        await trio.lowlevel.checkpoint()
        if self.verdict is None:
            return Response(400, b"no")
        return self.verdict


def memory_pair() -> tuple[trio.abc.Stream, trio.abc.Stream]:
    return trio.testing.memory_stream_pair()


def socket_pair() -> tuple[trio.abc.Stream, trio.abc.Stream]:
    ours, theirs = socket.socketpair()
    ends = [trio.SocketStream(trio.socket.from_stdlib_socket(end)) for end in (ours, theirs)]
    return ends[0], ends[1]


PAIRS = [memory_pair, socket_pair]
both_paths = pytest.mark.parametrize("make_pair", PAIRS)


class Client(NamedTuple):
    """A raw client whose upgrade request is sent, the acceptance that serves it, and the head of its answer."""

    stream: trio.abc.Stream
    talk: Talk
    head: bytes = b""

    async def send(self, data: bytes) -> None:
        with suppress(trio.BrokenResourceError):  # as for any client: the server may have closed
            await self.stream.send_all(data)

    async def read_head(self) -> bytes:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += await self.stream.receive_some(1)
        return head

    async def read_exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size and (more := await self.stream.receive_some(size - len(data))):
            data += more
        return data

    async def read_all(self) -> bytes:
        data = b""
        with suppress(trio.BrokenResourceError):
            while more := await self.stream.receive_some():
                data += more
        return data


@asynccontextmanager
async def connect(
    make_pair: Callable[[], tuple[trio.abc.Stream, trio.abc.Stream]], talk: Talk, upgrade: bytes = UPGRADE
) -> AsyncIterator[Client]:
    app = App()
    app.verdict = talk
    ours, theirs = make_pair()
    async with trio.open_nursery() as nursery, theirs:
        nursery.start_soon(serve_connection, app, None, ours)
        client = Client(theirs, talk)
        await client.send(upgrade)
        head = await client.read_head()
        assert ACCEPT in head
        yield client._replace(head=head)
        nursery.cancel_scope.cancel()


async def play(stream: trio.abc.Stream, chunks: list[bytes]) -> None:
    """Send the chunks one by one, each when the one before has had its effect, and then no more."""
    with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        for chunk in chunks:
            await stream.send_all(chunk)
            await trio.testing.wait_all_tasks_blocked(0.0001 if isinstance(stream, trio.SocketStream) else 0)
        assert isinstance(stream, trio.abc.HalfCloseableStream)
        await stream.send_eof()
