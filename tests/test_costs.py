"""What a message, a client and a recipient cost, counted and not timed: the counts are the same on every machine.

Each scenario is played to a real server over a pair of connected sockets, one settled step at a time, so that the same
things happen in the same order in each run. Counted are

* the lines of the package that are executed, and the Python functions that are called, Trio's excepted: it has a cost
  for each release, and what is asked of it shows in
* the steps of tasks: how often Trio has to resume one;
* and, for a client that only sits there, the bytes that Python has allocated.

The figures below are those of Python 3.11; later ones differ by a few in a hundred. Whoever makes something dearer and
means it raises its figure here; whoever makes it cheaper lowers it, so that it stays so.
"""

from __future__ import annotations

import base64
import functools
import gc
import socket as stdlib_socket
import sys
import tracemalloc
from collections.abc import Callable
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

import trio_socketio
from trio_socketio import Server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Iterator
    from types import CodeType, FrameType

    from trio.testing import MockClock

#: How much dearer something may be than its figure: what interpreters and libraries differ in.
MARGIN = 1.08


class Cost(NamedTuple):
    """Of one operation."""

    lines: float
    calls: float
    steps: float


#: Operation -> what it may cost.
COSTS = {
    "echo": Cost(273, 123, 3),
    "echo, 16 in flight": Cost(154, 34, 0.22),
    "acknowledgement": Cost(286, 125, 3),
    "broadcast": Cost(308, 152, 4),
    "further recipient of a broadcast": Cost(28, 7, 0),
    "further recipient, 16 in flight": Cost(1.8, 0.45, 0),
    "connect": Cost(1231, 505, 9),
    "disconnect": Cost(274, 306, 6),
    "echo by long-polling": Cost(751, 255, 3),
}
BYTES_OF_IDLE_CLIENT = 17_700

PAYLOAD = b"abcdefghijklmnopqrstuvwxyzabcdef"
PACKAGE = str(Path(trio_socketio.__file__).parent)
NOT_COUNTED = (str(Path(trio.__file__).parent), __file__, "<attrs generated methods outcome", "outcome")


class Meter(trio.abc.Instrument):
    """Counts, while it is told to."""

    def __init__(self) -> None:
        self.lines = self.calls = self.steps = 0
        self._own_task: trio.lowlevel.Task | None = None

    @contextmanager
    def counting(self) -> Iterator[None]:
        self._own_task = trio.lowlevel.current_task()
        before = sys.gettrace()
        trio.lowlevel.add_instrument(self)
        sys.settrace(self._on_call)
        try:
            yield
        finally:
            sys.settrace(before)
            trio.lowlevel.remove_instrument(self)

    def cost(self, times: int) -> Cost:
        return Cost(self.lines / times, self.calls / times, self.steps / times)

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.steps += task is not self._own_task

    def _on_call(self, frame: FrameType, event: str, arg: object) -> Callable[..., Any] | None:
        where = _kind(frame.f_code)
        self.calls += where != "not counted"
        return self._on_line if where == "package" else None

    def _on_line(self, frame: FrameType, event: str, arg: object) -> Callable[..., Any]:
        self.lines += event == "line"
        return self._on_line


@functools.cache
def _kind(code: CodeType) -> str:
    if code.co_filename.startswith(PACKAGE):
        # What is a function of its own in 3.11 is a part of the one around it from 3.12 on.
        return "not counted" if code.co_name in ("<listcomp>", "<dictcomp>", "<setcomp>") else "package"
    return "not counted" if code.co_filename.startswith(NOT_COUNTED) else "library"


class Client:
    """The other end of a connection; it reads what is there, and never waits."""

    def __init__(self, end: stdlib_socket.socket) -> None:
        end.setblocking(False)
        self._end = end

    def send(self, data: bytes) -> None:
        assert self._end.send(data) == len(data)

    def read(self) -> bytes:
        return self._end.recv(1_000_000)

    async def ask(self, data: bytes) -> bytes:
        """Send something; what has come when nothing more happens."""
        self.send(data)
        await wait_all_tasks_blocked()
        return self.read()

    async def leave(self) -> None:
        self._end.close()
        await wait_all_tasks_blocked()


def frame(text: bytes) -> bytes:
    """A masked text frame of up to 125 bytes."""
    mask = b"\x37\xfa\x21\x3d"
    return bytes([0x81, 0x80 | len(text)]) + mask + bytes(byte ^ mask[i % 4] for i, byte in enumerate(text))


def request(method: str, query: str, headers: str = "", body: bytes = b"") -> bytes:
    head = f"{method} /socket.io/?EIO=4&{query} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: test\r\n{headers}\r\n"
    return head.encode() + body


WEBSOCKET = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n" + (
    f"Sec-WebSocket-Key: {base64.b64encode(bytes(16)).decode()}\r\n"
)


class Stage:
    """A server with the four handlers that the benchmarks have, and its clients."""

    def __init__(self, io: Server, nursery: trio.Nursery) -> None:
        self._io = io
        self._nursery = nursery
        self.clients: list[Client] = []

    def plug_in(self) -> Client:
        ours, theirs = stdlib_socket.socketpair()
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(theirs))
        self._nursery.start_soon(self._io.handle_stream, stream)
        self.clients.append(Client(ours))
        return self.clients[-1]

    async def connect(self) -> Client:
        client = self.plug_in()
        opened = await client.ask(request("GET", "transport=websocket", WEBSOCKET))
        assert opened.startswith(b"HTTP/1.1 101")
        assert b'40{"sid"' in await client.ask(frame(b"40"))
        return client

    async def connect_by_polling(self) -> tuple[Client, str]:
        client = self.plug_in()
        opened = await client.ask(request("GET", "transport=polling"))
        query = "transport=polling&sid=" + opened.partition(b'"sid":"')[2].partition(b'"')[0].decode()
        assert (await client.ask(post(query, b"40"))).endswith(b"ok")
        assert b'40{"sid"' in await client.ask(request("GET", query))
        return client, query


