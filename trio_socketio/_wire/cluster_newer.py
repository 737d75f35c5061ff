"""The newer protocol: that of ``ClusterAdapter``, which the sharded and the streams adapter speak.

A message is ``{type, data, uid, nsp}``, in JSON, or in msgpack if there are bytes in it; over the publish and subscribe
of the streams adapter always in msgpack. Answers look like all else: where they are published says for whom they are.

Two things are added here, which others ignore: a join or leave may have a ``requestId`` in its data, and is then
confirmed by a message of type 103 with the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from .._errors import LocalProtocolError, RemoteProtocolError
from .cluster import EMITTER, Message, MessageType
from .cluster_parts import (
    check_event_untrusted,
    read_broadcast_untrusted,
    read_close_untrusted,
    read_count_untrusted,
    read_details_untrusted,
    read_namespace_untrusted,
    read_request_id_untrusted,
    read_rooms_untrusted,
    read_target_untrusted,
    read_uid_untrusted,
    require_request_id_untrusted,
    write_packet,
    write_target,
)
from .cluster_values import Values, valid_text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

#: For which rooms there are channels of their own: no rooms, those that are no socket's own, or all.
SubscriptionMode: TypeAlias = Literal["static", "dynamic", "dynamic-private"]

#: Code units of a socket's id. By nothing else do the others tell a socket's own room.
SOCKET_ID_LENGTH = 20


class ClusterChannels:
    """The channels of one namespace.

    Args:
        namespace: Its name, with the leading slash.
        prefix: The option ``channelPrefix`` of the other servers.
    """

    def __init__(self, namespace: str, prefix: str = "socket.io") -> None:
        self.main: bytes = valid_text(f"{prefix}#{namespace}#").encode()

    def answers(self, uid: str) -> bytes:
        """Where the answers to one server are published, and nothing else."""
        return self.main + valid_text(uid).encode() + b"#"

    def room(self, room: str) -> bytes:
        """Where what is for this room alone is published, if it has a channel."""
        return self.main + valid_text(room).encode() + b"#"

    def of(self, message: Message, mode: SubscriptionMode = "static") -> bytes:
        """Where a message is published that is not an answer."""
        if mode == "static" or message.type is not MessageType.BROADCAST or message.request_id is not None:
            return self.main
        rooms = message.target.rooms if message.target is not None else ()
        if len(rooms) != 1 or (mode == "dynamic" and looks_private(rooms[0])):
            return self.main
        return self.room(rooms[0])


def looks_private(room: str) -> bool:
    """Whether others take a room for some socket's own, because it is as long as the id of one."""
    return len(room.encode("utf-16-le", "surrogatepass")) == 2 * SOCKET_ID_LENGTH


class ClusterCodec:
    """Messages of one namespace, and their bytes.

    Args:
        namespace: Which a message is for that does not say.
        values: How values are encoded.

    Raises:
        ImportError: The package ``msgpack`` is not installed.
    """

    def __init__(self, namespace: str = "/", values: Values | None = None) -> None:
        self._namespace = namespace
        self.values: Values = values or Values()

    def own_ends(self, uid: str) -> tuple[bytes, ...]:
        """What messages of this server end with, for ``payload.endswith``."""
        end = {"uid": uid, "nsp": self._namespace}
        return b"," + self.values.dumps(end)[1:], self.values.pack(end)[1:]

    def encode(self, message: Message) -> bytes:
        """A message's payload in JSON, or in msgpack if there are bytes in it.

        Raises:
            EncodeError: A value cannot be encoded.
            LocalProtocolError: The protocol has no such message.
        """
        return self.values.dumps(_write_message(message))

    def pack(self, message: Message) -> bytes:
        """A message's payload in msgpack.

        Raises:
            EncodeError: A value cannot be encoded.
            LocalProtocolError: The protocol has no such message.
        """
        return self.values.pack(_write_message(message))

    def decode_untrusted(self, payload: bytes) -> Message:
        """Decode a message, in whichever form it is.

        Raises:
            RemoteProtocolError: It is none.
        """
        fields = self.values.loads_untrusted(payload)
        if type(fields) is not dict:
            raise RemoteProtocolError("invalid payload")
        number: Any = fields.get("type")
        message_type = _TYPES.get(number) if type(number) is int else None
        if message_type is None:
            raise RemoteProtocolError("unknown type of message")
        namespace = read_namespace_untrusted(fields, self._namespace)
        return read_data_untrusted(message_type, read_uid_untrusted(fields), namespace, fields.get("data"))


def _write_message(message: Message) -> dict[str, Any]:
    fields: dict[str, Any] = {"type": int(message.type)}
    if (data := write_data(message)) is not None:
        fields["data"] = data
    fields["uid"] = message.uid
    fields["nsp"] = message.namespace
    return fields


def write_data(message: Message) -> dict[str, Any] | None:
    """The ``data`` of a message; None if it has none.

    Raises:
        LocalProtocolError: The protocol has no such message.
    """
    writer = _WRITERS.get(message.type)
    if writer is not None:
        return writer(message)
    if message.type in _WITHOUT_DATA:
        return None
    raise LocalProtocolError(f"only the older Redis protocol has {message.type.name}")


