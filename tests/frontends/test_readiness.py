"""Waiting for many sockets at once."""

from __future__ import annotations

import contextvars
import os
import socket
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

from trio_socketio._frontends.readiness import BATCH, ReadySet, ready_set

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has epoll")

#: Long enough for the kernel, and for Trio to ask it.
SETTLED = 0.01


class Pairs:
    """Sockets to wait for, each with another end."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self.got: list[tuple[int, bytes]] = []

    def make(self) -> tuple[int, socket.socket]:
        ours, theirs = (self._stack.enter_context(end) for end in socket.socketpair())
        ours.setblocking(False)
        return ours.fileno(), theirs

    def reader(self, last: bytes = b"end") -> Callable[[int], bool]:
        def act(fd: int) -> bool:
            data = os.read(fd, 100)
            self.got.append((fd, data))
            return data != last

        return act


@pytest.fixture
def pairs() -> Iterator[Pairs]:
    with ExitStack() as stack:
        yield Pairs(stack)


async def test_a_run_of_trio_has_one_set() -> None:
    assert ready_set() is ready_set() is not None


async def test_a_function_is_called_for_what_arrives_until_it_has_enough(pairs: Pairs) -> None:
    fd, other = pairs.make()
    ready = ReadySet()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ready.watch, fd, pairs.reader())
        for data in (b"one", b"two", b"end"):
            other.send(data)
            await wait_all_tasks_blocked(SETTLED)
    other.send(b"late")
    await wait_all_tasks_blocked(SETTLED)

    assert pairs.got == [(fd, b"one"), (fd, b"two"), (fd, b"end")]


@pytest.mark.parametrize("how", ["enough", "cancelled", "closed", "failed"])
async def test_whoever_waits_for_all_may_leave_and_the_others_go_on(how: str, pairs: Pairs) -> None:
    ready = ReadySet()
    ends = [pairs.make() for _ in range(3)]
    left: list[str] = []

    async def watch(scope: trio.CancelScope) -> None:
        def fail(fd: int) -> bool:
            raise ValueError(how)

        fd = ends[0][0]
        try:
            with scope:
                await ready.watch(fd, fail if how == "failed" else pairs.reader())
        except (trio.ClosedResourceError, ValueError):
            pass
        left.append(how)

    async with trio.open_nursery() as nursery:
        scope = trio.CancelScope()
        nursery.start_soon(watch, scope)
        await wait_all_tasks_blocked(SETTLED)
        for fd, _ in ends[1:]:
            nursery.start_soon(ready.watch, fd, pairs.reader())
        await wait_all_tasks_blocked(SETTLED)
        if how == "cancelled":
            scope.cancel()
        elif how == "closed":
            ready.forget(ends[0][0])
        ends[0][1].send(b"end")
        await wait_all_tasks_blocked(SETTLED)
        assert left == [how]
        pairs.got.clear()
        for _, other in ends[1:]:
            other.send(b"end")

    assert sorted(pairs.got) == sorted((fd, b"end") for fd, _ in ends[1:])


async def test_one_that_ends_before_it_could_wait_for_all_leaves_that_to_the_next(pairs: Pairs) -> None:
    ready = ReadySet()
    ends = [pairs.make() for _ in range(3)]
    scope = trio.CancelScope()

    async def lead_and_take_the_next_along() -> None:
        with scope:
            await ready.watch(ends[0][0], pairs.reader())
        ready.forget(ends[1][0])  # it has been appointed, and has not run yet

    async def watch_in_vain() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await ready.watch(ends[1][0], pairs.reader())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(lead_and_take_the_next_along)
        await wait_all_tasks_blocked(SETTLED)
        nursery.start_soon(watch_in_vain)
        await wait_all_tasks_blocked(SETTLED)
        nursery.start_soon(ready.watch, ends[2][0], pairs.reader())
        await wait_all_tasks_blocked(SETTLED)
        scope.cancel()
        ends[2][1].send(b"end")

    assert pairs.got == [(ends[2][0], b"end")]


async def test_one_that_is_cancelled_while_another_waits_for_all_is_not_called(pairs: Pairs) -> None:
    ready = ReadySet()
    (first, one), (second, two) = pairs.make(), pairs.make()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ready.watch, first, pairs.reader())
        await wait_all_tasks_blocked(SETTLED)
        with trio.move_on_after(SETTLED) as scope:
            await ready.watch(second, pairs.reader())
        assert scope.cancelled_caught
        two.send(b"lost")
        await wait_all_tasks_blocked(SETTLED)
        one.send(b"end")

    assert pairs.got == [(first, b"end")]


async def test_what_a_function_raises_is_its_own_tasks(pairs: Pairs) -> None:
    ready = ReadySet()
    (first, one), (second, two) = pairs.make(), pairs.make()

    def fail(fd: int) -> bool:
        raise ValueError("mine")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ready.watch, first, pairs.reader())
        await wait_all_tasks_blocked(SETTLED)
        two.send(b"x")
        with pytest.raises(ValueError, match="mine"):
            await ready.watch(second, fail)
        one.send(b"end")

    assert pairs.got == [(first, b"end")]


async def test_functions_run_in_the_context_of_the_task_that_waits(pairs: Pairs) -> None:
    ready = ReadySet()
    variable = contextvars.ContextVar[int]("variable")
    seen: dict[int, int] = {}

    async def watch(fd: int) -> None:
        def act(fd: int) -> bool:
            seen[fd] = variable.get()
            variable.set(-1)
            return False

        variable.set(fd)
        await ready.watch(fd, act)

    ends = [pairs.make() for _ in range(5)]
    async with trio.open_nursery() as nursery:
        for fd, _ in ends:
            nursery.start_soon(watch, fd)
        await wait_all_tasks_blocked(SETTLED)
        for _, other in ends:
            other.send(b"x")

    assert seen == {fd: fd for fd, _ in ends}


async def test_more_sockets_than_fit_into_one_turn_have_their_turns(pairs: Pairs) -> None:
    ready = ReadySet()
    ends = [pairs.make() for _ in range(2 * BATCH + 1)]
    async with trio.open_nursery() as nursery:
        for fd, _ in ends:
            nursery.start_soon(ready.watch, fd, pairs.reader())
        await wait_all_tasks_blocked(SETTLED)
        for _, other in ends:
            other.send(b"end")

    assert sorted(pairs.got) == sorted((fd, b"end") for fd, _ in ends)
