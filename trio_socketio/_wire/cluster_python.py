"""The channel of python-socketio (``RedisManager`` and its kin), in one JSON object per message.

It is a protocol of its own, with one channel for all namespaces, and knows neither requests nor answers, except that an
emit with a ``callback`` gets its client's answer. Programs emit over it that are no servers; here is what turns their
messages into those of the other protocols:

=======================  ==========================================================================
``method``               the message
=======================  ==========================================================================
emit                     BROADCAST; with a ``callback``, its number is the `request_id`
callback                 BROADCAST_ACK: the list of what the client answered; the target is the room
disconnect               DISCONNECT_SOCKETS
enter_room, leave_room   SOCKETS_JOIN, SOCKETS_LEAVE
close_room               SOCKETS_LEAVE: all who are in the room leave it
=======================  ==========================================================================

The ``host_id`` is the `uid`. Of a ``callback`` only the number is kept: room and namespace are the message's own.
"""

from __future__ import annotations

import base64
import json as standard_json
from typing import TYPE_CHECKING, Any

from .._errors import EncodeError, LocalProtocolError, RemoteProtocolError
from .cluster import Message, MessageType, Target
from .cluster_parts import EVERYBODY, check_event_untrusted, read_rooms_untrusted
from .cluster_values import MAX_SIZE, to_plain
from .json import loads_untrusted

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

#: Where everything is, unless the producers' option ``channel`` says something else.
CHANNEL = "socketio"


