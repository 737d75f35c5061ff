"""State machines of Hypothesis whose rules are async.

Hypothesis calls a rule and looks at what it returns, so a rule has to be synchronous by the time it is called. What the
decorators have noted is kept in objects with a ``function``: there, an async function is replaced by one that makes a
step of it. The printed history, bundles, notes and shrinking are then what they always are. The history is a program
that calls the methods themselves, so these make a step as well, if they are called from outside of one.
"""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, cast

import trio

from ._stepper import TrioStepper

try:
    import hypothesis
    from hypothesis import stateful
except ImportError as _error:
    raise ImportError("TrioStateMachine needs Hypothesis: pip install trio-socketio[testing]") from _error

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from contextlib import AbstractAsyncContextManager

T = TypeVar("T")
F = TypeVar("F", bound="Callable[..., Any]")

#: What Hypothesis calls its notes of rules; invariants are looked at only.
_RULES = ("hypothesis_stateful_rule", "hypothesis_stateful_initialize_rule")


class TrioStateMachine(stateful.RuleBasedStateMachine):
    """A ``hypothesis.stateful.RuleBasedStateMachine`` that runs on Trio, on a virtual clock.

    ::

        class Chat(TrioStateMachine):
            @initialize()
            async def start(self):
                self.io = make_server()
                await self.enter(self.io.running())
                self.client = await self.enter(open_client(self.io))

            @rule(text=st.text())
            async def say(self, text):
                assert await self.client.emit_with_ack("chat", text) == "delivered"

        TestChat = Chat.TestCase

    Methods that are decorated with ``rule``, ``initialize`` or ``invariant`` may be async, and so may `teardown`. Each
    is a step of a `TrioStepper`: when it is over, all tasks wait for something, and time stands still until a step asks
    for it (``await trio.sleep(10)``). Background tasks belong to `nursery` and live across steps; if one fails, the
    step in which it did raises its exception.

    Attributes:
        cushion: See `TrioStepper`; for a class to assign.
        step_limit: Likewise.
        real_time: Likewise.
    """

    cushion: ClassVar[float] = 0.0
    step_limit: ClassVar[float] = 3600.0
    real_time: ClassVar[bool] = False

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for name in dir(cls):
            _make_steps_of(cls, name)

    def __init__(self) -> None:
        super().__init__()
        self._stepper: TrioStepper | None = None
        self._has_failed = False
        # It is the instance's that Hypothesis calls, so the class's own may be async.
        vars(self)["teardown"] = self._end

    @property
    def stepper(self) -> TrioStepper:
        """What makes the steps; begins with the first use of it."""
        # Not in __init__: should that of a subclass fail, nobody would end the run.
        if self._stepper is None:
            self._stepper = TrioStepper(
                cushion=self.cushion, step_limit=self.step_limit, real_time=self.real_time
            ).__enter__()
        return self._stepper

    @property
    def has_failed(self) -> bool:
        """Whether a step has raised something, so that a `teardown` that looks for what is left had better not: what it
        raises would be shown instead."""
        return self._has_failed

    @property
    def nursery(self) -> trio.Nursery:
        """For background tasks, which live until the machine's end."""
        return self.stepper.nursery

    async def enter(self, context: AbstractAsyncContextManager[T]) -> T:
        """Enter an async context manager that stays entered until the machine's end.

        Returns:
            What it gives.
        """
        return await self.stepper.enter(context)

    def teardown(self) -> Awaitable[None] | None:  # type: ignore[override]  # what it returns is awaited
        """The last step, before background tasks are cancelled and contexts are left; override it, async or not.

        Not called if it is async and a background task has ended the run.
        """

    def _end(self) -> None:
        teardown = type(self).teardown
        try:
            if not self.stepper.is_over:
                self._make_step(teardown)
            elif not inspect.iscoroutinefunction(teardown):
                teardown(self)
        finally:
            self.stepper.close()

    def _make_step(self, fn: Callable[..., Any], *args: Any, **arguments: Any) -> Any:
        async def step() -> Any:
            result = fn(self, *args, **arguments)
            return await result if inspect.isawaitable(result) else result

        try:
            return self.stepper.run(step)
        except BaseException:
            self._has_failed = True
            raise


# For type checkers, the decorators of Hypothesis want functions that are not async; otherwise these are the same.


def rule(*, targets: Sequence[Any] = (), target: Any = None, **strategies: Any) -> Callable[[F], F]:
    """``hypothesis.stateful.rule``, whose type allows async functions."""
    decorate: Any = stateful.rule(targets=targets, target=target, **strategies)
    return cast("Callable[[F], F]", decorate)


def initialize(*, targets: Sequence[Any] = (), target: Any = None, **strategies: Any) -> Callable[[F], F]:
    """``hypothesis.stateful.initialize``, whose type allows async functions."""
    decorate: Any = stateful.initialize(targets=targets, target=target, **strategies)
    return cast("Callable[[F], F]", decorate)


def invariant(*, check_during_init: bool = False) -> Callable[[F], F]:
    """``hypothesis.stateful.invariant``, whose type allows async functions."""
    decorate: Any = stateful.invariant(check_during_init=check_during_init)
    return cast("Callable[[F], F]", decorate)


def _make_steps_of(cls: type[TrioStateMachine], method: str) -> None:
    """Let a decorated method be a step when Hypothesis, or a program that it has printed, calls it."""
    member: object = inspect.getattr_static(cls, method)
    for name, marker in tuple(vars(member).items()) if inspect.isfunction(member) else ():
        fn: Any = getattr(marker, "function", None)
        if hasattr(fn, "is_step"):
            continue  # inherited, and done already
        # A rule that is not async may start tasks, so it is a step as well; an invariant should only look.
        if name.startswith("hypothesis_stateful") and (name in _RULES or inspect.iscoroutinefunction(fn)):
            step = _as_step(fn)
            object.__setattr__(marker, "function", step)  # past a frozen dataclass, which it is by now
            setattr(cls, method, _as_step_from_outside(fn, step, member))


def _as_step(fn: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(fn)
    def make_step(machine: TrioStateMachine, *args: Any, **arguments: Any) -> Any:
        return machine._make_step(fn, *args, **arguments)

    vars(make_step)["is_step"] = True
    return make_step


def _as_step_from_outside(fn: Callable[..., Any], step: Callable[..., Any], member: Any) -> Callable[..., Any]:
    @functools.wraps(member)  # with what the decorators have noted
    def call(machine: TrioStateMachine, *args: Any, **arguments: Any) -> Any:
        return (fn if machine.stepper.in_step else step)(machine, *args, **arguments)

    return call


def _repeat_schedules() -> None:
    """Let Trio's scheduler take its decisions from Hypothesis: a failure has to happen again in the same way.

    With pytest-trio this is done already. It is what Trio has the switch for, though it has no public name.
    """
    scheduler: Any = trio._core._run
    if getattr(scheduler, "_ALLOW_DETERMINISTIC_SCHEDULING", True) is False:
        scheduler._ALLOW_DETERMINISTIC_SCHEDULING = True
        hypothesis.register_random(scheduler._r)


_repeat_schedules()
