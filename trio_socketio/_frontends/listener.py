"""HTTP/1.1 on one TCP connection, one task for each; and the way from there to a WebSocket.

h11 is the authority on HTTP. Requests of one connection are served one after the other. While one is being served, a
second task reads ahead: the only way to learn that the client has gone is to read, and the application is told by
cancellation. What is read ahead (a pipelined request, the first frames of a WebSocket) is kept, up to a bound.

Whatever a client sends, it costs nobody else anything: an `HttpError` is answered with one line and the connection
closes; what we did wrong ourselves is logged once, with its traceback, and ends this connection only.
"""

from __future__ import annotations

import logging
import time
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from typing import TYPE_CHECKING, Protocol

import h11
import trio

from .._engine.contract import Application, Headers, Request, Response
from .._errors import ClientDisconnected
from .opening import HttpError, Opening, Upgrade, encode_headers, wants_websocket
from .websocket import serve_websocket

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from .._engine.contract import HttpLimits
    from .static import StaticFiles

logger = logging.getLogger("trio_socketio.listener")

READ_SIZE = 65_536
#: Bytes kept of what arrives while a request is being served; beyond that the client waits, and is not watched.
READ_AHEAD = 65_536
#: Seconds for a client to stop sending and read an answer that came before the end of its request.
LINGER = 2.0

REASONS = {status.value: status.phrase.encode("ascii") for status in HTTPStatus}
NOT_FOUND = "nothing is served at this path; compare the `path` options of the server and of the client"


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
        upgrade = await HttpConnection(app, files, stream).serve()
        if upgrade is not None:
            with app.answering():
                await serve_websocket(stream, upgrade, app.http_limits.write_timeout)
    except* (trio.BrokenResourceError, trio.ClosedResourceError) as group:
        logger.debug("a connection broke: %r", group.exceptions[0])
    except* Exception as group:
        logger.error("a connection failed; this is a bug", exc_info=group)
    finally:
        await trio.aclose_forcefully(stream)