def post(query: str, body: bytes) -> bytes:
    return request("POST", query, f"Content-Type: text/plain;charset=UTF-8\r\nContent-Length: {len(body)}\r\n", body)


@asynccontextmanager
async def open_stage() -> AsyncIterator[Stage]:
    io = Server()

    @io.on("connection")
    async def connected(socket: Any) -> None:
        await socket.join("r")

    @io.handle("echo")
    async def echo(socket: Any, data: Any) -> None:
        await socket.emit("echo", data)

    @io.handle("ack")
    async def ack(socket: Any, data: Any) -> Any:
        return data

    @io.handle("bcast")
    async def broadcast(socket: Any, data: Any) -> None:
        await io.to("r").emit("m", data)

    async with io.running(), trio.open_nursery() as nursery:
        stage = Stage(io, nursery)
        yield stage
        for client in stage.clients:
            await client.leave()
        nursery.cancel_scope.cancel()


async def count(operation: Callable[[], Awaitable[None]], times: int) -> Cost:
    """What an operation costs, once everything that is made only once is there."""
    for _ in range(3):
        await operation()
    meter = Meter()
    with meter.counting():
        for _ in range(times):
            await operation()
    return meter.cost(times)


async def cost_of_echo(in_flight: int = 1) -> Cost:
    async with open_stage() as stage:
        client = await stage.connect()
        sent = frame(b'42["echo","%s"]' % PAYLOAD) * in_flight

        async def operation() -> None:
            assert (await client.ask(sent)).count(PAYLOAD) == in_flight

        cost = await count(operation, 20)
        return Cost(*(part / in_flight for part in cost))


async def cost_of_acknowledgement() -> Cost:
    async with open_stage() as stage:
        client = await stage.connect()

        async def operation() -> None:
            assert b'437["' in await client.ask(frame(b'427["ack","%s"]' % PAYLOAD))

        return await count(operation, 20)


async def cost_of_broadcast(recipients: int, in_flight: int = 1) -> Cost:
    async with open_stage() as stage:
        for _ in range(recipients):
            await stage.connect()

        async def operation() -> None:
            stage.clients[0].send(frame(b'42["bcast","%s"]' % PAYLOAD) * in_flight)
            await wait_all_tasks_blocked()
            for client in stage.clients:
                assert client.read().count(PAYLOAD) == in_flight

        return await count(operation, 5)


async def cost_of_further_recipient(in_flight: int = 1) -> Cost:
    few, many = await cost_of_broadcast(10, in_flight), await cost_of_broadcast(60, in_flight)
    return Cost(*((more - less) / 50 / in_flight for less, more in zip(few, many, strict=True)))


async def cost_of_connect() -> Cost:
    async with open_stage() as stage:

        async def operation() -> None:
            await stage.connect()

        return await count(operation, 10)


async def cost_of_disconnect() -> Cost:
    async with open_stage() as stage:
        for _ in range(13):
            await stage.connect()

        async def operation() -> None:
            await stage.clients.pop().leave()

        return await count(operation, 10)


async def cost_of_polling() -> Cost:
    async with open_stage() as stage:
        client, query = await stage.connect_by_polling()

        async def operation() -> None:
            assert (await client.ask(post(query, b'42["echo","%s"]' % PAYLOAD))).endswith(b"ok")
            assert PAYLOAD in await client.ask(request("GET", query))

        return await count(operation, 10)


SCENARIOS: dict[str, Callable[[], Awaitable[Cost]]] = {
    "echo": cost_of_echo,
    "echo, 16 in flight": functools.partial(cost_of_echo, 16),
    "acknowledgement": cost_of_acknowledgement,
    "broadcast": functools.partial(cost_of_broadcast, 1),
    "further recipient of a broadcast": cost_of_further_recipient,
    "further recipient, 16 in flight": functools.partial(cost_of_further_recipient, 16),
    "connect": cost_of_connect,
    "disconnect": cost_of_disconnect,
    "echo by long-polling": cost_of_polling,
}


@pytest.mark.parametrize("operation", SCENARIOS)
async def test_it_has_not_become_dearer(operation: str, mock_clock: MockClock) -> None:
    cost = await SCENARIOS[operation]()
    dearer = [
        f"{now:.1f} {part} instead of {allowed:.1f}"
        for part, now, allowed in zip(Cost._fields, cost, COSTS[operation], strict=True)
        if now > allowed * MARGIN
    ]
    assert not dearer, f"{operation} has become dearer: {', '.join(dearer)}"


async def test_an_idle_client_has_not_become_larger(mock_clock: MockClock) -> None:
    clients = 25
    async with open_stage() as stage:
        for _ in range(5):
            await stage.connect()
        gc.collect()
        tracemalloc.start()
        try:
            for _ in range(clients):
                await stage.connect()
            gc.collect()
            size = tracemalloc.get_traced_memory()[0] / clients
        finally:
            tracemalloc.stop()
    assert size <= BYTES_OF_IDLE_CLIENT * MARGIN, f"{size:.0f} bytes instead of {BYTES_OF_IDLE_CLIENT}"


async def test_the_same_is_counted_each_time(mock_clock: MockClock) -> None:
    assert await cost_of_echo() == await cost_of_echo()
