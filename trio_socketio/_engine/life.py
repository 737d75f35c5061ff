"""The life of an engine: when it serves, whose tasks its sessions are, and how all of them end."""

from __future__ import annotations

import contextvars
import enum
import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import trio

from .._errors import NotRunning, plain_exceptions
from .._frontends.serving import Serving
from .alarms import Alarms
from .contract import Headers, Response
from .flusher import Flusher

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from typing import Self

    from .session import Session

logger = logging.getLogger("trio_socketio.engine")

#: Seconds for polls that were pending at the close to be told of it; then the connections are cut.
LAST_ANSWERS = 1.0


class State(enum.Enum):
    """The life of an engine: STOPPED, RUNNING, maybe DRAINING, STOPPED; it may run again."""

    STOPPED = "not running"
    RUNNING = "running"
    DRAINING = "draining"


class Life(Serving):
    """What an engine inherits: its nursery, and the sessions in it."""

    def __init__(self) -> None:
        self.sessions: dict[str, Session] = {}
        self._state = State.STOPPED
        self._nursery: trio.Nursery | None = None
        self._context = contextvars.copy_context()
        self._flusher = Flusher()
        self._alarms = Alarms()
        self._empty = trio.Event()
        self._warned = False

    @property
    def clients_count(self) -> int:
        """How many sessions are open."""
        return len(self.sessions)

    @property
    def is_running(self) -> bool:
        """Whether sessions are served."""
        return self._state is not State.STOPPED

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        """The engine's life: inside this context it serves, and every session ends with it (``forced close``).

        Raises:
            RuntimeError: It is running already.
        """
        if self._state is not State.STOPPED:
            raise RuntimeError("it is running already")
        self._warned = False
        with plain_exceptions():
            async with trio.open_nursery() as nursery:
                self._nursery, self._state = nursery, State.RUNNING
                self._context = contextvars.copy_context()
                self._flusher, self._alarms = Flusher(), Alarms()
                nursery.start_soon(self._flusher.run)
                nursery.start_soon(self._alarms.run)
                try:
                    yield self
                finally:
                    self._nursery, self._state = None, State.STOPPED
                    for session in list(self.sessions.values()):
                        session.close(discard=True)
                    nursery.cancel_scope.cancel()

    def start_soon(self, fn: Callable[..., Awaitable[Any]], *args: Any) -> None:
        """Start a task that is cancelled when the engine stops.

        Raises:
            NotRunning: It has stopped.
        """
        if self._nursery is None:
            raise NotRunning("a task needs a running engine")
        self._context.run(self._nursery.start_soon, fn, *args)

    def raise_soon(self, error: Exception) -> None:
        """Let an exception leave through `running`."""
        if self._nursery is not None:
            self._nursery.start_soon(_raise, error)

    async def close(self) -> None:
        """Close all sessions at once (``forced close``); what was queued is lost. Returns when they are over."""
        sessions = list(self.sessions.values())
        polled = any(session.poll for session in sessions)
        for session in sessions:
            session.close(discard=True)
        try:
            await trio.lowlevel.checkpoint()
            for session in sessions:
                await session.ended.wait()
            if polled:
                with trio.move_on_after(LAST_ANSWERS):
                    await self.wait_answered()
        finally:
            self.stop_serving()

    async def drain(self, deadline: float) -> None:
        """Take no new sessions, close the open ones gracefully, and wait for them.

        Args:
            deadline: Seconds from now; then what is left is closed at once. When cancelled, likewise.
        """
        if self._state is State.STOPPED:
            raise NotRunning("drain() needs a running engine")
        self._state = State.DRAINING
        for session in list(self.sessions.values()):
            session.close()
        try:
            with trio.move_on_after(deadline):
                await self.wait_empty()
                await self.wait_answered()
        finally:
            for session in list(self.sessions.values()):
                session.close(discard=True)

    async def wait_empty(self) -> None:
        """Wait until no session is open."""
        await trio.lowlevel.checkpoint()
        while self.sessions:
            if self._empty.is_set():
                self._empty = trio.Event()
            await self._empty.wait()

    def _forget(self, session: Session) -> None:
        if self.sessions.get(session.id) is session:
            del self.sessions[session.id]
        if not self.sessions:
            self._empty.set()

    def _unavailable(self) -> Response:
        if self._state is State.STOPPED and not self._warned:
            logger.error("a request came in, but the server is not running: enter `async with io.running()` first")
            self._warned = True
        return Response(503, b"the server is not running", Headers([("content-type", "text/plain")]))


async def _raise(error: Exception) -> None:
    raise error
