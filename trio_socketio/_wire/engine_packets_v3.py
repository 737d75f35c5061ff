"""Engine.IO protocol 3, the revision before the current one, for clients such as ``socket.io-client`` 2.

Text packets are the same as today. Binary ones have a type too: as a WebSocket message its number is the first byte,
in base64 it stands between the ``b`` and the data. A polling body says how long each of its packets is, and has two
forms; the second is for clients that take binary data, and for bodies with some in them::

    6:4hello2:4€10:b4AQIDBA==                      the length in UTF-16 code units, as JavaScript counts
    00 06 ff 4hello 01 05 ff 04 01 02 03 04         00 text or 01 binary, the digits of the length in bytes, ff

Lengths have at most 310 digits (a longer number is none for JavaScript); what they announce has to be there. Stricter
than the reference: a length is decimal digits and no other notation of a number, it may not end inside a character
that has two code units, and a binary packet is a message.
"""

from __future__ import annotations

import re
from base64 import b64encode
from typing import TYPE_CHECKING

from .._errors import RemoteProtocolError
from .dialects import OCTETS, TEXT, Body, base64_messages, split_attachments
from .encoded import EncodedPacket
from .engine_packets import EnginePacket, EnginePacketType, decode_base64_untrusted
from .engine_packets import decode_packet_untrusted as decode_current_untrusted

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MAX_LENGTH_DIGITS = 310

_MESSAGE = EnginePacketType.MESSAGE
_BINARY_MESSAGE = b"\4"
_END_OF_LENGTH = 0xFF
_TO_DIGITS = bytes(ord("0") + byte if byte < 10 else ord("x") for byte in range(256))
_TWO_UNITS = re.compile("[\U00010000-\U0010ffff]")


class DialectV3:
    """The `Dialect` of the revision.

    Args:
        base64: The client takes text only (``b64`` in the query).
    """

    protocol = 3
    heartbeat = EnginePacketType.PING
    takes_octets = True
    plain_frames = False

    def __init__(self, base64: bool) -> None:
        self._base64 = base64

    def decode_message_untrusted(self, message: str | bytes) -> EnginePacket:
        return decode_packet_untrusted(message)

    def iter_body_untrusted(self, body: bytes, octets: bool) -> Iterator[EnginePacket]:
        return (
            iter_binary_payload_untrusted(body) if octets else iter_payload_untrusted(body.decode("utf-8", "replace"))
        )

    def encode_body(self, packets: Sequence[EncodedPacket]) -> Body:
        if self._base64 or not any(packet.attachments for packet in packets):
            return Body(b"".join([packet.form(_text_part) for packet in packets]), TEXT)
        return Body(b"".join([packet.form(_binary_part) for packet in packets]), OCTETS)

    def for_websocket(self, packets: Sequence[EncodedPacket]) -> Sequence[EncodedPacket]:
        return split_attachments(packets, _base64_messages if self._base64 else _binary_messages)


def decode_packet_untrusted(message: str | bytes) -> EnginePacket:
    """Decode one packet: a WebSocket message, or one part of a polling body.

    Raises:
        RemoteProtocolError: It is empty, of an unknown type, a binary packet that is no message, or not base64.
    """
    if isinstance(message, str):
        if message[:1] != "b":
            return decode_current_untrusted(message)
        if message[1:2] == _MESSAGE.value:
            return EnginePacket(_MESSAGE, decode_base64_untrusted(message[2:]))
    elif message[:1] == _BINARY_MESSAGE:
        return EnginePacket(_MESSAGE, message[1:])
    raise RemoteProtocolError("a binary engine packet that is no message")


def iter_payload_untrusted(body: str) -> Iterator[EnginePacket]:
    """Decode the packets of a text body one by one; empty ones (``0:``) are skipped.

    Raises:
        RemoteProtocolError: When the iteration comes to a bad length or packet. An empty body has one.
    """
    # Where every character is one code unit, which is nearly always, the body is indexed as it is.
    units = _TWO_UNITS.sub(_split_into_units, body)
    merge = len(units) > len(body)
    position = 0
    while position < len(units) or not units:
        colon = units.find(":", position, position + MAX_LENGTH_DIGITS + 1)
        start = colon + 1
        end = start + _read_length_untrusted(units[position : max(colon, position)], len(units) - start)
        if end > start:
            packet = units[start:end]
            yield decode_packet_untrusted(_merge_units_untrusted(packet) if merge else packet)
        position = end


def iter_binary_payload_untrusted(body: bytes) -> Iterator[EnginePacket]:
    """Decode the packets of a binary body one by one.

    Raises:
        RemoteProtocolError: When the iteration comes to a bad length or packet. An empty body has one.
    """
    position = 0
    while position < len(body) or not body:
        first = position + 1
        stop = body.find(_END_OF_LENGTH, first, first + MAX_LENGTH_DIGITS + 1)
        digits = body[first : max(stop, first)].translate(_TO_DIGITS).decode("ascii")
        start = stop + 1
        end = start + _read_length_untrusted(digits, len(body) - start)
        yield _decode_part_untrusted(body[position], body[start:end])
        position = end


def _decode_part_untrusted(kind: int, part: bytes) -> EnginePacket:
    if kind == 1:
        return decode_packet_untrusted(part)
    if kind == 0:
        try:
            return decode_packet_untrusted(part.decode())
        except UnicodeDecodeError:
            raise RemoteProtocolError("a text packet that is not UTF-8") from None
    raise RemoteProtocolError("a packet that is neither text nor binary")


def _read_length_untrusted(digits: str, available: int) -> int:
    if not (digits.isdecimal() and digits.isascii()):
        raise RemoteProtocolError("a payload without the length of a packet")
    length = int(digits)
    if length > available:
        raise RemoteProtocolError("a payload that is shorter than it says")
    return length


def _split_into_units(character: re.Match[str]) -> str:
    number = ord(character[0]) - 0x10000
    return chr(0xD800 + (number >> 10)) + chr(0xDC00 + (number & 0x3FF))


def _merge_units_untrusted(units: str) -> str:
    try:
        return units.encode("utf-16-le", "surrogatepass").decode("utf-16-le")
    except UnicodeDecodeError:
        raise RemoteProtocolError("a packet that ends inside a character") from None


def _text_part(packet: EncodedPacket) -> bytes:
    texts = [] if packet.text is None else [packet.text]
    texts += [b"b4" + b64encode(attachment) for attachment in packet.attachments]
    return b"".join([b"%d:%b" % (_count_units(text), text) for text in texts])


def _count_units(text: bytes) -> int:
    return len(text) if text.isascii() else len(text.decode().encode("utf-16-le")) // 2


def _binary_part(packet: EncodedPacket) -> bytes:
    parts = [] if packet.text is None else [_with_length(0, packet.text)]
    parts += [_with_length(1, _BINARY_MESSAGE + attachment) for attachment in packet.attachments]
    return b"".join(parts)


def _with_length(kind: int, part: bytes) -> bytes:
    return bytes([kind, *map(int, str(len(part))), _END_OF_LENGTH]) + part


def _binary_messages(packet: EncodedPacket) -> list[EncodedPacket]:
    attachments = tuple([_BINARY_MESSAGE + attachment for attachment in packet.attachments])
    return [EncodedPacket(packet.text, attachments, packet.compress)]


def _base64_messages(packet: EncodedPacket) -> list[EncodedPacket]:
    return base64_messages(packet, b"b4")


V3 = DialectV3(base64=False)
V3_BASE64 = DialectV3(base64=True)
