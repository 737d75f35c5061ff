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
    """How much a client may send to each of its sockets, one in each namespace that it is in.

    A client that leaves a namespace and comes back in the same session finds what it has left of its limit, and not as
    much again. What is sent to no socket, each CONNECT before all, has a limit of its own, as if there were a socket
    more; so a session may send ``1 + max_namespaces`` times as much as a socket.

    Args:
        events: Events a second, acknowledgements not counted; None is no limit.
        bytes: Bytes a second, of all that the client sends to a socket, a packet counting when it is complete; None is
            no limit. Text counts in UTF-8.
        burst: Seconds. A client that was quiet may send as much at once as it may send in so many seconds: with
            ``events=10, burst=2.0`` that is 20 events. It is never less than one event and one byte.
        on_excess: What happens to a client that sends more. ``"delay"``: its session, which is read as a whole, is not
            read until it has made up for it, and TCP slows the client down; nothing is lost, and its silence meanwhile
            is no ping timeout. What has been read already is kept, so a batch may exceed the limit, and the pause is so
            much the longer. ``"disconnect"``: all its sockets are disconnected (``server namespace disconnect``, with a
            description that names the limit), the session is closed, and the log has a line at INFO. A packet of more
            than ``bytes * burst`` is too much by itself.
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
    """What was sent to one socket, against its limit."""

    __slots__ = ("_buckets",)

    def __init__(self, limit: RateLimit, now: float) -> None:
        rates = (("events", limit.events), ("bytes", limit.bytes))
        self._buckets = [(unit, TokenBucket(rate, limit.burst, now)) for unit, rate in rates if rate is not None]

    def on_packet(self, events: int, size: int, now: float) -> str | None:
        """A packet has come, of so many events (one or none) and bytes; if it is too much, which limit says so."""
        excess = None
        for unit, bucket in self._buckets:
            if not bucket.spend(events if unit == "events" else size, now) and excess is None:
                excess = f"more than {bucket.rate:g} {unit} a second (burst: {bucket.capacity:g})"
        return excess

    @property
    def ready_at(self) -> float:
        """When the next packet may be read."""
        return max(bucket.ready_at for _, bucket in self._buckets)


def byte_length(message: str | bytes) -> int:
    """The length of a message in bytes; text in UTF-8."""
    if isinstance(message, bytes) or message.isascii():  # the flag is in the string: no need to look at its text
        return len(message)
    return len(message.encode("utf-8", "surrogatepass"))
