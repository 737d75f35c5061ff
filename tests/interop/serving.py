"""Servers for foreign clients, in the test's own Trio loop: on our listener, or under hypercorn's Trio worker.

Foreign clients live in real time, so nothing here runs on a virtual clock; every wait ends after `PATIENCE` seconds.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import hypercorn.trio
import pytest
import trio
from hypercorn.config import Config

from trio_socketio import ServerStatistics
from trio_socketio.asgi import ASGIApp

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trio_socketio import Server, Socket

    from ..js_client import Client, Driver

PATIENCE = 20.0
HOST = "127.0.0.1"

#: The JavaScript client's ``transports`` option by the name of what it leads to.
MODES = {"polling": ["polling"], "websocket": ["websocket"], "upgrade": ["polling", "websocket"]}

#: For tests in which it makes no difference how a client came to its transport.
either_transport = pytest.mark.parametrize("mode", ["polling", "websocket"])


async def until(condition: Callable[[], bool], what: str) -> None:
    """Wait until something has become true, of which no event tells.

    Raises:
        AssertionError: It has not, within `PATIENCE` seconds.
    """
    with trio.move_on_after(PATIENCE):
        while not condition():  # noqa: ASYNC110
            await trio.sleep(0.002)
        return
    raise AssertionError(f"{what} did not come true within {PATIENCE:g} seconds")


class Record(list[Any]):
    """What a handler was called with, in order: ``socket.on("chat", record.add)``."""

    def add(self, *args: Any) -> None:
        self.append(args)

    async def reach(self, count: int) -> list[Any]:
        """Wait until it is so long."""
        await until(lambda: len(self) >= count, f"{count} calls (there were {len(self)} in the beginning)")
        return list(self)

    async def only(self) -> Any:
        """Wait for the first call; there must be no other one."""
        await self.reach(1)
        assert len(self) == 1
        return self[0]


def record(socket: Socket, event: str) -> Record:
    """Listen to an event of a socket's; `disconnect` is one."""
    calls = Record()
    socket.on(event, calls.add)
    return calls


class Served:
    """A server with an address.

    Attributes:
        io: The server.
        url: Where clients find it.
        port: The port in it.
    """

    def __init__(self, io: Server, port: int, stop: trio.Event, stopped: trio.Event) -> None:
        self.io = io
        self.url = f"http://{HOST}:{port}"
        self.port = port
        self._stop = stop
        self._stopped = stopped

    async def stop(self) -> None:
        """Shut down, as the front end does on a signal, and wait until the port is free."""
        self._stop.set()
        with trio.fail_after(PATIENCE):
            await self._stopped.wait()

    async def pair(
        self, js: Driver, mode: str = "websocket", namespace: str = "/", **options: Any
    ) -> tuple[Client, Socket]:
        """Connect a JavaScript client, and wait until it is where the mode leads; both of its ends."""
        client = await js.connect(self.url, namespace, transports=MODES[mode], **options)
        if mode == "upgrade":
            await client.wait_for("engine.upgrade")
        socket = await self.socket_of(client, namespace)
        wanted = "polling" if mode == "polling" else "websocket"
        await until(lambda: socket.conn.transport == wanted, f"transport {wanted}")
        return client, socket

    async def socket_of(self, client: Client, namespace: str = "/") -> Socket:
        """The server's end of a client that is connected."""
        id = (await client.state()).id
        assert id is not None
        return self.io.of(namespace).sockets[id]

    async def empty(self) -> None:
        """Wait until nothing is left of any client."""
        await until(lambda: self.io.statistics() == ServerStatistics(), "a server without clients")


#: Serves on a port (0: any) until the event is set; the value of ``task_status`` is the port.
FrontEnd: TypeAlias = "Callable[..., Awaitable[None]]"


async def own_listener(io: Server, port: int, stop: trio.Event, *, task_status: trio.TaskStatus[int]) -> None:
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(io.serve_tcp, port, host=HOST))
        task_status.started(listeners[0].socket.getsockname()[1])
        await stop.wait()
        nursery.cancel_scope.cancel()


async def under_hypercorn(io: Server, port: int, stop: trio.Event, *, task_status: trio.TaskStatus[int]) -> None:
    config = Config()
    config.bind = [f"{HOST}:{port}"]
    config.graceful_timeout = 0.2
    config.errorlog = logging.getLogger("hypercorn.error")
    trigger = io.shutdown_trigger(stop, deadline=0.2)
    async with trio.open_nursery() as nursery:
        binds = await nursery.start(
            partial(hypercorn.trio.serve, cast("Any", ASGIApp(io)), config, shutdown_trigger=trigger)
        )
        task_status.started(int(binds[0].rpartition(":")[2]))


class Serve:
    """Starts servers; what still runs when the test ends is stopped then."""

    def __init__(self, nursery: trio.Nursery, front_end: FrontEnd) -> None:
        self._nursery = nursery
        self._front_end = front_end
        self._started: list[Served] = []

    async def __call__(self, io: Server, port: int = 0) -> Served:
        """Serve, on a port of the system's choice or on a given one."""
        stop, stopped = trio.Event(), trio.Event()
        with trio.fail_after(PATIENCE):
            port = await self._nursery.start(self._run, io, port, stop, stopped)
        self._started.append(Served(io, port, stop, stopped))
        return self._started[-1]

    async def _run(
        self, io: Server, port: int, stop: trio.Event, stopped: trio.Event, *, task_status: trio.TaskStatus[int]
    ) -> None:
        try:
            await self._front_end(io, port, stop, task_status=task_status)
        finally:
            stopped.set()

    async def stop_all(self) -> None:
        """Stop every server."""
        for served in self._started:
            await served.stop()


#: For tests of what happens above the front end, whichever that is.
on_one_front_end = pytest.mark.parametrize("front_end", [pytest.param(own_listener, id="listener")])
