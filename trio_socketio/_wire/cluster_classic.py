"""The older Redis protocol: that of ``createAdapter`` in ``@socket.io/redis-adapter``, and of most emitters.

A broadcast is an array ``[uid, packet, opts]`` in msgpack, on a channel of the namespace or of the one room that it is
for. All else is on two channels for requests and responses, in JSON; what a client or a packet contains, and what has
bytes in it, in msgpack. The types of requests have numbers of their own, and most responses have no type: what they are
shows in their keys.

Two things are added here, which others ignore. A response carries our ``uid``, so that whoever asks can name those who
have not answered; and a join or leave with a ``requestId`` is confirmed by a response with nothing but these two. Older
servers ask for one socket in that way, by a form with its id (``sid``) instead of ``opts``, which only the server that
has the socket answers. Here it is a target that is the socket's own room, with the flag `ONE_SOCKET`.

A message on the request channel is the sender's own as well; what that means is up to the adapter.
"""

from __future__ import annotations

import re
from functools import cached_property
from typing import TYPE_CHECKING, Any

from .._errors import LocalProtocolError, RemoteProtocolError
from .cluster import EMITTER, Message, MessageType, Target
from .cluster_parts import (
    EVERYBODY,
    check_event_untrusted,
    read_broadcast_untrusted,
    read_close_untrusted,
    read_count_untrusted,
    read_details_untrusted,
    read_request_id_untrusted,
    read_rooms_untrusted,
    read_target_untrusted,
    read_uid_untrusted,
    require_request_id_untrusted,
    write_packet,
    write_target,
)
from .cluster_values import PLAIN_AND_INTEGERS, Values, to_plain, valid_text
from .json import MAX_DEPTH

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

#: The flag of a request that only the server which has this one socket answers.
ONE_SOCKET = "expectSingleResponse"

#: Containers around the content of a broadcast.
_ENVELOPE = 2

#: Requests, by their numbers.
_NUMBERS = {
    MessageType.SOCKET_IDS: 0,
    MessageType.ALL_ROOMS: 1,
    MessageType.SOCKETS_JOIN: 2,
    MessageType.SOCKETS_LEAVE: 3,
    MessageType.DISCONNECT_SOCKETS: 4,
    MessageType.FETCH_SOCKETS: 5,
    MessageType.SERVER_SIDE_EMIT: 6,
    MessageType.BROADCAST: 7,
}
_REQUESTS = {number: message_type for message_type, number in _NUMBERS.items()}
#: Of responses, only these have a number.
_CLIENT_COUNT, _ACK = 8, 9

#: Requests with a form for one socket: the names of their content, there and here.
_FORMS = {
    MessageType.SOCKETS_JOIN: ("rooms", "room"),
    MessageType.SOCKETS_LEAVE: ("rooms", "room"),
    MessageType.DISCONNECT_SOCKETS: ("close", "close"),
}

_RESPONSES = frozenset(
    {
        MessageType.SOCKET_IDS_RESPONSE,
        MessageType.ALL_ROOMS_RESPONSE,
        MessageType.FETCH_SOCKETS_RESPONSE,
        MessageType.SERVER_SIDE_EMIT_RESPONSE,
        MessageType.BROADCAST_CLIENT_COUNT,
        MessageType.BROADCAST_ACK,
        MessageType.APPLIED,
    }
)


class ClassicChannels:
    """The channels of one namespace.

    Args:
        namespace: Its name, with the leading slash.
        prefix: The option ``key``, or ``prefix``, of the other servers.
    """

    def __init__(self, namespace: str, prefix: str = "socket.io") -> None:
        self.broadcast: bytes = _channel(prefix, namespace)
        self.request: bytes = _channel(f"{prefix}-request", namespace)
        self.response: bytes = _channel(f"{prefix}-response", namespace)

    @cached_property
    def pattern(self) -> bytes:
        """Where all broadcasts are, for PSUBSCRIBE."""
        return re.sub(rb"[*?\[\]\\]", rb"\\\g<0>", self.broadcast) + b"*"

    def room(self, room: str) -> bytes:
        """Where what is for this room alone is published."""
        return self.broadcast + valid_text(room).encode() + b"#"

    def answers(self, uid: str) -> bytes:
        """Where one server alone hears responses."""
        return self.response + valid_text(uid).encode() + b"#"

    def of(self, message: Message) -> bytes:
        """Where a message is published; a response where every server hears it."""
        if message.type in _RESPONSES:
            return self.response
        if message.type is not MessageType.BROADCAST or message.request_id is not None:
            return self.request
        rooms = message.target.rooms if message.target is not None else ()
        return self.room(rooms[0]) if len(rooms) == 1 else self.broadcast

    def room_untrusted(self, channel: bytes) -> str:
        """The room whose channel it is; empty for that of everybody.

        Raises:
            RemoteProtocolError: It is no channel for broadcasts in this namespace.
        """
        if channel == self.broadcast:
            return ""
        if not (channel.startswith(self.broadcast) and channel.endswith(b"#")):
            raise RemoteProtocolError("a channel of something else")
        try:
            return channel[len(self.broadcast) : -1].decode()
        except UnicodeDecodeError:
            raise RemoteProtocolError("a channel that is no text") from None


