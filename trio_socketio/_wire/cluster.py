"""What the servers of a cluster say to each other, whatever carries it.

One vocabulary for all buses: the names and numbers are those of Socket.IO's cluster adapters ("cluster adapter
protocol"); the older Redis protocol has numbers of its own, which its codec translates. A `Message` is a value; modules
beside this one turn it into the bytes of one protocol and back.

A message has a type, and what its content is goes by that:

==========================  =================================  ======================================
type                        `content`                          besides
==========================  =================================  ======================================
BROADCAST                   ``[event, *args]``                 `target`; `request_id` if acks are wanted
SOCKETS_JOIN, _LEAVE        a tuple of rooms                   `target`; `request_id` if APPLIED is wanted
DISCONNECT_SOCKETS          bool: whether sessions close       `target`
FETCH_SOCKETS               None                               `target`, `request_id`
FETCH_SOCKETS_RESPONSE      a list of mappings                 `request_id`
SERVER_SIDE_EMIT            ``[event, *args]``                 `request_id` if an answer is wanted
SERVER_SIDE_EMIT_RESPONSE   the answer                         `request_id`
BROADCAST_CLIENT_COUNT      int: so many will be asked         `request_id`
BROADCAST_ACK               one client's answer                `request_id`
ALL_ROOMS                   None                               `request_id`
ALL_ROOMS_RESPONSE          a list of rooms                    `request_id`
APPLIED                     None                               `request_id`
                            (or, for a BROADCAST: one of the
                            clients that were asked has left)
SOCKET_IDS                  None                               `target`, `request_id`
SOCKET_IDS_RESPONSE         a list of ids                      `request_id`
the heartbeats and CLOSE    None
==========================  =================================  ======================================
"""

from __future__ import annotations

import enum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping


class MessageType(enum.IntEnum):
    """What a message is about.

    From 101 on the numbers are our own: APPLIED's is on the wire, for servers like this one, and the others are for
    messages that only the older Redis protocol has, under other numbers.
    """

    INITIAL_HEARTBEAT = 1
    HEARTBEAT = 2
    BROADCAST = 3
    SOCKETS_JOIN = 4
    SOCKETS_LEAVE = 5
    DISCONNECT_SOCKETS = 6
    FETCH_SOCKETS = 7
    FETCH_SOCKETS_RESPONSE = 8
    SERVER_SIDE_EMIT = 9
    SERVER_SIDE_EMIT_RESPONSE = 10
    BROADCAST_CLIENT_COUNT = 11
    BROADCAST_ACK = 12
    ADAPTER_CLOSE = 13
    ALL_ROOMS = 101
    ALL_ROOMS_RESPONSE = 102
    APPLIED = 103
    SOCKET_IDS = 104
    SOCKET_IDS_RESPONSE = 105


#: What emitters, which are no members, call themselves.
EMITTER = "emitter"

NO_FLAGS: Mapping[str, Any] = MappingProxyType({})


class Target(NamedTuple):
    """Which sockets are meant.

    Attributes:
        rooms: The union of these; empty means everybody.
        except_rooms: Members of these are left out.
        flags: How it is sent, in the words of the wire: ``volatile``, ``compress``, ``timeout`` (milliseconds) ...
    """

    rooms: tuple[str, ...] = ()
    except_rooms: tuple[str, ...] = ()
    flags: Mapping[str, Any] = NO_FLAGS


class Message(NamedTuple):
    """One message.

    Attributes:
        type: What it is about.
        uid: Whose it is; None if it does not say (emitters, and the answers of the older Redis protocol).
        namespace: Which it is for.
        content: See the table above.
        target: Which sockets are meant, where it is about sockets.
        request_id: What an answer has to mention.
        ack_id: A broadcast that has this is an emit to one socket with an acknowledgement, which only its own server
            delivers; it is in a stream because everything is.
    """

    type: MessageType
    uid: str | None
    namespace: str
    content: Any = None
    target: Target | None = None
    request_id: str | None = None
    ack_id: int | None = None
