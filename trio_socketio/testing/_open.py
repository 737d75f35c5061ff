"""Connecting a client to a server, with whatever has to be there for that."""

from __future__ import annotations

from contextlib import asynccontextmanager, nullcontext
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import trio

from .._errors import ConnectionRefused, plain_exceptions
from .._wire.parser import DefaultParser
from ._asgi import ASGINetwork, lifespan
from ._client import MemoryClient
from ._link import FAREWELL, Link
from ._network import ListenerNetwork
from ._session import Endpoint
from ._tcp import TcpNetwork

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from contextlib import AbstractAsyncContextManager

    from .. import Server
    from .._wire.parser import Parser
    from ._asgi import ASGI
    from ._session import Transport


@asynccontextmanager
async def open_client(
    io: Server[Any],
    namespace: str = "/",
    *,
    auth: Mapping[str, Any] | None = None,
    transport: Transport = "websocket",
    upgrade: bool = False,
    app: ASGI | None = None,
    path: str | None = None,
    query: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
) -> AsyncIterator[MemoryClient]:
    """Connect a client to a server in the same process; it says goodbye when the context is left.

    It speaks to the server's own listener through a connection in memory, so it works on a virtual clock
    (`trio.testing.MockClock`), and nothing that a client on a network would meet is left out. If the server is not
    running, it runs for as long as the context; of several clients, the first one's.

    Args:
        io: The server.
        namespace: Where to connect.
        auth: What to say with CONNECT.
        transport: ``"websocket"`` or ``"polling"``, to begin with.
        upgrade: Whether to go from long-polling to a WebSocket before the client connects to its namespace.
        app: An ASGI app with the server in it, such as ``ASGIApp(io)``, to go through instead of the listener.
        path: Where the server is; by default its own ``path``. For an app that mounts it below another one.
        query: Added to the query of the handshake.
        headers: Of all requests.

    Raises:
        ConnectionRefused: The server does not want it; see `MemoryClient.reconnect`.
        ValueError: Another transport, or an upgrade from a WebSocket.
        Exception: What the handlers of the client raise.
    """
    _check(transport, upgrade)
    with plain_exceptions():
        async with _serving(io, app), trio.open_nursery() as nursery:
            network = ListenerNetwork(io, nursery) if app is None else ASGINetwork(app, nursery)
            base = (io.engine.config.path if path is None else path).rstrip("/") + "/"
            lines = tuple((headers or {}).items())
            endpoint = Endpoint(network, base, transport, upgrade, query or {}, lines)
            try:
                async with _connected(Link(endpoint, io.config.parser, nursery), namespace, auth) as client:
                    yield client
            finally:
                # A client that has failed is gone before anything of the server is cancelled.
                network.cut()
                with trio.move_on_after(FAREWELL, shield=True):
                    await network.finished()


@asynccontextmanager
async def open_client_at(
    url: str,
    namespace: str = "/",
    *,
    auth: Mapping[str, Any] | None = None,
    transport: Transport = "websocket",
    upgrade: bool = False,
    path: str = "/socket.io/",
    query: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
    parser: Parser | None = None,
) -> AsyncIterator[MemoryClient]:
    """Connect a client to any Socket.IO server on a network; it says goodbye when the context is left.

    It is the client of `open_client`, on TCP. As other processes know nothing of virtual time, this is for real time
    only. What waits until all tasks wait for something (`MemoryClient.receive_all`) cannot see what another process is
    about to send.

    Args:
        url: The server's, such as ``"http://127.0.0.1:3000"``.
        namespace: Where to connect.
        auth: What to say with CONNECT.
        transport: ``"websocket"`` or ``"polling"``, to begin with.
        upgrade: Whether to go from long-polling to a WebSocket before the client connects to its namespace.
        path: Where the server is.
        query: Added to the query of the handshake.
        headers: Of all requests.
        parser: The server's wire format; by default `DefaultParser <trio_socketio.abc.DefaultParser>`.

    Raises:
        ConnectionRefused: The server does not want it; see `MemoryClient.reconnect`.
        SocketDisconnected: There is no server, or it has gone before there was an answer.
        ValueError: Another transport, an upgrade from a WebSocket, or a URL that is not ``http://host:port``.
        Exception: What the handlers of the client raise.
    """
    _check(transport, upgrade)
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname or parts.path.strip("/") or parts.query:
        raise ValueError(f"the URL of a server is http://host:port, not {url!r}")
    network = TcpNetwork(parts.hostname, parts.port or 80)
    base = path.rstrip("/") + "/"
    endpoint = Endpoint(network, base, transport, upgrade, query or {}, tuple((headers or {}).items()))
    with plain_exceptions():
        async with trio.open_nursery() as nursery:
            try:
                async with _connected(Link(endpoint, parser or DefaultParser(), nursery), namespace, auth) as client:
                    yield client
            finally:
                network.cut()


@asynccontextmanager
async def _connected(link: Link, namespace: str, auth: Mapping[str, Any] | None) -> AsyncIterator[MemoryClient]:
    client = MemoryClient(link, namespace, auth)
    try:
        await client.reconnect()
    except ConnectionRefused:
        with trio.move_on_after(FAREWELL, shield=True):
            await link.finish()
        raise
    yield client
    await link.finish()
    link.nursery.cancel_scope.cancel()


def _check(transport: str, upgrade: bool) -> None:
    if transport not in ("websocket", "polling"):
        raise ValueError(f"transport is 'websocket' or 'polling', not {transport!r}")
    if upgrade and transport == "websocket":
        raise ValueError("an upgrade begins with transport='polling'")


def _serving(io: Server[Any], app: ASGI | None) -> AbstractAsyncContextManager[object]:
    if io.is_running:
        return nullcontext()
    return io.running() if app is None else lifespan(app)
