"""Engine.IO packets, and the bodies of long-polling requests (Engine.IO protocol, "packet encoding").

A packet is a type digit and its data, or, on a transport without binary messages, a ``b`` and a binary message in
base64. A polling body is packets with a record separator between them. What this side sends is built in `encoded`; only
the handshake is encoded here.

How lenient base64 is: the padding may be missing or wrong, and both alphabets (``+/`` and the URL's ``-_``) are
understood, for clients with encoders of their own. Anything else between the characters is an error. Node.js skips it,
but data that has lost characters on its way is better refused than silently changed.
"""

from __future__ import annotations

import enum
from binascii import a2b_base64
from typing import TYPE_CHECKING, NamedTuple

from .._errors import RemoteProtocolError
from . import json

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_SEPARATOR = "\x1e"
_FROM_URL_ALPHABET = str.maketrans("-_", "+/")


class EnginePacketType(enum.Enum):
    """The first character of a packet."""

    OPEN = "0"
    CLOSE = "1"
    PING = "2"
    PONG = "3"
    MESSAGE = "4"
    UPGRADE = "5"
    NOOP = "6"


class EnginePacket(NamedTuple):
    """One Engine.IO packet.

    Attributes:
        type: The `EnginePacketType`.
        data: What follows the type: of a message its content, text or binary, and the empty text if there is none; of
            any other type text, such as ``"probe"``, or None if there is none.
    """

    type: EnginePacketType
    data: str | bytes | None = None


_MESSAGE = EnginePacketType.MESSAGE
_TYPES = {packet_type.value: packet_type for packet_type in EnginePacketType}


def decode_packet_untrusted(message: str | bytes) -> EnginePacket:
    """Decode one packet: a WebSocket message, or one part of a polling body.

    Raises:
        RemoteProtocolError: It is empty, of an unknown type, or not base64 after a ``b``.
    """
    if not isinstance(message, str):
        return EnginePacket(_MESSAGE, message)
    packet_type = _TYPES.get(message[:1])
    if packet_type is _MESSAGE:
        return EnginePacket(_MESSAGE, message[1:])
    if packet_type is not None:
        return EnginePacket(packet_type, message[1:] or None)
    if message[:1] == "b":
        return EnginePacket(_MESSAGE, decode_base64_untrusted(message[1:]))
    raise RemoteProtocolError(f"unknown engine packet type {message[:1]!r}" if message else "empty engine packet")


def iter_payload_untrusted(body: str) -> Iterator[EnginePacket]:
    """Decode the packets of a polling body one by one.

    The packets before a bad one are yielded, as the reference does it. One packet at a time is cut off, so that a body
    of many small ones costs no second copy of itself.

    Raises:
        RemoteProtocolError: When the iteration reaches a packet that cannot be decoded. An empty body is one.
    """
    start = 0
    while (end := body.find(_SEPARATOR, start)) >= 0:
        yield decode_packet_untrusted(body[start:end])
        start = end + 1
    yield decode_packet_untrusted(body[start:])


def encode_open(
    sid: str, upgrades: Sequence[str], ping_interval: float, ping_timeout: float, max_payload: int
) -> bytes:
    """Encode the packet that opens a session.

    Args:
        sid: The session's id.
        upgrades: The transports that the client may upgrade to.
        ping_interval: Seconds; sent as whole milliseconds, like the next.
        ping_timeout: Seconds.
        max_payload: Bytes that one message or polling body may have.
    """
    handshake = {
        "sid": sid,
        "upgrades": list(upgrades),
        "pingInterval": round(ping_interval * 1000),
        "pingTimeout": round(ping_timeout * 1000),
        "maxPayload": max_payload,
    }
    return b"0" + json.dumps(handshake)


def decode_base64_untrusted(text: str) -> bytes:
    """Decode base64, as leniently as the module says.

    Raises:
        RemoteProtocolError: It is none.
    """
    digits = text.rstrip("=").translate(_FROM_URL_ALPHABET)
    try:
        return a2b_base64(digits + "=" * (-len(digits) % 4), strict_mode=True)
    except ValueError:
        raise RemoteProtocolError("invalid base64 in an engine packet") from None
