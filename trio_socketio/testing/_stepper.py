"""Trio, step by step, from synchronous code.

`TrioStepper` is a run of Trio in which the caller's code is the host loop of a *guest run* (see Trio's documentation of
`trio.lowlevel.start_guest_run`) in the same thread. A step hands a coroutine function to the main task of the run and
turns the loop until that has returned and all other tasks wait for something. Then the loop stands still, tasks and
all, until the next step. So tasks live across steps, and nothing happens between them.

Time is virtual and belongs to the steps. While a step's own function waits, the clock jumps to the next deadline
whenever all tasks are blocked; as soon as it has returned, nobody's sleep ends any more. With other processes to talk
to, which know nothing of virtual time, it may be real instead.

::

    RESTING ──── run() ────▶ STEPPING ──── the function has returned, all tasks are blocked ────▶ RESTING
       └── close() ──▶ OVER ◀── a background task has failed ── STEPPING
"""

from __future__ import annotations

import enum
import queue
from typing import TYPE_CHECKING, Any, TypeVar, TypeVarTuple

import trio
import trio.testing
from trio.testing import MockClock

from .._errors import plain_exceptions
from ._holder import Holder

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractAsyncContextManager
    from typing import Self

    from outcome import Outcome

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class _State(enum.Enum):
    RESTING = "resting"
    STEPPING = "stepping"
    OVER = "over"


