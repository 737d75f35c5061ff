"""Long-polling: one GET at a time brings packets to the client, one POST at a time brings packets from it.

Engine.IO protocol, "HTTP long-polling". A second GET or POST while one is being served closes the session; so does a
client that lets go of one. A close that we caused while a POST is being read ends that POST.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

import trio

from .._errors import BodyTooLarge, ClientDisconnected, RemoteProtocolError
from .._wire.encoded import CLOSE, NOOP, EncodedPacket
from .contract import Headers, Response
from .reasons import FORCED_CLOSE, PARSE_ERROR, TRANSPORT_ERROR
from .sending import PendingPoll

if TYPE_CHECKING:
    from .compression import Compressor
    from .contract import Request
    from .session import Session

GONE = "poll connection closed prematurely"


def _headers(request: Request, content_type: str) -> Headers:
    """What the answers of a session have: no cache keeps them, and no Internet Explorer takes them for an attack."""
    headers = Headers.of_checked([("content-type", content_type), ("cache-control", "no-store")])
    agent = request.headers.get("user-agent", "")
    if ";MSIE" in agent or "Trident/" in agent:
        headers.add("x-xss-protection", "0")
    return headers


async def answer_poll(
    session: Session, request: Request, packets: list[EncodedPacket], compressor: Compressor | None
) -> Response:
    """The answer to a GET, compressed where that is wanted, and worth it, and the client can read it.

    If it cannot be written, the client has lost packets, and the session ends.
    """
    body, content_type = session.dialect.encode_body(packets)
    response = Response(
        200, body, _headers(request, content_type), on_lost=lambda: session.finish(TRANSPORT_ERROR, GONE)
    )
    if (
        compressor is not None
        and len(response.body) >= compressor.threshold
        and any(packet.compress for packet in packets)
    ):
        await compressor.apply(response, request)
    return response


async def serve_poll(session: Session, request: Request, compressor: Compressor | None) -> Response:
    """Answer a GET with what is queued, or wait for something."""
    if session.poll is not None:
        session.finish(TRANSPORT_ERROR, "overlap from client")
        return Response(400)
    poll = session.poll = PendingPoll()
    session.flush()
    if session.poll is poll and not session.phase.open:
        # A gracefully closing session with nothing left to deliver: this is its last poll.
        session.poll = None
        session.finish(FORCED_CLOSE)
        poll.answer([NOOP, CLOSE])
    try:
        if not poll.answered.is_set():  # else it would be a task switch for nothing
            await poll.answered.wait()
        return await answer_poll(session, request, poll.packets, compressor)
    except trio.Cancelled:
        if session.poll is poll:
            session.poll = None
        session.finish(TRANSPORT_ERROR, GONE)
        raise
    except (zlib.error, MemoryError) as error:  # what was taken for this answer is lost
        session.finish(TRANSPORT_ERROR, f"the answer to a poll could not be compressed: {error}")
        raise


async def serve_post(session: Session, request: Request, limit: int) -> Response:
    """Take the packets of a POST; answer when they have been delivered, and there is room for more."""
    if session.post is not None:
        session.finish(TRANSPORT_ERROR, "data request overlap from client")
        return Response(400)
    octets = request.headers.get("content-type", "").partition(";")[0].strip().lower() == "application/octet-stream"
    if octets and not session.dialect.takes_octets:
        session.finish(TRANSPORT_ERROR, "invalid content")
        return Response(400)
    # With the body at hand there is nothing to wait for, and no scope to cancel; that is a tenth of a request.
    body = request.take_body()
    response = None if body is None else _take_payload(session, request, body, limit, octets)
    if response is not None and not session.paused:
        return response
    session.post = trio.CancelScope()
    try:
        with session.post:
            if response is None:
                response = await _receive_payload(session, request, limit, octets)
            if response.status == 200 and session.paused:
                await session.resumed()
            return response
        return Response(400)  # a close released us while the body was on its way
    except trio.Cancelled:
        session.finish(TRANSPORT_ERROR, "data request connection closed prematurely")
        raise
    finally:
        session.post = None


async def _receive_payload(session: Session, request: Request, limit: int, octets: bool) -> Response:
    try:
        body = await request.read_body(limit)
    except BodyTooLarge:
        return Response(413)
    except ClientDisconnected:
        session.finish(TRANSPORT_ERROR, "data request connection closed prematurely")
        return Response(400)
    return _take_payload(session, request, body, limit, octets)


def _take_payload(session: Session, request: Request, body: bytes, limit: int, octets: bool) -> Response:
    if len(body) > limit:
        return Response(413)
    if session.phase.transport != "polling":
        return Response(400)
    try:
        for packet in session.dialect.iter_body_untrusted(body, octets):
            session.on_packet(packet)
    except RemoteProtocolError as error:
        session.finish(PARSE_ERROR, str(error))
        return Response(400)
    session.end_batch()
    return Response(200, b"ok", _headers(request, "text/html"))
