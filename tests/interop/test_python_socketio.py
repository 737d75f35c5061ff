"""The essentials with the synchronous client of `python-socketio`, which runs in threads of its own."""

from __future__ import annotations

import gc
import queue
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import requests
import socketio
import socketio.exceptions
import trio

from trio_socketio import ConnectionRefused, Server

from .serving import PATIENCE, record

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from trio_socketio import Socket

    from .serving import Serve, Served

# When it disconnects, this client now and then leaves a socket to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")

#: How a client that disconnects may end: its threads race, and its last words get lost now and then.
FAREWELLS = ("client namespace disconnect", "transport close", "transport error", "ping timeout")

ARGUMENTS: list[tuple[Any, ...]] = [
    (),
    ("one",),
    (1, "two", {"three": [3.5, None, True]}),
    ({"deep": [b"\x00\xff"]}, "é", b""),
]


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """Its garbage is collected with the test, and not while another one runs."""
    yield
    gc.collect()


@pytest.fixture
async def served(serve: Serve) -> Served:
    """A server that soon finds out who has left without a word."""
    return await serve(Server(ping_interval=1.0, ping_timeout=1.0))


async def blocking(fn: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """Call something that blocks; a thread that does not come back is left behind."""
    with trio.fail_after(PATIENCE):
        return await trio.to_thread.run_sync(partial(fn, *args, **options), abandon_on_cancel=True)


class PythonClient:
    """One client. What it hears is in `events`, as ``(namespace, event, *arguments)``."""

    def __init__(self, transport: str) -> None:
        self._http = requests.Session()
        self.sio = socketio.Client(reconnection=False, handle_sigint=False, http_session=self._http)
        self.events: queue.Queue[tuple[Any, ...]] = queue.Queue()
        self._transport = transport
        for namespace in ("/", "/chat"):
            self.sio.on("*", partial(self._hear, namespace), namespace=namespace)
            for event in ("disconnect", "connect_error"):
                self.sio.on(event, partial(self._hear, namespace, event), namespace=namespace)

    def _hear(self, *event: Any) -> list[Any]:
        self.events.put(event)
        return list(event[2:])

    async def connect(self, served: Served, *namespaces: str, **options: Any) -> None:
        options = {"transports": [self._transport], "namespaces": list(namespaces or ("/",)), **options}
        await blocking(self.sio.connect, served.url, wait_timeout=PATIENCE, **options)

    async def emit(self, event: str, *args: Any, namespace: str = "/") -> None:
        await blocking(self.sio.emit, event, args, namespace=namespace)

    async def call(self, event: str, *args: Any, namespace: str = "/") -> Any:
        return await blocking(self.sio.call, event, args, namespace=namespace, timeout=PATIENCE)

    async def next(self) -> tuple[Any, ...]:
        return tuple(await blocking(self.events.get, timeout=PATIENCE))

    async def disconnect(self) -> None:
        await blocking(self.sio.disconnect)

    async def aclose(self) -> None:
        await self.disconnect()
        self._http.close()


@asynccontextmanager
async def open_client(transport: str) -> AsyncIterator[PythonClient]:
    client = PythonClient(transport)
    try:
        yield client
    finally:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + PATIENCE):
            await client.aclose()


@pytest.fixture(params=["polling", "websocket"])
async def python(request: pytest.FixtureRequest, served: Served) -> AsyncIterator[PythonClient]:
    """A client, not connected yet. It leaves before the server stops, which would leave it waiting."""
    async with open_client(request.param) as client:
        yield client


def socket_of(served: Served, python: PythonClient, namespace: str = "/") -> Socket:
    id = python.sio.get_sid(namespace)
    assert id is not None
    return served.io.of(namespace).sockets[id]


async def test_client_connects_with_auth_and_disconnects(served: Served, python: PythonClient) -> None:
    await python.connect(served, auth={"token": 1}, headers={"X-App": "interop"})
    socket = socket_of(served, python)
    ends = record(socket, "disconnect")
    assert (socket.handshake.auth, socket.handshake.headers["x-app"]) == ({"token": 1}, "interop")
    assert socket.conn.transport == python.sio.transport()
    await python.disconnect()
    reason, _ = await ends.only()
    assert reason in FAREWELLS
    await served.empty()


async def test_events_and_acks_pass_in_both_directions(served: Served, python: PythonClient) -> None:
    await python.connect(served)
    socket = socket_of(served, python)
    heard = record(socket, "event")
    socket.on("echo", lambda *args: args)
    for args in ARGUMENTS:
        await python.emit("event", *args)
        await socket.emit("event", *args)
        assert await python.next() == ("/", "event", *args)
        answer = args[0] if len(args) == 1 else args
        assert await python.call("echo", *args) == (answer or None)
        with trio.fail_after(PATIENCE):
            assert await socket.emit_with_ack("echo", *args) is not None
        await python.next()
    assert await heard.reach(len(ARGUMENTS)) == ARGUMENTS


async def test_namespaces_of_one_session_do_not_meet(served: Served, python: PythonClient) -> None:
    served.io.of("/chat")
    await python.connect(served, "/", "/chat")
    socket, chat = socket_of(served, python), socket_of(served, python, "/chat")
    assert socket.conn is chat.conn
    await served.io.of("/chat").emit("news", b"x")
    assert await python.next() == ("/chat", "news", b"x")
    await chat.disconnect()
    assert (await python.next())[:2] == ("/chat", "disconnect")
    socket.on("still", lambda: "here")
    assert await python.call("still") == "here"


async def test_refused_client_gets_the_message(served: Served, python: PythonClient) -> None:
    @served.io.use
    def refuse(socket: Socket) -> None:
        raise ConnectionRefused("not you", data=[1])

    with pytest.raises(socketio.exceptions.ConnectionError):
        await python.connect(served)
    assert await python.next() == ("/", "connect_error", {"message": "not you", "data": [1]})
    assert served.io.sockets.sockets == {}


async def test_client_upgrades_and_loses_nothing(served: Served) -> None:
    @served.io.on("connection")
    async def connected(socket: Socket) -> None:
        for number in range(50):
            await socket.emit("count", number)
            await trio.sleep(0.001)

    async with open_client("both") as python:
        await python.connect(served, transports=["polling", "websocket"])
        assert python.sio.transport() == "websocket"
        assert [await python.next() for _ in range(50)] == [("/", "count", number) for number in range(50)]
