"""The parser: Socket.IO packets to Engine.IO messages and back (Socket.IO protocol, "packet encoding").

::

    <type>[<number of attachments>-][<namespace>,][<ack id>][<JSON>]     then each attachment, a binary message

What an application gives and gets is an EVENT or an ACK whose data may contain bytes. That such a packet travels as
BINARY_EVENT or BINARY_ACK, with placeholders for the bytes, is known here alone. `Parser` and `Decoder` are what the
server asks of a parser, so that another wire format can take this one's place; `JSONCodec` is what the default parser
asks of JSON.

The limits, all of them on input:

* as many attachments as ``max_attachments``;
* a namespace of 1024 characters and an ack id of 20 digits, which holds every id that is an integer of 64 bits;
* the depth of the JSON, by the codec.

How long a message may be is the transport's to limit. It follows that a half-received packet holds at most one text and
``max_attachments`` binary messages of that size. How long it may stay half-received is the caller's to limit: after
`Decoder.add_untrusted` has returned None more is to come, and `Decoder.pending_bytes` is what it holds.

Stricter than the reference decoder, where that is lenient by accident: an event or ack without JSON is refused, and so
are an empty message, numbers in other notations than digits, and a placeholder out of range before its packet's
attachments have been collected.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from typing import TYPE_CHECKING, Any, Protocol

from .._errors import EncodeError, RemoteProtocolError
from . import json as default_json
from .encoded import EncodedPacket
from .json_modules import as_codec
from .packets import RESERVED_EVENTS, Packet, PacketType, make_packet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .json_modules import JSONModule

MAX_NAMESPACE_LENGTH = 1024
MAX_ID_DIGITS = 20

_EVENT, _ACK = PacketType.EVENT, PacketType.ACK
_TYPES = {str(packet_type.value): packet_type for packet_type in PacketType}
#: What a packet travels as once it has attachments, and back.
_BINARY = {_EVENT: PacketType.BINARY_EVENT, _ACK: PacketType.BINARY_ACK}
_NOT_BINARY = {binary: plain for plain, binary in _BINARY.items()}
_PLACEHOLDERS = re.compile(rb'[{,]\s*"_placeholder"\s*:\s*true')


class Decoder(Protocol):
    """Turns the messages of one connection into packets."""

    @property
    @abstractmethod
    def pending_bytes(self) -> int:
        """What a half-received packet holds: the characters of its text and the bytes of its attachments; else 0."""

    @abstractmethod
    def add_untrusted(self, message: str | bytes) -> Packet | None:
        """Take the next message.

        Returns:
            The packet that it completes, or None while attachments are awaited.

        Raises:
            RemoteProtocolError: The message breaks the protocol (a `ValueError` is turned into one). What was
                half-received is dropped.
        """

    @abstractmethod
    def reset(self) -> None:
        """Drop what is half-received."""


class Parser(Protocol):
    """A wire format. One serves all the connections of a server; an option of `Server`.

    What an application's own parser does wrong is kept from the server: a packet that is not what `Packet` describes,
    or any exception of its decoders, ends the connection that it came from.
    """

    @abstractmethod
    def encode(self, packet: Packet, compress: bool = True) -> EncodedPacket:
        """Encode a packet.

        Args:
            packet: Of any type but the two binary ones.
            compress: Whether a transport may compress it.

        Returns:
            Its messages as one unit: `EncodedPacket.message` makes it of a single one. Text must not have a record
            separator (U+001E) in it.

        Raises:
            EncodeError: Its data cannot be encoded (a `TypeError` or `ValueError` is turned into one).
        """

    @abstractmethod
    def decoder(self) -> Decoder:
        """A decoder for a new connection."""


class JSONCodec(Protocol):
    """What the default parser asks of JSON; the module ``json`` next to this one is the default."""

    @abstractmethod
    def dumps(self, value: Any, default: Callable[[Any], Any] | None = None) -> bytes:
        """Encode to compact UTF-8.

        Args:
            value: What to encode.
            default: To be called once for each value that has no JSON form, in the order of the text; what it returns
                is encoded in the value's place. It is how bytes become attachments.

        Raises:
            EncodeError: The value has no JSON form (another `TypeError` or `ValueError` is turned into one).
        """

    @abstractmethod
    def loads_untrusted(self, text: str) -> Any:
        """Decode.

        Raises:
            RemoteProtocolError: It is not JSON (a `ValueError` is turned into one).
        """


class DefaultParser:
    """The `Parser` that every client understands: JSON, and attachments.

    Args:
        max_attachments: Attachments that a packet may have, in either direction. JavaScript clients drop the connection
            at more than 10.
        json: A `JSONCodec`, or a module used like ``json`` of the standard library (`JSONModule`).

    Raises:
        TypeError: ``json`` is neither, or writes or reads NaN, which JSON does not have.
    """

    def __init__(self, max_attachments: int = 10, json: JSONCodec | JSONModule = default_json) -> None:
        self._max_attachments = max_attachments
        self._json = as_codec(json)
        self._dumps = self._json.dumps
        self._dumps_plain = default_json.dumps_plain if json is default_json else None

    def encode(self, packet: Packet, compress: bool = True) -> EncodedPacket:
        packet_type, namespace, data, ack_id = packet
        if packet_type is not _EVENT:
            packet_type = _NOT_BINARY.get(packet_type, packet_type)
        attachments: list[bytes] = []

        def attach(value: Any) -> dict[str, Any]:
            if not isinstance(value, (bytes, bytearray, memoryview)):
                raise default_json.no_json_form(value)
            if packet_type not in _BINARY:
                raise EncodeError(f"a {packet_type.name} packet cannot carry bytes")
            attachments.append(bytes(value))
            return {"_placeholder": True, "num": len(attachments) - 1}

        try:
            text = b"" if data is None else self._dumps(data, attach)
        except EncodeError:
            raise
        except (TypeError, ValueError, RecursionError) as error:
            raise EncodeError(str(error)) from error
        if attachments:
            self._check_attachments(text, len(attachments))
        head = f"4{_BINARY[packet_type]:d}{len(attachments)}-" if attachments else f"4{packet_type:d}"
        if namespace != "/":
            head += f"{namespace},"
        if ack_id is not None:
            head += str(ack_id)
        return EncodedPacket(head.encode() + text, tuple(attachments), compress)

    def event_encoder(self, namespace: str) -> Callable[[list[Any], bool], EncodedPacket]:
        """What `encode` does for the events of a namespace that want no ack, for who sends many of them.

        The commonest, one without attachments, is spared the packet, the search for them and the header's assembly: 0.5
        microseconds instead of 1.1. One with attachments is tried in vain: 3.7 instead of 2.9.
        """
        dumps_plain = self._dumps_plain
        head = b"42" if namespace == "/" else f"42{namespace},".encode()

        def encode(data: list[Any], compress: bool) -> EncodedPacket:
            text = None if dumps_plain is None else dumps_plain(data)
            if text is None:
                return self.encode(Packet(_EVENT, namespace, data), compress)
            return EncodedPacket(head + text, (), compress)

        return encode

    def decoder(self) -> Decoder:
        return _DefaultDecoder(self._max_attachments, self._json)

    def _check_attachments(self, text: bytes, count: int) -> None:
        if count > self._max_attachments:
            raise EncodeError(f"too many attachments: {count}, and max_attachments is {self._max_attachments}")
        # Data that merely looks like a placeholder (an application passes on what a client sent) would be taken for one
        # by every receiver, and one that is out of range would cost each of them its connection. In JSON text a quote
        # after a brace or a comma opens a key or a value, so this finds keys only.
        if len(_PLACEHOLDERS.findall(text)) > count:
            raise EncodeError('an object with "_placeholder": true cannot be sent together with bytes')


class _DefaultDecoder:
    def __init__(self, max_attachments: int, json: JSONCodec) -> None:
        self._max_attachments = max_attachments
        self._loads_untrusted = json.loads_untrusted
        self._pending: _HalfReceived | None = None

    @property
    def pending_bytes(self) -> int:
        return 0 if self._pending is None else self._pending.size

    def reset(self) -> None:
        self._pending = None

    def add_untrusted(self, message: str | bytes) -> Packet | None:
        if self._pending is not None:
            return self._add_attachment_untrusted(self._pending, message)
        if type(message) is str:
            try:
                # The commonest packet, an event in the main namespace with or without an ack id, needs no cursor: 0.8
                # microseconds instead of 1.5.
                ack_id = None
                if message[:2] == "2[":
                    data = self._loads_untrusted(message[1:])
                elif (
                    message[:1] == "2"
                    and (start := message.find("[", 1, MAX_ID_DIGITS + 2)) > 0
                    and (digits := message[1:start]).isdecimal()
                    and digits.isascii()
                ):
                    data, ack_id = self._loads_untrusted(message[start:]), int(digits)
                else:
                    return self._add_text_untrusted(message)
                name = data[0] if type(data) is list and data else None
                if type(name) is not str or name in RESERVED_EVENTS:
                    _check_payload_untrusted(_EVENT, data)
                return make_packet((_EVENT, "/", data, ack_id))
            except (ValueError, RecursionError):  # a codec of the application's may not have an error of its own
                raise RemoteProtocolError("invalid payload") from None
        if isinstance(message, (bytes, bytearray, memoryview)):
            raise RemoteProtocolError("got binary data when not reconstructing a packet")
        raise RemoteProtocolError(f"Unknown type: {type(message).__name__}")

    def _add_text_untrusted(self, text: str) -> Packet | None:
        packet_type = _TYPES.get(text[:1])
        if packet_type is None:
            # NaN is what the reference says, too.
            raise RemoteProtocolError(f"unknown packet type {text[0] if '7' <= text[:1] <= '9' else 'NaN'}")
        position = 1
        attachments = 0
        plain_type = _NOT_BINARY.get(packet_type, packet_type)
        if plain_type is not packet_type:
            attachments, position = _read_attachments_untrusted(text, position, self._max_attachments)
        namespace, position = _read_namespace_untrusted(text, position)
        ack_id, position = _read_id_untrusted(text, position)
        data = None
        if position < len(text):
            data = self._loads_untrusted(text[position:])
            if data is None:
                raise RemoteProtocolError("invalid payload")  # null is a payload, and valid for no type
        _check_payload_untrusted(plain_type, data)
        packet = Packet(plain_type, namespace, data, ack_id)
        if plain_type is not packet_type:
            placeholders = _find_placeholders_untrusted(data, attachments)
            if attachments:
                self._pending = _HalfReceived(packet, attachments, placeholders, len(text))
                return None
        return packet

    def _add_attachment_untrusted(self, pending: _HalfReceived, message: str | bytes) -> Packet | None:
        if not isinstance(message, (bytes, bytearray, memoryview)):
            self.reset()
            if isinstance(message, str):
                raise RemoteProtocolError("got plaintext data when reconstructing a packet")
            raise RemoteProtocolError(f"Unknown type: {type(message).__name__}")
        if not pending.add(bytes(message)):
            return None
        self.reset()
        return pending.packet


class _HalfReceived:
    """A packet whose text has come, and whose attachments are coming."""

    __slots__ = ("_attachments", "_count", "_placeholders", "packet", "size")

    def __init__(
        self, packet: Packet, count: int, placeholders: list[tuple[Any, str | int, int]], text_length: int
    ) -> None:
        self.packet = packet
        self.size = text_length
        self._count = count
        self._placeholders = placeholders
        self._attachments: list[bytes] = []

    def add(self, attachment: bytes) -> bool:
        """Take the next attachment; whether it was the last, and the packet is complete."""
        self._attachments.append(attachment)
        self.size += len(attachment)
        if len(self._attachments) < self._count:
            return False
        for container, key, number in self._placeholders:
            container[key] = self._attachments[number]
        return True


def _read_attachments_untrusted(text: str, start: int, limit: int) -> tuple[int, int]:
    end = text.find("-", start)
    digits = text[start:end]
    if end < 0 or not (digits.isdecimal() and digits.isascii()):
        raise RemoteProtocolError("Illegal attachments")
    digits = digits.lstrip("0") or "0"
    if len(digits) > len(str(limit)) or int(digits) > limit:
        raise RemoteProtocolError("too many attachments")
    return int(digits), end + 1


def _read_namespace_untrusted(text: str, start: int) -> tuple[str, int]:
    """The namespace ends at a comma, or with the text (``0/admin`` has no comma)."""
    if not text.startswith("/", start):
        return "/", start
    end = text.find(",", start, start + MAX_NAMESPACE_LENGTH + 1)
    if end < 0:
        if len(text) - start > MAX_NAMESPACE_LENGTH:
            raise RemoteProtocolError("invalid payload")
        return text[start:], len(text)
    return text[start:end], end + 1


def _read_id_untrusted(text: str, start: int) -> tuple[int | None, int]:
    end = start
    while "0" <= text[end : end + 1] <= "9":
        end += 1
        if end - start > MAX_ID_DIGITS:
            raise RemoteProtocolError("invalid payload")
    return (int(text[start:end]) if end > start else None), end


def check_packet_untrusted(packet: Packet) -> None:
    """Check what this module's decoder makes sure of by itself, for the packets of other decoders.

    Raises:
        RemoteProtocolError: The type is none, or binary; the namespace is not a text with a slash at its beginning, or
            too long; the id is not a natural number, or too large; or the data is not what the type has.
    """
    packet_type, namespace, data, ack_id = packet
    if type(packet_type) is not PacketType or packet_type in _NOT_BINARY:
        raise RemoteProtocolError("invalid packet type")
    if type(namespace) is not str or namespace[:1] != "/" or len(namespace) > MAX_NAMESPACE_LENGTH:
        raise RemoteProtocolError("invalid namespace")
    if ack_id is not None and (type(ack_id) is not int or not 0 <= ack_id < 10**MAX_ID_DIGITS):
        raise RemoteProtocolError("invalid packet id")
    _check_payload_untrusted(packet_type, data)


def _check_payload_untrusted(packet_type: PacketType, data: Any) -> None:
    if packet_type is _EVENT:
        name: Any = data[0] if type(data) is list and data else None
        kind: type = type(name)
        valid = name not in RESERVED_EVENTS if kind is str else kind is int or kind is float
    elif packet_type is _ACK:
        valid = type(data) is list
    elif packet_type is PacketType.CONNECT:
        valid = data is None or type(data) is dict
    elif packet_type is PacketType.CONNECT_ERROR:
        valid = type(data) is str or type(data) is dict
    else:
        valid = data is None
    if not valid:
        raise RemoteProtocolError("invalid payload")


def _find_placeholders_untrusted(data: Any, attachments: int) -> list[tuple[Any, str | int, int]]:
    """Where each attachment belongs: (container, key in it, number of the attachment).

    Several placeholders may have the same number. A loop and not a recursion: the sender decides how deep the data is.
    """
    found: list[tuple[Any, str | int, int]] = []
    containers: list[Any] = [data]
    while containers:
        container = containers.pop()
        items: Iterable[tuple[Any, Any]] = container.items() if type(container) is dict else enumerate(container)
        for key, item in items:
            if type(item) is list:
                containers.append(item)
            elif type(item) is dict:
                if item.get("_placeholder") is not True:
                    containers.append(item)
                    continue
                number: Any = item.get("num")
                if type(number) is not int or not 0 <= number < attachments:
                    raise RemoteProtocolError("illegal attachments")
                found.append((container, key, number))
    return found
