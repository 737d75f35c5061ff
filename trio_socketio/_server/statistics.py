"""Figures of a running server: frozen, cheap to make, and all zero when everybody has left."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SocketStatistics:
    """The figures of one socket.

    Args:
        rooms: Rooms it is in, its own among them.
        pending_acks: Acknowledgements of the client's that somebody waits for.
        queued_events: Events of the client's whose handlers have not started.
        tasks: Its handlers, and what it has started with ``start_soon``, at work.
        buffered_bytes: What waits to be sent on its session.
    """

    rooms: int
    pending_acks: int
    queued_events: int
    tasks: int
    buffered_bytes: int


@dataclass(frozen=True, slots=True)
class ServerStatistics:
    """The figures of a server.

    Args:
        sessions: Open Engine.IO sessions.
        connections: Sessions that Socket.IO knows of, those included whose ``disconnect`` handlers are at work.
        sockets: Connected sockets, in all namespaces.
        connecting: Sockets whose middlewares are at work.
        ending: Sockets whose ``disconnecting`` or ``disconnect`` handlers are at work.
        rooms: Rooms with somebody in them, in all namespaces; each socket is in one of its own.
        pending_acks: Acknowledgements of clients that somebody waits for.
        queued_events: Events of clients whose handlers have not started.
        tasks: Handlers, and what sockets have started with ``start_soon``, at work.
        buffered_bytes: What waits to be sent to clients.
        half_received_bytes: Attachments whose packets are not complete.
    """

    sessions: int = 0
    connections: int = 0
    sockets: int = 0
    connecting: int = 0
    ending: int = 0
    rooms: int = 0
    pending_acks: int = 0
    queued_events: int = 0
    tasks: int = 0
    buffered_bytes: int = 0
    half_received_bytes: int = 0
