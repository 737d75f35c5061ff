"""The streams of Redis: entries, sessions, and the ids of both (``@socket.io/redis-streams-adapter`` 0.3).

An entry of a stream has the fields ``uid``, ``nsp``, ``type`` and ``data``: a message whose data are JSON, or msgpack
in base64 if there are bytes in them. The first two fields are there to be looked at before the last is decoded: every
server reads the entries of all namespaces, its own among them.

A session is what is left of a client that may come back, kept under a key of its own.
"""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from .._errors import RemoteProtocolError
from .cluster import Message, MessageType
from .cluster_newer import read_data_untrusted, write_data
from .cluster_parts import read_rooms_untrusted
from .cluster_values import Values, valid_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: Of an entry with a number beyond these, another protocol is the owner.
_TYPES = {str(int(kind)).encode(): kind for kind in MessageType if kind <= MessageType.ADAPTER_CLOSE} | {
    str(int(MessageType.APPLIED)).encode(): MessageType.APPLIED
}

#: An entry's id: milliseconds, and a number within them; each of at most 64 bits.
_STREAM_ID = re.compile("([0-9]{1,20})-([0-9]{1,20})")
_MAX_NUMBER = 2**64 - 1


class StreamEntry(NamedTuple):
    """An entry as it is in the stream: nothing is decoded, and nothing checked.

    Attributes:
        uid: Whose it is.
        namespace: Which it is for; None if it is no message at all.
        type: A decimal number.
        data: What `StreamCodec.decode_untrusted` decodes.
    """

    uid: bytes | None
    namespace: bytes | None
    type: bytes
    data: bytes


def read_entry(fields: Sequence[bytes]) -> StreamEntry:
    """An entry of its fields, each name before its value, as Redis gives them."""
    known = dict(zip(fields[::2], fields[1::2], strict=False))
    return StreamEntry(known.get(b"uid"), known.get(b"nsp"), known.get(b"type", b""), known.get(b"data", b""))


class WireSession(NamedTuple):
    """What is left of a client that may come back.

    Attributes:
        sid: Its public id.
        pid: Its private id.
        rooms: The rooms it was in.
        data: Its data.
        extra: What servers like this one keep besides; others do not write it, and do not mind it.
    """

    sid: str
    pid: str
    rooms: tuple[str, ...]
    data: Any
    extra: Mapping[str, Any]


class StreamCodec:
    """Entries and sessions, and their bytes.

    Args:
        values: How values are encoded.

    Raises:
        ImportError: The package ``msgpack`` is not installed.
    """

    def __init__(self, values: Values | None = None) -> None:
        self._values = values or Values()

    def encode(self, message: Message) -> list[bytes]:
        """The fields of an entry, each name before its value, for XADD.

        Raises:
            EncodeError: A value cannot be encoded.
            LocalProtocolError: The protocol has no such message.
        """
        fields = [b"uid", _text(message.uid or ""), b"nsp", _text(message.namespace)]
        fields += [b"type", str(int(message.type)).encode()]
        if (data := write_data(message)) is not None:
            encoded = self._values.dumps(data)
            fields += [b"data", encoded if encoded[:1] == b"{" else base64.b64encode(encoded)]
        return fields

    def decode_untrusted(self, entry: StreamEntry) -> Message:
        """The message of an entry.

        Raises:
            RemoteProtocolError: It is none.
        """
        message_type = _TYPES.get(entry.type)
        if message_type is None or entry.namespace is None:
            raise RemoteProtocolError("an entry that is no message")
        try:
            uid = None if entry.uid is None else entry.uid.decode()
            namespace = entry.namespace.decode()
        except UnicodeDecodeError:
            raise RemoteProtocolError("an entry with fields that are no text") from None
        return read_data_untrusted(message_type, uid, namespace, self._decode_data_untrusted(entry.data))

    def _decode_data_untrusted(self, data: bytes) -> Any:
        if not data:
            return None
        if data[:1] == b"{":
            return self._values.load_json_untrusted(data)
        return self._values.unpack_untrusted(_from_base64_untrusted(data))

    def encode_session(self, session: WireSession) -> bytes:
        """The value of a session's key.

        Raises:
            EncodeError: The data cannot be encoded.
        """
        fields = {"sid": session.sid, "pid": session.pid, "rooms": session.rooms, "data": session.data}
        return base64.b64encode(self._values.pack({**fields, **session.extra}))

    def decode_session_untrusted(self, value: bytes) -> WireSession:
        """The session in the value of a key.

        Raises:
            RemoteProtocolError: It is none.
        """
        fields = self._values.unpack_untrusted(_from_base64_untrusted(value))
        if type(fields) is not dict:
            raise RemoteProtocolError("invalid session")
        sid, pid = fields.pop("sid", None), fields.pop("pid", None)
        if type(sid) is not str or type(pid) is not str:
            raise RemoteProtocolError("invalid session")
        rooms = read_rooms_untrusted(fields.pop("rooms", None))
        return WireSession(sid, pid, rooms, fields.pop("data", None), fields)


def _text(text: str) -> bytes:
    return valid_text(text).encode()


def _from_base64_untrusted(data: bytes) -> bytes:
    try:
        return base64.b64decode(data, validate=True)
    except ValueError:
        raise RemoteProtocolError("invalid base64") from None


def session_key(pid: str, prefix: str = "sio:session:") -> bytes:
    """The key of a session."""
    return _text(prefix + pid)


def parse_stream_id(offset: str) -> tuple[int, int] | None:
    """The two numbers of an entry's id, by which ids are ordered; None if it is none (clients may say anything)."""
    match = _STREAM_ID.fullmatch(offset)
    if match is None:
        return None
    numbers = int(match[1]), int(match[2])
    return numbers if max(numbers) <= _MAX_NUMBER else None


def next_stream_id(offset: str) -> str:
    """The least id that is greater: what a range that excludes an entry begins with, before Redis 6.2.

    Raises:
        ValueError: It is no id of an entry, or the last that there can be.
    """
    numbers = parse_stream_id(offset)
    if numbers is None or numbers == (_MAX_NUMBER, _MAX_NUMBER):
        raise ValueError(f"{offset!r} is followed by no id of an entry")
    milliseconds, number = numbers
    return f"{milliseconds}-{number + 1}" if number < _MAX_NUMBER else f"{milliseconds + 1}-0"


def stream_names(name: str = "socket.io", count: int = 1) -> list[str]:
    """The streams that every server reads.

    Args:
        name: The option ``streamName``.
        count: The option ``streamCount``.
    """
    return [name] if count <= 1 else [f"{name}-{number}" for number in range(count)]


def stream_of(namespace: str, name: str = "socket.io", count: int = 1) -> str:
    """The stream to which the other servers write a namespace's messages.

    That may be none of `stream_names`: with several streams, and a namespace whose hash is negative, JavaScript's
    remainder is negative, too. What is written there no server in JavaScript reads; to be heard by those in Python,
    they have to read it besides.
    """
    if count <= 1:
        return name
    number = _java_hash(namespace)
    remainder = number % count if number >= 0 else -(-number % count)
    return f"{name}-{remainder}"


def _java_hash(text: str) -> int:
    """That of Java's strings: over UTF-16 code units, in 32 bits with a sign."""
    encoded = text.encode("utf-16-le", "surrogatepass")
    result = 0
    for position in range(0, len(encoded), 2):
        result = (31 * result + int.from_bytes(encoded[position : position + 2], "little")) & 0xFFFFFFFF
    return result - 2**32 if result >= 2**31 else result
