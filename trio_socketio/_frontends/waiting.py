"""To notice that a coroutine waits, and do something about it only then."""

from __future__ import annotations

import types
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator

T = TypeVar("T")


@types.coroutine
def noticing_wait(coroutine: Coroutine[Any, Any, T], on_wait: Callable[[], None]) -> Generator[Any, Any, T]:
    """Await a coroutine.

    What a listener needs while a request waits (a task that sees the client go) would cost a quarter of the requests
    that need not wait at all, and nothing but the coroutine itself knows which it is.

    Args:
        coroutine: What to await; in this task, and in its cancel scopes.
        on_wait: Called when it waits for the first time, before the task does. Synchronous.

    Returns:
        What the coroutine does.
    """
    try:
        trap = coroutine.send(None)
        on_wait()
        while True:
            outcome = failure = None
            try:
                # A coroutine gives its scheduler what to wait for, and gets back what came of it: PEP 492, "await".
                outcome = yield trap
            except BaseException as error:  # noqa: ASYNC103 - the coroutine gets it
                failure = error
            try:
                trap = coroutine.send(outcome) if failure is None else coroutine.throw(failure)
            finally:
                outcome = failure = None  # an exception that a local variable holds is a circle with its own traceback
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
