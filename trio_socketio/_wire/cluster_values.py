"""Values between the servers of a cluster: JSON, and msgpack where there are bytes.

Three encoders meet on these wires, and none is like the others; so this one writes what all of them read, and reads
what any of them writes.

Writing: JSON follows the module ``json``. In msgpack, keys are texts (one of JavaScript's decoders refuses all others),
a point in time is MessagePack's own timestamp, and a datetime without a time zone its ISO text. Integers beyond 64 bits
become floats, as they would be in JavaScript. A lone surrogate is an escape in JSON; in msgpack, which would need UTF-8
for it, it is U+FFFD.

Reading msgpack: standard timestamps, and the extensions of notepack (see the module ``msgpack``) which older servers
and emitters send, become datetimes in UTC, None and bytes. Keys that are numbers, booleans or nil become the text that
they would be in JavaScript. What is not UTF-8 in a text is replaced, because one of JavaScript's encoders writes lone
surrogates as they are, and a message to a thousand clients should not be lost over it. Every other extension, dates
outside of the years 1 to 9999 and trailing bytes are refused.

Both directions are limited to `MAX_DEPTH` containers inside each other, of which a message's envelope takes up to four.
"""

from __future__ import annotations

from datetime import datetime
from enum import EnumMeta
from typing import TYPE_CHECKING, Any, NoReturn
from uuid import UUID

from .._errors import EncodeError, RemoteProtocolError
from . import json
from .json import MAX_DEPTH, check_depth_untrusted, key_text, no_json_form, to_json_type
from .msgpack import CONTAINERS, EPOCH, extension_reviver

if TYPE_CHECKING:
    from collections.abc import Container, Sequence

#: Bytes of one message; above what the details of a hundred thousand sockets take.
MAX_SIZE = 100_000_000

_MIN_INT, _MAX_INT = -(2**63), 2**64 - 1
#: What is encoded as it is, and with integers, where those beyond 64 bits are noticed by others.
_PLAIN: frozenset[type] = frozenset({str, float, bool, type(None), bytes})
PLAIN_AND_INTEGERS: frozenset[type] = _PLAIN | {int}


class _NotForJSON(Exception):
    """There are bytes in the value."""


class Values:
    """Encodes and decodes values. Needs ``trio-socketio[redis]``, or ``[msgpack]``.

    Args:
        max_size: Bytes; a larger payload is refused before it is decoded.

    Raises:
        ImportError: The package ``msgpack`` is not installed.
    """

    def __init__(self, max_size: int = MAX_SIZE) -> None:
        try:
            import msgpack
        except ImportError:
            raise ImportError(
                "clusters over Redis need the package msgpack: install trio-socketio[redis]", name="msgpack"
            ) from None
        self._max_size = max_size
        self._packb: Any = msgpack.packb
        self._unpackb: Any = msgpack.unpackb

    def dumps(self, value: Any) -> bytes:
        """Encode as JSON, or as msgpack if there are bytes in the value.

        Raises:
            EncodeError: A value has neither form, or is nested too deep.
        """
        try:
            try:
                return json.dumps(value, _refuse_bytes)
            except EncodeError:  # perhaps because of an integer, for which nobody else shall have to pay
                return json.dumps(to_plain(value), _refuse_bytes)
        except _NotForJSON:
            return self.pack(value)

    def pack(self, value: Any) -> bytes:
        """Encode as msgpack.

        Raises:
            EncodeError: A value has no msgpack form, or is nested too deep.
        """
        return self.pack_plain(to_plain(value, plain=PLAIN_AND_INTEGERS))

    def pack_plain(self, plain: Any) -> bytes:
        """Encode as msgpack what `to_plain` has made, and tuples.

        Raises:
            EncodeError: An integer is too large even for a float.
        """
        try:
            try:
                packed: bytes = self._packb(plain, default=_to_float, datetime=True)
            except UnicodeEncodeError:
                packed = self._packb(_with_valid_texts(plain), default=_to_float, datetime=True)
        except ValueError as error:
            raise EncodeError(str(error)) from error
        return packed

    def loads_untrusted(self, payload: bytes) -> Any:
        """Decode JSON or msgpack, whichever it is.

        Raises:
            RemoteProtocolError: It is neither, or too deep or too large.
        """
        if payload[:1] == b"{":  # which no map or array of msgpack begins with
            return self.load_json_untrusted(payload)
        return self.unpack_untrusted(payload)

    def load_json_untrusted(self, payload: bytes) -> Any:
        """Decode JSON.

        Raises:
            RemoteProtocolError: It is no JSON in UTF-8, or too deep or too large.
        """
        if len(payload) > self._max_size:
            raise RemoteProtocolError("payload too large")
        try:
            text = payload.decode()
        except UnicodeDecodeError:
            raise RemoteProtocolError("invalid payload") from None
        return json.loads_untrusted(text)

    def unpack_untrusted(self, payload: bytes) -> Any:
        """Decode msgpack.

        Raises:
            RemoteProtocolError: It is no msgpack that is understood here (see above), or too deep or too large.
        """
        if len(payload) > self._max_size:
            raise RemoteProtocolError("payload too large")
        try:
            # Where there are bytes, there may be bytes as keys, which only hooks find.
            if b"\xc4" in payload or b"\xc5" in payload or b"\xc6" in payload:
                value = self._unpack_carefully_untrusted(payload)
            else:
                value = self._unpackb(payload, ext_hook=_refuse_extension, unicode_errors="replace", timestamp=3)
        except (ValueError, OverflowError, RecursionError):
            value = self._unpack_carefully_untrusted(payload)
        # No message is nested deeper than it has bytes that could begin a container; so few of them need to be walked.
        if len(payload) > MAX_DEPTH and len(payload) - len(payload.translate(None, CONTAINERS)) > MAX_DEPTH:
            check_depth_untrusted(value)
        return value

    def _unpack_carefully_untrusted(self, payload: bytes) -> Any:
        # Once more for keys that are no texts and for extensions, which hooks would make every other message pay for.
        try:
            return self._unpackb(
                payload,
                ext_hook=extension_reviver(payload),
                object_pairs_hook=_with_text_keys,
                strict_map_key=False,
                unicode_errors="replace",
                timestamp=3,
            )
        except (ValueError, OverflowError, RecursionError, TypeError):
            raise RemoteProtocolError("invalid payload") from None


