"""Context managers that stay entered longer than the function that enters them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeVar

import trio

from .._errors import plain_exceptions

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

T = TypeVar("T")


class _Held(NamedTuple):
    leave: trio.Event
    left: trio.Event


class Holder:
    """Holds them, each in a task of its own, because a context with tasks inside has to be left where it was entered.

    Args:
        nursery: For these tasks.
    """

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._held: list[_Held] = []

    async def enter(self, context: AbstractAsyncContextManager[T]) -> T:
        """Enter a context.

        Returns:
            What it gives.

        Raises:
            Exception: What entering it raises. What leaving it raises, ends the nursery.
        """
        held = _Held(trio.Event(), trio.Event())
        with plain_exceptions():
            value: T = await self._nursery.start(self._hold, context, held)
        self._held.append(held)
        return value

    async def leave_all(self) -> None:
        """Leave the contexts, one after the other, the last one first."""
        await trio.lowlevel.checkpoint()
        while self._held:
            held = self._held.pop()
            held.leave.set()
            await held.left.wait()

    async def _hold(
        self, context: AbstractAsyncContextManager[T], held: _Held, *, task_status: trio.TaskStatus[T]
    ) -> None:
        try:
            async with context as value:
                task_status.started(value)
                await held.leave.wait()
        finally:
            held.left.set()
