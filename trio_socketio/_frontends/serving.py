"""Serving an application on our own listener: what `Engine` and `Server` have in common."""

from __future__ import annotations

from abc import abstractmethod
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, TypeVar

import trio

from .._errors import plain_exceptions
from .embedded import serve_embedded
from .listener import Served, serve_connection
from .static import StaticFiles

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator

    from trio_websocket import WebSocketRequest

    from .static import StaticFilesOption

ListenerT = TypeVar("ListenerT", trio.SocketListener, "trio.SSLListener[trio.SocketStream]")


class Owed:
    """Counts the clients that are owed an answer: a context manager, any number of times at once."""

    __slots__ = ("_count", "_none")

    def __init__(self) -> None:
        self._count = 0
        self._none: trio.Event | None = None

    def __enter__(self) -> None:
        self._count += 1

    def __exit__(self, *_: object) -> None:
        self._count -= 1
        if not self._count and self._none is not None:
            self._none.set()
            self._none = None

    async def wait_for_none(self) -> None:
        """Wait until nobody is owed one."""
        while self._count:
            if self._none is None:
                self._none = trio.Event()
            await self._none.wait()


class Serving(Served):
    """The ways to serve an application, for its class to inherit.

    Each ``serve_*`` method enters `running` itself unless it is entered already, so several may run at once; then the
    application's life is that of the first.
    """

    _files: StaticFiles | None = None
    _serving: tuple[trio.CancelScope, ...] = ()
    _owed: Owed | None = None

    @property
    @abstractmethod
    def is_running(self) -> bool:
        """Whether `running` is entered."""

    @property
    @abstractmethod
    def static_files(self) -> StaticFiles | StaticFilesOption | None:
        """What to serve at the paths that are not the application's."""

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Be running, without a listener, until cancelled: ``await nursery.start(io.run)``."""
        _require_trio()
        with plain_exceptions(), self._until_stopped():
            async with self.running():
                task_status.started()
                await trio.sleep_forever()

    def stop_serving(self) -> None:
        """Let all of the ``serve_*`` methods, and `run`, return; what they had entered, ends."""
        for scope in self._serving:
            scope.cancel()

    def answering(self) -> Owed:
        """Entered by the listener while a client is to be answered."""
        if self._owed is None:
            self._owed = Owed()
        return self._owed

    async def wait_answered(self) -> None:
        """Wait until no client is owed an answer: the last ones are written some ticks after the sessions' end."""
        await trio.lowlevel.checkpoint()
        await self.answering().wait_for_none()

    @contextmanager
    def _until_stopped(self) -> Iterator[None]:
        with trio.CancelScope() as scope:
            self._serving = (*self._serving, scope)
            try:
                yield
            finally:
                self._serving = tuple(other for other in self._serving if other is not scope)

    async def serve_tcp(
        self,
        port: int,
        *,
        host: str | bytes | None = None,
        backlog: int | None = None,
        handler_nursery: trio.Nursery | None = None,
        task_status: trio.TaskStatus[list[trio.SocketListener]] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve HTTP and WebSockets until cancelled. Sessions end, and connections are cut, when it is.

        Args:
            port: 0 lets the system choose; `trio.SocketListener.socket` of what ``nursery.start`` returns knows it.
            host: The interface; None for all of them.
            backlog: As for `trio.open_tcp_listeners`.
            handler_nursery: Where the tasks of the connections live; None for a nursery of its own.
            task_status: ``await nursery.start(io.serve_tcp, port)`` returns the list of listeners.

        Raises:
            OSError: The port is not to be had.
            ValueError: ``static_files`` names a directory that does not exist.
        """
        _require_trio()
        self._prepare_files()
        listeners = await trio.open_tcp_listeners(port, host=host, backlog=backlog)
        await self._serve(listeners, handler_nursery, task_status)

    async def serve_ssl_over_tcp(
        self,
        port: int,
        ssl_context: ssl.SSLContext,
        *,
        host: str | bytes | None = None,
        backlog: int | None = None,
        handler_nursery: trio.Nursery | None = None,
        task_status: trio.TaskStatus[list[trio.SSLListener[trio.SocketStream]]] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Like `serve_tcp`, for HTTPS.

        Args:
            port: 0 lets the system choose.
            ssl_context: With the server's certificate.
            host: The interface; None for all of them.
            backlog: As for `trio.open_tcp_listeners`.
            handler_nursery: Where the tasks of the connections live; None for a nursery of its own.
            task_status: ``nursery.start`` returns the list of listeners.

        Raises:
            OSError: The port is not to be had.
            ValueError: ``static_files`` names a directory that does not exist.
        """
        _require_trio()
        self._prepare_files()
        listeners = await trio.open_ssl_over_tcp_listeners(
            port, ssl_context, host=host, backlog=backlog, https_compatible=True
        )
        await self._serve(listeners, handler_nursery, task_status)

    async def handle_stream(self, stream: trio.abc.Stream) -> None:
        """Serve one client, for `trio.serve_listeners`; closes the stream. Raises nothing but cancellations.

        The application must be running; if it is not, its paths are answered 503.
        """
        await serve_connection(self, self._prepare_files(), stream)

    async def handle_websocket(self, request: WebSocketRequest) -> None:
        """Serve one WebSocket of the application's own ``trio_websocket.serve_websocket`` server, as its handler::

            async with io.running():
                await trio_websocket.serve_websocket(io.handle_websocket, "127.0.0.1", 3000, None)

        The request is accepted or rejected here, and the connection is closed when this returns. Clients must begin
        with the WebSocket (``transports: ["websocket"]``), unless their long-polling reaches this application in some
        other way. Raises nothing but cancellations, on which the client's session ends.

        Args:
            request: Neither accepted nor rejected yet. One for a path that is not the application's is rejected with
                404; when the application is not running, with 503. Messages over ``max_http_buffer_size`` bytes, or
                over the server's ``max_message_size`` characters, close the session.
        """
        with self.answering():
            await serve_embedded(self, request)

    async def _serve(
        self,
        listeners: list[ListenerT],
        handler_nursery: trio.Nursery | None,
        task_status: trio.TaskStatus[list[ListenerT]],
    ) -> None:
        try:
            with plain_exceptions(), self._until_stopped():
                async with nullcontext() if self.is_running else self.running():
                    await trio.serve_listeners(
                        self.handle_stream, listeners, handler_nursery=handler_nursery, task_status=task_status
                    )
        finally:
            for listener in listeners:
                await trio.aclose_forcefully(listener)

    def _prepare_files(self) -> StaticFiles | None:
        option = self.static_files
        if self._files is None and option is not None:
            self._files = option if isinstance(option, StaticFiles) else StaticFiles(option)
        return self._files


def _require_trio() -> None:
    try:
        trio.lowlevel.current_task()
    except RuntimeError:
        raise RuntimeError("trio_socketio runs on Trio, not on asyncio: trio.run(io.serve_tcp, 3000)") from None
