"""The client's side of HTTP and WebSocket connections, on any `trio.abc.Stream`."""

from __future__ import annotations

import json
from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

import h11
import trio
from wsproto import ConnectionType
from wsproto.connection import Connection as Frames
from wsproto.connection import ConnectionState
from wsproto.events import BytesMessage, CloseConnection, Ping, Pong, TextMessage

from trio_socketio import Headers

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import TypeAlias

    Body: TypeAlias = "str | bytes | Sequence[bytes]"
    HeaderItems: TypeAlias = "Mapping[str, str] | Sequence[tuple[str, str]]"

HOST = "example.com"
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
SEPARATOR = "\x1e"
READ_SIZE = 65_536

WEBSOCKET_HEADERS = {
    "connection": "Upgrade",
    "upgrade": "websocket",
    "sec-websocket-version": "13",
    "sec-websocket-key": KEY,
}


class ConnectionLost(Exception):
    """The server cut the connection where a response, or more of it, was due."""


class WebSocketRefused(Exception):
    """The server's answer to an opening request was not 101; `response` is what it was."""

    def __init__(self, response: HttpResponse) -> None:
        super().__init__(f"{response.status} {response.text!r}")
        self.response = response


class WebSocketClosed(Exception):
    """The WebSocket is closed; `code` is 1006 if there was no close frame, 1005 if there was no code in it."""

    def __init__(self, code: int, reason: str = "") -> None:
        super().__init__(f"{code} {reason}".strip())
        self.code = code
        self.reason = reason


class HttpResponse(NamedTuple):
    """An answer, read to its end."""

    status: int
    headers: Headers
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def packets(self) -> list[str]:
        """The Engine.IO packets of a polling body."""
        return self.text.split(SEPARATOR)

    def json(self) -> Any:
        return json.loads(self.body)


