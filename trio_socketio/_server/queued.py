"""Events that wait for their handlers, and how many of them there are. What becomes of them is in `events`."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .._listeners import Listener


class Ack(Protocol):
    """How the client gets its answer to an event."""

    def expect(self, handlers: int) -> None:
        """So many handlers are called for the event."""

    def answer(self, value: Any) -> None:
        """What a handler returned."""


class Event:
    """An event that came; with `listener`, one call that it leads to.

    Not a value, because nearly every event leads to one call: then that is the same object.
    """

    __slots__ = ("ack", "args", "listener", "name", "opening", "told")

    def __init__(
        self,
        name: str | int,
        args: Sequence[Any],
        ack: Ack | None = None,
        listener: Listener | None = None,
        opening: bool = False,
        told: bool = False,
    ) -> None:
        self.name: str | int = name
        self.args: Sequence[Any] = args
        self.ack: Ack | None = ack
        self.listener: Listener | None = listener
        self.opening: bool = opening  # a ``connection`` handler of the namespace, not an event of the client's
        self.told: bool = told  # the catch-all listeners have had it


class Backlog:
    """How many events wait, in all the queues that share it.

    Args:
        limit: So many are too many.
        on_room: Called when they are not too many any more.
    """

    # Plain attributes that the queues change, and no method: two calls less for each event.
    __slots__ = ("count", "limit", "on_room")

    def __init__(self, limit: float, on_room: Callable[[], None]) -> None:
        self.count: int = 0
        self.limit: float = limit
        self.on_room: Callable[[], None] = on_room

    @property
    def full(self) -> bool:
        """Whether too many wait."""
        return self.count >= self.limit

    def remove(self, count: int) -> None:
        """So many have been taken, or dropped."""
        was_full = self.full
        self.count -= count
        if was_full and not self.full:
            self.on_room()


#: Of what is never too much.
NO_BACKLOG = Backlog(inf, lambda: None)