class HttpConnection:
    """One client's connection as long as it speaks HTTP."""

    def __init__(self, app: Served, files: StaticFiles | None, stream: trio.abc.Stream) -> None:
        self._app = app
        self._files = files
        self._stream = stream
        self._limits = app.http_limits
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=self._limits.max_header_bytes)
        self._client = client_address(stream)
        self._scheme = "https" if isinstance(stream, trio.SSLStream) else "http"
        self._reading = trio.Lock()
        self._reads = 0
        self._ahead = 0  # bytes read, but not yet asked for
        self._gone = False  # the client has sent its last byte
        self._body_wanted = False  # the handler waits for the body, and will find out itself
        self._body_deadline = 0.0
        self._body_error: HttpError | None = None

    async def serve(self) -> Upgrade | None:
        """Serve requests until the connection ends, or becomes a WebSocket."""
        deadline = trio.current_time() + self._limits.header_timeout
        try:
            while (head := await self._read_head(deadline)) is not None:
                request = self._check_head(head)
                with self._app.answering():
                    answer = await self._answer(request, head.http_version)
                    if self._body_error is not None:
                        _lose(answer)
                        raise self._body_error
                    if isinstance(answer, Upgrade):
                        answer.trailing = self._http.trailing_data[0]
                        return answer
                    if answer is None or not await self._write(answer, request.method):
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

    async def _read_head(self, deadline: float) -> h11.Request | None:
        """The next request, or None when the client is done, or has not begun one by the deadline."""
        begun = bool(self._http.trailing_data[0])
        is_first = self._reads == 0
        with trio.CancelScope(deadline=deadline) as scope:
            while True:
                try:
                    event = self._http.next_event()
                except h11.RemoteProtocolError as error:
                    raise self._explain(error) from error
                if event is not h11.NEED_DATA:
                    return event if isinstance(event, h11.Request) else None
                if begun and not is_first:
                    scope.deadline = min(scope.deadline, trio.current_time() + self._limits.header_timeout)
                data = await self._stream.receive_some(self._limits.max_header_bytes)
                begun = begun or bool(data)
                self._reads += 1
                self._http.receive_data(bytes(data))
        if begun:
            raise HttpError(408, "the head of the request took too long")
        return None

    def _explain(self, error: h11.RemoteProtocolError) -> HttpError:
        if self._http.trailing_data[0].startswith(b"\x16\x03"):
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
        self._ahead = len(self._http.trailing_data[0])
        self._body_deadline = trio.current_time() + limits.body_timeout
        return Request(
            method=head.method.decode("ascii"),
            target=_origin_form(head.target.decode("ascii")),
            headers=headers,
            client=self._client,
            scheme=self._scheme,
            receive_body=self._receive_body,
        )

    # The body

    async def _receive_body(self) -> bytes:
        """The next piece of the body; ``b""`` after the last."""
        if self._http.they_are_waiting_for_100_continue:
            proceed = h11.InformationalResponse(status_code=100, headers=[])
            await self._stream.send_all(self._http.send(proceed) or b"")
        while self._http.their_state is h11.SEND_BODY:
            try:
                event = self._http.next_event()
            except h11.RemoteProtocolError as error:
                if not self._gone:
                    self._body_error = self._explain(error)
                raise ClientDisconnected(f"the body of a request is broken: {error}") from error
            if isinstance(event, h11.Data) and event.data:
                return bytes(event.data)
            if event is h11.NEED_DATA:
                await self._wait_for_body()
        return b""

    async def _wait_for_body(self) -> None:
        self._ahead = 0
        self._body_wanted = True
        with trio.CancelScope(deadline=self._body_deadline) as scope:
            await self._read_more()
        self._body_wanted = False
        if scope.cancelled_caught:
            self._body_error = HttpError(408, "the body of the request took too long")
            raise ClientDisconnected("the body of a request took too long")

    async def _read_more(self) -> bool:
        """Read once, or wait for the other task that is reading; whether there may be more."""
        seen = self._reads
        async with self._reading:
            if self._reads == seen and not self._gone:
                try:
                    data = await self._stream.receive_some(READ_SIZE)
                except trio.BrokenResourceError:
                    data = b""
                self._reads += 1
                self._ahead += len(data)
                self._gone = not data
                self._http.receive_data(bytes(data))
        return not self._gone

    # The answer

    async def _answer(self, request: Request, http_version: bytes) -> Response | Upgrade | None:
        """Let the application answer; None if the client goes before it has."""
        answer = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch, nursery.cancel_scope)
            answer = await self._dispatch(request, http_version)
            nursery.cancel_scope.cancel()
        return answer

    async def _watch(self, scope: trio.CancelScope) -> None:
        while self._ahead < READ_AHEAD:
            if not await self._read_more():
                if not self._body_wanted:
                    scope.cancel()
                return

    async def _dispatch(self, request: Request, http_version: bytes) -> Response | Upgrade:
        is_ours = self._app.owns(request.path)
        if wants_websocket(request):
            return await self._dispatch_websocket(request, http_version) if is_ours else _not_found()
        if is_ours:
            return await self._app.handle_request(request)
        response = await self._files.respond(request) if self._files is not None else None
        return response or _not_found()

    async def _dispatch_websocket(self, request: Request, http_version: bytes) -> Response | Upgrade:
        try:
            opening = Opening(request, http_version)
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
            data = self._encode(response, method)
            with trio.move_on_after(self._limits.write_timeout):
                await self._stream.send_all(data)
                written = True
        except trio.BrokenResourceError:
            logger.debug("%s left before it had its answer", self._client)
        finally:
            if not written:
                _lose(response)
        return written

    def _encode(self, response: Response, method: str) -> bytes:
        http = self._http
        has_length = response.status not in (204, 304)
        try:
            head = self._response_head(response, has_length)
        except (h11.LocalProtocolError, UnicodeEncodeError):
            logger.exception("%r has headers that cannot be sent", response)
            response = Response(500, on_lost=response.on_lost)
            head = self._response_head(response, has_length=True)
        data = http.send(head) or b""
        if has_length and method != "HEAD":
            data += http.send(h11.Data(data=response.body)) or b""
        return data + (http.send(h11.EndOfMessage()) or b"")

    def _response_head(self, response: Response, has_length: bool) -> h11.Response:
        headers = encode_headers(response.headers)
        headers = [header for header in headers if header[0] not in (b"content-length", b"transfer-encoding")]
        if has_length:
            headers.append((b"content-length", b"%d" % len(response.body)))
        headers.append((b"date", _http_date(int(time.time()))))
        status = response.status
        return h11.Response(status_code=status, headers=headers, reason=REASONS.get(status, b""))

    # The end

    def _start_next_cycle(self) -> bool:
        """Whether the connection is ready for another request: its body must have come to its end."""
        http = self._http
        try:
            while http.their_state is h11.SEND_BODY:
                if http.next_event() is h11.NEED_DATA:
                    return False
            if http.our_state is not h11.DONE or http.their_state is not h11.DONE:
                return False
            http.start_next_cycle()
        except h11.RemoteProtocolError:
            return False
        return True

    async def _linger(self) -> None:
        """Let the client read its answer: closing while it still sends would reset the connection, answer and all."""
        if self._gone or self._http.their_state in (h11.DONE, h11.MUST_CLOSE, h11.CLOSED):
            return
        with trio.move_on_after(LINGER):
            if isinstance(self._stream, trio.abc.HalfCloseableStream):
                await self._stream.send_eof()
            while await self._stream.receive_some(READ_SIZE):
                pass


def _lose(answer: Response | Upgrade | None) -> None:
    if isinstance(answer, Response) and answer.on_lost is not None:
        answer.on_lost()


def _not_found() -> Response:
    return error_response(HttpError(404, NOT_FOUND), close=False)


def error_response(error: HttpError, close: bool = True) -> Response:
    """One line of plain text."""
    headers = Headers(error.headers)
    headers["content-type"] = "text/plain; charset=utf-8"
    if close:
        headers["connection"] = "close"
    return Response(error.status, f"{error}\n".encode(), headers)


def _origin_form(target: str) -> str:
    """The path and query of a request target, which a proxy's client may send with scheme and host before it."""
    if target.startswith("/") or target == "*":
        return target
    scheme, separator, rest = target.partition("://")
    if not separator or scheme.lower() not in ("http", "https"):
        raise HttpError(400, "the request target must begin with a slash")
    _, slash, path = rest.partition("/")
    return slash + path if slash else "/"


def client_address(stream: trio.abc.Stream) -> tuple[str, int] | None:
    """Address and port of the peer, where the stream has a socket that knows them."""
    inner = stream.transport_stream if isinstance(stream, trio.SSLStream) else stream
    if not isinstance(inner, trio.SocketStream):
        return None
    try:
        name = inner.socket.getpeername()
    except OSError:
        return None
    return (name[0], name[1]) if isinstance(name, tuple) else None


@lru_cache(maxsize=1)
def _http_date(second: int) -> bytes:
    return formatdate(second, usegmt=True).encode("ascii")
