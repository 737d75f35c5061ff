"""A WebSocket inside an application's own trio-websocket server.

That server has read the opening request and checked it as RFC 6455 says; here the engine judges it, and what comes of
it runs on the connection as it is: no fast lane, because the stream is not ours. Two things of trio-websocket's have no
public way to them, and are taken from where they are: the ``Host`` header (pages of the same origin need no permission)
and the stream (a connection that was refused, or closed for the size of a message, stays open unless it is cut).
"""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING

import h11
import trio
from trio_websocket import ConnectionClosed, Endpoint

from .._engine.contract import Headers, Request, Response
from .._errors import MessageTooLarge, RemoteProtocolError
from .answers import NOT_FOUND, error_response
from .opening import HttpError, encode_headers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trio_websocket import WebSocketConnection, WebSocketRequest

    from .._engine.contract import Acceptance, Receiver
    from .._wire.encoded import EncodedPacket
    from .listener import Served

logger = logging.getLogger("trio_socketio.embedded")

TOO_LARGE, ABNORMAL_CLOSURE = 1009, 1006
UNSENDABLE = (h11.LocalProtocolError, UnicodeEncodeError)


async def serve_embedded(app: Served, proposal: WebSocketRequest) -> None:
    """Answer one opening request, and carry what it leads to until either side closes.

    The connection is closed afterwards. Raises nothing but cancellations.

    Args:
        app: The application.
        proposal: The request, which nobody has accepted or rejected yet.
    """
    connection = proposal._connection
    try:
        request = _translate(proposal)
        verdict = await app.open_websocket(request) if app.owns(request.path) else _not_found()
        refusal = verdict if isinstance(verdict, Response) else await _accept(app, proposal, verdict)
        if refusal is not None:
            await _reject(app, proposal, refusal)
    except* (ConnectionClosed, trio.BrokenResourceError, trio.ClosedResourceError) as group:
        logger.debug("a connection broke: %r", group.exceptions[0])
    except* Exception as group:
        logger.error("a connection failed; this is a bug", exc_info=group)
    finally:
        await trio.aclose_forcefully(connection._stream)


async def _reject(app: Served, proposal: WebSocketRequest, response: Response) -> None:
    try:
        headers = _sendable(response.headers, response.status)
    except UNSENDABLE:
        logger.exception("%r has headers that cannot be sent", response)
        response, headers = Response(500), []
    with trio.move_on_after(app.http_limits.write_timeout):
        await proposal.reject(response.status, extra_headers=headers, body=response.body)


async def _accept(app: Served, proposal: WebSocketRequest, acceptance: Acceptance) -> Response | None:
    """Write the 101 and run the acceptance; or a response, if it has headers that cannot be sent."""
    try:
        headers = _sendable(acceptance.headers, 101)
    except UNSENDABLE:
        logger.exception("the answer to a request for %s has headers that cannot be sent", proposal.path)
        return Response(500)
    offered = proposal.proposed_subprotocols
    connection = None
    with trio.move_on_after(app.http_limits.write_timeout):
        # The first one that the client offers, as on our own listener.
        connection = await proposal.accept(subprotocol=offered[0] if offered else None, extra_headers=headers)
    if connection is not None:
        await acceptance.run(EmbeddedWebSocket(connection, acceptance.max_message_size))
    return None


def _translate(proposal: WebSocketRequest) -> Request:
    headers = Headers([(name.decode("ascii"), value.decode("latin-1")) for name, value in proposal.headers])
    host = proposal._event.host
    headers.add("host", host if host.isascii() else host.encode("idna").decode("ascii"))
    try:
        peer = proposal.remote
    except OSError:  # it has left already
        peer = ""
    if not isinstance(peer, Endpoint):
        return Request(method="GET", target=proposal.path, headers=headers)
    return Request(
        method="GET",
        target=proposal.path,
        headers=headers,
        client=(str(peer.address), peer.port),
        scheme="https" if peer.is_ssl else "http",
    )


def _not_found() -> Response:
    return error_response(HttpError(404, NOT_FOUND))


def _sendable(headers: Headers, status: int) -> list[tuple[bytes, bytes]]:
    """Headers as they are written, checked before the first byte of the answer is."""
    encoded = [header for header in encode_headers(headers) if header[0] != b"content-length"]
    kind = h11.InformationalResponse if status == 101 else h11.Response
    kind(status_code=status, headers=encoded)
    return encoded


class EmbeddedWebSocket:
    """Implements `trio_socketio._engine.contract.WebSocket`.

    Args:
        connection: Accepted.
        max_message_size: Bytes; a larger message ends `pump`. The application's server has a limit of its own, in
            characters, with the same effect.
    """

    __slots__ = ("_connection", "_max_message_size", "_stored", "_writing")

    def __init__(self, connection: WebSocketConnection, max_message_size: int) -> None:
        self._connection = connection
        self._max_message_size = max_message_size
        self._stored: deque[str | bytes] = deque()
        self._writing = False

    async def pump(self, receiver: Receiver) -> None:
        """Deliver what arrives until the peer closes."""
        try:
            while True:
                if receiver.paused:
                    await receiver.resumed()
                message = await self._connection.get_message()
                if (size := _size(message)) > self._max_message_size:
                    raise MessageTooLarge(size, self._max_message_size)
                receiver.on_message(message)
                receiver.end_batch()
        except ConnectionClosed as closed:
            reason = closed.reason
            if reason is not None and reason.code == TOO_LARGE:
                raise RemoteProtocolError(reason.reason or "a message was too large") from None

    def send_nowait(self, packets: Sequence[EncodedPacket]) -> bool:
        """Store packets. Always False: `drain` sends them."""
        for packet in packets:
            self._stored.extend(packet.messages)
        return False

    async def drain(self) -> None:
        """Send what is stored. To a peer that has closed there is nothing to send; `pump` tells of that."""
        try:
            while self._stored:
                self._writing = True
                await self._connection.send_message(self._stored.popleft())
                self._writing = False
        except ConnectionClosed as closed:
            self._writing = False
            if closed.reason is None or closed.reason.code == ABNORMAL_CLOSURE:
                raise trio.BrokenResourceError("the connection broke") from None

    async def aclose(self, code: int = 1000) -> None:
        """Close with a handshake; cut the connection when cancelled, or when a message was sent in part only."""
        try:
            if not self._writing:
                await self._connection.aclose(code)
        finally:
            await trio.aclose_forcefully(self._connection._stream)


def _size(message: str | bytes) -> int:
    return len(message) if isinstance(message, bytes) or message.isascii() else len(message.encode())
