"""How a client reaches a server: requests and WebSockets, whatever carries them.

A `StreamNetwork` has every byte of them, with h11 and wsproto on this side. On the other side of a `ListenerNetwork` is
the server's own listener, in memory; the TCP one is in `_tcp`. The ASGI one, which has no bytes, is in `_asgi`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import h11
import trio
from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Ping,
    RejectConnection,
    RejectData,
    TextMessage,
)
from wsproto.events import Request as OpeningRequest

from .._errors import SessionClosed, TrioSocketIOError
from ._pipe import CAPACITY, Pipe, Stream, connect

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import TypeAlias

    from .. import Server

    HeaderItems: TypeAlias = "Sequence[tuple[str, str]]"

HOST = "localhost"

TRANSPORT_CLOSE = "transport close"
TRANSPORT_ERROR = "transport error"


class RefusedByHttp(TrioSocketIOError):
    """A request was answered with an error, so there is no session, or not any more.

    Args:
        status: The HTTP status.
        body: That of the answer.
    """

    def __init__(self, status: int, body: str) -> None:
        super().__init__(f"{status} {body}".strip())
        self.status = status
        self.body = body


class HttpAnswer(NamedTuple):
    """The answer to a request."""

    status: int
    body: bytes


class ClientWebSocket(Protocol):
    """A WebSocket, from the client's side."""

    @abstractmethod
    async def send(self, messages: Sequence[str | bytes]) -> None:
        """Send messages, each in a frame. Raises `SessionClosed` if the connection is gone."""

    @abstractmethod
    async def send_bytes(self, data: bytes) -> None:
        """Send bytes that need not be frames. Raises `RuntimeError` where there are no bytes."""

    @abstractmethod
    async def receive(self) -> str | bytes:
        """The next message. Raises `SessionClosed` when there are no more. May be cancelled."""

    @abstractmethod
    async def close(self) -> None:
        """Say goodbye."""


class Network(Protocol):
    """The way to one server, for one client."""

    @abstractmethod
    async def request(self, method: str, target: str, headers: HeaderItems, body: bytes = b"") -> HttpAnswer:
        """Make a request. Cancelling it is, to the server, a client that leaves.

        Raises:
            SessionClosed: The connection ended without an answer.
        """

    @abstractmethod
    async def open_websocket(self, target: str, headers: HeaderItems) -> ClientWebSocket:
        """Open a WebSocket.

        Raises:
            RefusedByHttp: The answer is an ordinary one.
            SessionClosed: There is none.
        """

    @abstractmethod
    def stop_reading(self) -> None:
        """Take nothing any more of what WebSockets bring."""

    @abstractmethod
    def resume_reading(self) -> None:
        """Take it again."""

    @abstractmethod
    def cut(self) -> None:
        """Lose all connections, without a word, and be unable to make new ones until `restore`."""

    @abstractmethod
    def restore(self) -> None:
        """Be in order again."""

    @abstractmethod
    async def finished(self) -> None:
        """Wait until the server is done with all connections."""


class ClientStream(Protocol):
    """A connection, from the client's side."""

    @abstractmethod
    async def send_all(self, data: bytes) -> None: ...

    @abstractmethod
    async def receive_some(self, max_bytes: int) -> bytes: ...

    @abstractmethod
    def stop_reading(self) -> None: ...

    @abstractmethod
    def resume_reading(self) -> None: ...

    @abstractmethod
    def close_sending(self) -> None:
        """Say no more."""

    @abstractmethod
    def close(self) -> None:
        """Be gone, without a word."""


class StreamNetwork(Network):
    """Requests and WebSockets on connections, wherever these come from.

    Args:
        host: What requests are for.
    """

    def __init__(self, host: str) -> None:
        self._host = host
        self._streams: set[ClientStream] = set()
        self._paused = False
        self._is_cut = False

    @abstractmethod
    async def connect(self) -> ClientStream:
        """A new connection. Raises `SessionClosed` if there is none to be had."""

    async def request(self, method: str, target: str, headers: HeaderItems, body: bytes = b"") -> HttpAnswer:
        # A connection for each: one that is kept may have been closed by the server when the virtual clock has jumped.
        stream = await self._connect()
        try:
            http = h11.Connection(h11.CLIENT)
            lines = [("host", self._host), ("content-length", str(len(body))), *headers]
            head = h11.Request(method=method, target=target, headers=lines)
            data = [http.send(event) or b"" for event in (head, h11.Data(data=body), h11.EndOfMessage())]
            with translated_errors(TRANSPORT_ERROR):
                await stream.send_all(b"".join(data))
                return await _read_answer(http, stream)
        finally:
            self._cut(stream)

    async def open_websocket(self, target: str, headers: HeaderItems) -> ClientWebSocket:
        stream = await self._connect()
        websocket = _StreamWebSocket(stream)
        try:
            await websocket.open(self._host, target, headers)
        except BaseException:
            self._cut(stream)
            raise
        if self._paused:
            stream.stop_reading()
        return websocket

    def stop_reading(self) -> None:
        self._paused = True
        for stream in self._streams:
            stream.stop_reading()

    def resume_reading(self) -> None:
        self._paused = False
        for stream in self._streams:
            stream.resume_reading()

    def cut(self) -> None:
        self._is_cut = True
        for stream in list(self._streams):
            self._cut(stream)

    def restore(self) -> None:
        self._is_cut = False

    async def _connect(self) -> ClientStream:
        if self._is_cut:
            raise SessionClosed(TRANSPORT_ERROR)
        stream = await self.connect()
        self._streams.add(stream)
        return stream

    def _cut(self, stream: ClientStream) -> None:
        self._streams.discard(stream)
        stream.close()


