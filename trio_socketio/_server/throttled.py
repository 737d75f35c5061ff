"""A connection whose client may only send so much. A class of its own, so that without a limit nothing is asked."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import trio

from .._wire.packets import PacketType
from .connection import Connection
from .rate import Meter, byte_length

if TYPE_CHECKING:
    from .._engine.session import Session
    from .._wire.packets import Packet
    from .rate import RateLimit
    from .server import Server

logger = logging.getLogger("trio_socketio.server")


class ThrottledConnection(Connection):
    """The sockets of one session, each under a limit.

    Args:
        server: The server.
        session: The session.
        limit: What its client may send to each.
    """

    __slots__ = ("_limit", "_meters", "_pausing", "_ready_at", "_size")

    def __init__(self, server: Server, session: Session, limit: RateLimit) -> None:
        super().__init__(server, session)
        self._limit = limit
        # By the names of namespaces, and so they outlive the sockets: else one that is left and joined again is a new
        # limit. None is for what has no socket.
        self._meters: dict[str | None, Meter] = {}
        self._size = 0  # of the messages of a packet that is not complete
        self._ready_at = 0.0
        self._pausing = False  # while a task waits for tokens

    @property
    def full(self) -> bool:
        return self._pausing or super().full

    def on_message(self, message: str | bytes) -> None:
        self._size += byte_length(message)
        super().on_message(message)

    def _on_packet(self, packet: Packet) -> None:
        size, self._size = self._size, 0
        now = trio.current_time()
        meter = self._meter(packet.namespace if packet.namespace in self._sockets else None, now)
        excess = meter.on_packet(packet.type is PacketType.EVENT, size, now)
        if excess is not None and self._limit.on_excess == "disconnect":
            logger.info("%s sends too much and is disconnected: %s", self.session, excess)
            self.disconnect(f"rate limit: {excess}")
            return
        super()._on_packet(packet)
        self._ready_at = max(self._ready_at, meter.ready_at)
        if self._limit.on_excess == "delay" and self._ready_at > now and not self._pausing:
            self._pausing = True
            self.session.spawn(self._pause)

    def _meter(self, name: str | None, now: float) -> Meter:
        meter = self._meters.get(name)
        if meter is None:
            if len(self._meters) > self.config.max_namespaces:
                # Where clients make the names, there is no end of them, and another name is a new limit anyhow.
                kept = {None, *self._sockets}
                self._meters = {name: meter for name, meter in self._meters.items() if name in kept}
            meter = self._meters[name] = Meter(self._limit, now)
        return meter

    async def _pause(self) -> None:
        # Again, because what had been read already when the pause began, and was delivered since, has to be paid too.
        while self._ready_at > trio.current_time():  # noqa: ASYNC110 - until a time, not an event
            await trio.sleep_until(self._ready_at)
        self._pausing = False
        if not self.full:
            self.session.resume_reading()