class Exchange:
    """One HTTP connection: a request, and its answer as soon as it is asked for; then maybe another."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self._http = h11.Connection(h11.CLIENT)
        self._head: h11.Response | h11.InformationalResponse | None = None
        self._body = b""

    async def ask(self, method: str, target: str, headers: HeaderItems = (), body: Body = b"") -> None:
        """Send a request. A cancelled one leaves the connection in a state that nobody knows."""
        if self._http.our_state is h11.DONE:
            self._http.start_next_cycle()
        lines = Headers(headers)
        lines.setdefault("host", HOST)
        chunks = [body.encode()] if isinstance(body, str) else [body] if isinstance(body, bytes) else list(body)
        if not isinstance(body, (str, bytes)):
            lines["transfer-encoding"] = "chunked"
        elif body or method == "POST":
            lines.setdefault("content-length", str(len(chunks[0])))
        pairs = [(name.encode(), value.encode("latin-1")) for name, value in lines.multi_items()]
        await self._send(h11.Request(method=method, target=target, headers=pairs))
        for chunk in filter(None, chunks):
            await self._send(h11.Data(data=chunk))
        await self._send(h11.EndOfMessage())

    async def _send(self, event: h11.Event) -> None:
        await self.stream.send_all(self._http.send(event) or b"")

    async def response(self) -> HttpResponse:
        """Wait for the answer. May be cancelled and awaited again.

        Raises:
            ConnectionLost: The connection ended before the answer did.
        """
        while True:
            event = await self._next_event()
            if isinstance(event, (h11.Response, h11.InformationalResponse)):
                self._head = event
                if isinstance(event, h11.InformationalResponse) and event.status_code == 101:
                    break
            elif isinstance(event, h11.Data):
                self._body += event.data
            elif isinstance(event, h11.EndOfMessage):
                break
            else:
                raise ConnectionLost(f"no answer, but {event!r}")
        assert self._head is not None
        headers = Headers([(name.decode(), value.decode("latin-1")) for name, value in self._head.headers])
        response = HttpResponse(self._head.status_code, headers, self._body)
        self._head, self._body = None, b""
        return response

    async def _next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        while True:
            try:
                event = self._http.next_event()
            except h11.RemoteProtocolError as error:
                raise ConnectionLost(str(error)) from error
            if event is not h11.NEED_DATA:
                return event
            self._http.receive_data(await self._receive())

    async def _receive(self) -> bytes:
        try:
            return bytes(await self.stream.receive_some(READ_SIZE))
        except trio.BrokenResourceError:
            return b""

    async def websocket(self) -> WebSocketClient:
        """Wait for the answer to an opening request."""
        response = await self.response()
        if response.status != 101:
            raise WebSocketRefused(response)
        return WebSocketClient(self.stream, response.headers, self._http.trailing_data[0])

    async def drop(self) -> None:
        """Cut the connection."""
        await trio.aclose_forcefully(self.stream)


class WebSocketClient:
    """A WebSocket, with as much control over its frames as a test may want. Pings are answered inside `recv`.

    Attributes:
        headers: Those of the 101.
        stream: The bytes underneath.
    """

    def __init__(self, stream: trio.abc.Stream, headers: Headers, trailing: bytes) -> None:
        self.stream = stream
        self.headers = headers
        self._frames = Frames(ConnectionType.CLIENT, trailing_data=trailing)
        self._messages: deque[str | bytes] = deque()
        self._partial: list[Any] = []
        self._closed: WebSocketClosed | None = None

    async def send(self, message: str | bytes) -> None:
        """Send one message in one frame."""
        await self.send_raw(self.encode(message))

    def encode(self, message: str | bytes) -> bytes:
        """The frame of a message, for `send_raw`."""
        return self._frames.send(TextMessage(message) if isinstance(message, str) else BytesMessage(message))

    async def send_raw(self, data: bytes) -> None:
        """Send any bytes."""
        await self.stream.send_all(data)

    async def ping(self, payload: bytes = b"") -> None:
        await self.send_raw(self._frames.send(Ping(payload=payload)))

    async def recv(self) -> str | bytes:
        """The next message. May be cancelled and awaited again.

        Raises:
            WebSocketClosed: There are no more; the closing handshake has been completed.
        """
        while not self._messages:
            if self._closed is not None:
                raise self._closed
            try:
                data = bytes(await self.stream.receive_some(READ_SIZE))
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                data = b""
            self._frames.receive_data(data or None)
            await self._take_events()
        return self._messages.popleft()

    async def _take_events(self) -> None:
        for event in self._frames.events():
            if isinstance(event, (TextMessage, BytesMessage)):
                self._partial.append(event.data)
                if event.message_finished:
                    self._messages.append(self._partial[0][:0].join(self._partial))
                    self._partial = []
            elif isinstance(event, Ping):
                await self._reply(self._frames.send(event.response()))
            elif isinstance(event, CloseConnection):
                if self._frames.state is ConnectionState.REMOTE_CLOSING:
                    await self._reply(self._frames.send(event.response()))
                self._closed = WebSocketClosed(int(event.code), event.reason or "")
            else:
                assert isinstance(event, Pong), event

    async def _reply(self, data: bytes) -> None:
        try:
            await self.send_raw(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return  # the server has gone, which the next read will show

    async def closed(self) -> WebSocketClosed:
        """How the server closes: the next thing that comes has to be that.

        Raises:
            AssertionError: It was a message.
        """
        try:
            message = await self.recv()
        except WebSocketClosed as closed:
            return closed
        raise AssertionError(f"a message instead of a close: {message!r}")

    async def close(self, code: int = 1000) -> WebSocketClosed:
        """Close with a handshake; messages that were still under way are thrown away."""
        await self.send_raw(self._frames.send(CloseConnection(code=code)))
        while True:
            try:
                await self.recv()
            except WebSocketClosed as closed:
                await self.drop()
                return closed

    async def drop(self) -> None:
        """Cut the connection."""
        await trio.aclose_forcefully(self.stream)