def _refuse_bytes(value: Any) -> NoReturn:
    if isinstance(value, (bytes, bytearray, memoryview)):
        raise _NotForJSON
    raise no_json_form(value)


def _refuse_extension(code: int, data: bytes) -> NoReturn:
    raise ValueError(f"extension {code} of {len(data)} bytes")


def _with_text_keys(pairs: Sequence[tuple[Any, Any]]) -> dict[str, Any]:
    return {key_text(key): item for key, item in pairs}


def to_plain(value: Any, max_depth: int = MAX_DEPTH, plain: Container[type] = _PLAIN) -> Any:
    """The same value, of nothing but what can be encoded.

    Args:
        value: Any value.
        max_depth: How many containers may be inside each other.
        plain: The types of what needs no look.

    Raises:
        EncodeError: Something in it cannot be encoded, or it is nested too deep.
    """
    try:
        return _to_plain(value, max_depth, plain)
    except (RecursionError, OverflowError) as error:
        raise EncodeError("the value is nested too deep, or has a date beyond all years") from error


def _to_plain(value: Any, depth_left: int, plain: Container[type]) -> Any:
    kind = type(value)
    if kind in plain:
        return value
    if type(kind) is EnumMeta:
        return _to_plain(value.value, depth_left, plain)
    if isinstance(value, (list, tuple, dict)):
        if not depth_left:
            raise EncodeError("the value is circular, or nested too deep")
        depth_left -= 1
        # To ask here, and not in a call for each, makes it twice as fast.
        if isinstance(value, dict):
            return {
                key if type(key) is str else key_text(key): (
                    item if type(item) in plain else _to_plain(item, depth_left, plain)
                )
                for key, item in value.items()
            }
        return [item if type(item) in plain else _to_plain(item, depth_left, plain) for item in value]
    if isinstance(value, int):
        return int(value) if _MIN_INT <= value <= _MAX_INT else _to_float(value)
    if isinstance(value, (str, float, bytes, bytearray)):
        return value
    if isinstance(value, memoryview):
        return bytes(value)
    if isinstance(value, datetime) and value.utcoffset() is not None:
        return EPOCH + (value - EPOCH)  # of no subclass, and in UTC
    if kind is UUID:
        return str(value)
    return _to_plain(to_json_type(value, None), depth_left, plain)


def _to_float(value: int) -> float:
    try:
        return float(value)
    except OverflowError:
        raise EncodeError("an integer is beyond the range of a float") from None


def valid_text(text: str) -> str:
    """The same text with U+FFFD for each lone surrogate."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _with_valid_texts(value: Any) -> Any:
    if isinstance(value, str):
        return valid_text(value)
    if isinstance(value, dict):
        return {valid_text(key): _with_valid_texts(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_with_valid_texts(item) for item in value]
    return value