class ListenerNetwork(StreamNetwork):
    """Memory streams into the listener of a server: ``io.handle_stream``.

    Args:
        io: The server.
        nursery: For the server's side of the connections.
    """

    def __init__(self, io: Server, nursery: trio.Nursery) -> None:
        super().__init__(HOST)
        self._io = io
        self._nursery = nursery
        self._serving = 0
        self._served = trio.lowlevel.ParkingLot()

    async def connect(self) -> ClientStream:
        ours, theirs, to_client = connect()
        self._serving += 1
        self._nursery.start_soon(self._serve, theirs)
        return _MemoryStream(ours, to_client)

    async def _serve(self, stream: Stream) -> None:
        try:
            await self._io.handle_stream(stream)
        finally:
            self._serving -= 1
            self._served.unpark_all()

    async def finished(self) -> None:
        await trio.lowlevel.checkpoint()
        while self._serving:
            await self._served.park()


class _MemoryStream(ClientStream):
    def __init__(self, stream: Stream, to_client: Pipe) -> None:
        self._stream = stream
        self._to_client = to_client

    async def send_all(self, data: bytes) -> None:
        await self._stream.send_all(data)

    async def receive_some(self, max_bytes: int) -> bytes:
        return bytes(await self._stream.receive_some(max_bytes))

    def stop_reading(self) -> None:
        self._to_client.stop_reading()

    def resume_reading(self) -> None:
        self._to_client.resume_reading()

    def close_sending(self) -> None:
        self._stream.send_stream.close()

    def close(self) -> None:
        self._stream.send_stream.close()
        self._stream.receive_stream.close()


@contextmanager
def translated_errors(reason: str) -> Iterator[None]:
    """Let what a broken connection raises be a `SessionClosed`."""
    try:
        yield
    except (trio.BrokenResourceError, trio.ClosedResourceError, h11.RemoteProtocolError) as error:
        raise SessionClosed(reason) from error


async def _read_answer(http: h11.Connection, stream: ClientStream) -> HttpAnswer:
    status, body = 0, bytearray()
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            http.receive_data(await stream.receive_some(CAPACITY))
        elif isinstance(event, h11.Response):
            status = event.status_code
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage):
            return HttpAnswer(status, bytes(body))
        elif not isinstance(event, h11.InformationalResponse):
            raise trio.BrokenResourceError("the connection ended without an answer")


class _StreamWebSocket(ClientWebSocket):
    """A WebSocket on a stream; wsproto is the authority on its frames."""

    def __init__(self, stream: ClientStream) -> None:
        self._stream = stream
        self._protocol = WSConnection(ConnectionType.CLIENT)
        self._messages: deque[str | bytes] = deque()
        self._parts: list[Any] = []  # all text or all bytes, of a message in fragments
        self._sending = trio.Lock()
        self._closed = False
        self._accepted = False
        self._status = 0
        self._refusal = bytearray()

    async def open(self, host: str, target: str, headers: HeaderItems) -> None:
        extra = [(name.encode("ascii"), value.encode("latin-1")) for name, value in headers]
        opening = OpeningRequest(host=host, target=target, extra_headers=extra)
        with translated_errors(TRANSPORT_CLOSE):
            await self._stream.send_all(self._protocol.send(opening))
            while not self._accepted:
                await self._read()
                if self._closed:
                    raise SessionClosed(TRANSPORT_CLOSE)

    async def send(self, messages: Sequence[str | bytes]) -> None:
        if self._closed:
            raise SessionClosed(TRANSPORT_CLOSE)
        events = (TextMessage(data=m) if isinstance(m, str) else BytesMessage(data=m) for m in messages)
        with translated_errors(TRANSPORT_CLOSE):
            await self._write(b"".join([self._protocol.send(event) for event in events]))

    async def send_bytes(self, data: bytes) -> None:
        with translated_errors(TRANSPORT_CLOSE):
            await self._write(data)

    async def receive(self) -> str | bytes:
        while not self._messages:
            if self._closed:
                raise SessionClosed(TRANSPORT_CLOSE)
            with translated_errors(TRANSPORT_CLOSE):
                await self._read()
        return self._messages.popleft()

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            with translated_errors(TRANSPORT_CLOSE):
                await self._write(self._protocol.send(CloseConnection(code=1000)))

    async def _write(self, data: bytes) -> None:
        async with self._sending:  # the bytes of one write stay together, whoever else is writing
            try:
                await self._stream.send_all(data)
            except trio.Cancelled:
                self._closed = True  # after half of a frame there is nothing left to say
                self._stream.close_sending()
                raise

    async def _read(self) -> None:
        data = await self._stream.receive_some(CAPACITY)
        if not (data or self._accepted or self._status):
            raise trio.BrokenResourceError("the connection ended without an answer")
        self._protocol.receive_data(data or None)
        for event in self._protocol.events():
            if isinstance(event, TextMessage | BytesMessage):
                self._take(event)
            elif isinstance(event, Ping):
                await self._write(self._protocol.send(event.response()))
            elif isinstance(event, CloseConnection):
                if not self._closed:
                    self._closed = True
                    if data:
                        await self._write(self._protocol.send(event.response()))
            elif isinstance(event, AcceptConnection):
                self._accepted = True
            elif isinstance(event, RejectConnection):
                self._status = event.status_code
                if not event.has_body:
                    raise RefusedByHttp(self._status, "")
            elif isinstance(event, RejectData):
                self._refusal += event.data
                if event.body_finished:
                    raise RefusedByHttp(self._status, self._refusal.decode())
        if not data and not self._closed:
            self._closed = True

    def _take(self, event: TextMessage | BytesMessage) -> None:
        self._parts.append(event.data if isinstance(event.data, str) else bytes(event.data))
        if event.message_finished:
            self._messages.append(self._parts[0][:0].join(self._parts))
            self._parts = []
