"""Where a task waits that is woken again and again: 1.7 microseconds each time, instead of 3.6.

For each wait `trio.lowlevel.wait_task_rescheduled` makes an object that tells the scheduler of it, and
`trio.lowlevel.reschedule` one that tells the task what came of it. Neither says anything new the next time. So the
first is had from Trio once and handed over each time, and of the second there is one for everybody.
"""

from __future__ import annotations

import types
from typing import TYPE_CHECKING, Any

import outcome
import trio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

#: What came of a wait: nothing. Never unwrapped, which may be done only once.
_WOKEN = outcome.Value[object](None)


class Parking:
    """The place of one task, made by that task.

    Args:
        abort: As for `trio.lowlevel.wait_task_rescheduled`: called when the task is cancelled while it is parked.
    """

    __slots__ = ("_trap", "task")

    def __init__(self, abort: Callable[[object], trio.lowlevel.Abort]) -> None:
        self.task: trio.lowlevel.Task = trio.lowlevel.current_task()
        wait = trio.lowlevel.wait_task_rescheduled(abort)  # noqa: ASYNC105 - asked what it says, and not awaited
        self._trap: Any = wait.send(None)
        wait.close()

    def park(self) -> Awaitable[None]:
        """Wait until `wake` is called; a checkpoint, at which the task may be cancelled."""
        return _hand_over(self._trap)

    def wake(self) -> None:
        """Let the task go on. It must be parked, and is so no more."""
        trio.lowlevel.reschedule(self.task, _WOKEN)


@types.coroutine
def _hand_over(trap: Any) -> Generator[Any, outcome.Outcome[object], None]:
    result = yield trap
    if result is not _WOKEN:
        try:
            result.unwrap()  # raises that the task is cancelled
        finally:
            del result  # an exception that a local variable holds is a circle with its own traceback
