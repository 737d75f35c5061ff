"""A place to wait again and again."""

from __future__ import annotations

import trio
import trio.testing

from trio_socketio._parking import Parking


def succeed(_: object) -> trio.lowlevel.Abort:
    return trio.lowlevel.Abort.SUCCEEDED


async def test_a_task_goes_on_each_time_that_it_is_woken() -> None:
    parked: list[Parking] = []
    woken = 0

    async def wait() -> None:
        nonlocal woken
        parking = Parking(succeed)
        for _ in range(5):
            parked.append(parking)
            with trio.testing.assert_checkpoints():
                await parking.park()
            woken += 1

    async with trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(wait)
        for times in range(5):
            await trio.testing.wait_all_tasks_blocked()
            assert (len(parked), woken) == (2, 2 * times)
            for parking in (parked.pop(), parked.pop()):
                parking.wake()
    assert woken == 10


async def test_a_parked_task_can_be_cancelled_and_its_own_function_is_told() -> None:
    told: list[object] = []

    def abort(raise_cancel: object) -> trio.lowlevel.Abort:
        told.append(raise_cancel)
        return trio.lowlevel.Abort.SUCCEEDED

    parking = Parking(abort)
    for times in (1, 2):
        with trio.move_on_after(0) as scope:
            await parking.park()
        assert scope.cancelled_caught
        assert len(told) == times


async def test_who_is_not_to_be_cancelled_stays_parked() -> None:
    went_on = trio.Event()

    async def wake(parking: Parking) -> None:
        await trio.testing.wait_all_tasks_blocked()
        assert not went_on.is_set()
        parking.wake()

    parking = Parking(lambda _: trio.lowlevel.Abort.FAILED)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wake, parking)
        with trio.CancelScope() as scope:
            scope.cancel()
            await parking.park()
            went_on.set()
    assert went_on.is_set()
    assert not scope.cancelled_caught
