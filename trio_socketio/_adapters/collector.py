"""Clients of ours that another server has asked something."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import trio

from .._wire.cluster import MessageType

if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping

    from .contract import PendingAck


class Collector:
    """Clients of ours that another server has asked: what they answer is passed on as it comes.

    Args:
        collecting: Where it is to be found while somebody may still answer.
        answer: Passes on a message of a type, with its content.
    """

    __slots__ = ("_answer", "_collecting", "_scope", "_tables", "waiting")

    def __init__(self, collecting: set[Collector], answer: Callable[[MessageType, Any], None]) -> None:
        self._collecting = collecting
        self._answer = answer
        self._scope = trio.CancelScope()
        self._tables: list[tuple[MutableMapping[int, PendingAck], int]] = []
        #: How many clients have neither answered nor left.
        self.waiting = 0

    def register(self, table: MutableMapping[int, PendingAck], id: int) -> None:
        self.waiting += 1
        table[id] = self
        self._tables.append((table, id))

    def all_asked(self) -> None:
        self._answer(MessageType.BROADCAST_CLIENT_COUNT, self.waiting)
        if self.waiting:
            self._collecting.add(self)

    def on_answer(self, answer: Any) -> None:
        try:
            self._answer(MessageType.BROADCAST_ACK, answer)
        finally:
            self._one_less()

    def on_leave(self) -> None:
        # Servers of Node.js do not know this message, and wait for their timeout; they ignore it.
        self._answer(MessageType.APPLIED, None)
        self._one_less()

    def _one_less(self) -> None:
        self.waiting -= 1
        if not self.waiting:
            self._collecting.discard(self)
            self._scope.cancel()

    async def expire(self, seconds: float) -> None:
        """Give up on those who have not answered until then."""
        with self._scope:
            await trio.sleep(seconds)
        for table, id in self._tables:
            if table.get(id) is self:
                del table[id]
        self._collecting.discard(self)
