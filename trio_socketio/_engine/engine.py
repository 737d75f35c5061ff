"""The engine: requests in, sessions out. It is the `Application` that front ends serve."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, overload

from .._errors import HandshakeRefused, NotRunning
from .._listeners import Listeners
from .._wire.encoded import EncodedPacket
from .._wire.engine_packets import encode_open
from .._wire.phases import Phase
from .batch import Batch
from .compression import Compressor
from .config import EngineConfig
from .contract import Response
from .handshake import UNKNOWN_SID, choose_dialect, error_response, generate_id, new_id, run_middlewares, verify
from .life import Life, State
from .outbox import Outbox
from .polling import answer_poll, serve_poll, serve_post
from .proxies import see_through_proxies
from .reasons import FORCED_CLOSE
from .session import Session
from .websocket import ProbeAcceptance, RefusingAcceptance, SessionAcceptance

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from typing_extensions import Unpack

    from .config import EngineOptions, GenerateId
    from .contract import HttpLimits, Request, Verdict
    from .flusher import Flushable
    from .handshake import Middleware

logger = logging.getLogger("trio_socketio.engine")
F = TypeVar("F", bound="Callable[..., Any]")
M = TypeVar("M", bound="Middleware")

#: Every this many requests with unknown session ids, one line in the log.
UNKNOWN_SIDS_PER_WARNING = 25


class Engine(Life):
    """An Engine.IO server: sessions over HTTP long-polling and WebSocket.

    Used on its own, it gives each new `Session`, a `trio.abc.Channel` of messages, to its ``connection`` listeners::

        engine = Engine()

        @engine.on("connection")
        async def connected(session):
            async for message in session:
                await session.send(message)

        trio.run(engine.serve_tcp, 3000)

    Args:
        options: `EngineConfig` documents each.

    Raises:
        TypeError: An option that does not exist.
        ValueError: A value out of its range.

    Attributes:
        config: The options, checked and immutable.
        generate_id: Called with the `Request` of each handshake, sync or async, for the id of the new session, which
            must be secret and unique. Assign a function of your own to replace it.
        sessions: The open sessions by id; not to be changed.
    """

    def __init__(self, **options: Unpack[EngineOptions]) -> None:
        super().__init__()
        self.config: EngineConfig = EngineConfig.from_options(options)
        self.generate_id: GenerateId = lambda request: new_id()
        self._listeners = Listeners(
            {"connection": 1, "connection_error": 1, "initial_headers": 2, "headers": 2},
            sync_only=("connection_error", "initial_headers", "headers"),
            known=("connection", "connection_error", "initial_headers", "headers"),
        )
        self._middlewares: list[Middleware] = []
        cors = self.config.cors
        if cors is not None:
            self._middlewares.append(cors.apply)
        compression = self.config.http_compression
        self._compressor = None if compression is None else Compressor(compression)
        self._unknown_sids = 0
        self._configure: Callable[[Session], None] | None = None

    def on_session(self, configure: Callable[[Session], None]) -> None:
        """Let something else have every session: called with each before it runs, to give it a sink."""
        self._configure = configure

    # Listeners and middlewares

    @overload
    def on(self, event: str, fn: None = None) -> Callable[[F], F]: ...
    @overload
    def on(self, event: str, fn: F) -> F: ...
    def on(self, event: str, fn: F | None = None) -> Any:
        """Listen to an event of the engine; as a decorator, or with the function.

        Args:
            event: ``"connection"`` (session; sync or async), ``"connection_error"`` (a `HandshakeRefused`, with
                ``.request .code .message .context``), ``"initial_headers"`` and ``"headers"`` (a mutable `Headers` and
                the `Request`: of the first answer of a session, and of every one). All but the first must be plain
                functions.
            fn: The listener.
        """
        return self._listeners.on(event, fn)

    @overload
    def once(self, event: str, fn: None = None) -> Callable[[F], F]: ...
    @overload
    def once(self, event: str, fn: F) -> F: ...
    def once(self, event: str, fn: F | None = None) -> Any:
        """Like `on`, for one time."""
        return self._listeners.on(event, fn, once=True)

    def off(self, event: str | None = None, fn: Callable[..., Any] | None = None) -> None:
        """Remove a listener, all of an event, or all."""
        self._listeners.off(event, fn)

    def use(self, middleware: M) -> M:
        """Run a function for every HTTP request and WebSocket, before anything is checked; in order of registration.

        Args:
            middleware: Called with the `Request`, sync or async. It returns None to go on, or a `Response` that ends
                the matter; `ConnectionRefused` (or any exception) answers 400. What it adds to
                ``request.response_headers`` is added to every answer, the 101 of a WebSocket included.
        """
        self._middlewares.append(middleware)
        return middleware

    # What front ends ask

    @property
    def http_limits(self) -> HttpLimits:
        """What our own listener takes from a client."""
        return self.config.http_limits

    @property
    def static_files(self) -> Any:
        """The option of this name."""
        return self.config.static_files

    # Requests: the engine as an Application

    def owns(self, path: str) -> bool:
        """Whether a path is the engine's."""
        prefix = self.config.path
        return path.startswith(prefix + "/" if self.config.add_trailing_slash else prefix)

    async def handle_request(self, request: Request) -> Response:
        """Answer an HTTP request."""
        answer = None
        try:
            answer, fires = await self._answer(request)
            _add_headers(answer, request)
            if fires:
                self._listeners.call_sync("headers", answer.headers, request)
        except Exception:
            logger.exception("%r could not be answered", request)
            if answer is not None and answer.on_lost is not None:
                answer.on_lost()
            answer = Response(500)
        return answer

    async def open_websocket(self, request: Request) -> Verdict:
        """Judge the opening request of a WebSocket."""
        try:
            verdict = await self._judge(request)
        except Exception:
            logger.exception("%r could not be answered", request)
            verdict = Response(500)
        return _add_headers(verdict, request) if isinstance(verdict, Response) else verdict

    async def _judge(self, request: Request) -> Verdict:
        if self._state is not State.RUNNING:
            return self._unavailable()
        see_through_proxies(request, self.config.trusted_proxies)
        try:
            response = await run_middlewares(self._middlewares, request)
            return await self._accept(request) if response is None else response
        except HandshakeRefused as error:
            return self._refuse(error, upgrade=True)

    async def _answer(self, request: Request) -> tuple[Response, bool]:
        """The response, and whether it is one of a session (and so has ``headers`` events)."""
        if self._state is State.STOPPED:
            return self._unavailable(), False
        see_through_proxies(request, self.config.trusted_proxies)
        try:
            response = await run_middlewares(self._middlewares, request)
            if response is not None:
                return response, False
            session = await verify(self.config, self.sessions, request, upgrade=False)
            if session is None:
                return await self._handshake(request), True
        except HandshakeRefused as error:
            return self._refuse(error, upgrade=False), False
        if request.method == "GET":
            return await serve_poll(session, request, self._compressor), True
        if request.method == "POST":
            return await serve_post(session, request, self.config.max_http_buffer_size), True
        return Response(500), False

    async def _handshake(self, request: Request) -> Response:
        """A new session on polling. Its handshake travels alone: what a listener sends waits for the next poll."""
        sid = await generate_id(self.generate_id, request)
        if self._state is not State.RUNNING:
            return self._unavailable()
        session = self._begin(sid, request, Phase.POLLING)
        answered = False
        try:
            await session.started.wait()
            response = await answer_poll(session, request, self._opening(session), self._compressor)
            if self.config.cookie is not None:
                response.headers.add("set-cookie", self.config.cookie.header(sid))
            self._listeners.call_sync("initial_headers", response.headers, request)
            answered = True
        finally:
            if not answered:  # the client has gone, or a listener failed: nobody knows this session
                session.finish(FORCED_CLOSE)
        self._register(session)
        return response

    async def _accept(self, request: Request) -> Verdict:
        config = self.config
        session = await verify(config, self.sessions, request, upgrade=True)
        headers = request.response_headers
        if request.query.get("transport") != "websocket":
            return RefusingAcceptance(headers, config)
        if session is not None:
            self._listeners.call_sync("headers", headers, request)
            return ProbeAcceptance(headers, config, session)
        sid = await generate_id(self.generate_id, request)
        if self._state is not State.RUNNING:
            return self._unavailable()
        self._listeners.call_sync("initial_headers", headers, request)
        self._listeners.call_sync("headers", headers, request)
        return SessionAcceptance(
            headers, config, partial(self._begin, sid, request, Phase.WEBSOCKET), self._greet_on_websocket
        )

    def _greet_on_websocket(self, session: Session) -> None:
        for packet in self._opening(session):
            session.write(packet)
        session.flush()
        self._register(session)

    def _begin(self, sid: str, request: Request, phase: Phase) -> Session:
        if self._nursery is None:
            raise NotRunning("the engine stopped while a client was connecting")
        session = Session(
            sid,
            request,
            self.config,
            phase=phase,
            dialect=choose_dialect(request.query),
            flusher=self._flusher,
            alarms=self._alarms,
            context=self._context,
            on_closed=self._forget,
        )
        if self._configure is not None:
            self._configure(session)
        self.start_soon(session.run)
        return session

    def note(self, dirty: Flushable) -> None:
        """Have something flushed at the end of this tick."""
        self._flusher.note(dirty)

    def open_batch(self, sessions: Iterable[Session]) -> Batch:
        """Sessions that get the same until the end of the tick."""
        batch = Batch(sessions, Outbox(self.config.max_outbox_bytes, self.config.max_outbox_packets))
        self._flusher.note(batch)
        return batch

    def _opening(self, session: Session) -> list[EncodedPacket]:
        config = self.config
        upgrades = []
        if config.allow_upgrades and session.transport == "polling" and "websocket" in config.transports:
            upgrades = ["websocket"]
        packets = [
            EncodedPacket(
                encode_open(
                    session.id, upgrades, config.ping_interval, config.ping_timeout, config.max_http_buffer_size
                )
            )
        ]
        if config.initial_packet is not None:
            packets.append(EncodedPacket.message(config.initial_packet))
        return packets

    def _register(self, session: Session) -> None:
        if not session.phase.open:
            return
        self.sessions[session.id] = session
        session.greeted()
        for listener in self._listeners.take("connection"):
            if listener.is_async:
                session.spawn(self._run_listener, listener.fn, session)
            else:
                with _closing_on_failure(session):
                    listener.call_sync(session)

    async def _run_listener(self, fn: Callable[[Session], Any], session: Session) -> None:
        with _closing_on_failure(session):
            await fn(session)

    def _refuse(self, error: HandshakeRefused, *, upgrade: bool) -> Response:
        if error.code == UNKNOWN_SID:
            if self._unknown_sids % UNKNOWN_SIDS_PER_WARNING == UNKNOWN_SIDS_PER_WARNING - 1:
                logger.warning(
                    "%d requests had unknown session ids: behind a load balancer, long-polling needs sticky sessions",
                    UNKNOWN_SIDS_PER_WARNING,
                )
            self._unknown_sids += 1
        self._listeners.call_sync("connection_error", error)
        return error_response(error, upgrade=upgrade)


@contextmanager
def _closing_on_failure(session: Session) -> Iterator[None]:
    try:
        yield
    except Exception:
        logger.exception("a connection listener failed; its session is closed")
        session.close()


def _add_headers(response: Response, request: Request) -> Response:
    for name, value in request.response_headers.multi_items():
        response.headers.add(name, value)
    return response
