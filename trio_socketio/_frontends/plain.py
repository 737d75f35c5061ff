"""The ordinary request read, and its answer written, without h11: 3 microseconds instead of 58.

h11 is the authority on HTTP. What is taken here, it would read exactly the same, and what is written here, it would
write the same: two property tests say so. Whatever gives the least doubt is left to it: a request that is not complete
yet, another method, a transfer coding, white space where most clients have none, anything but printable ASCII.
"""

from __future__ import annotations

import re
import time
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from typing import TYPE_CHECKING, NamedTuple

from .._engine.contract import Headers

if TYPE_CHECKING:
    from .._engine.contract import HttpLimits, Response

REASONS = {status.value: status.phrase.encode("ascii") for status in HTTPStatus}

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]++"
_HEAD = re.compile(rf"(GET|POST) (/[!-~]*+) HTTP/1\.1\r\n((?:{_TOKEN}: (?! )[ -~]*+(?<! )\r\n)++)\r\n".encode("ascii"))
_FIELD = re.compile(r"([^:]++): ([^\r]++)\r\n")
_LENGTH = re.compile(r"[0-9]{1,9}")
_FIELDS = re.compile(rf"(?:{_TOKEN}: (?! )[ -~]*+(?<! )\r\n)*+")

#: Fields that say where a request ends, or what becomes of the connection.
_FRAMING = frozenset(("connection", "content-length", "expect", "host", "transfer-encoding"))
#: What `_write_fields` leaves to h11 because it changes the connection, and what it leaves out, as the listener does.
_CONNECTION, _OURS = "connection", ("content-length", "transfer-encoding")
_NO_LENGTH = (204, 304)

# One object for each common name, in all sessions: a request is kept as long as its session.
_NAMES = {
    spelling: name
    for name in (
        "accept", "accept-encoding", "accept-language", "cache-control", "connection", "content-length",
        "content-type", "cookie", "host", "origin", "pragma", "referer", "sec-websocket-extensions",
        "sec-websocket-key", "sec-websocket-version", "upgrade", "user-agent",
    )
    for spelling in (name, name.title())
}  # fmt: skip
#: Those whose values are alike, too; not where each client has its own, or where it is a secret.
_ALIKE = {spelling: name for spelling, name in _NAMES.items() if name not in ("cookie", "sec-websocket-key")}
_LONGEST_SHARED = 256  # characters of a value


class PlainRequest(NamedTuple):
    """A request as h11 would read it, and where it ends.

    Attributes:
        method: ``"GET"`` or ``"POST"``.
        target: Begins with a slash.
        headers: Names in lower case.
        body: The whole body.
        end: How many bytes the request has.
    """

    method: str
    target: str
    headers: Headers
    body: bytes
    end: int


def recognise(data: bytes, limits: HttpLimits) -> PlainRequest | None:
    """Read the request that bytes begin with.

    Returns:
        None if h11 has to look at it.
    """
    match = _HEAD.match(data)
    if match is None:
        return None
    end = match.end()
    method = "GET" if match[1] == b"GET" else "POST"
    items: list[tuple[str, str]] = []
    hosts, length = 0, None
    for spelling, value in _FIELD.findall(match[3].decode("ascii")):
        if spelling in _ALIKE and len(value) <= _LONGEST_SHARED:
            item = _shared(spelling, value)
            name = item[0]
        else:
            name = _NAMES.get(spelling) or spelling.lower()
            item = (name, value)
        items.append(item)
        if name not in _FRAMING:
            continue
        if name == "host":
            hosts += 1
        elif name == "connection":
            if "close" in value.lower():
                return None
        elif name == "content-length" and length is None and _LENGTH.fullmatch(value):
            length = int(value)
        else:
            return None
    # The head has more bytes than what the listener counts against the limit.
    if hosts != 1 or (length is None) is not (method == "GET") or end > limits.max_header_bytes:
        return None
    if len(items) > limits.max_headers:
        return None
    body = b""
    if length:
        body = data[end : end + length]
        if len(body) < length:
            return None
        end += length
    return PlainRequest(method, match[2].decode("ascii"), Headers.of_checked(items), body, end)


@lru_cache(maxsize=512)
def _shared(spelling: str, value: str) -> tuple[str, str]:
    """One object for each field that many clients send, such as their browser's name: half a KiB of each, or more."""
    return _ALIKE[spelling], value


def write_plain(response: Response) -> bytes | None:
    """The bytes of an answer to a `PlainRequest` after which the connection stays open.

    Returns:
        None if h11 has to write it.
    """
    fields = None
    if response.status >= 200 and response.status not in _NO_LENGTH:
        fields = _write_fields(response.status, tuple(response.headers.multi_items()))
    if fields is None:
        return None
    body = response.body
    return b"%bcontent-length: %d\r\ndate: %b\r\n\r\n%b" % (fields, len(body), http_date(int(time.time())), body)


@lru_cache(maxsize=64)  # the answers of sessions have very few sets of headers
def _write_fields(status: int, items: tuple[tuple[str, str], ...]) -> bytes | None:
    if any(name == _CONNECTION for name, _ in items):
        return None
    fields = "".join([f"{name}: {value}\r\n" for name, value in items if name not in _OURS])
    if not _FIELDS.fullmatch(fields):
        return None
    return b"HTTP/1.1 %d %b\r\n%b" % (status, REASONS.get(status, b""), fields.encode("ascii"))


@lru_cache(maxsize=1)
def http_date(second: int) -> bytes:
    """A ``date`` header's value."""
    return formatdate(second, usegmt=True).encode("ascii")
