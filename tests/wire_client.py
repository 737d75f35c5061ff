"""A client that speaks real bytes to an application's own listener, in memory, on whatever clock Trio has.

Every connection is a pair of memory streams, one end of which goes to ``app.handle_stream``: what is tested is all of
the server but the kernel. Nothing here knows the server's code, so what goes over the wire is decided twice::

    async with open_app(Engine()) as net:
        response = await net.get("?EIO=4&transport=polling")
        client = await net.connect_socketio("/admin", auth={"token": "123"})

Targets that do not begin with a slash are below the application's own path. On leaving, `open_app` closes all clients
and sessions and makes sure that no task of theirs is left.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections import deque
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import h11
import trio
import trio.testing
from wsproto import ConnectionType
from wsproto.connection import Connection as Frames
from wsproto.connection import ConnectionState
from wsproto.events import BytesMessage, CloseConnection, Ping, Pong, TextMessage

from trio_socketio import Headers
from trio_socketio._errors import plain_exceptions

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager
    from typing import TypeAlias

    Body: TypeAlias = "str | bytes | Sequence[bytes]"
    HeaderItems: TypeAlias = "Mapping[str, str] | Sequence[tuple[str, str]]"

HOST = "example.com"
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
SEPARATOR = "\x1e"
READ_SIZE = 65_536
#: Seconds (of the test's clock) that the tasks of clients and sessions may take to end after the test.
PATIENCE = 10.0


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


class SessionLost(Exception):
    """The Engine.IO session has ended; `how` is what the client saw of that."""

    def __init__(self, how: str) -> None:
        super().__init__(how)
        self.how = how


class ConnectError(Exception):
    """The server answered CONNECT with CONNECT_ERROR; `data` is its payload."""

    def __init__(self, data: Any) -> None:
        super().__init__(repr(data))
        self.data = data


class ServedApp(Protocol):
    """What the harness needs of an `Engine` or a `Server`."""

    def running(self) -> AbstractAsyncContextManager[object]: ...

    async def handle_stream(self, stream: trio.abc.Stream) -> None: ...


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


async def settle() -> None:
    """Wait until every task waits for something, so that what was sent has had its effect."""
    await trio.testing.wait_all_tasks_blocked()


def count_tasks() -> int:
    """How many tasks there are in all."""
    return trio.lowlevel.current_statistics().tasks_living


@asynccontextmanager
async def open_app(app: Any, *, running: bool = True) -> AsyncIterator[Net]:
    """Run an application, and give a `Net` to reach it by.

    Args:
        app: An `Engine`, a `Server`, or any `ServedApp`.
        running: False leaves out ``app.running()``.

    Raises:
        AssertionError: Tasks are left when all clients and sessions have been closed.
    """
    with plain_exceptions():
        async with trio.open_nursery() as nursery:
            if running:
                async with app.running():
                    net = Net(app, nursery)
                    await settle()
                    tasks = count_tasks()
                    yield net
                    await net.end(tasks)
            else:
                yield Net(app, nursery)
            nursery.cancel_scope.cancel()


class Net:
    """The way to one application.

    Attributes:
        app: The application.
        path: Where its Engine.IO is, with a slash at the end.
        chunk_size: If assigned, it is asked for the number of bytes of each piece in which what clients of new
            connections send arrives.
    """

    chunk_size: Callable[[], int] | None = None

    def __init__(self, app: Any, nursery: trio.Nursery) -> None:
        self.app = app
        self.engine: Any = getattr(app, "engine", app)
        self.path: str = self.engine.config.path + "/"
        self._nursery = nursery
        self._streams: list[trio.abc.Stream] = []

    def connect(self, *, unread: bool = False) -> trio.StapledStream[Any, Any]:
        """A new connection, as a stream.

        Args:
            unread: The client's side takes no bytes but those that are read from it: as with a network whose buffers
                are full, the server has to wait. Otherwise they are taken, however many.
        """
        to_server = trio.testing.memory_stream_one_way_pair()
        if self.chunk_size is not None:
            to_server[0].send_all_hook = partial(_send_in_pieces, *to_server, self.chunk_size)
        pair = trio.testing.lockstep_stream_one_way_pair if unread else trio.testing.memory_stream_one_way_pair
        to_client: tuple[Any, Any] = pair()
        self._nursery.start_soon(self.app.handle_stream, trio.StapledStream(to_client[0], to_server[1]))
        stream: trio.StapledStream[Any, Any] = trio.StapledStream(to_server[0], to_client[1])
        self._streams.append(stream)
        return stream

    def target(self, target: str) -> str:
        """The same target, below the application's path if it does not begin with a slash."""
        return target if target.startswith("/") else self.path + target

    async def end(self, tasks: int) -> None:
        """Close all connections and sessions, and wait until there are no more than this many tasks."""
        for stream in self._streams:
            await trio.aclose_forcefully(stream)
        for session in list(self.engine.sessions.values()):
            session.close(discard=True)
        deadline = trio.current_time() + PATIENCE
        await settle()
        while count_tasks() > tasks and trio.current_time() < deadline:  # noqa: ASYNC110 - their end has no event
            await trio.sleep(0.1)
        left = [task.name for task in self._nursery.child_tasks]
        assert count_tasks() <= tasks, f"{count_tasks() - tasks} tasks are left; of connections: {left}"
        assert not self.engine.sessions, "sessions are left"

    # HTTP

    async def start(
        self, method: str, target: str, headers: HeaderItems = (), body: Body = b"", *, unread: bool = False
    ) -> Exchange:
        """Send a request on a new connection; what it returns has the answer, when there is one."""
        exchange = Exchange(self.connect(unread=unread))
        await exchange.ask(method, self.target(target), headers, body)
        return exchange

    async def start_get(self, target: str, headers: HeaderItems = ()) -> Exchange:
        """A GET that pends: the server has seen it and waits when this returns."""
        exchange = await self.start("GET", target, headers)
        await settle()
        return exchange

    async def request(self, method: str, target: str, headers: HeaderItems = (), body: Body = b"") -> HttpResponse:
        """Ask on a new connection and wait for the answer.

        Args:
            method: Such as ``"GET"``.
            target: Path and query; without a slash at its beginning, below the application's path.
            headers: More than ``host`` and the body's.
            body: Text (in UTF-8) or bytes with their length, or chunks.
        """
        exchange = await self.start(method, target, headers, body)
        response = await exchange.response()
        await exchange.drop()
        return response

    async def get(self, target: str, headers: HeaderItems = ()) -> HttpResponse:
        return await self.request("GET", target, headers)

    async def post(self, target: str, body: Body, headers: HeaderItems = ()) -> HttpResponse:
        return await self.request("POST", target, headers, body)

    # WebSockets and their users

    async def websocket(self, target: str, headers: HeaderItems = (), *, unread: bool = False) -> WebSocketClient:
        """Open a WebSocket.

        Raises:
            WebSocketRefused: The answer was not 101.
            ConnectionLost: There was none.
        """
        exchange = Exchange(self.connect(unread=unread))
        await exchange.ask("GET", self.target(target), {**WEBSOCKET_HEADERS, **dict(headers)})
        return await exchange.websocket()

    async def polling(self, query: str = "", headers: HeaderItems = ()) -> EioPolling:
        """A new Engine.IO session on long-polling; `query` is added to that of the handshake."""
        return await EioPolling.open(self, query, headers)

    async def engine_websocket(
        self, query: str = "", headers: HeaderItems = (), *, unread: bool = False
    ) -> EioWebSocket:
        """A new Engine.IO session on a WebSocket."""
        websocket = await self.websocket("?EIO=4&transport=websocket" + query, headers, unread=unread)
        return await EioWebSocket.open(websocket)

    async def connect_socketio(
        self,
        namespace: str = "/",
        auth: Any = None,
        transport: str = "websocket",
        *,
        query: str = "",
        headers: HeaderItems = (),
        unread: bool = False,
    ) -> SioClient:
        """A Socket.IO client, connected to a namespace.

        Args:
            namespace: Its name.
            auth: What it says about itself.
            transport: ``"websocket"`` or ``"polling"``.
            query: Added to the query of the handshake, such as ``"&token=123"``.
            headers: Of the handshake.
            unread: As for `connect`; WebSocket only.

        Raises:
            ConnectError: The server refused.
        """
        client = await self.open_socketio(transport, query=query, headers=headers, unread=unread)
        client.sid = (await client.join(namespace, auth))["sid"]
        client.namespace = namespace
        return client

    async def open_socketio(
        self,
        transport: str = "websocket",
        *,
        query: str = "",
        headers: HeaderItems = (),
        unread: bool = False,
    ) -> SioClient:
        """A Socket.IO client that has a session, and has not said CONNECT."""
        if transport == "websocket":
            return SioClient(await self.engine_websocket(query, headers, unread=unread))
        return SioClient(await self.polling(query, headers))