def encode(message: Message) -> bytes:
    """A message's payload, byte for byte as python-socketio writes it.

    Raises:
        EncodeError: A value has no JSON form.
        LocalProtocolError: The protocol has no such message.
    """
    fields = _write(message)
    try:
        return standard_json.dumps(to_plain(fields), allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise EncodeError(str(error)) from error


def decode_untrusted(payload: bytes) -> Message:
    """Decode a message.

    Raises:
        RemoteProtocolError: It is none; producers may also use pickle, which is never read here.
    """
    if len(payload) > MAX_SIZE:
        raise RemoteProtocolError("payload too large")
    try:
        fields = loads_untrusted(payload.decode())
    except UnicodeDecodeError:
        raise RemoteProtocolError("invalid payload") from None
    method: Any = fields.get("method") if type(fields) is dict else None
    reader = _READERS.get(method) if type(method) is str else None
    if reader is None:
        raise RemoteProtocolError("unknown method")
    return reader(fields)


def _write(message: Message) -> dict[str, Any]:
    target = message.target or EVERYBODY
    where = {"namespace": message.namespace}
    host = {"host_id": message.uid}
    match message.type:
        case MessageType.BROADCAST:
            return {"method": "emit", **_write_event(message.content), **where, **_write_emit(message, target), **host}
        case MessageType.BROADCAST_ACK:
            answer = {"sid": target.rooms[0], **where, "id": int(message.request_id or ""), "args": message.content}
            return {"method": "callback", **host, **answer}
        case MessageType.DISCONNECT_SOCKETS:
            return {"method": "disconnect", "sid": target.rooms[0], **where, **host}
        case MessageType.SOCKETS_LEAVE if target.rooms == message.content:
            return {"method": "close_room", "room": target.rooms[0], **where, **host}
        case MessageType.SOCKETS_JOIN | MessageType.SOCKETS_LEAVE:
            method = "enter_room" if message.type is MessageType.SOCKETS_JOIN else "leave_room"
            return {"method": method, "sid": target.rooms[0], "room": message.content[0], **where, **host}
        case _:
            raise LocalProtocolError(f"python-socketio has no {message.type.name}")


def _write_event(event: list[Any]) -> dict[str, Any]:
    attachments: list[bytes] = []
    arguments = _with_placeholders(to_plain(event[1:] or [None]), attachments)
    data = [arguments, *[base64.b64encode(data).decode() for data in attachments]] if attachments else arguments
    return {"event": event[0], "data": data, "binary": bool(attachments)}


def _write_emit(message: Message, target: Target) -> dict[str, Any]:
    room = _write_rooms(target.rooms)
    request_id = message.request_id
    callback = None if request_id is None else [room, message.namespace, int(request_id)]
    return {"room": room, "skip_sid": _write_rooms(target.except_rooms), "callback": callback}


def _write_rooms(rooms: tuple[str, ...]) -> Any:
    if len(rooms) > 1:
        return list(rooms)
    return rooms[0] if rooms else None


def _with_placeholders(value: Any, attachments: list[bytes]) -> Any:
    if isinstance(value, (bytes, bytearray)):
        attachments.append(bytes(value))
        return {"_placeholder": True, "num": len(attachments) - 1}
    if isinstance(value, dict):
        return {key: _with_placeholders(item, attachments) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_placeholders(item, attachments) for item in value]
    return value


def _read_emit_untrusted(fields: Mapping[str, Any]) -> Message:
    data: Any = fields.get("data")
    if fields.get("binary"):
        data = _with_attachments_untrusted(data)
    if type(data) is not list:
        data = [data]  # which old versions send of a single argument
    event = check_event_untrusted([fields.get("event"), *(data if data != [None] else ())])
    target = Target(_read_rooms_untrusted(fields.get("room")), _read_rooms_untrusted(fields.get("skip_sid")))
    callback: Any = fields.get("callback")
    request_id = None
    if callback is not None:
        if type(callback) is not list or len(callback) != 3 or not target.rooms:
            raise RemoteProtocolError("invalid callback")
        request_id = _read_number_untrusted(callback[2])
    return Message(
        MessageType.BROADCAST, _host_untrusted(fields), _namespace_untrusted(fields), event, target, request_id
    )


def _with_attachments_untrusted(data: Any) -> Any:
    if type(data) is not list or not data or not all(type(item) is str for item in data[1:]):
        raise RemoteProtocolError("invalid attachments")
    try:
        attachments = [base64.b64decode(item, validate=True) for item in data[1:]]
    except ValueError:
        raise RemoteProtocolError("invalid attachments") from None
    return _without_placeholders_untrusted(data[0], attachments)


def _without_placeholders_untrusted(value: Any, attachments: list[bytes]) -> Any:
    if type(value) is list:
        return [_without_placeholders_untrusted(item, attachments) for item in value]
    if type(value) is not dict:
        return value
    if value.get("_placeholder") is not True:
        return {key: _without_placeholders_untrusted(item, attachments) for key, item in value.items()}
    number: Any = value.get("num")
    if type(number) is not int or not 0 <= number < len(attachments):
        raise RemoteProtocolError("invalid attachments")
    return attachments[number]


def _read_callback_untrusted(fields: Mapping[str, Any]) -> Message:
    arguments: Any = fields.get("args")
    if type(arguments) is not list:
        raise RemoteProtocolError("invalid args")
    target = Target((_text_untrusted(fields, "sid"),))
    request_id = _read_number_untrusted(fields.get("id"))
    uid, namespace = _host_untrusted(fields), _namespace_untrusted(fields)
    return Message(MessageType.BROADCAST_ACK, uid, namespace, arguments, target, request_id)


def _read_disconnect_untrusted(fields: Mapping[str, Any]) -> Message:
    target = Target((_text_untrusted(fields, "sid"),))
    return Message(MessageType.DISCONNECT_SOCKETS, _host_untrusted(fields), _namespace_untrusted(fields), False, target)


def _change_reader(message_type: MessageType, whom: str) -> Callable[[Mapping[str, Any]], Message]:
    def read_untrusted(fields: Mapping[str, Any]) -> Message:
        target = Target((_text_untrusted(fields, whom),))
        rooms = (_text_untrusted(fields, "room"),)
        return Message(message_type, _host_untrusted(fields), _namespace_untrusted(fields), rooms, target)

    return read_untrusted


def _read_rooms_untrusted(rooms: Any) -> tuple[str, ...]:
    if rooms is None:
        return ()
    return read_rooms_untrusted(rooms if type(rooms) is list else [rooms])


def _read_number_untrusted(number: Any) -> str:
    if type(number) is not int or number < 0:
        raise RemoteProtocolError("invalid id")
    return str(number)


def _host_untrusted(fields: Mapping[str, Any]) -> str | None:
    return None if fields.get("host_id") is None else _text_untrusted(fields, "host_id")


def _namespace_untrusted(fields: Mapping[str, Any]) -> str:
    return "/" if fields.get("namespace") is None else _text_untrusted(fields, "namespace")


def _text_untrusted(fields: Mapping[str, Any], name: str) -> str:
    value: Any = fields.get(name)
    if type(value) is not str:
        raise RemoteProtocolError(f"invalid {name}")
    return value


_READERS: dict[str, Callable[[Mapping[str, Any]], Message]] = {
    "emit": _read_emit_untrusted,
    "callback": _read_callback_untrusted,
    "disconnect": _read_disconnect_untrusted,
    "enter_room": _change_reader(MessageType.SOCKETS_JOIN, "sid"),
    "leave_room": _change_reader(MessageType.SOCKETS_LEAVE, "sid"),
    "close_room": _change_reader(MessageType.SOCKETS_LEAVE, "room"),
}
