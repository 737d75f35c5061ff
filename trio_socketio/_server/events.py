"""A socket's handlers: they start in the order in which their events came, each in a task of the session's nursery.

Trio starts tasks that are spawned together in a random order. So a task is never spawned *for* an event: it is
spawned because there are events, and takes the first one when it runs. Whichever runs first, the first event starts
first; and a task that is done takes the next event, so a busy socket does not spawn at all. One that finds nothing more
to do stays, parked, for the events to come, and finds the context variables as a new one would: 1.6 times the echoes of
50 clients, who would each time pay for a task and its cancel scope. Those with nothing to do between two heartbeats go.

Nor is there a task for each event that waits, unless handlers wait as well (`Staffing`): nearly always one task can
call them all, one after the other. And a handler that has just been given its turn does not give it up for the first
thing that it tells its own client (`EventQueue.fresh`). So sixteen events at once are one turn of one task, and not 32
turns of sixteen tasks: twice the echoes.

An event nobody listens to yet waits while ``connection`` handlers run, because they may be about to register its
handler (they may ``await`` something first); the events behind it wait too. When the events that wait are too many, the
connection stops reading. Each task stands under a cancel scope of its own, so that the end of a socket ends its tasks,
and not those of other namespaces in the same session.
"""

from __future__ import annotations

import enum
from collections import deque
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

import trio

from .._errors import EventArgumentsError, EventValidationError
from .._listeners import Listener, raise_cancellations, refuse_coroutine
from .._parking import Parking
from .queued import NO_BACKLOG, Event

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from contextvars import Context

    from .queued import Backlog


class EventHost(Protocol):
    """What the queue asks of its socket."""

    @property
    def alive(self) -> bool:
        """Whether something may still be started for it."""

    def take_listeners(self, name: str | int) -> Sequence[Listener]:
        """Who is to be called for an event, now."""

    def spawn(self, fn: Callable[..., Awaitable[Any]], *args: Any) -> None:
        """Start a task in the session's nursery."""

    def on_error(self, error: Exception, event: Event) -> None:
        """A handler has failed."""

    def flush(self) -> None:
        """Nothing more is at hand: write what the handlers have emitted to their own client, if it is the only one."""

    def note(self, queue: EventQueue, /) -> None:
        """Call the queue's `flush` when this tick is over."""


class Staffing(enum.Enum):
    """How many tasks are started for the events that wait.

    ::

        ONE ── more events wait ──▶ WATCHED ── at the end of a tick they still do, because a handler waits ──▶ EACH
         ▲                             │                                                                       │
         └────────── none does ────────┴───────────── several tasks were started for nothing ──────────────────┘
    """

    ONE = "one for all of them"
    WATCHED = "one, and at the end of the tick `flush` sees whether that was enough"
    EACH = "one for each of them"


_ONE, _WATCHED, _EACH = Staffing  # an attribute of an enum's class costs 60 nanoseconds

#: Handlers that one task calls before others have their turn.
MOST_IN_A_TURN = 32

#: The events of a socket that is idle, which does not need 760 bytes for them. Nobody puts anything into it.
_NONE_YET: deque[Event] = deque(maxlen=0)