async def _send_in_pieces(
    sender: trio.testing.MemorySendStream, receiver: trio.testing.MemoryReceiveStream, chunk_size: Callable[[], int]
) -> None:
    while trio.testing.memory_stream_pump(sender, receiver, max_bytes=chunk_size()):
        await trio.lowlevel.checkpoint()


WEBSOCKET_HEADERS = {
    "connection": "Upgrade",
    "upgrade": "websocket",
    "sec-websocket-version": "13",
    "sec-websocket-key": KEY,
}


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


class EioClient(Protocol):
    """An Engine.IO session, on either transport."""

    sid: str

    async def send(self, *packets: str | bytes) -> None:
        """Send packets: text with its type digit, or a binary message."""

    async def recv(self) -> str | bytes:
        """The next packet, pings included. Raises `SessionLost` when there are no more."""

    async def close(self) -> None:
        """End the session as a client does."""

    async def drop(self) -> None:
        """Vanish: cut the connection."""


class EioPolling:
    """A session on long-polling.

    Attributes:
        sid: Its id.
        handshake: The JSON of the ``open`` packet.
        opening: The answer to the handshake.
        target: Where it polls and posts.
    """

    def __init__(self, net: Net, opening: HttpResponse) -> None:
        first, *more = opening.packets
        assert first[0] == "0", opening
        self.opening = opening
        self.handshake: dict[str, Any] = json.loads(first[1:])
        self.sid: str = self.handshake["sid"]
        self.target = f"{net.path}?EIO=4&transport=polling&sid={self.sid}"
        self._net = net
        self._packets: deque[str | bytes] = deque(more)
        self._pending: Exchange | None = None

    @classmethod
    async def open(cls, net: Net, query: str = "", headers: HeaderItems = ()) -> EioPolling:
        opening = await net.get("?EIO=4&transport=polling" + query, headers)
        assert opening.status == 200, opening
        return cls(net, opening)

    async def start_poll(self) -> Exchange:
        """A GET; the server has seen it when this returns."""
        return await self._net.start_get(self.target)

    async def send_poll(self) -> Exchange:
        """A GET; the server may not have seen it yet."""
        return await self._net.start("GET", self.target)

    async def poll(self) -> list[str]:
        """The packets that a GET brings, as they are on the wire."""
        response = await self._net.get(self.target)
        assert response.status == 200, response
        return response.packets

    async def post(self, body: Body, headers: HeaderItems = ()) -> HttpResponse:
        return await self._net.post(self.target, body, headers)

    async def send(self, *packets: str | bytes) -> None:
        encoded = [packet if isinstance(packet, str) else "b" + b64encode(packet).decode() for packet in packets]
        response = await self.post(SEPARATOR.join(encoded))
        if response.status != 200:
            raise SessionLost(f"{response.status} {response.text}")
        assert response.body == b"ok", response

    async def recv(self) -> str | bytes:
        while not self._packets:
            if self._pending is None:
                self._pending = await self.send_poll()
            response = await self._pending.response()
            await self._pending.drop()
            self._pending = None
            if response.status != 200:
                raise SessionLost(f"{response.status} {response.text}")
            self._packets += [b64decode(p[1:]) if p[0] == "b" else p for p in response.packets]
        packet = self._packets.popleft()
        if packet == "1":
            raise SessionLost("closed by the server")
        return packet

    async def close(self) -> None:
        await self.send("1")

    async def drop(self) -> None:
        """Let go of the pending poll, or of a new one: without a poll nobody would notice."""
        exchange = self._pending or await self.start_poll()
        self._pending = None
        await exchange.drop()

    async def probe(self) -> WebSocketClient:
        """Open a WebSocket for this session; nothing is said on it yet."""
        return await self._net.websocket(f"?EIO=4&transport=websocket&sid={self.sid}")

    async def upgrade(self) -> EioWebSocket:
        """Go over to a WebSocket, as clients do: probe, end of polling, upgrade. Messages on the way are kept."""
        websocket = await self.probe()
        await websocket.send("2probe")
        assert await websocket.recv() == "3probe"
        if self._pending is not None:
            response = await self._pending.response()
            self._packets += [p for p in response.packets if p != "6"]
            self._pending = None
        await websocket.send("5")
        await settle()
        return EioWebSocket(websocket, self.handshake, self._packets)


