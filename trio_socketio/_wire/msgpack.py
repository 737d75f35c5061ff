"""The msgpack parser: each packet is one binary message, a map of ``type``, ``nsp``, ``data`` and ``id``.

It is what ``socket.io-msgpack-parser`` is to JavaScript, whose encoder and decoder (notepack) have extensions of their
own, all under the code 0:

=================  ==================  ============================================
in JavaScript      on the wire         here
=================  ==================  ============================================
a ``Date``         in 8 fixed bytes    a `datetime` in UTC, exact to milliseconds
``undefined``      in 1 fixed byte     None
an ``ArrayBuffer`` any other form      bytes
=================  ==================  ============================================

Encoding follows the rules of JSON (see the module ``json``), with these differences: bytes are values like any other,
in packets of every type, and nothing counts them; a datetime with a time zone becomes a ``Date`` (one without, an ISO
text as in JSON, because it is no point in time); NaN and the infinities are themselves; a text with a lone surrogate,
which has no UTF-8, is refused.

Decoding accepts, besides the extensions above, timestamps as MessagePack itself defines them. Every other extension, a
key that is not a text, a date outside of the years 1 to 9999 and more than `MAX_DEPTH` containers inside each other are
refused. A ``data`` or ``id`` that is nil is taken for absent, as Python clients send it; keys that the packet does not
need (JavaScript clients send their ``options`` along) are ignored. The size is that of the message, which the transport
limits: a container that claims to have more elements than its message has bytes is refused before it is made.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from enum import EnumMeta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from .._errors import EncodeError, RemoteProtocolError
from .encoded import EncodedPacket
from .json import MAX_DEPTH, check_depth_untrusted, key_text, to_json_type
from .packets import Packet, PacketType
from .parser import Decoder, Parser, check_packet_untrusted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_JAVASCRIPT = 0  # the extension code of all that is JavaScript's own

_TYPES = {int(packet_type): packet_type for packet_type in PacketType}
#: What msgpack encodes as it is; subclasses are looked at more closely.
_PLAIN = frozenset({str, int, float, bool, type(None), bytes, bytearray})
#: First bytes of arrays and maps.
CONTAINERS = bytes([*range(0x80, 0xA0), *range(0xDC, 0xE0)])


class MsgpackParser(Parser):
    """The `Parser` for clients with ``socket.io-msgpack-parser``: smaller packets, and values that JSON does not have.

    A JavaScript ``Date`` arrives as a datetime in UTC, and the other way round; bytes may be anywhere in any packet.
    Clients with another parser cannot talk to a server that has this one. Needs ``trio-socketio[msgpack]``.

    Raises:
        ImportError: The package ``msgpack`` is not installed.
    """

    def __init__(self) -> None:
        try:
            import msgpack
        except ImportError:
            raise ImportError(
                "MsgpackParser needs the package msgpack: install trio-socketio[msgpack]", name="msgpack"
            ) from None
        self._pack: Any = msgpack.packb
        self._extension: Any = msgpack.ExtType
        self._unpack: Any = msgpack.unpackb

    def encode(self, packet: Packet, compress: bool = True) -> EncodedPacket:
        fields: dict[str, Any] = {"type": int(packet.type), "nsp": packet.namespace}
        try:
            if packet.data is not None:
                fields["data"] = self._to_msgpack_types(packet.data, MAX_DEPTH)
            if packet.id is not None:
                fields["id"] = packet.id
            return EncodedPacket(None, (self._pack(fields),), compress)
        except EncodeError:
            raise
        except OverflowError:
            raise EncodeError("an integer is beyond 64 bits") from None
        except RecursionError:
            raise EncodeError("the value is nested too deep to be encoded") from None
        except (TypeError, ValueError) as error:
            raise EncodeError(str(error)) from error

    def decoder(self) -> Decoder:
        return _MsgpackDecoder(self._unpack)

    def _to_msgpack_types(self, value: Any, depth_left: int) -> Any:
        kind = type(value)
        if kind in _PLAIN:
            return value
        if type(kind) is EnumMeta:
            return self._to_msgpack_types(value.value, depth_left)
        if isinstance(value, (list, tuple, dict)):
            if not depth_left:
                raise EncodeError(f"the value is circular, or nested deeper than {MAX_DEPTH} levels")
            depth_left -= 1
            if isinstance(value, dict):
                return {key_text(key): self._to_msgpack_types(item, depth_left) for key, item in value.items()}
            return [self._to_msgpack_types(item, depth_left) for item in value]
        if isinstance(value, (str, int, float, bytes, bytearray)):
            return value
        if isinstance(value, memoryview):
            return bytes(value)
        if isinstance(value, datetime) and value.utcoffset() is not None:
            milliseconds = (value - EPOCH) // _MILLISECOND
            return self._extension(_JAVASCRIPT, milliseconds.to_bytes(8, "big", signed=True))
        if kind is UUID:
            return str(value)
        return self._to_msgpack_types(to_json_type(value, None), depth_left)


class _MsgpackDecoder(Decoder):
    """Keeps nothing between two messages."""

    def __init__(self, unpack: Any) -> None:
        self._unpack = unpack

    @property
    def pending_bytes(self) -> int:
        return 0

    def reset(self) -> None:
        pass

    def add_untrusted(self, message: str | bytes) -> Packet:
        if not isinstance(message, (bytes, bytearray, memoryview)):
            raise RemoteProtocolError("got text, and every packet of msgpack is binary")
        fields = self._unpack_untrusted(bytes(message))
        number = fields.get("type")
        packet_type = _TYPES.get(number) if type(number) is int else None
        if packet_type is None:
            raise RemoteProtocolError("invalid packet type")
        packet = Packet(packet_type, fields.get("nsp", ""), fields.get("data"), fields.get("id"))
        check_packet_untrusted(packet)
        return packet

    def _unpack_untrusted(self, message: bytes) -> dict[str, Any]:
        revive = extension_reviver(message)
        try:
            fields = self._unpack(message, ext_hook=revive, object_hook=_check_keys, timestamp=3)
        except (ValueError, OverflowError, RecursionError):
            raise RemoteProtocolError("invalid payload") from None
        if type(fields) is not dict:
            raise RemoteProtocolError("invalid payload")
        # No message is nested deeper than it has bytes that could begin a container; so few of them need to be walked.
        if len(message) - len(message.translate(None, CONTAINERS)) > MAX_DEPTH:
            check_depth_untrusted(fields.get("data"))
        return fields


def extension_reviver(message: bytes) -> Callable[[int, bytes], Any]:
    """What turns the extensions of a message, in order, into values; it raises a `ValueError` for unknown ones."""
    forms = _extension_forms(message)

    def revive(code: int, data: bytes) -> Any:
        is_fixed = next(forms)
        if code != _JAVASCRIPT:
            raise ValueError("unknown extension")
        if is_fixed and len(data) == 1:
            return None
        if is_fixed and len(data) == 8:
            return EPOCH + int.from_bytes(data, "big", signed=True) * _MILLISECOND
        return data

    return revive


def _check_keys(value: dict[Any, Any]) -> dict[str, Any]:
    if not all(type(key) is str for key in value):
        raise ValueError("a key that is not a text")
    return value


# The package msgpack tells the code and the content of an extension, but not its form, in which alone a Date differs
# from eight bytes, and undefined from one. So the headers are read here once more, as far as the last extension: flat,
# because where a container ends is of no interest.


def _form_sizes() -> list[int]:
    """What a value takes, by its first byte, without that of its content whose length is written before it."""
    sizes = [1] * 256
    sizes[0xA0:0xC0] = range(1, 33)  # short texts
    sizes[0xC4:0xC7] = sizes[0xD9:0xDC] = (2, 3, 5)  # bytes and texts after a length of 1, 2 or 4
    sizes[0xC7:0xCA] = (3, 4, 6)  # extensions after such a length, and their code
    sizes[0xCA:0xCC] = (5, 9)  # floats
    sizes[0xCC:0xD0] = sizes[0xD0:0xD4] = (2, 3, 5, 9)  # integers
    sizes[0xD4:0xD9] = (3, 4, 6, 10, 18)  # extensions of fixed size
    sizes[0xDC:0xE0] = (3, 5, 3, 5)  # arrays and maps: the number of their elements
    return sizes


_SIZES = _form_sizes()
_LENGTHS = {first + power: 1 << power for first in (0xC4, 0xC7, 0xD9) for power in range(3)}
_STANDARD_TIMESTAMP = 0xFF


def _extension_forms(message: bytes) -> Iterator[bool]:
    """For each extension of a message, in order, whether its size is fixed; not for those that msgpack itself knows."""
    position = 0
    while position < len(message):
        first = message[position]
        length_size = _LENGTHS.get(first, 0)
        is_extension = 0xC7 <= first <= 0xC9 or 0xD4 <= first <= 0xD8
        if is_extension and message[position + 1 + length_size] != _STANDARD_TIMESTAMP:
            yield first >= 0xD4
        position += _SIZES[first] + int.from_bytes(message[position + 1 : position + 1 + length_size])
