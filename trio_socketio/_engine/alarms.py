"""One timer for the deadlines of all sessions.

A cancel scope for each would do the same, and take a KiB of each idle client. Moving a deadline back costs nothing
here: what was set earlier stays set, and whoever it wakes looks again.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from itertools import count
from math import inf
from typing import TYPE_CHECKING, Protocol

import trio

if TYPE_CHECKING:
    from collections.abc import Iterator

#: So many entries of those who have gone may stay before they are removed; they go by themselves in their time.
LEFTOVERS = 1000


class Sleeper(Protocol):
    """Who is woken."""

    def expects(self, time: float) -> bool:
        """Whether the alarm that was set for this time is still wanted."""

    def ring(self, time: float) -> None:
        """It is the time that was set. Called once for each; never raises."""


class Alarms:
    """Who is to be woken when, and the task that does it."""

    __slots__ = ("_entries", "_gone", "_order", "_scope")

    def __init__(self) -> None:
        self._entries: list[tuple[float, int, Sleeper]] = []
        self._order: Iterator[int] = count()  # sleepers have none of their own
        self._gone = 0
        self._scope: trio.CancelScope | None = None

    def set(self, time: float, sleeper: Sleeper) -> None:
        """Wake someone at a time of the clock; one in the past is now."""
        heappush(self._entries, (time, next(self._order), sleeper))
        if self._scope is not None and time < self._scope.deadline:
            self._scope.deadline = time

    def leave(self) -> None:
        """Told by a sleeper that goes before its time; its entry may stay."""
        self._gone += 1
        if self._gone > LEFTOVERS and self._gone * 2 > len(self._entries):
            self._entries = [entry for entry in self._entries if entry[2].expects(entry[0])]
            heapify(self._entries)
            self._gone = 0

    async def run(self) -> None:
        """Wake them until cancelled."""
        while True:
            with trio.CancelScope() as self._scope:
                self._scope.deadline = self._entries[0][0] if self._entries else inf
                await trio.sleep_forever()
            now = trio.current_time()
            while self._entries and self._entries[0][0] <= now:
                time, _, sleeper = heappop(self._entries)
                sleeper.ring(time)
