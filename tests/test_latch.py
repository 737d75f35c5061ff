"""The small event."""

from __future__ import annotations

import trio
import trio.testing

from trio_socketio._latch import Latch


async def test_all_who_wait_go_on_when_it_is_set_and_nobody_waits_afterwards() -> None:
    latch = Latch()
    passed: list[int] = []

    async def wait(number: int) -> None:
        await latch.wait()
        passed.append(number)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait, 1)
        nursery.start_soon(wait, 2)
        await trio.testing.wait_all_tasks_blocked()
        assert (passed, latch.is_set()) == ([], False)
        latch.set()
        latch.set()
        assert latch.is_set()
    assert sorted(passed) == [1, 2]
    with trio.testing.assert_checkpoints():
        await latch.wait()


async def test_a_cancelled_wait_leaves_the_others_waiting() -> None:
    latch = Latch()
    with trio.move_on_after(0):
        await latch.wait()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(latch.wait)
        await trio.testing.wait_all_tasks_blocked()
        assert not latch.is_set()
        latch.set()