def _channel(prefix: str, namespace: str) -> bytes:
    return valid_text(f"{prefix}#{namespace}#").encode()


class ClassicCodec:
    """Messages of one namespace, and their bytes.

    Args:
        namespace: Which is not said in requests and responses.
        values: How values are encoded.

    Raises:
        ImportError: The package ``msgpack`` is not installed.
    """

    def __init__(self, namespace: str = "/", values: Values | None = None) -> None:
        self._namespace = namespace
        self._values = values or Values()
        self._unpack = self._values.unpack_untrusted

    def own_starts(self, uid: str) -> tuple[bytes, ...]:
        """What broadcasts and requests of this server start with, for ``payload.startswith``."""
        packed = self._values.pack({"uid": uid})[1:]
        maps = tuple(bytes([0x80 + size]) + packed for size in (3, 4, 5, 6))
        return (b"\x93" + self._values.pack(uid), self._values.dumps({"uid": uid})[:-1] + b",", *maps)

    # Encoding

    def encode(self, message: Message) -> bytes:
        """A message's payload. One of `EMITTER` gets the form that emitters send.

        Raises:
            EncodeError: A value cannot be encoded.
            LocalProtocolError: The protocol has no such message.
        """
        if message.type is MessageType.BROADCAST:
            # All but the content is plain: not to look at it takes two of six microseconds off.
            content = to_plain(message.content, MAX_DEPTH - _ENVELOPE, PLAIN_AND_INTEGERS)
            packet = write_packet(message._replace(content=content), with_namespace=True)
            options = write_target(message)
            if message.request_id is None:
                return self._values.pack_plain([message.uid, packet, options])
            request = self._begin_request(message)
            return self._values.pack_plain({**request, "packet": packet, "opts": options})
        if message.type is MessageType.BROADCAST_ACK:
            return self._values.pack(_write_response(message))
        if message.type in _RESPONSES:
            return self._values.dumps(_write_response(message))
        return self._values.dumps(self._write_request(message))

    def _begin_request(self, message: Message) -> dict[str, Any]:
        number = _NUMBERS.get(message.type)
        if number is None:
            raise LocalProtocolError(f"the older Redis protocol has no {message.type.name}")
        request: dict[str, Any] = {}
        if message.uid is not None and not (message.uid == EMITTER and message.type in _FORMS):
            request["uid"] = message.uid
        if message.request_id is not None:
            request["requestId"] = message.request_id
        request["type"] = number
        return request

    def _write_request(self, message: Message) -> dict[str, Any]:
        request = self._begin_request(message)
        if message.type is MessageType.ALL_ROOMS:
            return request
        if message.type is MessageType.SERVER_SIDE_EMIT:
            return {**request, "data": message.content}
        target = message.target or EVERYBODY
        if message.type is MessageType.SOCKET_IDS:
            return {**request, "rooms": target.rooms}
        content_key, one_socket_key = _FORMS.get(message.type, ("", ""))
        if one_socket_key and message.request_id is not None and target.flags.get(ONE_SOCKET):
            content = message.content if content_key == one_socket_key else message.content[0]
            return {**request, "sid": target.rooms[0], one_socket_key: content}
        request["opts"] = {"rooms": target.rooms, "except": target.except_rooms}
        return {**request, content_key: message.content} if content_key else request

    # Decoding

    def decode_broadcast_untrusted(self, payload: bytes) -> Message:
        """What is on a channel for broadcasts.

        Raises:
            RemoteProtocolError: It is no broadcast.
        """
        frame = self._unpack(payload)
        if type(frame) is not list or len(frame) != 3 or type(frame[0]) is not str:
            raise RemoteProtocolError("invalid broadcast")
        return read_broadcast_untrusted(frame[1], frame[2], frame[0])

    def decode_request_untrusted(self, payload: bytes) -> Message:
        """What is on the channel for requests.

        Raises:
            RemoteProtocolError: It is no request that could be answered.
        """
        request = self._load_untrusted(payload)
        number: Any = request.get("type")
        message_type = _REQUESTS.get(number) if type(number) is int else None
        if message_type is None:
            raise RemoteProtocolError("unknown type of request")
        message = Message(message_type, read_uid_untrusted(request), self._namespace)
        return _READERS[message_type](message, request)

    def decode_response_untrusted(self, payload: bytes) -> Message:
        """What is on a channel for responses. One without an array that it should have, is an APPLIED.

        Raises:
            RemoteProtocolError: It is no response.
        """
        response = self._load_untrusted(payload)
        message_type, content = _read_answer_untrusted(response)
        request_id = require_request_id_untrusted(response)
        return Message(message_type, read_uid_untrusted(response), self._namespace, content, request_id=request_id)

    def _load_untrusted(self, payload: bytes) -> dict[str, Any]:
        fields = self._values.loads_untrusted(payload)
        if type(fields) is not dict:
            raise RemoteProtocolError("invalid payload")
        return fields


