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

from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import trio
import trio.testing

from trio_socketio._errors import plain_exceptions

from .wire_http import (
    SEPARATOR,
    WEBSOCKET_HEADERS,
    ConnectionLost,
    Exchange,
    HttpResponse,
    WebSocketClient,
    WebSocketClosed,
    WebSocketRefused,
)
from .wire_protocols import ConnectError, EioClient, EioPolling, EioWebSocket, SessionLost, SioClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

    from .wire_http import Body, HeaderItems

__all__ = [
    "PATIENCE",
    "SEPARATOR",
    "WEBSOCKET_HEADERS",
    "ConnectError",
    "ConnectionLost",
    "EioClient",
    "EioPolling",
    "EioWebSocket",
    "Exchange",
    "HttpResponse",
    "Net",
    "ServedApp",
    "SessionLost",
    "SioClient",
    "WebSocketClient",
    "WebSocketClosed",
    "WebSocketRefused",
    "count_tasks",
    "open_app",
    "settle",
]

#: Seconds (of the test's clock) that the tasks of clients and sessions may take to end after the test.
PATIENCE = 10.0


class ServedApp(Protocol):
    """What the harness needs of an `Engine` or a `Server`."""

    def running(self) -> AbstractAsyncContextManager[object]: ...

    async def handle_stream(self, stream: trio.abc.Stream) -> None: ...


async def settle() -> None:
    """Wait until every task waits for something, so that what was sent has had its effect."""
    await trio.testing.wait_all_tasks_blocked()


def count_tasks(app: Any = None) -> int:
    """How many tasks there are in all, but for those of an application's namespaces, which have one each."""
    return trio.lowlevel.current_statistics().tasks_living - len(getattr(app, "namespaces", ()))


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
                    tasks = count_tasks(app)
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
        while count_tasks(self.app) > tasks and trio.current_time() < deadline:  # noqa: ASYNC110 - their end has no event
            await trio.sleep(0.1)
        left = [task.name for task in self._nursery.child_tasks]
        assert count_tasks(self.app) <= tasks, f"{count_tasks(self.app) - tasks} tasks are left; of connections: {left}"
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
    while trio.testing.memory_stream_pump(sender, receiver, max_bytes=chunk_size()):  # noqa: ASYNC110 - not waiting
        await trio.lowlevel.checkpoint()
