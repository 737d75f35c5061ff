"""How much a client may send: token buckets, computed without a clock of their own.

A bucket fills at its rate up to its capacity, and everything that is received costs tokens. What has been read cannot
be sent back, so it is always paid for, if need be with debts. Whoever stops at what is not covered lets no more than
``rate * seconds + capacity`` through in any span of time; so does whoever reads one event at a time, and the next one
at `TokenBucket.ready_at`.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import Literal

from .._engine.contract import require_positive


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimit:
    """How much one client may send: the sockets of a session, in all of its namespaces, together.

    Together, because a session is read as a whole, and because a client could else have as much again by connecting to
    a namespace once more.

    Args:
        events: Events a second, acknowledgements not counted; None is no limit.
        bytes: Bytes a second, of all that the client sends to its sockets; None is no limit. Text counts in UTF-8.
        burst: Seconds. A client that was quiet may send as much at once as it may send in so many seconds: with
            ``events=10, burst=2.0`` that is 20 events. It is never less than one event and one byte.
        on_excess: What happens to a client that sends more. ``"delay"``: its session is not read until it has made up
            for it, and TCP slows the client down; nothing is lost, and its silence meanwhile is no ping timeout. What
            has been read already is kept, so a batch may exceed the limit, and the pause is so much the longer.
            ``"disconnect"``: its sockets are disconnected (``server namespace disconnect``, with a description that
            names the limit), the session is closed, and the log has a line at INFO. A message of more than
            ``bytes * burst`` is too much by itself.
    """

    events: float | None = None
    bytes: float | None = None
    burst: float = 1.0
    on_excess: Literal["delay", "disconnect"] = "delay"

    def __post_init__(self) -> None:
        given = [name for name in ("events", "bytes") if getattr(self, name) is not None]
        if not given:
            raise ValueError("a RateLimit limits events, bytes, or both")
        require_positive(self, "burst", *given)
        if not all(isfinite(getattr(self, name)) for name in ("burst", *given)):
            raise ValueError("a RateLimit is finite: None is no limit")
        if self.on_excess not in ("delay", "disconnect"):
            raise ValueError(f"on_excess is 'delay' or 'disconnect', not {self.on_excess!r}")


class TokenBucket:
    """One limit.

    Args:
        rate: Tokens a second.
        burst: Seconds in which an empty bucket is full.
        now: The time, in seconds, at which it is full.
    """

    __slots__ = ("_at", "_tokens", "capacity", "rate")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self.rate = rate
        # With less than one token a bucket would never be ready again.
        self.capacity = max(rate * burst, 1.0)
        self._tokens = self.capacity
        self._at = now

    def spend(self, cost: float, now: float) -> bool:
        """Take tokens out, whether they are there or not; were they?"""
        self._tokens = min(self.capacity, self._tokens + (now - self._at) * self.rate) - cost
        self._at = now
        return self._tokens >= 0

    @property
    def ready_at(self) -> float:
        """When there is a token again; not later than now if there is one."""
        return self._at + max(0.0, 1.0 - self._tokens) / self.rate


class Meter:
    """What one client has sent, against its limit."""

    __slots__ = ("_bytes", "_events", "_limit")

    def __init__(self, limit: RateLimit, now: float) -> None:
        self._limit = limit
        self._events = None if limit.events is None else TokenBucket(limit.events, limit.burst, now)
        self._bytes = None if limit.bytes is None else TokenBucket(limit.bytes, limit.burst, now)

    def on_event(self, now: float) -> str | None:
        """An event has come; if it is too much, which limit says so."""
        if self._events is None or self._events.spend(1, now):
            return None
        return f"more than {self._limit.events:g} events a second (burst: {self._events.capacity:g})"

    def on_message(self, message: str | bytes, now: float) -> str | None:
        """A message has come; if it is too much, which limit says so."""
        if self._bytes is None or self._bytes.spend(byte_length(message), now):
            return None
        return f"more than {self._limit.bytes:g} bytes a second (burst: {self._bytes.capacity:g})"

    @property
    def ready_at(self) -> float:
        """When the next message may be read."""
        return max(bucket.ready_at for bucket in (self._events, self._bytes) if bucket is not None)


def byte_length(message: str | bytes) -> int:
    """The length of a message in bytes; text in UTF-8."""
    if isinstance(message, bytes) or message.isascii():  # the flag is in the string: no need to look at its text
        return len(message)
    return len(message.encode("utf-8", "surrogatepass"))