def _write_response(message: Message) -> dict[str, Any]:
    mark = {} if message.uid is None else {"uid": message.uid}
    request_id, content = message.request_id, message.content
    match message.type:
        case MessageType.SERVER_SIDE_EMIT_RESPONSE:
            number = _NUMBERS[MessageType.SERVER_SIDE_EMIT]
            return {"type": number, "requestId": request_id, "data": content, **mark}
        case MessageType.BROADCAST_CLIENT_COUNT:
            return {"type": _CLIENT_COUNT, "requestId": request_id, "clientCount": content, **mark}
        case MessageType.BROADCAST_ACK:
            return {"type": _ACK, "requestId": request_id, "packet": content, **mark}
        case MessageType.ALL_ROOMS_RESPONSE:
            return {"requestId": request_id, "rooms": content, **mark}
        case MessageType.APPLIED:
            return {"requestId": request_id, **mark}
        case _:
            return {"requestId": request_id, "sockets": content, **mark}


def _read_answer_untrusted(response: Mapping[str, Any]) -> tuple[MessageType, Any]:
    number: Any = response.get("type")
    if number == _NUMBERS[MessageType.SERVER_SIDE_EMIT]:
        return MessageType.SERVER_SIDE_EMIT_RESPONSE, response.get("data")
    if number == _CLIENT_COUNT:
        return MessageType.BROADCAST_CLIENT_COUNT, read_count_untrusted(response)
    if number == _ACK:
        return MessageType.BROADCAST_ACK, response.get("packet")
    if type(response.get("rooms")) is list:
        return MessageType.ALL_ROOMS_RESPONSE, list(read_rooms_untrusted(response["rooms"]))
    sockets: Any = response.get("sockets")
    if type(sockets) is not list:
        return MessageType.APPLIED, None
    if sockets and all(type(id) is str for id in sockets):
        return MessageType.SOCKET_IDS_RESPONSE, sockets
    return MessageType.FETCH_SOCKETS_RESPONSE, read_details_untrusted(sockets)


def _read_question_untrusted(message: Message, request: Mapping[str, Any]) -> Message:
    return message._replace(request_id=require_request_id_untrusted(request))


def _read_socket_ids_untrusted(message: Message, request: Mapping[str, Any]) -> Message:
    target = read_target_untrusted({"rooms": request.get("rooms")})
    return message._replace(target=target, request_id=require_request_id_untrusted(request))


def _read_fetch_untrusted(message: Message, request: Mapping[str, Any]) -> Message:
    target = read_target_untrusted(request.get("opts"))
    return message._replace(target=target, request_id=require_request_id_untrusted(request))


def _read_change_untrusted(message: Message, request: Mapping[str, Any]) -> Message:
    content_key, one_socket_key = _FORMS[message.type]
    closes = message.type is MessageType.DISCONNECT_SOCKETS
    if request.get("opts") is not None:
        target = read_target_untrusted(request["opts"])
        content: Any = read_close_untrusted(request) if closes else read_rooms_untrusted(request.get(content_key))
        return message._replace(content=content, target=target, request_id=read_request_id_untrusted(request))
    target = Target(read_rooms_untrusted([request.get("sid")]), flags={ONE_SOCKET: True})
    content = read_close_untrusted(request) if closes else read_rooms_untrusted([request.get(one_socket_key)])
    return message._replace(content=content, target=target, request_id=require_request_id_untrusted(request))


def _read_server_side_emit_untrusted(message: Message, request: Mapping[str, Any]) -> Message:
    event = check_event_untrusted(request.get("data"))
    return message._replace(content=event, request_id=read_request_id_untrusted(request))


def _read_broadcast_with_ack_untrusted(message: Message, request: Mapping[str, Any]) -> Message:
    request_id = require_request_id_untrusted(request)
    return read_broadcast_untrusted(request.get("packet"), request.get("opts"), message.uid, None, request_id)


_READERS: dict[MessageType, Callable[[Message, Mapping[str, Any]], Message]] = {
    MessageType.SOCKET_IDS: _read_socket_ids_untrusted,
    MessageType.ALL_ROOMS: _read_question_untrusted,
    MessageType.SOCKETS_JOIN: _read_change_untrusted,
    MessageType.SOCKETS_LEAVE: _read_change_untrusted,
    MessageType.DISCONNECT_SOCKETS: _read_change_untrusted,
    MessageType.FETCH_SOCKETS: _read_fetch_untrusted,
    MessageType.SERVER_SIDE_EMIT: _read_server_side_emit_untrusted,
    MessageType.BROADCAST: _read_broadcast_with_ack_untrusted,
}
