"""A connection whose client may only send so much. A class of its own, so that without a limit nothing is asked."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import trio

from .._wire.packets import PacketType
from .connection import Connection
from .rate import Meter

if TYPE_CHECKING:
    from .._engine.session import Session
    from .._wire.packets import Packet
    from .rate import RateLimit
    from .server import Server

logger = logging.getLogger("trio_socketio.server")


class ThrottledConnection(Connection):
    """The sockets of one session, under a limit.

    Args:
        server: The server.
        session: The session.
        limit: What its client may send.
    """

    __slots__ = ("_disconnects", "_meter", "_pausing")

    def __init__(self, server: Server, session: Session, limit: RateLimit) -> None:
        super().__init__(server, session)
        self._disconnects = limit.on_excess == "disconnect"
        self._meter = Meter(limit, trio.current_time())
        self._pausing = False  # while a task waits for tokens

    @property
    def full(self) -> bool:
        return self._pausing or super().full

    def on_message(self, message: str | bytes) -> None:
        if self._allows(self._meter.on_message(message, trio.current_time())):
            super().on_message(message)
        if not self._disconnects and not self._pausing and self._meter.ready_at > trio.current_time():
            self._pausing = True
            self.session.spawn(self._pause)

    def _on_packet(self, packet: Packet) -> None:
        excess = self._meter.on_event(trio.current_time()) if packet.type is PacketType.EVENT else None
        if self._allows(excess):
            super()._on_packet(packet)

    def _allows(self, excess: str | None) -> bool:
        """Whether something is to be delivered; if not, the client is on its way out."""
        if excess is None or not self._disconnects:
            return True
        logger.info("%s sends too much and is disconnected: %s", self.session, excess)
        self.disconnect(f"rate limit: {excess}")
        return False

    async def _pause(self) -> None:
        # Again, because what had been read already when the pause began, and was delivered since, has to be paid too.
        while (ready_at := self._meter.ready_at) > trio.current_time():  # noqa: ASYNC110 - until a time, not an event
            await trio.sleep_until(ready_at)
        self._pausing = False
        if not self.full:
            self.session.resume_reading()
