"""What the protocols between servers have in common: who is meant, what is sent, and the checks of both.

The reading functions are forgiving where senders in other languages are known to differ, and nowhere else: any of
``rooms``, ``except`` and ``flags`` may be missing, null or an empty array, and rooms may be numbers or a map.
"""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING, Any

from .._errors import EncodeError, RemoteProtocolError
from .cluster import EMITTER, NO_FLAGS, Message, MessageType, Target
from .json import key_text
from .packets import RESERVED_EVENTS, PacketType

if TYPE_CHECKING:
    from collections.abc import Mapping

EVERYBODY = Target()

_BROADCAST = MessageType.BROADCAST

_EVENT = int(PacketType.EVENT)
#: Old emitters say so of an event with bytes in it.
_BINARY_EVENT = int(PacketType.BINARY_EVENT)


def write_packet(message: Message, *, with_namespace: bool) -> dict[str, Any]:
    """The packet of a broadcast. Its keys are in the order of the reference's, as everything written here."""
    packet: dict[str, Any] = {"type": _EVENT, "data": message.content}
    if message.ack_id is not None:
        packet["id"] = message.ack_id
    if with_namespace:
        packet["nsp"] = message.namespace
    return packet


def write_target(message: Message) -> dict[str, Any]:
    """The ``opts`` of a broadcast; emitters have an order of their own."""
    target = message.target or EVERYBODY
    if message.uid == EMITTER and message.type is MessageType.BROADCAST:
        return {"rooms": target.rooms, "flags": dict(target.flags), "except": target.except_rooms}
    return {"rooms": target.rooms, "except": target.except_rooms, "flags": dict(target.flags)}


def read_broadcast_untrusted(
    packet: Any, options: Any, uid: str | None, namespace: str | None = None, request_id: str | None = None
) -> Message:
    """The message of a packet and its ``opts``.

    Args:
        packet: Has to be the packet of an event.
        options: Its ``opts``.
        uid: Whose it is.
        namespace: Which it is for; None if the packet says so.
        request_id: What the answers have to mention.

    Raises:
        RemoteProtocolError: It is not an event that clients would understand, or not said for whom.
    """
    if type(packet) is not dict or packet.get("type") not in (_EVENT, _BINARY_EVENT):
        raise RemoteProtocolError("a broadcast that is not an event")
    ack_id: Any = packet.get("id")
    if ack_id is not None and (type(ack_id) is not int or ack_id < 0):
        raise RemoteProtocolError("invalid ack id")
    if namespace is None:
        namespace = read_namespace_untrusted(packet, "/")
    event = check_event_untrusted(packet.get("data"))
    return Message(_BROADCAST, uid, namespace, event, read_target_untrusted(options), request_id, ack_id)


def check_event_untrusted(data: Any) -> list[Any]:
    """The name of an event and its arguments, if that is what it is.

    Raises:
        RemoteProtocolError: It is not; or the name is the protocol's own, which would make clients disconnect.
    """
    if type(data) is list and data:
        name: Any = data[0]
        kind: type = type(name)
        if name not in RESERVED_EVENTS if kind is str else kind is int or kind is float:
            return data
    raise RemoteProtocolError("invalid event")


def read_target_untrusted(options: Any) -> Target:
    """Who is meant.

    Raises:
        RemoteProtocolError: It is not said properly.
    """
    if type(options) is not dict:
        raise RemoteProtocolError("invalid opts")
    rooms: Any = options.get("rooms")
    excepted: Any = options.get("except")
    flags: Any = options.get("flags")
    return Target(
        read_rooms_untrusted(rooms) if rooms else (),
        read_rooms_untrusted(excepted) if excepted else (),
        _read_flags_untrusted(flags) if flags else NO_FLAGS,
    )


def read_rooms_untrusted(rooms: Any) -> tuple[str, ...]:
    """Names of rooms.

    Raises:
        RemoteProtocolError: They are none.
    """
    if type(rooms) is dict:  # an array of PHP with holes in it, or a set of a language that has none
        values = list(rooms.values())
        rooms = values if all(type(value) is str for value in values) else list(rooms)
    if type(rooms) is not list:
        raise RemoteProtocolError("invalid rooms")
    for room in rooms:
        if type(room) is not str:
            return tuple([_room_name_untrusted(room) for room in rooms])
    return tuple(rooms)


def _room_name_untrusted(room: Any) -> str:
    kind = type(room)
    if kind is not str and kind is not int and kind is not float:
        raise RemoteProtocolError("invalid room")
    try:
        return key_text(room)
    except EncodeError:
        raise RemoteProtocolError("invalid room") from None


def _read_flags_untrusted(flags: Any) -> Mapping[str, Any]:
    timeout: Any = flags.get("timeout") if type(flags) is dict else -1
    if timeout is None or ((type(timeout) is int or type(timeout) is float) and isfinite(timeout) and timeout >= 0):
        return flags  # type: ignore[no-any-return]
    raise RemoteProtocolError("invalid flags")


def read_namespace_untrusted(fields: Mapping[str, Any], default: str) -> str:
    """Which namespace something is for.

    Raises:
        RemoteProtocolError: It is said, but not as a text.
    """
    namespace: Any = fields.get("nsp", default)
    if type(namespace) is not str:
        raise RemoteProtocolError("invalid nsp")
    return namespace


def read_uid_untrusted(fields: Mapping[str, Any]) -> str | None:
    """Whose a message is, if it says so.

    Raises:
        RemoteProtocolError: It says something else.
    """
    return _text_or_nothing_untrusted(fields, "uid")


def read_request_id_untrusted(fields: Mapping[str, Any]) -> str | None:
    """What the answers to a message have to mention, if it wants any.

    Raises:
        RemoteProtocolError: It says something else.
    """
    return _text_or_nothing_untrusted(fields, "requestId")


def require_request_id_untrusted(fields: Mapping[str, Any]) -> str:
    """What a question's answers, or an answer, has to mention.

    Raises:
        RemoteProtocolError: It does not.
    """
    request_id = _text_or_nothing_untrusted(fields, "requestId")
    if request_id is None:
        raise RemoteProtocolError("no requestId")
    return request_id


def _text_or_nothing_untrusted(fields: Mapping[str, Any], name: str) -> str | None:
    value: Any = fields.get(name)
    if value is None or type(value) is str:
        return value
    raise RemoteProtocolError(f"invalid {name}")


def read_count_untrusted(fields: Mapping[str, Any]) -> int:
    """How many clients will be asked.

    Raises:
        RemoteProtocolError: That is not said.
    """
    count: Any = fields.get("clientCount")
    if type(count) is not int or count < 0:
        raise RemoteProtocolError("invalid clientCount")
    return count


def read_close_untrusted(fields: Mapping[str, Any]) -> bool:
    """Whether sessions are to be closed.

    Raises:
        RemoteProtocolError: That is not said properly.
    """
    close: Any = fields.get("close")
    if close is None or type(close) is bool:
        return close is True
    raise RemoteProtocolError("invalid close")


def read_details_untrusted(sockets: Any) -> list[dict[str, Any]]:
    """The details of sockets; of each only that it is a mapping, see the module ``cluster_sockets``.

    Raises:
        RemoteProtocolError: They are something else.
    """
    if type(sockets) is not list or not all(type(details) is dict for details in sockets):
        raise RemoteProtocolError("invalid sockets")
    return sockets
