"""The clock of a session: when to ping, how long its client may be silent, and how long a goodbye may take.

Engine.IO protocol, "heartbeat": the server pings, and the client answers; in revision 3 it is the other way round. One
alarm is set for the first of the deadlines; moving them back wakes nobody. What is to be done, the session decides, and
does it at once: none of it waits, and to wake a task for each would be a fifth of what a heartbeat costs.
"""

from __future__ import annotations

import enum
from math import inf
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Callable

    from .alarms import Alarms


class Due(enum.Enum):
    """What it is time for."""

    PING = "a ping; from now on its answer is waited for"
    SILENCE = "nothing was heard of the client for too long"
    CLOSE = "the client has not collected the goodbye"
    EXPIRY = "what the sink expects has not come"


class Heartbeat:
    """The deadlines of one session.

    Args:
        interval: Seconds between a sign of life and the next ping.
        timeout: Seconds that a ping may stay unanswered.
        client_pings: The client sends the pings, and has both times for the next.
        alarms: Who tells it the time.
        on_due: Told what it is time for: once, but SILENCE again each time that the client has had all its time anew.
    """

    __slots__ = (
        "_alarm_at", "_alarms", "_client_pings", "_close_at", "_expires_at", "_interval", "_on_due", "_patience",
        "_ping_at", "_pong_by",
    )  # fmt: skip

    def __init__(
        self, interval: float, timeout: float, *, client_pings: bool, alarms: Alarms, on_due: Callable[[Due], None]
    ) -> None:
        self._alarms = alarms
        self._alarm_at = inf
        self._on_due = on_due
        self._client_pings = client_pings
        self._interval = interval
        self._patience = interval + timeout if client_pings else timeout
        self._ping_at = self._pong_by = self._close_at = self._expires_at = inf

    def beat(self) -> None:
        """A sign of life, or the beginning: all times begin anew."""
        now = trio.current_time()
        self._ping_at = inf if self._client_pings else now + self._interval
        self._pong_by = now + self._patience if self._client_pings else inf
        self._set_alarm()

    def be_patient(self) -> None:
        """Give a client whose sign of life is due all of its time again; one that owes nothing has it anyway."""
        if self._pong_by != inf:
            self._pong_by = trio.current_time() + self._patience
            self._set_alarm()

    def close_in(self, seconds: float) -> None:
        """Let a goodbye take so long."""
        self._close_at = trio.current_time() + seconds
        self._set_alarm()

    def expire_in(self, seconds: float) -> None:
        """Say so when this much time has passed; infinity takes it back."""
        self._expires_at = trio.current_time() + seconds
        self._set_alarm()

    def stop(self) -> None:
        """The session is over: nothing is due any more. To be called once."""
        self._on_due = _nobody  # without this circle, what a client leaves behind is freed at once
        self._alarm_at = -inf  # for good: nothing is earlier
        self._alarms.leave()

    def expects(self, time: float) -> bool:
        """Whether it is the alarm that was set last."""
        return time == self._alarm_at

    def ring(self, time: float) -> None:
        """Told by the alarms: it may be time for something."""
        if not self.expects(time):
            return  # an earlier one has been set since
        self._alarm_at = inf
        now = trio.current_time()
        if now >= self._close_at:
            self._close_at = inf
            self._on_due(Due.CLOSE)
        elif now >= self._pong_by:
            self._pong_by = now + self._patience
            self._on_due(Due.SILENCE)
        elif now >= self._expires_at:
            self._expires_at = inf
            self._on_due(Due.EXPIRY)
        elif now >= self._ping_at:
            self._ping_at, self._pong_by = inf, now + self._patience
            self._on_due(Due.PING)
        self._set_alarm()

    def _first_deadline(self) -> float:
        return min(self._ping_at, self._pong_by, self._close_at, self._expires_at)

    def _set_alarm(self) -> None:
        deadline = self._first_deadline()
        if deadline < self._alarm_at:
            self._alarm_at = deadline
            self._alarms.set(deadline, self)


def _nobody(due: Due) -> None:
    """There is nothing to be done any more."""
