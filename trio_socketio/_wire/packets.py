"""Socket.IO packets, as values (Socket.IO protocol, "packet types")."""

from __future__ import annotations

import enum
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from .._errors import ReservedEventError

if TYPE_CHECKING:
    from collections.abc import Callable


class PacketType(enum.IntEnum):
    """What a packet is. Only a parser needs the two binary types: outside it, events and acks may contain bytes."""

    CONNECT = 0
    DISCONNECT = 1
    EVENT = 2
    ACK = 3
    CONNECT_ERROR = 4
    BINARY_EVENT = 5
    BINARY_ACK = 6


class Packet(NamedTuple):
    """One Socket.IO packet.

    Attributes:
        type: The `PacketType`.
        namespace: With its leading slash.
        data: EVENT: a list, the event's name and its arguments. ACK: the list of arguments. CONNECT: a dict or None.
            CONNECT_ERROR: a dict or a str. DISCONNECT: None.
        id: EVENT: the id under which an ack is expected, or None. ACK: the id of what it answers.
    """

    type: PacketType
    namespace: str = "/"
    data: Any = None
    id: int | None = None


#: A `Packet` of the tuple of all its values: 0.18 microseconds instead of 0.49.
make_packet: Callable[[tuple[PacketType, str, Any, int | None]], Packet] = partial(tuple.__new__, Packet)

#: Names that both sides' event emitters use for themselves; on the wire they would forge the life cycle of a socket.
RESERVED_EVENTS = frozenset(
    {"connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"}
)

#: The listeners of a namespace hear of its life under these names, so no server may emit them to another.
RESERVED_SERVER_EVENTS = frozenset({"connect", "connection", "new_namespace"})


def check_event_name(name: object) -> None:
    """Check the name of an event that an application wants to emit.

    Raises:
        ReservedEventError: The name is one of the protocol's own.
        TypeError: It is neither a str nor an int (a bool is not a name).
    """
    if isinstance(name, str):
        if name in RESERVED_EVENTS:
            raise ReservedEventError(name)
    elif isinstance(name, bool) or not isinstance(name, int):
        raise TypeError(f"an event's name is a str or an int, not {type(name).__name__}")
