"""The life of an Engine.IO session: one enum, one table (Engine.IO protocol, "transport upgrading" and "heartbeat").

A session is born on polling or on a WebSocket. On polling it may be probed by a WebSocket and then upgrade to it. Our
side closes gracefully: the session is *closing* until the peer has collected what was queued for it, and takes nothing
more in either direction. Everything else that ends a session ends it at once.

``docs/architecture.rst`` shows this table as a diagram.
"""

from __future__ import annotations

import enum

from .._errors import LocalProtocolError


class Phase(enum.Enum):
    """Where a session is in its life. The members carry what the hot paths ask."""

    POLLING = ("polling", True)
    PROBING = ("polling", True, "probed by a WebSocket")  # polling still carries the traffic
    WEBSOCKET = ("websocket", True)
    CLOSING_POLLING = ("polling", False)
    CLOSING_PROBING = ("polling", False, "probed by a WebSocket")
    CLOSING_WEBSOCKET = ("websocket", False)
    CLOSED = (None, False)

    transport: str | None
    open: bool

    def __init__(self, transport: str | None, is_open: bool, note: str = "") -> None:
        #: The transport that carries the traffic.
        self.transport = transport
        #: Whether messages may be queued, and are taken from the peer.
        self.open = is_open


class Change(enum.Enum):
    """What can happen to a session."""

    PROBE = "a WebSocket opens for this session"
    PROBE_FAILED = "the probing WebSocket closed, or took too long"
    UPGRADE = "the client switches to the WebSocket it probed"
    CLOSE = "our side closes gracefully, with something still to be collected"
    END = "the session is over"


TRANSITIONS = {
    (Phase.POLLING, Change.PROBE): Phase.PROBING,
    (Phase.POLLING, Change.CLOSE): Phase.CLOSING_POLLING,
    (Phase.POLLING, Change.END): Phase.CLOSED,
    (Phase.PROBING, Change.PROBE_FAILED): Phase.POLLING,
    (Phase.PROBING, Change.UPGRADE): Phase.WEBSOCKET,
    (Phase.PROBING, Change.CLOSE): Phase.CLOSING_PROBING,
    (Phase.PROBING, Change.END): Phase.CLOSED,
    (Phase.WEBSOCKET, Change.CLOSE): Phase.CLOSING_WEBSOCKET,
    (Phase.WEBSOCKET, Change.END): Phase.CLOSED,
    (Phase.CLOSING_POLLING, Change.END): Phase.CLOSED,
    (Phase.CLOSING_PROBING, Change.PROBE_FAILED): Phase.CLOSING_POLLING,
    (Phase.CLOSING_PROBING, Change.UPGRADE): Phase.CLOSING_WEBSOCKET,
    (Phase.CLOSING_PROBING, Change.END): Phase.CLOSED,
    (Phase.CLOSING_WEBSOCKET, Change.END): Phase.CLOSED,
}


def next_phase(phase: Phase, change: Change) -> Phase:
    """The phase after a change.

    Raises:
        LocalProtocolError: The change makes no sense in this phase.
    """
    try:
        return TRANSITIONS[phase, change]
    except KeyError:
        raise LocalProtocolError(f"{change.value}: impossible while {phase.name}") from None
