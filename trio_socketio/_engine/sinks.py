"""Where a session's messages go: to Socket.IO, or to whoever receives from the session."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Protocol

import trio

if TYPE_CHECKING:
    from .session import Session


class Sink(Protocol):
    """Where a session delivers. All but `aftermath` is synchronous."""

    @property
    def full(self) -> bool:
        """True when the session should stop reading; then call `Session.resume_reading` as soon as it is not."""

    def on_open(self) -> None:
        """The session's nursery is open; nothing has arrived yet."""

    def on_greeted(self) -> None:
        """The client is told that the session is open, and what is sent from now on comes after that."""

    def on_message(self, message: str | bytes) -> None:
        """One message from the client; never raises for what a client may send."""

    def on_heartbeat(self) -> None:
        """The client has given a sign of life."""

    def on_expiry(self) -> None:
        """The time of `Session.expire_in` is over."""

    def on_close(self, reason: str, description: str | None) -> None:
        """The session has closed, just now; its tasks are about to be cancelled."""

    async def aftermath(self) -> None:
        """What is to be done when all tasks of the session are over. A sink that waits here shields itself."""


class Inbox:
    """The sink of an engine that is used on its own: messages wait for `Session.receive`."""

    __slots__ = ("_limit", "_messages", "_waiting")

    def __init__(self, limit: int) -> None:
        self._messages: deque[str | bytes] = deque()
        self._waiting = trio.lowlevel.ParkingLot()
        self._limit = limit

    @property
    def full(self) -> bool:
        return len(self._messages) >= self._limit

    def on_open(self) -> None:
        pass

    def on_greeted(self) -> None:
        pass

    def on_message(self, message: str | bytes) -> None:
        self._messages.append(message)
        self._waiting.unpark()

    def on_heartbeat(self) -> None:
        pass

    def on_expiry(self) -> None:
        pass

    def on_close(self, reason: str, description: str | None) -> None:
        self._waiting.unpark_all()

    async def aftermath(self) -> None:
        pass

    async def get(self, session: Session) -> str | bytes:
        await trio.lowlevel.checkpoint()
        while not self._messages:
            if not session.phase.open:
                raise trio.EndOfChannel
            await self._waiting.park()
        message = self._messages.popleft()
        if not self.full:
            session.resume_reading()
        return message


#: The sink of a session that is over, where its own would be a reference back.
NOWHERE = Inbox(1)
