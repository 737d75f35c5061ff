"""Who may in: the checks of a request, in the order of the protocol, and the answer to those who may not.

Engine.IO protocol, "handshake" and "connection errors"; the numbers are those of `HandshakeRefused`.
"""

from __future__ import annotations

import inspect
import json
import logging
from secrets import token_urlsafe
from typing import TYPE_CHECKING, Any

from .._errors import ConnectionRefused, HandshakeRefused
from .._wire.dialects import V4, V4_BASE64
from .._wire.engine_packets_v3 import V3, V3_BASE64
from .._wire.jsonp import JSONPDialect
from .contract import Headers, Response
from .cors import origin_allowed, script_allowed, valid_origin

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from typing import TypeAlias

    from .._wire.dialects import Dialect
    from .config import EngineConfig, GenerateId
    from .contract import Request
    from .session import Session

logger = logging.getLogger("trio_socketio.engine")

UNKNOWN_TRANSPORT, UNKNOWN_SID, BAD_METHOD, BAD_REQUEST, FORBIDDEN, UNSUPPORTED_VERSION = range(6)

Middleware: TypeAlias = "Callable[[Request], Awaitable[Response | None] | Response | None]"


def new_id() -> str:
    """120 random bits: a session's id is a secret, and nobody else may guess it."""
    return token_urlsafe(15)


async def resolve(value: Any) -> Any:
    """The result of a function that may be async."""
    return await value if inspect.isawaitable(value) else value


async def run_middlewares(middlewares: list[Middleware], request: Request) -> Response | None:
    """Ask every middleware, in order; a response of one of them is the answer."""
    for middleware in middlewares:
        try:
            response = await resolve(middleware(request))
        except Exception as error:
            if not isinstance(error, ConnectionRefused):
                logger.exception("an engine middleware failed for %r", request)
            raise HandshakeRefused(BAD_REQUEST, {"name": "MIDDLEWARE_FAILURE", "error": error}, request) from error
        if response is not None:
            if not isinstance(response, Response):
                raise TypeError(f"an engine middleware returns None or a Response, not {response!r}")
            return response
    return None


async def verify(
    config: EngineConfig, sessions: Mapping[str, Session], request: Request, *, upgrade: bool
) -> Session | None:
    """Check a request.

    Returns:
        The session it belongs to, or None if it opens a new one.

    Raises:
        HandshakeRefused: The first check that failed.
    """
    transport = request.query.get("transport")
    if transport not in config.transports:
        raise HandshakeRefused(UNKNOWN_TRANSPORT, {"transport": transport}, request)
    origin = request.headers.get("origin")
    if origin is not None and not valid_origin(origin):
        raise HandshakeRefused(BAD_REQUEST, {"name": "INVALID_ORIGIN", "origin": origin}, request)
    if not origin_allowed(config.cors, request):
        message = f"pages of {origin} may not use this server; its cors option says who may"
        raise HandshakeRefused(FORBIDDEN, {"message": message, "origin": origin}, request)
    sid = request.query.get("sid")
    if sid:
        return _find_session(sessions, sid, transport, request, upgrade=upgrade)
    if request.method != "GET":
        raise HandshakeRefused(BAD_METHOD, {"method": request.method}, request)
    if transport == "websocket" and not upgrade:
        raise HandshakeRefused(BAD_REQUEST, {"name": "TRANSPORT_HANDSHAKE_ERROR"}, request)
    if _jsonp_index(request.query) is not None and not script_allowed(config.cors, request):
        message = "only pages that the cors option names may use JSONP, and their Referer has to say so"
        raise HandshakeRefused(FORBIDDEN, {"message": message}, request)
    await _ask_application(config, request)
    if request.query.get("EIO") != "4" and not config.allow_eio3:
        raise HandshakeRefused(UNSUPPORTED_VERSION, {"protocol": 3}, request)
    return None


def _find_session(
    sessions: Mapping[str, Session], sid: str, transport: str, request: Request, *, upgrade: bool
) -> Session:
    session = sessions.get(sid)
    if session is None:
        raise HandshakeRefused(UNKNOWN_SID, {"sid": sid}, request)
    if not upgrade and session.transport != transport:
        context = {"name": "TRANSPORT_MISMATCH", "transport": transport, "previousTransport": session.transport}
        raise HandshakeRefused(BAD_REQUEST, context, request)
    if not upgrade and transport == "websocket":  # the session's WebSocket is another connection
        raise HandshakeRefused(BAD_REQUEST, {"name": "TRANSPORT_HANDSHAKE_ERROR"}, request)
    return session


async def _ask_application(config: EngineConfig, request: Request) -> None:
    if config.allow_request is None:
        return
    message = None
    try:
        allowed = await resolve(config.allow_request(request))
    except ConnectionRefused as error:
        allowed, message = False, error.message
    except Exception:
        logger.exception("allow_request failed for %r", request)
        allowed = False
    if not allowed:
        raise HandshakeRefused(FORBIDDEN, {"message": message}, request)


def choose_dialect(query: Mapping[str, str]) -> Dialect:
    """How the client of a new session speaks; for all of the session, whatever later requests say."""
    index = _jsonp_index(query)
    base64 = bool(query.get("b64"))
    if query.get("EIO") == "4":
        dialect: Dialect = V4_BASE64 if base64 else V4
    else:
        dialect = V3_BASE64 if base64 or index is not None else V3
    return dialect if index is None else JSONPDialect(dialect, index)


def _jsonp_index(query: Mapping[str, str]) -> str | None:
    return query.get("j") if query.get("transport") == "polling" else None


async def generate_id(generate: GenerateId, request: Request) -> str:
    """Ask for a new session's id."""
    try:
        sid = await resolve(generate(request))
        if not isinstance(sid, str) or not sid:
            raise TypeError(f"generate_id returns a string, not {sid!r}")
    except Exception as error:
        logger.exception("generate_id failed for %r", request)
        raise HandshakeRefused(BAD_REQUEST, {"name": "ID_GENERATION_ERROR", "error": error}, request) from error
    return sid


def error_response(error: HandshakeRefused, *, upgrade: bool) -> Response:
    """The answer to a refused request: JSON, or for a WebSocket plain text."""
    message = error.context.get("message") or error.message
    if upgrade:
        return Response(400, message.encode(), Headers([("content-type", "text/html"), ("connection", "close")]))
    body = json.dumps({"code": error.code, "message": message}, separators=(",", ":"), ensure_ascii=False).encode()
    return Response(403 if error.code == FORBIDDEN else 400, body, Headers([("content-type", "application/json")]))