class EventQueue:
    """The events of one socket that wait, and its tasks.

    Args:
        host: The socket.
        backlog: Where what waits is counted.
        max_concurrent: Handlers at work at once; ``connection`` handlers do not count.
        max_parked: Tasks that stay when there is nothing to do.
    """

    # fmt: off
    __slots__ = (
        "_backlog", "_context", "_events", "_exempt", "_host", "_idle", "_limit", "_max_parked", "_openings", "_parked",
        "_spare", "_staffing", "_starting", "_working", "catch_alls", "fresh", "tasks",
    )
    # fmt: on

    def __init__(self, host: EventHost, backlog: Backlog, max_concurrent: int, max_parked: int = 0) -> None:
        self._host = host
        self._backlog = backlog
        self._limit = max_concurrent
        self._max_parked = max_parked
        self._events: deque[Event] = _NONE_YET
        self._staffing = Staffing.ONE
        self._starting = 0  # tasks that will take the next event
        self._working = 0  # tasks whose handler has not returned
        self._openings = 0
        self._idle: trio.Event | None = None
        self._exempt: trio.lowlevel.Task | None = None
        self._parked: list[Parking] = []
        self._spare = 0  # so many of them had nothing to do since the last heartbeat
        self._context: Context | None = None  # what a task begins with
        #: Called for every event, before its handlers.
        self.catch_alls: tuple[Listener, ...] = ()
        #: The task whose handler began last, and has had a turn for that; None when it has told its client something.
        self.fresh: trio.lowlevel.Task | None = None
        #: Every task of the socket, with what cancels it.
        self.tasks: dict[trio.lowlevel.Task, trio.CancelScope] = {}

    def __len__(self) -> int:
        return len(self._events)

    def open(self, listeners: Sequence[Listener], args: Sequence[Any]) -> bool:
        """Call the ``connection`` handlers.

        Returns:
            Whether `work` must be called for that: in a task of the session's, which may be the running one.
        """
        self._openings = len(listeners)
        self._append([Event("connection", args[: listener.most], None, listener, True) for listener in listeners])
        self._starting += 1  # the task that calls `work`
        self.advance()
        if not self._events:
            self._starting -= 1
            return False
        return True

    def put(self, event: Event) -> None:
        """Call an event's handlers as soon as it is their turn."""
        if self._events is _NONE_YET:
            self._events = deque()
        self._events.append(event)
        self._backlog.count += 1
        if self._staffing is not _WATCHED or not self._starting:
            self.advance()

    def put_checked(self, event: Event, check: Event) -> None:
        """Call the catch-all listeners of an event, and then what decides whether the event gets any further."""
        self._append([*self._catch_all_calls(event), check])
        self.advance()

    def _catch_all_calls(self, event: Event) -> list[Event]:
        args = (event.name, *event.args)
        return [Event(event.name, args[: listener.most], None, listener) for listener in self.catch_alls]

    def _append(self, events: list[Event]) -> None:
        if self._events is _NONE_YET:
            self._events = deque()
        self._events.extend(events)
        self._backlog.count += len(events)

    def advance(self) -> None:
        """Call the plain functions that are next, and have tasks for what comes after them."""
        while self._starting + self._working < self._limit and (event := self._peek()) is not None:
            assert event.listener is not None, "only resolved events are next"
            if not event.listener.is_async:
                self._pop()
                self._call_plain(event)
                continue
            self._have_worker()
            if self._staffing is not _EACH or self._starting >= len(self._events):
                return

    def _have_worker(self) -> None:
        """Start a task, if none is about to take the next event, or if each is to have one."""
        waiting = len(self._events)
        if not self._starting or (self._staffing is _EACH and self._starting < waiting):
            self._start_worker()
        if self._starting < waiting and self._staffing is _ONE:
            self._staffing = _WATCHED
            self._host.note(self)

    def flush(self) -> None:
        """The tick is over: see whether one task is enough for what waits."""
        if not self._events:
            self._staffing = _ONE
        elif self._starting:  # too early to say
            self._host.note(self)
        else:
            self._staffing = _EACH
            self.advance()

    def _start_worker(self) -> None:
        self._starting += 1
        parked = self._parked
        if not parked:
            self._host.spawn(self.work)
            return
        parking = parked.pop()
        if self._spare > len(parked):
            self._spare = len(parked)
        assert self._context is not None, "the first worker has set it"
        parking.task.context = self._context.copy()
        parking.wake()

    def _peek(self) -> Event | None:
        """The call that is next, or None if there is none, or it has to wait for its listener."""
        while self._events:
            event = self._events[0]
            if event.listener is not None:
                return event
            if self.catch_alls and not event.told:  # the first half is all that others pay: 20 ns of an event's 10 us
                calls = self._catch_all_calls(event)
                event.told = True
                self._events.extendleft(reversed(calls))
                self._backlog.count += len(calls)
                continue
            listeners = self._host.take_listeners(event.name)
            if len(listeners) == 1:
                event.listener = listeners[0]
                return event
            if not listeners and self._openings:
                return None
            self._events.popleft()
            if event.ack is not None:
                event.ack.expect(len(listeners))
            name, args, ack = event.name, event.args, event.ack
            self._events.extendleft([Event(name, args, ack, listener) for listener in reversed(listeners)])
            if listeners:
                self._backlog.count += len(listeners) - 1
            else:
                self._backlog.remove(1)
        return None

    def _pop(self) -> Event:
        backlog = self._backlog
        backlog.count -= 1
        if backlog.count + 1 == backlog.limit:
            backlog.on_room()
        return self._events.popleft()

    async def work(self) -> None:
        """Be one of the socket's tasks, until there is nothing more to do; or until it is cancelled."""
        task = trio.lowlevel.current_task()
        if self._context is None:
            self._context = task.context.copy()
        parking = Parking(partial(self._on_parked_cancelled, task))
        try:
            with trio.CancelScope() as scope:
                self.tasks[task] = scope
                while await self._call_waiting() and task is not self._exempt and len(self._parked) < self._max_parked:
                    self._parked.append(parking)
                    await parking.park()
        finally:
            self._task_ended()

    def _on_parked_cancelled(self, task: trio.lowlevel.Task, _: object) -> trio.lowlevel.Abort:
        self._parked[:] = [parking for parking in self._parked if parking.task is not task]
        self._spare = min(self._spare, len(self._parked))
        return trio.lowlevel.Abort.SUCCEEDED

    async def _call_waiting(self) -> bool:
        """Call what waits, one after the other. Returns whether events of the client's were among it."""
        self._starting -= 1
        self._working += 1
        task = trio.lowlevel.current_task()
        useful = False
        left = MOST_IN_A_TURN
        if self._staffing is _EACH and self._starting and not self._events:
            self._staffing = _ONE
        try:
            # Above the limit, because its ``connection`` handler is over and others have taken its place: it ends.
            while self._working <= self._limit and self._events:
                if self._events[0].listener is None and self._peek() is None:
                    break
                if not left:
                    left = MOST_IN_A_TURN
                    # It counts as one that will take the next event, for it is the one who will.
                    self._working, self._starting = self._working - 1, self._starting + 1
                    await trio.lowlevel.cancel_shielded_checkpoint()
                    self._working, self._starting = self._working + 1, self._starting - 1
                    continue
                left -= 1
                event = self._pop()
                self.fresh = task
                listener = event.listener
                assert listener is not None, "only resolved events are called"
                if event.opening:
                    self._begin_opening()
                else:
                    useful = True
                try:
                    result = self._call(event, listener)
                    if listener.is_async:
                        result = await result
                    else:
                        refuse_coroutine(result, listener)
                    if event.ack is not None:
                        event.ack.answer(result)
                except Exception as error:
                    self._host.on_error(error, event)
                except BaseExceptionGroup as group:
                    self._report(group, event)
                finally:
                    if event.opening:
                        self._end_opening()
                if self._events and not is_in(self._context):
                    self._have_worker()
                    break
            if self._working == 1 and not self._starting:
                self._host.flush()  # the last one writes for all: 1.3 times the echoes with 16 in flight
        finally:
            self.fresh = None
            self._working -= 1
        return useful

    def _begin_opening(self) -> None:
        self._working -= 1  # it may run for as long as the socket lives
        if self._events:
            self._have_worker()  # and not `advance`, which would call a plain function before this one has begun

    def _end_opening(self) -> None:
        self._working += 1
        self._opened()

    def _opened(self) -> None:
        self._openings -= 1
        if not self._openings:
            self.advance()

    def _report(self, group: BaseExceptionGroup[Any], event: Event) -> NoReturn:
        raise_cancellations(group, lambda error: self._host.on_error(error, event))

    def _call_plain(self, event: Event) -> None:
        listener = event.listener
        assert listener is not None, "only resolved events are called"
        try:
            result = refuse_coroutine(self._call(event, listener), listener)
            if event.ack is not None:
                event.ack.answer(result)
        except Exception as error:
            self._host.on_error(error, event)
        if event.opening:
            self._opened()

    def _call(self, event: Event, listener: Listener) -> Any:
        """Call a listener, or raise that its arguments are wrong, which is the client's fault."""
        args = event.args
        fn, _, least, most, _, bound, decode = listener
        if not least <= len(args) <= most:
            raise EventArgumentsError(
                f"{event.name!r} came with {len(args)} arguments, which {listener.name} does not take"
            )
        if decode is not None:
            try:
                args = decode(args)
            except EventValidationError as error:
                if event.ack is not None:
                    event.ack.answer(error.answer)
                raise
        return fn(self._host, *args) if bound else fn(*args)

    # The socket's tasks

    @property
    def at_work(self) -> int:
        """How many of them have something to do."""
        return len(self.tasks) - len(self._parked)

    def rest(self) -> None:
        """A heartbeat has come: those that had nothing to do since the last one end."""
        for parking in self._parked[: self._spare]:
            self.tasks[parking.task].cancel()
        self._spare = len(self._parked)

    async def run_task(self, fn: Callable[..., Awaitable[Any]], *args: Any) -> None:
        """Run a task of the socket's own, for `Socket.start_soon`."""
        if not self._host.alive:  # it has ended in the tick in which the task was to begin
            return
        event = Event(getattr(fn, "__qualname__", repr(fn)), args)
        try:
            with trio.CancelScope() as scope:
                self.tasks[trio.lowlevel.current_task()] = scope
                await fn(*args)
        except Exception as error:
            self._host.on_error(error, event)
        except BaseExceptionGroup as group:
            self._report(group, event)
        finally:
            self._task_ended()

    def _task_ended(self) -> None:
        del self.tasks[trio.lowlevel.current_task()]
        if not self._events:
            self._events = _NONE_YET
        if self._idle is not None:
            self._idle.set()

    def cancel(self) -> None:
        """Drop what waits, and cancel every task; not the one that asks for it, which may finish what it is doing."""
        self._backlog.remove(len(self._events))
        self._events = _NONE_YET
        self._staffing = _ONE
        current = trio.lowlevel.current_task()
        for task, scope in self.tasks.items():
            if task is current:
                self._exempt = task
            else:
                scope.cancel()

    def is_mine(self) -> bool:
        """Whether the running task is one of the socket's."""
        return trio.lowlevel.current_task() in self.tasks

    def release(self) -> None:
        """The socket has ended: nobody is told of anything any more, unless a task has outlived it."""
        if not self.tasks:
            self._host = _NOBODY
            self._backlog = NO_BACKLOG

    async def wait_idle(self) -> None:
        """Wait until every task that was cancelled is over."""
        while self.tasks.keys() - {self._exempt}:
            self._idle = trio.Event()
            await self._idle.wait()


def is_in(context: Context | None) -> bool:
    """Whether the running task has the context variables of this context."""
    try:
        return copy_context() == context  # 0.1 microseconds, unless there is something to compare
    except Exception:  # a value that cannot be compared
        return False


class _Nobody:
    """The host of a queue that is done with."""

    alive = False

    def take_listeners(self, name: str | int) -> Sequence[Listener]:
        return ()

    def spawn(self, fn: Callable[..., Awaitable[Any]], *args: Any) -> None:
        pass

    def on_error(self, error: Exception, event: Event) -> None:
        pass

    def flush(self) -> None:
        pass

    def note(self, queue: EventQueue, /) -> None:
        pass


_NOBODY = _Nobody()
