"""The server: its namespaces and its life."""

from __future__ import annotations

import contextvars
import logging
import re
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

import trio

from .._adapters.contract import RunningFactory
from .._engine.config import EngineConfig, unknown_option
from .._engine.engine import Engine
from .._engine.life import LAST_ANSWERS
from .._errors import ConnectionRefused, EventArgumentsError, plain_exceptions
from .._frontends.serving import Serving
from .._listeners import Listeners, raise_cancellations
from .client_files import ClientFiles
from .config import ServerConfig
from .connection import Connection
from .data import DataT
from .event_types import AnswerT, ArgsT
from .namespace import Namespace
from .operator import Broadcasting
from .parent import Parents, can_travel
from .socket import State
from .statistics import ServerStatistics
from .throttled import ThrottledConnection

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from contextlib import AbstractAsyncContextManager
    from typing import Self

    from typing_extensions import Unpack

    from .._adapters.contract import Adapter
    from .._engine.contract import HttpLimits, Request, Response, Verdict
    from .._engine.session import Session
    from .config import ServerOptions
    from .event_types import EventType, HandlerDecorator
    from .operator import BroadcastOperator
    from .parent import Matcher, NamespacePredicate, ParentNamespace
    from .socket import Socket

logger = logging.getLogger("trio_socketio.server")
F = TypeVar("F", bound="Callable[..., Any]")
HandlersT = TypeVar("HandlersT")

SHUTTING_DOWN = "server shutting down"