class TrioStepper:
    """A run of Trio, on a virtual clock, that synchronous code drives in steps; a context manager.

    ::

        with TrioStepper() as stepper:
            stepper.nursery.start_soon(background)
            assert stepper.run(fetch, "a") == 1

    Background tasks belong to `nursery`. If one of them fails, all are cancelled, the step in which it happened raises
    its exception, and the stepper is over.

    There is one run of Trio in a thread: steps cannot be made from async code, nor by two steppers in turn.

    Args:
        cushion: Real seconds for which all tasks must have been blocked before that counts. 0 is right, and fast, if
            all that they wait for is in memory; for sockets and threads, some milliseconds.
        step_limit: Seconds, of virtual time as a rule, that a step may take.
        real_time: Whether time is that of the world outside, for what waits for other processes: whether they are slow
            or will never answer cannot be seen from the tasks.
    """

    def __init__(self, *, cushion: float = 0.0, step_limit: float = 3600.0, real_time: bool = False) -> None:
        self._clock = None if real_time else MockClock(autojump_threshold=cushion)
        self._cushion = cushion
        self._step_limit = step_limit
        self._state = _State.OVER
        # Not a deque: with a cushion, Trio waits in a thread, which says here that it has waited.
        self._callbacks: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self._nursery: trio.Nursery | None = None
        self._holder: Holder | None = None
        self._main_task: trio.lowlevel.Task | None = None
        self._step: Callable[[], Awaitable[Any]] | None = None
        self._value: Any = None
        self._error: BaseException | None = None
        self._outcome: Outcome[None] | None = None

    @property
    def clock(self) -> MockClock:
        """The clock of the run; ``clock.jump(seconds)`` between two steps lets time pass at the next.

        Raises:
            RuntimeError: Time is real.
        """
        if self._clock is None:
            raise RuntimeError("nobody moves real time")
        return self._clock

    @property
    def nursery(self) -> trio.Nursery:
        """For background tasks, which live until the stepper is closed.

        What is started here between two steps starts at the next one.

        Raises:
            RuntimeError: The stepper is over.
        """
        if self._nursery is None or self._state is _State.OVER:
            raise RuntimeError("the stepper is over")
        return self._nursery

    @property
    def is_over(self) -> bool:
        """Whether no steps can be made: closed, ended by a background task that failed, or not entered yet."""
        return self._state is _State.OVER

    @property
    def in_step(self) -> bool:
        """Whether a step is being made just now."""
        return self._state is _State.STEPPING

    def __enter__(self) -> Self:
        """Begin the run.

        Raises:
            RuntimeError: It was entered before, or this thread runs Trio already.
        """
        if self._nursery is not None:
            raise RuntimeError("a stepper is entered once")
        trio.lowlevel.start_guest_run(
            self._run_steps,
            run_sync_soon_threadsafe=self._callbacks.put,
            done_callback=self._finish,
            clock=self._clock,
        )
        self._state = _State.STEPPING
        self._turn()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(self, async_fn: Callable[[*Ts], Awaitable[T]], *args: *Ts) -> T:
        """Make a step: call an async function, and return when it has, and all tasks wait for something.

        All steps run in the same task. Cancel scopes, nurseries, and whatever is made of them have to be left in the
        step in which they were entered; `enter` is for those that are to stay.

        Args:
            async_fn: The function.
            args: Its arguments.

        Returns:
            What it returns.

        Raises:
            Exception: What it raises; the stepper goes on. Or what a background task has raised: then it is over.
            trio.TooSlowError: It was still waiting at the limit of time for a step. It has been cancelled.
            RuntimeError: The stepper is over, or this is called from inside a step.
        """
        if self._state is not _State.RESTING:
            raise RuntimeError(f"the stepper is {self._state.value}")

        async def step() -> T:
            return await async_fn(*args)

        self._value, self._error = None, None
        self._advance(step)
        error, self._error = self._error, None
        if error is not None:
            raise error
        value: T = self._value
        return value

    async def enter(self, context: AbstractAsyncContextManager[T]) -> T:
        """Enter an async context manager that stays entered until the stepper is closed; to be awaited in a step.

        ::

            client = stepper.run(stepper.enter, open_client(io))

        Returns:
            What it gives.

        Raises:
            Exception: What entering it raises.
        """
        if self._holder is None:
            self._holder = Holder(self.nursery)
        return await self._holder.enter(context)

    def close(self) -> None:
        """End the run: contexts are left, the last one first; then background tasks are cancelled.

        Does nothing if it is over.

        Raises:
            Exception: What leaving a context raises, or a background task at its end.
            trio.TooSlowError: Leaving the contexts has taken longer than a step may.
        """
        if self._state is not _State.RESTING:
            return
        try:
            if self._holder is not None:
                self.run(self._holder.leave_all)
        finally:
            self._advance(None)

    # The host's side

    def _advance(self, step: Callable[[], Awaitable[Any]] | None) -> None:
        if self._state is _State.RESTING and self._main_task is not None:
            self._step, self._state = step, _State.STEPPING
            trio.lowlevel.reschedule(self._main_task)
            self._turn()

    def _turn(self) -> None:
        """Turn the loop until the step is over."""
        while self._state is _State.STEPPING:
            self._callbacks.get()()
        outcome = self._outcome
        if outcome is not None:
            self._outcome = None
            with plain_exceptions():
                outcome.unwrap()

    def _finish(self, outcome: Outcome[None]) -> None:
        self._outcome, self._state = outcome, _State.OVER

    # Trio's side

    async def _run_steps(self) -> None:
        """The main task. A background task that fails cancels it, whatever it is doing."""
        self._main_task = trio.lowlevel.current_task()
        async with trio.open_nursery() as self._nursery:
            while (step := await self._next_step()) is not None:
                await self._make(step)
            self._nursery.cancel_scope.cancel()

    async def _next_step(self) -> Callable[[], Awaitable[Any]] | None:
        self._state = _State.RESTING
        await trio.lowlevel.wait_task_rescheduled(lambda _: trio.lowlevel.Abort.SUCCEEDED)
        return self._step

    async def _make(self, step: Callable[[], Awaitable[Any]]) -> None:
        try:
            with trio.CancelScope(deadline=trio.current_time() + self._step_limit) as scope:
                self._value = await step()
            if scope.cancelled_caught:
                kind = "real" if self._clock is None else "virtual"
                raise trio.TooSlowError(f"the step was still waiting after {self._step_limit:g} seconds of {kind} time")
        except trio.Cancelled:
            raise
        except BaseException as error:
            self._error = error
            if not isinstance(error, Exception):
                return  # an interrupt, or a sign of the property tester to itself, is not to be held up
        await trio.testing.wait_all_tasks_blocked(self._cushion)
