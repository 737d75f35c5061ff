"""The opening request of a WebSocket (RFC 6455, section 4.2.1): checked, and answered, without trio-websocket."""

from __future__ import annotations

import re
from binascii import b2a_base64
from hashlib import sha1
from itertools import chain
from typing import TYPE_CHECKING

import h11
import trio

from .._engine.contract import Headers
from .._wire.deflate import choose_offer

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .._engine.contract import Acceptance, Request

TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, section 1.3
KEY = re.compile(r"[A-Za-z0-9+/]{22}==")  # 16 bytes in base64


class HttpError(Exception):
    """A request that gets an error from us, and then a closed connection.

    Args:
        status: The HTTP status.
        text: One line for the client, without the end of line.
        headers: More headers.
    """

    def __init__(self, status: int, text: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(text)
        self.status = status
        self.text = text
        self.headers = headers or {}


def split_list(lines: Iterable[str]) -> list[str]:
    """The elements of a header that is a list, of all its lines."""
    return [element for line in lines for part in line.split(",") if (element := part.strip())]


def wants_websocket(request: Request) -> bool:
    """Whether a request asks for a WebSocket, rightly or not."""
    headers = request.headers
    if headers.get("upgrade") is None:
        return False  # nearly always, and a sixth of the time
    return any(name.lower() == "websocket" for name in split_list(headers.get_all("upgrade")))


class Opening:
    """What of an opening request matters.

    Attributes:
        key: The client's key.
        protocol: The first subprotocol that it offers, or None. It is accepted, as the reference's server does.
        extensions: The extensions that it offers.
    """

    __slots__ = ("extensions", "key", "protocol")

    def __init__(self, request: Request, http_version: bytes) -> None:
        """Check and take apart a request.

        Raises:
            HttpError: It is not a valid opening request.
        """
        # All of them once, instead of once for each question: 4 % of what is executed for a connect.
        fields: dict[str, list[str]] = {}
        for name, value in request.headers.multi_items():
            fields.setdefault(name, []).append(value)
        if request.method != "GET":
            raise HttpError(400, "a WebSocket opens with GET")
        if http_version != b"1.1":
            raise HttpError(400, "a WebSocket needs HTTP/1.1")
        if "upgrade" not in [name.lower() for name in split_list(fields.get("connection", ()))]:
            raise HttpError(400, "a WebSocket needs 'connection: upgrade'")
        if fields.get("content-length", ["0"])[-1] != "0" or "transfer-encoding" in fields:
            raise HttpError(400, "an opening request has no body")
        if not all(map(str.isascii, chain.from_iterable(fields.values()))):
            raise HttpError(400, "the headers of an opening request are ASCII")
        if fields.get("sec-websocket-version") != ["13"]:
            raise HttpError(426, "only WebSocket version 13 is spoken here", {"sec-websocket-version": "13"})
        keys = fields.get("sec-websocket-key", [])
        if len(keys) != 1 or not KEY.fullmatch(keys[0]):
            raise HttpError(400, "sec-websocket-key must be 16 bytes in base64")
        protocols = split_list(fields.get("sec-websocket-protocol", ()))
        if not all(map(TOKEN.fullmatch, protocols)):
            raise HttpError(400, "sec-websocket-protocol must be a list of tokens")
        self.key = keys[0]
        self.protocol = protocols[0] if protocols else None
        self.extensions = split_list(fields.get("sec-websocket-extensions", ()))

    def answer(self) -> bytes:
        """What the 101 begins with."""
        lines = [
            "HTTP/1.1 101 Switching Protocols",
            "upgrade: websocket",
            "connection: Upgrade",
            f"sec-websocket-accept: {b2a_base64(sha1(self.key.encode() + _GUID).digest(), newline=False).decode()}",
        ]
        if self.protocol is not None:
            lines.append(f"sec-websocket-protocol: {self.protocol}")
        return "\r\n".join([*lines, ""]).encode("ascii")


class Upgrade:
    """A valid opening request and the yes to it.

    Args:
        opening: The request.
        acceptance: The yes.

    Attributes:
        deflate: How messages are compressed; None if that was not agreed.

    Raises:
        h11.LocalProtocolError: The acceptance has headers that cannot be sent.
        UnicodeEncodeError: For the same reason.
    """

    __slots__ = ("acceptance", "deflate", "head", "trailing")

    def __init__(self, opening: Opening, acceptance: Acceptance) -> None:
        headers = encode_headers(acceptance.headers)
        self.acceptance = acceptance
        self.deflate = acceptance.per_message_deflate
        if self.deflate is not None:
            answer = choose_offer(opening.extensions)
            if answer is None:
                self.deflate = None
            else:
                headers.append((b"sec-websocket-extensions", answer.encode("ascii")))
        if headers:
            h11.InformationalResponse(status_code=101, headers=headers)
        #: The 101 (RFC 6455, section 4.2.2).
        self.head = opening.answer() + b"".join([b"%b: %b\r\n" % header for header in headers]) + b"\r\n"
        #: What the client has already sent after its request.
        self.trailing = b""


def encode_headers(headers: Headers) -> list[tuple[bytes, bytes]]:
    """Headers as h11 takes them."""
    return [(name.encode("ascii"), value.encode("latin-1")) for name, value in headers.multi_items()]


def origin_form(target: str) -> str:
    """The path and query of a request target, which a proxy's client may send with scheme and host before it.

    Raises:
        HttpError: It is neither.
    """
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
