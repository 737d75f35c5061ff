"""HTTP/1.1 on one TCP connection, one task for each; and the way from there to a WebSocket.

h11 is the authority on HTTP; ordinary requests do not trouble it (`trio_socketio._frontends.plain`). Requests of one
connection are served one after the other. While one waits for its answer, a second task reads ahead: the only way to
learn that the client has gone is to read, and the application is told by cancellation. What is read ahead (a pipelined
request, the first frames of a WebSocket) is kept, up to a bound.

Whatever a client sends, it costs nobody else anything: an `HttpError` is answered with one line and the connection
closes; what we did wrong ourselves is logged once, with its traceback, and ends this connection only.
"""

from __future__ import annotations

import logging
import os
from math import inf
from typing import TYPE_CHECKING, Protocol

import h11
import trio
from trio_websocket import ConnectionClosed

from .._engine.contract import Application, Headers, Request, Response
from .._errors import ClientDisconnected
from .answers import error_response, not_found, write_with_h11
from .lane import cut
from .opening import HttpError, Opening, Upgrade, client_address, origin_form, wants_websocket
from .plain import recognise, write_plain
from .waiting import noticing_wait
from .websocket import serve_websocket

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from .._engine.contract import HttpLimits
    from .static import StaticFiles

logger = logging.getLogger("trio_socketio.listener")

READ_SIZE = 65_536
#: Bytes kept of what arrives while a request is being served; beyond that the client waits, and is not watched.
READ_AHEAD = 65_536
#: Seconds for a client to stop sending and read an answer that came before the end of its request.
LINGER = 2.0


class Served(Application, Protocol):
    """What the listener asks of an application, besides what every front end does."""

    @property
    def http_limits(self) -> HttpLimits:
        """What it takes from a client."""

    def answering(self) -> AbstractContextManager[None]:
        """Entered while a client is to be answered: from its request until the answer, or its WebSocket, is over."""


async def serve_connection(app: Served, files: StaticFiles | None, stream: trio.abc.Stream) -> None:
    """Serve one client until either side closes. The stream is closed afterwards. Raises nothing but cancellations.

    Args:
        app: The application.
        files: What to serve at the paths that are not the application's.
        stream: The client's; with TLS, a `trio.SSLStream`.
    """
    try:
        # The HTTP side ends before the WebSocket begins, so that an idle WebSocket does not keep its memory.
        async with trio.open_nursery() as nursery:
            upgrade = await HttpConnection(app, files, stream, nursery).serve()
            if upgrade is not None:
                with app.answering():
                    await serve_websocket(stream, upgrade, app.http_limits.write_timeout, nursery)
            nursery.cancel_scope.cancel()
    except* ConnectionClosed:
        pass  # the client left while trio-websocket was writing to it
    except* (trio.BrokenResourceError, trio.ClosedResourceError) as group:
        logger.debug("a connection broke: %r", _first_of(group))
    except* Exception as group:
        logger.error("a connection failed; this is a bug", exc_info=group)
    finally:
        await cut(stream)  # noqa: ASYNC102 - it does not wait


