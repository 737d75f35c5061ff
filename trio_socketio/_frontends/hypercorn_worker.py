"""What hypercorn's Trio worker needs to survive its clients.

Two things, seen with hypercorn 0.18, that no application can mend from where ASGI leaves it:

* An exception of one connection ends the whole worker.
* Its writes are shielded from cancellation without a deadline. A client that does not read holds its request, and with
  it the worker's shutdown, for as long as it likes.

So the worker's connections are wrapped, once, when an application of ours starts: an exception ends its connection and
is logged, and the tasks of a connection can find its stream, to close it under a write that does not end.
"""

from __future__ import annotations

import functools
import logging
import sys
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import trio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping

logger = logging.getLogger("trio_socketio.asgi")

#: Seconds for the server to notice that a connection was cut.
CUT_DEADLINE = 1.0

#: The connection that the current task belongs to; tasks inherit it.
_connection: ContextVar[trio.abc.AsyncResource | None] = ContextVar("trio_socketio_connection", default=None)


def contain_connections() -> None:
    """See to it that an exception of one connection ends that connection, and nothing else. May be called again."""
    module = sys.modules.get("hypercorn.trio.tcp_server")
    if module is not None and not hasattr(module.TCPServer.run, "__wrapped__"):
        module.TCPServer.run = _contained(module.TCPServer.run)


def _contained(run: Callable[[Any], Awaitable[None]]) -> Callable[[Any], Awaitable[None]]:
    @functools.wraps(run)
    async def contained(server: Any) -> None:
        _connection.set(server.stream)
        try:
            await run(server)
        except* Exception as group:
            logger.warning("a connection failed: %r", _first(group))

    return contained


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


class Outlet:
    """The ``send`` of one request, which only the request's own task awaits; another task cuts it if it hangs."""

    def __init__(self, send: Callable[[MutableMapping[str, Any]], Awaitable[None]]) -> None:
        self._send = send
        self._busy = False
        self._idle = trio.Event()

    async def __call__(self, message: MutableMapping[str, Any]) -> None:
        """Send one ASGI message."""
        self._busy = True
        try:
            await self._send(message)
        finally:
            self._busy = False
            self._idle.set()

    @asynccontextmanager
    async def settled(self, grace: float, receive: Callable[[], Awaitable[object]]) -> AsyncIterator[None]:
        """A context, for the task that receives, which is left when no send is under way.

        This is what makes a cancellation come true: leaving takes little longer than ``grace`` seconds, even if
        cancelled; then the connection is cut, and the send returns.

        Args:
            grace: Seconds for a send that is under way.
            receive: Discards one message of the server; its queue may be full, and a send that fails waits for room
                to say so.
        """
        try:
            yield
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + grace):
                await self._settle()
            if self._busy:
                with trio.CancelScope(shield=True, deadline=trio.current_time() + CUT_DEADLINE):
                    await self.cut()
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(_discard, receive)
                        await self._settle()
                        nursery.cancel_scope.cancel()

    async def _settle(self) -> None:
        while self._busy:
            self._idle = trio.Event()
            await self._idle.wait()

    async def cut(self) -> None:
        """Close the TCP connection, as far as the server lets us find it."""
        connection = _connection.get()
        if connection is not None:
            await trio.aclose_forcefully(connection)


async def _discard(receive: Callable[[], Awaitable[object]]) -> None:
    while True:
        await receive()