class EioWebSocket:
    """A session on a WebSocket.

    Attributes:
        sid: Its id.
        handshake: The JSON of the ``open`` packet.
        websocket: The `WebSocketClient`.
    """

    def __init__(
        self, websocket: WebSocketClient, handshake: dict[str, Any], packets: Iterable[str | bytes] = ()
    ) -> None:
        self.websocket = websocket
        self.handshake = handshake
        self.sid: str = handshake["sid"]
        self._packets = deque(packets)

    @classmethod
    async def open(cls, websocket: WebSocketClient) -> EioWebSocket:
        first = await websocket.recv()
        assert isinstance(first, str), first
        assert first[0] == "0", first
        return cls(websocket, json.loads(first[1:]))

    async def send(self, *packets: str | bytes) -> None:
        for packet in packets:
            await self.websocket.send(packet)

    async def recv(self) -> str | bytes:
        if self._packets:
            return self._packets.popleft()
        try:
            return await self.websocket.recv()
        except WebSocketClosed as closed:
            raise SessionLost(str(closed)) from closed

    async def close(self) -> None:
        await self.websocket.close()

    async def drop(self) -> None:
        await self.websocket.drop()


class SioClient:
    """A Socket.IO client: packets as text, without Engine.IO's ``4``, and attachments as bytes.

    Attributes:
        engine: The session underneath.
        namespace: Where `emit`, `disconnect` and `recv_event` are.
        sid: The id of its socket there.
        answer_pings: Whether `recv` answers the engine's pings, or (false) returns them as ``"2"``, with their digit.
    """

    def __init__(self, engine: EioClient) -> None:
        self.engine = engine
        self.namespace = "/"
        self.sid = ""
        self.answer_pings = True

    def _prefix(self, namespace: str | None = None) -> str:
        name = self.namespace if namespace is None else namespace
        return "" if name == "/" else f"{name},"

    async def join(self, namespace: str, auth: Any = None) -> dict[str, Any]:
        """Connect to a namespace, as the next thing that happens; returns the payload of the answer.

        Raises:
            ConnectError: The server refused.
        """
        await self.send_raw(f"0{self._prefix(namespace)}" + ("" if auth is None else _to_json(auth)))
        answer = await self.recv()
        assert isinstance(answer, str), answer
        start = 1 + len(self._prefix(namespace))
        assert answer[:start] in (f"0{self._prefix(namespace)}", f"4{self._prefix(namespace)}"), answer
        payload = json.loads(answer[start:])
        if answer[0] == "4":
            raise ConnectError(payload)
        assert isinstance(payload, dict), answer
        return payload

    async def send_raw(self, *packets: str | bytes) -> None:
        """Send packets, or attachments, as they are; on long-polling all of them in one body."""
        await self.engine.send(*[f"4{packet}" if isinstance(packet, str) else packet for packet in packets])

    async def emit(self, event: str | int, *args: Any, id: int | None = None, namespace: str | None = None) -> None:
        """Emit an event, whose arguments may have bytes in them; with an id, the server is to acknowledge it."""
        await self._send_packet("2", "5", [event, *args], id, namespace)

    async def ack(self, id: int, *args: Any, namespace: str | None = None) -> None:
        """Acknowledge an event of the server."""
        await self._send_packet("3", "6", list(args), id, namespace)

    async def _send_packet(self, plain: str, binary: str, data: Any, id: int | None, namespace: str | None) -> None:
        attachments: list[bytes] = []
        text = _to_json(_with_placeholders(data, attachments))
        kind = f"{binary}{len(attachments)}-" if attachments else plain
        await self.send_raw(kind + self._prefix(namespace) + ("" if id is None else str(id)) + text, *attachments)

    async def recv(self) -> str | bytes:
        """The next packet or attachment. May be cancelled and awaited again.

        Raises:
            SessionLost: The session has ended.
        """
        while True:
            packet = await self.engine.recv()
            if isinstance(packet, bytes):
                return packet
            if packet[0] == "4":
                return packet[1:]
            if packet == "2" and self.answer_pings:
                await self.engine.send("3")
            elif packet != "6":
                return packet

    async def recv_event(self) -> tuple[int | None, list[Any]]:
        """The next packet, which has to be an event (or an ack) of this namespace: its id, and its values."""
        packet = await self.recv()
        assert isinstance(packet, str), packet
        assert packet[0] in "2356", packet
        count, _, rest = packet[1:].partition("-") if packet[0] in "56" else ("0", "", packet[1:])
        prefix = self._prefix()
        assert rest.startswith(prefix), packet
        digits, bracket, values = rest[len(prefix) :].partition("[")
        attachments = [await self.recv() for _ in range(int(count))]
        data = _with_attachments(json.loads(bracket + values), attachments)
        return (int(digits) if digits else None), data

    async def recv_nothing(self, seconds: float = 1.0) -> None:
        """Make sure that nothing but heartbeats comes for some time."""
        with trio.move_on_after(seconds):
            raise AssertionError(f"unexpected: {await self.recv()!r}")

    async def lost(self) -> SessionLost:
        """How the session ends: the next thing that comes has to be that."""
        try:
            packet = await self.recv()
        except SessionLost as lost:
            return lost
        raise AssertionError(f"unexpected: {packet!r}")

    async def disconnect(self, namespace: str | None = None) -> None:
        """Leave a namespace."""
        await self.send_raw("1" + self._prefix(namespace))

    async def close(self) -> None:
        """End the session as a client does."""
        await self.engine.close()

    async def drop(self) -> None:
        """Vanish: cut the connection."""
        await self.engine.drop()


def _to_json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _with_placeholders(value: Any, attachments: list[bytes]) -> Any:
    if isinstance(value, bytes):
        attachments.append(value)
        return {"_placeholder": True, "num": len(attachments) - 1}
    if isinstance(value, dict):
        return {name: _with_placeholders(item, attachments) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_with_placeholders(item, attachments) for item in value]
    return value


def _with_attachments(value: Any, attachments: Sequence[str | bytes]) -> Any:
    if isinstance(value, dict):
        if value.get("_placeholder") is True:
            return attachments[value["num"]]
        return {name: _with_attachments(item, attachments) for name, item in value.items()}
    return [_with_attachments(item, attachments) for item in value] if isinstance(value, list) else value