class HttpConnection:
    """One client's connection as long as it speaks HTTP.

    Args:
        app: The application.
        files: What to serve at the paths that are not the application's.
        stream: The client's.
        nursery: For the task that reads ahead; it is cancelled when the client goes before it has its answer.
    """

    def __init__(self, app: Served, files: StaticFiles | None, stream: trio.abc.Stream, nursery: trio.Nursery) -> None:
        self._app = app
        self._files = files
        self._stream = stream
        self._nursery = nursery
        # Asked each time, and not kept: once a socket is closed, its number may be another client's.
        self._fileno: Callable[[], int] | None = None
        if isinstance(stream, trio.SocketStream) and os.name == "posix":
            self._fileno = stream.socket.fileno
        self._limits = app.http_limits
        self._unread = b""  # what no request has begun with yet; while h11 has a request, it has the rest as well
        self._http: h11.Connection | None = None
        self._client = client_address(stream)
        self._scheme = "https" if isinstance(stream, trio.SSLStream) else "http"
        self._reading: trio.Event | None = None  # set when the task that reads has done so
        self._reads = 0
        self._ahead = 0  # bytes read, but not yet asked for
        self._gone = False  # the client has sent its last byte
        self._watched = False  # an answer is waited for
        self._watching = False  # there is a task for that
        self._watch_scope: trio.CancelScope | None = None  # of that task, once it has begun
        self._http_version = b"1.1"
        self._body_wanted = False  # the handler waits for the body, and will find out itself
        self._body_deadline = 0.0
        self._body_error: HttpError | None = None

    async def serve(self) -> Upgrade | None:
        """Serve requests until the connection ends, or becomes a WebSocket."""
        deadline = trio.current_time() + self._limits.header_timeout
        try:
            while (request := await self._next_request(deadline)) is not None:
                with self._app.answering():
                    answer = await self._answer(request)
                    if self._body_error is not None:
                        _lose(answer)
                        raise self._body_error
                    if isinstance(answer, Upgrade):
                        await self._stop_watch()
                        answer.trailing = self._rest
                        return answer
                    if not await self._write(answer, request.method):
                        return None
                if not self._start_next_cycle():
                    await self._linger()
                    return None
                deadline = trio.current_time() + self._limits.keep_alive_timeout
        except HttpError as error:
            logger.debug("a request of %s was refused: %d %s", self._client, error.status, error)
            if await self._write(error_response(error), "GET"):
                await self._linger()
        return None

    # The head

    async def _next_request(self, deadline: float) -> Request | None:
        """The next request, or None when the client is done, or has not begun one by the deadline."""
        is_first = self._reads == 0
        if self._unread:
            await trio.lowlevel.checkpoint()  # a client that sends many at once is not the only one
        elif not self._gone and not (is_first and self._read_at_once()):
            # A connection with nothing begun just ends at its deadline: no scope of its own for each request.
            patience = self._nursery.cancel_scope
            patience.deadline = deadline
            await self._read(self._limits.max_header_bytes)
            if patience.cancel_called:
                return None
        if not self._unread:
            return None
        plain = recognise(self._unread, self._limits)
        if plain is None:
            self._nursery.cancel_scope.deadline = inf
            if not is_first:
                deadline = min(deadline, trio.current_time() + self._limits.header_timeout)
            head = await self._read_head(deadline)
            return None if head is None else self._check_head(head)
        self._unread = self._unread[plain.end :]
        self._ahead = len(self._unread)
        self._http_version = b"1.1"
        return Request(
            method=plain.method,
            target=plain.target,
            headers=plain.headers,
            client=self._client,
            scheme=self._scheme,
            # And no method of ours: a request that opens a session lives as long as that, and this object should not.
            body=plain.body,
        )

    async def _read_head(self, deadline: float) -> h11.Request | None:
        """Let h11 read what is more than plain, until it has its body as well."""
        self._http = http = h11.Connection(h11.SERVER, max_incomplete_event_size=self._limits.max_header_bytes)
        self._feed(self._take(), self._gone)
        with trio.CancelScope(deadline=deadline):
            while True:
                try:
                    event = http.next_event()
                except h11.RemoteProtocolError as error:
                    raise self._explain(error) from error
                if event is not h11.NEED_DATA:
                    return event if isinstance(event, h11.Request) else None
                await self._read(self._limits.max_header_bytes)
        raise HttpError(408, "the head of the request took too long")

    def _explain(self, error: h11.RemoteProtocolError) -> HttpError:
        if self._rest.startswith(b"\x16\x03"):
            return HttpError(400, "this port speaks plain HTTP, not TLS")
        status = error.error_status_hint
        if status == 431:
            return HttpError(431, f"the head of the request exceeds {self._limits.max_header_bytes} bytes")
        return HttpError(status if status in (400, 501) else 400, f"not valid HTTP/1.1: {error}")

    def _check_head(self, head: h11.Request) -> Request:
        limits = self._limits
        if head.http_version not in (b"1.1", b"1.0"):
            raise HttpError(400, "this server speaks HTTP/1.1")
        if len(head.headers) > limits.max_headers:
            raise HttpError(431, f"more than {limits.max_headers} header lines")
        # h11 counts only what is incomplete; a head that came in one piece may be larger.
        size = len(head.target) + sum(len(name) + len(value) + 4 for name, value in head.headers)
        if size > limits.max_header_bytes:
            raise HttpError(431, f"the head of the request exceeds {limits.max_header_bytes} bytes")
        headers = Headers([(name.decode("ascii"), value.decode("latin-1")) for name, value in head.headers])
        # RFC 9112, section 6.1: where a proxy might see another end of the body than we do, nothing is served.
        if "transfer-encoding" in headers and ("content-length" in headers or head.http_version == b"1.0"):
            raise HttpError(400, "transfer-encoding excludes content-length and HTTP/1.0")
        self._ahead = len(self._rest)
        self._http_version = head.http_version
        self._body_deadline = trio.current_time() + limits.body_timeout
        return Request(
            method=head.method.decode("ascii"),
            target=origin_form(head.target.decode("ascii")),
            headers=headers,
            client=self._client,
            scheme=self._scheme,
            receive_body=self._receive_body,
        )

    # The body

    async def _receive_body(self) -> bytes:
        """The next piece of the body; ``b""`` after the last."""
        http = self._http
        if http is None:
            return b""  # the request is over
        if http.they_are_waiting_for_100_continue:
            await self._ask_for_body(http)
        while http.their_state is h11.SEND_BODY:
            try:
                event = http.next_event()
            except h11.RemoteProtocolError as error:
                if not self._gone:
                    self._body_error = self._explain(error)
                raise ClientDisconnected(f"the body of a request is broken: {error}") from error
            if isinstance(event, h11.Data) and event.data:
                return bytes(event.data)
            if event is h11.NEED_DATA:
                await self._wait_for_body()
        return b""

    async def _ask_for_body(self, http: h11.Connection) -> None:
        proceed = h11.InformationalResponse(status_code=100, headers=[])
        try:
            await self._stream.send_all(http.send(proceed) or b"")
        except trio.BrokenResourceError as error:
            raise ClientDisconnected("the client left before its body was asked for") from error

    async def _wait_for_body(self) -> None:
        self._ahead = 0
        self._body_wanted = True
        with trio.CancelScope(deadline=self._body_deadline) as scope:
            await self._read_more()
        self._body_wanted = False
        if scope.cancelled_caught:
            self._body_error = HttpError(408, "the body of the request took too long")
            raise ClientDisconnected("the body of a request took too long")

    # Reading

    @property
    def _rest(self) -> bytes:
        """What was read, and belongs to no request yet."""
        return self._unread if self._http is None else self._http.trailing_data[0]

    def _take(self) -> bytes:
        data, self._unread = self._unread, b""
        return data

    def _feed(self, data: bytes, is_last: bool) -> None:
        if self._http is None:
            self._unread += data
            return
        if data:
            self._http.receive_data(data)
        if is_last:
            self._http.receive_data(b"")

    async def _read_more(self) -> bool:
        """Read once; whether there may be more. A broken connection is one that has ended."""
        try:
            await self._read(READ_SIZE)
        except trio.BrokenResourceError:
            self._gone = True
            self._feed(b"", is_last=True)
        return not self._gone

    async def _read(self, size: int) -> None:
        """Read once, or wait for the other task that is reading; feed the bytes to whom they belong."""
        seen = self._reads
        while self._reads == seen and not self._gone:
            if self._reading is not None:
                await self._reading.wait()  # then it has read, or was cancelled
                continue
            self._reading = trio.Event()
            try:
                data = await self._receive(size)
                self._take_in(data)
            finally:
                self._reading.set()
                self._reading = None

    def _take_in(self, data: bytes) -> None:
        self._reads += 1
        self._ahead += len(data)
        self._gone = not data
        self._feed(data, self._gone)

    def _read_at_once(self) -> bool:
        """Read what has come with the connection, as most first requests have.

        Without a clock and a wait for them there are 1.09 times the connects.
        """
        if self._fileno is None:
            return False
        try:
            data = os.read(self._fileno(), self._limits.max_header_bytes)
        except OSError:
            return False  # nothing yet; and a broken connection shows when it is waited for
        self._take_in(data)
        return True

    async def _receive(self, size: int) -> bytes:
        if self._fileno is None:
            return bytes(await self._stream.receive_some(size))
        # As in the lane: 3 us less than a `receive_some` that tries before it waits.
        while True:
            await trio.lowlevel.wait_readable(self._fileno())
            try:
                return os.read(self._fileno(), size)
            except BlockingIOError:
                continue
            except OSError as error:
                raise trio.BrokenResourceError(f"the connection broke: {error}") from error

    # The answer

    async def _answer(self, request: Request) -> Response | Upgrade:
        """Let the application answer. If it has to wait, and the client goes first, all of this is cancelled."""
        try:
            return await noticing_wait(self._dispatch(request), self._begin_watch)
        finally:
            self._watched = False

    def _begin_watch(self) -> None:
        self._nursery.cancel_scope.deadline = inf
        self._watched = True
        if not self._watching:
            self._watching = True
            self._nursery.start_soon(self._watch)

    async def _watch(self) -> None:
        """Read while an answer is waited for. The last read goes on after that: it is for the next request anyway."""
        with trio.CancelScope() as self._watch_scope:
            while self._watched and self._ahead < READ_AHEAD:
                if not await self._read_more():
                    self._on_end()
                    break
        self._watching = False

    def _on_end(self) -> None:
        if self._watched and not self._body_wanted:
            self._nursery.cancel_scope.cancel()

    async def _stop_watch(self) -> None:
        """Leave the reading to others."""
        self._nursery.cancel_scope.deadline = inf
        if self._watch_scope is not None:
            self._watch_scope.cancel()
        while self._watching:  # noqa: ASYNC110 - a tick or two, and nearly never
            await trio.lowlevel.checkpoint()

    async def _dispatch(self, request: Request) -> Response | Upgrade:
        is_ours = self._app.owns(request.path)
        if wants_websocket(request):
            return await self._dispatch_websocket(request) if is_ours else not_found()
        if is_ours:
            return await self._app.handle_request(request)
        response = await self._files.respond(request) if self._files is not None else None
        return response or not_found()

    async def _dispatch_websocket(self, request: Request) -> Response | Upgrade:
        try:
            opening = Opening(request, self._http_version)
        except HttpError as error:
            return error_response(error)
        verdict = await self._app.open_websocket(request)
        if isinstance(verdict, Response):
            verdict.headers["connection"] = "close"
            return verdict
        try:
            return Upgrade(opening, verdict)
        except (h11.LocalProtocolError, UnicodeEncodeError):
            logger.exception("the answer to %r has headers that cannot be sent", request)
            return Response(500, headers=Headers([("connection", "close")]))

    # Writing

    async def _write(self, response: Response, method: str) -> bool:
        """Write a response within the time for it; whether that was possible."""
        written = False
        try:
            data = write_plain(response) if self._http is None else None
            written = await self._send(self._encode(response, method) if data is None else data)
        except trio.BrokenResourceError:
            logger.debug("%s left before it had its answer", self._client)
        finally:
            if not written:
                _lose(response)
        return written

    async def _send(self, data: bytes) -> bool:
        if self._fileno is not None:
            # What the kernel takes at once needs no task switch, and no clock: 2 us instead of 15.
            try:
                data = data[os.write(self._fileno(), data) :]
            except BlockingIOError:
                pass
            except OSError as error:
                raise trio.BrokenResourceError(f"the connection broke: {error}") from error
            if not data:
                return True
        self._nursery.cancel_scope.deadline = inf
        with trio.move_on_after(self._limits.write_timeout):
            await self._stream.send_all(data)
            return True
        return False

    def _encode(self, response: Response, method: str) -> bytes:
        if self._http is None:
            # To h11, all plain requests are the same now that they are over.
            self._http = h11.Connection(h11.SERVER)
            self._http.receive_data(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n" + self._take())
            self._http.next_event()
            self._http.next_event()
        return write_with_h11(self._http, response, method)

    # The end

    def _start_next_cycle(self) -> bool:
        """Whether the connection is ready for another request: its body must have come to its end."""
        http = self._http
        if http is None:
            return True
        try:
            while http.their_state is h11.SEND_BODY:
                if http.next_event() is h11.NEED_DATA:
                    return False
        except h11.RemoteProtocolError:
            return False
        if http.our_state is not h11.DONE or http.their_state is not h11.DONE:
            return False
        self._unread, self._http = self._rest, None
        return True

    async def _linger(self) -> None:
        """Let the client read its answer: closing while it still sends would reset the connection, answer and all."""
        if self._gone or self._http is None or self._http.their_state in (h11.DONE, h11.MUST_CLOSE, h11.CLOSED):
            return
        self._http = None
        with trio.move_on_after(LINGER):
            if isinstance(self._stream, trio.abc.HalfCloseableStream):
                await self._stream.send_eof()
            while not self._gone:
                await self._read(READ_SIZE)
                self._unread = b""


def _lose(answer: Response | Upgrade | None) -> None:
    if isinstance(answer, Response) and answer.on_lost is not None:
        answer.on_lost()


def _first_of(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