def read_data_untrusted(message_type: MessageType, uid: str | None, namespace: str, data: Any) -> Message:
    """The message with this ``data``.

    Raises:
        RemoteProtocolError: It does not go with the type.
    """
    reader = _READERS.get(message_type)
    if reader is None:
        return Message(message_type, uid, namespace)
    if type(data) is not dict:
        raise RemoteProtocolError("invalid data")
    return reader(message_type, uid, namespace, data)


_WITHOUT_DATA = frozenset({MessageType.INITIAL_HEARTBEAT, MessageType.HEARTBEAT, MessageType.ADAPTER_CLOSE})


def _request_id(message: Message) -> dict[str, str]:
    return {} if message.request_id is None else {"requestId": message.request_id}


def _write_broadcast(message: Message) -> dict[str, Any]:
    packet = write_packet(message, with_namespace=message.uid == EMITTER)
    return {"packet": packet, **_request_id(message), "opts": write_target(message)}


_WRITERS: dict[MessageType, Callable[[Message], dict[str, Any]]] = {
    MessageType.BROADCAST: _write_broadcast,
    MessageType.SOCKETS_JOIN: lambda m: {"opts": write_target(m), "rooms": m.content, **_request_id(m)},
    MessageType.SOCKETS_LEAVE: lambda m: {"opts": write_target(m), "rooms": m.content, **_request_id(m)},
    MessageType.DISCONNECT_SOCKETS: lambda m: {"opts": write_target(m), "close": m.content},
    MessageType.FETCH_SOCKETS: lambda m: {"opts": write_target(m), "requestId": m.request_id},
    MessageType.FETCH_SOCKETS_RESPONSE: lambda m: {"requestId": m.request_id, "sockets": m.content},
    MessageType.SERVER_SIDE_EMIT: lambda m: {**_request_id(m), "packet": m.content},
    MessageType.SERVER_SIDE_EMIT_RESPONSE: lambda m: {"requestId": m.request_id, "packet": m.content},
    MessageType.BROADCAST_CLIENT_COUNT: lambda m: {"requestId": m.request_id, "clientCount": m.content},
    MessageType.BROADCAST_ACK: lambda m: {"requestId": m.request_id, "packet": m.content},
    MessageType.APPLIED: lambda m: {"requestId": m.request_id},
}


def _read_broadcast_untrusted(_type: MessageType, uid: str | None, namespace: str, data: Mapping[str, Any]) -> Message:
    request_id = read_request_id_untrusted(data)
    return read_broadcast_untrusted(data.get("packet"), data.get("opts"), uid, namespace, request_id)


def _read_change_untrusted(type: MessageType, uid: str | None, namespace: str, data: Mapping[str, Any]) -> Message:
    rooms = read_rooms_untrusted(data.get("rooms"))
    target = read_target_untrusted(data.get("opts"))
    return Message(type, uid, namespace, rooms, target, read_request_id_untrusted(data))


def _read_disconnect_untrusted(type: MessageType, uid: str | None, namespace: str, data: Mapping[str, Any]) -> Message:
    return Message(type, uid, namespace, read_close_untrusted(data), read_target_untrusted(data.get("opts")))


def _read_fetch_untrusted(type: MessageType, uid: str | None, namespace: str, data: Mapping[str, Any]) -> Message:
    target = read_target_untrusted(data.get("opts"))
    return Message(type, uid, namespace, None, target, require_request_id_untrusted(data))


def _read_server_side_emit_untrusted(
    type: MessageType, uid: str | None, namespace: str, data: Mapping[str, Any]
) -> Message:
    event = check_event_untrusted(data.get("packet"))
    return Message(type, uid, namespace, event, request_id=read_request_id_untrusted(data))


def _answer_reader(read_content_untrusted: Callable[[Mapping[str, Any]], Any]) -> Callable[..., Message]:
    def read_untrusted(type: MessageType, uid: str | None, namespace: str, data: Mapping[str, Any]) -> Message:
        request_id = require_request_id_untrusted(data)
        return Message(type, uid, namespace, read_content_untrusted(data), request_id=request_id)

    return read_untrusted


_READERS: dict[MessageType, Callable[[MessageType, str | None, str, Mapping[str, Any]], Message]] = {
    MessageType.BROADCAST: _read_broadcast_untrusted,
    MessageType.SOCKETS_JOIN: _read_change_untrusted,
    MessageType.SOCKETS_LEAVE: _read_change_untrusted,
    MessageType.DISCONNECT_SOCKETS: _read_disconnect_untrusted,
    MessageType.FETCH_SOCKETS: _read_fetch_untrusted,
    MessageType.FETCH_SOCKETS_RESPONSE: _answer_reader(lambda data: read_details_untrusted(data.get("sockets"))),
    MessageType.SERVER_SIDE_EMIT: _read_server_side_emit_untrusted,
    MessageType.SERVER_SIDE_EMIT_RESPONSE: _answer_reader(lambda data: data.get("packet")),
    MessageType.BROADCAST_CLIENT_COUNT: _answer_reader(read_count_untrusted),
    MessageType.BROADCAST_ACK: _answer_reader(lambda data: data.get("packet")),
    MessageType.APPLIED: _answer_reader(lambda _: None),
}

_TYPES = {int(message_type): message_type for message_type in (*_READERS, *_WITHOUT_DATA)}
