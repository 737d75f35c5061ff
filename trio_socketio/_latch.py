"""An event that is small until somebody waits for it."""

from __future__ import annotations

import trio


class Latch:
    """Like `trio.Event`, for objects that exist per client: most are never waited for.

    Measured: 56 bytes instead of 280, and five of them for each idle client.
    """

    __slots__ = ("_event", "_is_set")

    def __init__(self) -> None:
        self._event: trio.Event | None = None
        self._is_set = False

    def set(self) -> None:
        """Let everyone go on who waits, or will."""
        self._is_set = True
        if self._event is not None:
            self._event.set()
            self._event = None

    def is_set(self) -> bool:
        """Whether it is."""
        return self._is_set

    async def wait(self) -> None:
        """Wait until it is set. Always a checkpoint."""
        if self._is_set:
            await trio.lowlevel.checkpoint()
            return
        if self._event is None:
            self._event = trio.Event()
        await self._event.wait()