class Server(Broadcasting, Serving, Generic[DataT]):
    """A Socket.IO server (protocol 5, over Engine.IO protocol 4).

    What it does for clients it does for those of the main namespace, ``/``; `of` has the others. It serves inside
    ``async with io.running()``, which all of its ``serve_*`` functions enter by themselves.

    Args:
        options: `ServerConfig` and `EngineConfig` document each; ``path`` is ``/socket.io`` by default.

    Raises:
        TypeError: An option that does not exist, or one of the wrong type.
        ValueError: A value out of its range.

    Attributes:
        config: The server's options, checked and immutable.
        engine: The `Engine` underneath.
        namespaces: The namespaces by name; not to be changed.
        sockets: The main namespace.
    """

    @overload
    def __init__(self: Server[dict[str, Any]], **options: Unpack[ServerOptions]) -> None: ...
    @overload
    def __init__(self, *, data: Callable[[], DataT], **options: Unpack[ServerOptions]) -> None: ...
    def __init__(self, *, data: Callable[[], Any] = dict, **options: Unpack[ServerOptions]) -> None:
        given: dict[str, Any] = {"data": data, **options}
        known = (*ServerConfig.names(), *EngineConfig.names())
        for name in given:
            if name not in known:
                raise TypeError(unknown_option(name, known))
        own = {name: given.pop(name) for name in ServerConfig.names() if name in given}
        self.config: ServerConfig = ServerConfig.from_options(own)
        given.setdefault("path", "/socket.io")
        self.engine: Engine = Engine(**given)
        self.engine.on_session(self._connect)
        if (client := self.config.serve_client) is not False:
            directory = None if client is True else Path(client)
            self.engine.use(ClientFiles(directory, self.engine.config.path).respond)
        self.namespaces: dict[str, Namespace] = {}
        #: The patterns and predicates of dynamic namespaces.
        self.parents: Parents = Parents(self)
        #: What sockets are told instead of their session's reason, while the server shuts down.
        self.close_reason: str | None = None
        self._adapters: trio.Nursery | None = None
        self._connections: set[Connection] = set()
        self._error_listeners = Listeners({"error": 3}, sync_only=("error",))
        self.sockets: Namespace[DataT] = self.of("/")

    # Namespaces

    @overload
    def of(self, name: str) -> Namespace[DataT]: ...
    @overload
    def of(self, name: re.Pattern[str] | NamespacePredicate) -> ParentNamespace: ...
    def of(self, name: str | Matcher) -> Namespace:
        """The namespace of this name, made if there is none yet; or a parent, whose namespaces clients have made.

        A client that asks for a namespace gets the one that there is; else the parents are asked, in the order of their
        registration and one at a time, and the first that says yes makes it. See also the option
        ``cleanup_empty_child_namespaces``.

        Args:
            name: Exact and case-sensitive; a leading slash is added if it is missing. If it matches the pattern of a
                parent, the namespace is a child of that. Or a compiled pattern, found anywhere in a name (put ``^``
                and ``$`` where they belong). Or a function, sync or async, of a name and what the client sent as
                ``auth``, which answers true or false; one that raises has said no.

        Raises:
            TypeError: None of these.
            ValueError: A name that no packet can carry: longer than 1024 characters, or with a comma, U+001E or a lone
                surrogate in it. Or a pattern or function for the second time.
        """
        if not isinstance(name, str):
            return self.parents.add(name)
        name = name if name.startswith("/") else f"/{name}"
        if not can_travel(name):
            raise ValueError(f"no packet can carry the name of this namespace: {name!r:.80}")
        namespace = self.namespaces.get(name)
        return self._make_namespace(name, self.parents.by_pattern(name)) if namespace is None else namespace

    def _make_namespace(self, name: str, parent: ParentNamespace | None) -> Namespace:
        namespace = self.namespaces[name] = Namespace(name, self)
        if parent is not None:
            parent.adopt(namespace)
        self.spawn(self._run_late, namespace)
        if name != "/":
            for listener in self.sockets.take_listeners("new_namespace"):
                try:
                    listener.call_sync(namespace)
                except Exception:  # it may be the doing of a client, whose session has no part in it
                    logger.exception("a new_namespace listener failed")
        return namespace

    def spawn(self, fn: Callable[..., Awaitable[Any]], *args: Any) -> None:
        """Start a task in the nursery of the adapters; if they have stopped, nothing."""
        if self._adapters is not None:
            # Not in the context of the client whose doing it may be.
            self._context.run(self._adapters.start_soon, fn, *args)

    async def _run_late(self, namespace: Namespace) -> None:
        """Run a namespace that was made while the server was running: its failure is no concern of the others."""
        if self._adapters is None or self.namespaces.get(namespace.name) is not namespace:
            return  # it was stopped in the tick in which it was to begin
        try:
            await namespace.run()
        except Exception:
            logger.exception("the adapter of %r has failed", namespace)
        except BaseExceptionGroup as group:
            raise_cancellations(group, lambda error: logger.error("%r has failed", namespace, exc_info=error))

    def find_namespace(self, name: str, parent: ParentNamespace | None = None) -> Namespace | None:
        """The namespace that a client asks for; made, if a parent wants it."""
        namespace = self.namespaces.get(name)
        return self._make_namespace(name, parent) if namespace is None and parent is not None else namespace

    async def on_vacated(self, namespace: Namespace) -> None:
        """The last socket of a namespace is over."""
        name, parent = namespace.name, namespace.parent
        if self.config.cleanup_empty_child_namespaces and parent and self.namespaces.get(name) is namespace:
            del self.namespaces[name], parent.children[name]
            await namespace.stop()

    @property
    def adapter(self) -> Adapter:
        """The rooms of the main namespace."""
        return self.sockets.adapter

    def _operator(self) -> BroadcastOperator:
        return self.sockets._operator()

    # Listening

    @overload
    def on(self, event: str, fn: None = None) -> Callable[[F], F]: ...
    @overload
    def on(self, event: str, fn: F) -> F: ...
    def on(self, event: str, fn: F | None = None) -> Any:
        """Listen to an event of the main namespace: see `Namespace.on`.

        ``"new_namespace"`` is told of every namespace that is made, in the middle of that.
        """
        return self.sockets.on(event, fn)

    @overload
    def once(self, event: str, fn: None = None) -> Callable[[F], F]: ...
    @overload
    def once(self, event: str, fn: F) -> F: ...
    def once(self, event: str, fn: F | None = None) -> Any:
        """Like `on`, for one time."""
        return self.sockets.once(event, fn)

    def off(self, event: str | None = None, fn: Callable[..., Any] | None = None) -> None:
        """Remove a listener, all of an event, or all."""
        self.sockets.off(event, fn)

    @overload
    def handle(self, event: EventType[AnswerT, *ArgsT], fn: None = None) -> HandlerDecorator[*ArgsT, AnswerT]: ...
    @overload
    def handle(self, event: str | int, fn: None = None) -> Callable[[F], F]: ...
    @overload
    def handle(self, event: str | int, fn: F) -> F: ...
    def handle(self, event: Any, fn: Callable[..., Any] | None = None) -> Any:
        """Register a handler once, for an event of all sockets of the main namespace: see `Namespace.handle`."""
        return self.sockets.handle(event, fn)

    def add_handlers(self, target: HandlersT) -> HandlersT:
        """Register the methods of an object for all sockets of the main namespace: see `Namespace.add_handlers`."""
        return self.sockets.add_handlers(target)

    def use(self, middleware: F) -> F:
        """Run a function for every socket of the main namespace before it is connected: see `Namespace.use`."""
        return self.sockets.use(middleware)

    def on_error(self, fn: F) -> F:
        """Tell a function of every exception that leaves a handler or a middleware, instead of the log; a decorator.

        Args:
            fn: A plain function of (error, socket, event): the exception, the `Socket`, and the event's name.
        """
        return self._error_listeners.on("error", fn)

    def on_handler_error(self, error: Exception, socket: Socket, event: str | int) -> None:
        """An exception has left a handler."""
        for listener in self._error_listeners.get("error"):
            try:
                listener.call_sync(error, socket, event)
            except Exception:
                logger.exception("an on_error listener failed")
        # What is the client's fault, and what was refused on purpose, neither alarms nor disturbs anybody.
        if isinstance(error, (EventArgumentsError, ConnectionRefused)):
            logger.info("%s: %s", socket, error)
            return
        if not self._error_listeners.get("error"):
            logger.error("a handler of %r failed for %r", event, socket, exc_info=error)
        if self.config.handler_errors == "disconnect":
            socket.begin_disconnect()
        elif self.config.handler_errors == "raise":
            self.engine.raise_soon(error)

    def on_server_side_error(self, error: Exception, namespace: Namespace, event: str | int) -> None:
        """An exception has left the handler of another server's event."""
        logger.error("a handler of %r, emitted by another server to %r, failed", event, namespace, exc_info=error)
        if self.config.handler_errors == "raise":
            self.engine.raise_soon(error)

    # Life

    @property
    def is_running(self) -> bool:
        """Whether clients are served."""
        return self.engine.is_running

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        """The server's life: inside this context clients are served.

        When it is left, every socket is disconnected (``server shutting down``), and its handlers have had their time.

        Raises:
            RuntimeError: It is running already.
        """
        if self.is_running:
            raise RuntimeError("it is running already")
        try:
            with plain_exceptions():
                async with self._cluster(), trio.open_nursery() as adapters:
                    self._adapters, self._context = adapters, contextvars.copy_context()
                    try:
                        for namespace in list(self.namespaces.values()):
                            await adapters.start(namespace.run)
                        async with self.engine.running():
                            try:
                                yield self
                            finally:
                                self.close_reason = SHUTTING_DOWN
                    finally:
                        self._adapters = None
                        limit = trio.current_time() + self.config.disconnect_timeout
                        with trio.CancelScope(deadline=limit, shield=True):
                            await self._stop_namespaces()
        finally:
            self.close_reason = None

    def _cluster(self) -> AbstractAsyncContextManager[Any]:
        """What the adapters of all namespaces share, such as a connection to Redis; most have nothing."""
        factory: object = self.config.adapter
        return factory.running() if isinstance(factory, RunningFactory) else nullcontext()

    async def _stop_namespaces(self) -> None:
        async with trio.open_nursery() as nursery:
            for namespace in list(self.namespaces.values()):
                nursery.start_soon(namespace.stop)

    async def close(self) -> None:
        """Disconnect everybody at once (``server shutting down``), and stop serving.

        Clients see their transport close, and will try to reconnect. Returns when all ``disconnect`` handlers are over.
        Inside a ``running()`` of the caller's own the server stays ready for new clients. A server that is not running
        is closed already.
        """
        self.close_reason = SHUTTING_DOWN
        connections = list(self._connections)
        polled = any(connection.session.poll for connection in connections)
        try:
            await self.engine.close()
            await _wait_ended(connections)
            if polled:
                with trio.move_on_after(LAST_ANSWERS):
                    await self.wait_answered()
        finally:
            self.stop_serving()
            self.close_reason = None

    async def drain(self, deadline: float) -> None:
        """Take no new clients, close the sessions gracefully, and wait for them: for a restart that loses nothing.

        Args:
            deadline: Seconds from now; then what is left is closed at once. When cancelled, likewise.

        Raises:
            NotRunning: The server is not running.
        """
        self.close_reason = SHUTTING_DOWN
        try:
            with trio.move_on_after(deadline):
                await self.engine.drain(deadline)
                await _wait_ended(list(self._connections))  # their `disconnect` handlers may still be at work
                await self.wait_answered()
        finally:
            self.close_reason = None

    def shutdown_trigger(self, event: trio.Event, deadline: float = 10.0) -> Callable[[], Awaitable[None]]:
        """For ``hypercorn.trio.serve(app, config, shutdown_trigger=io.shutdown_trigger(event))``.

        Args:
            event: Set it to shut down.
            deadline: Seconds for `drain`, which then comes before hypercorn cuts the connections.
        """

        async def wait_and_drain() -> None:
            await event.wait()
            if self.is_running:
                await self.drain(deadline)

        return wait_and_drain

    def statistics(self) -> ServerStatistics:
        """The server's figures, now."""
        sockets = [socket for connection in self._connections for socket in connection.sockets]
        figures = [socket.statistics() for socket in sockets]
        return ServerStatistics(
            sessions=self.engine.clients_count,
            connections=len(self._connections),
            sockets=sum(socket.state is State.CONNECTED for socket in sockets),
            connecting=sum(socket.state is State.CONNECTING for socket in sockets),
            ending=sum(socket.state in (State.ENDING, State.ENDED) for socket in sockets),
            rooms=sum(len(namespace.adapter.rooms) for namespace in self.namespaces.values()),
            pending_acks=sum(figure.pending_acks for figure in figures),
            queued_events=sum(figure.queued_events for figure in figures),
            tasks=sum(figure.tasks for figure in figures),
            buffered_bytes=sum(connection.session.buffered_bytes for connection in self._connections),
            half_received_bytes=sum(connection.half_received_bytes for connection in self._connections),
        )

    def _connect(self, session: Session) -> None:
        limit = self.config.rate_limit
        connection = Connection(self, session) if limit is None else ThrottledConnection(self, session, limit)
        self._connections.add(connection)
        session.deliver_to(connection)

    def forget(self, connection: Connection) -> None:
        """A connection is over."""
        self._connections.discard(connection)

    # Requests: the server as an Application

    @property
    def http_limits(self) -> HttpLimits:
        """What our own listener takes from a client."""
        return self.engine.http_limits

    @property
    def static_files(self) -> Any:
        """The option of this name."""
        return self.engine.static_files

    def owns(self, path: str) -> bool:
        """Whether a path is the server's."""
        return self.engine.owns(path)

    async def handle_request(self, request: Request) -> Response:
        """Answer an HTTP request."""
        return await self.engine.handle_request(request)

    async def open_websocket(self, request: Request) -> Verdict:
        """Judge the opening request of a WebSocket."""
        return await self.engine.open_websocket(request)

    def __repr__(self) -> str:
        return f"<Server at {self.engine.config.path}/, {self.engine.clients_count} sessions>"


async def _wait_ended(connections: list[Connection]) -> None:
    for connection in connections:
        await connection.session.ended.wait()
