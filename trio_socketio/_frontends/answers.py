"""The listener's own answers, and how h11 writes any."""

from __future__ import annotations

import logging
import time

import h11

from .._engine.contract import Headers, Response
from .opening import HttpError, encode_headers
from .plain import REASONS, http_date

logger = logging.getLogger("trio_socketio.listener")

NOT_FOUND = "nothing is served at this path; compare the `path` options of the server and of the client"


def not_found() -> Response:
    """For a path that is nobody's."""
    return error_response(HttpError(404, NOT_FOUND), close=False)


def error_response(error: HttpError, close: bool = True) -> Response:
    """One line of plain text."""
    headers = Headers(error.headers)
    headers["content-type"] = "text/plain; charset=utf-8"
    if close:
        headers["connection"] = "close"
    return Response(error.status, f"{error}\n".encode(), headers)


def write_with_h11(http: h11.Connection, response: Response, method: str) -> bytes:
    """The bytes of an answer; of a 500 if its headers cannot be sent."""
    has_length = response.status not in (204, 304)
    try:
        head = _head(response, has_length)
    except (h11.LocalProtocolError, UnicodeEncodeError):
        logger.exception("%r has headers that cannot be sent", response)
        response = Response(500)
        head = _head(response, has_length=True)
    data = http.send(head) or b""
    if has_length and method != "HEAD":
        data += http.send(h11.Data(data=response.body)) or b""
    return data + (http.send(h11.EndOfMessage()) or b"")


def _head(response: Response, has_length: bool) -> h11.Response:
    headers = encode_headers(response.headers)
    headers = [header for header in headers if header[0] not in (b"content-length", b"transfer-encoding")]
    if has_length:
        headers.append((b"content-length", b"%d" % len(response.body)))
    headers.append((b"date", http_date(int(time.time()))))
    status = response.status
    return h11.Response(status_code=status, headers=headers, reason=REASONS.get(status, b""))
