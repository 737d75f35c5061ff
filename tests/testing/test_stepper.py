from __future__ import annotations

import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio

from trio_socketio import Server
from trio_socketio.testing import TrioStepper, open_client

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


@pytest.fixture
def stepper() -> Iterator[TrioStepper]:
    with TrioStepper() as entered:
        yield entered


async def double(number: int) -> int:
    await trio.lowlevel.checkpoint()
    return number * 2


async def fail(text: str = "failed") -> None:
    await trio.lowlevel.checkpoint()
    raise ValueError(text)


def test_a_step_returns_what_its_function_returns(stepper: TrioStepper) -> None:
    assert [stepper.run(double, number) for number in range(3)] == [0, 2, 4]


def test_a_step_raises_what_its_function_raises_and_the_next_one_is_not_affected(stepper: TrioStepper) -> None:
    with pytest.raises(ValueError, match="failed"):
        stepper.run(fail)
    assert stepper.run(double, 1) == 2


def test_background_tasks_live_across_steps_and_rest_between_them(stepper: TrioStepper) -> None:
    send, receive = trio.open_memory_channel[int](10)
    got: list[int] = []

    async def background() -> None:
        async for number in receive:
            got.append(number)

    stepper.nursery.start_soon(background)
    stepper.run(send.send, 1)
    assert got == [1]
    send.send_nowait(2)
    assert got == [1]
    stepper.run(trio.lowlevel.checkpoint)
    assert got == [1, 2]


def test_time_passes_only_while_a_step_waits(stepper: TrioStepper) -> None:
    ticks: list[float] = []
    begin = trio.current_time()

    async def tick() -> None:
        while True:
            await trio.sleep(1)
            ticks.append(trio.current_time() - begin)

    stepper.nursery.start_soon(tick)
    stepper.run(trio.lowlevel.checkpoint)
    assert ticks == []
    stepper.run(trio.sleep, 2.5)
    assert ticks == [1, 2]
    stepper.run(trio.lowlevel.checkpoint)
    assert trio.current_time() - begin == 2.5


def test_between_steps_the_clock_can_be_moved_by_hand(stepper: TrioStepper) -> None:
    woken = trio.Event()

    async def sleep() -> None:
        await trio.sleep(100)
        woken.set()

    stepper.nursery.start_soon(sleep)
    stepper.run(trio.lowlevel.checkpoint)
    stepper.clock.jump(100)
    assert not woken.is_set()
    stepper.run(trio.lowlevel.checkpoint)
    assert woken.is_set()


def test_a_crash_in_the_background_is_raised_in_the_step_that_caused_it(stepper: TrioStepper) -> None:
    cause = trio.Event()

    async def crash_after() -> None:
        await cause.wait()
        await fail("in the background")

    async def set_cause() -> None:
        cause.set()

    stepper.nursery.start_soon(crash_after)
    assert stepper.run(double, 1) == 2
    with pytest.raises(ValueError, match="in the background"):
        stepper.run(set_cause)
    assert stepper.is_over
    with pytest.raises(RuntimeError, match="over"):
        stepper.run(double, 1)
    with pytest.raises(RuntimeError, match="over"):
        stepper.nursery.start_soon(fail)


def test_a_crash_interrupts_a_step_that_waits_and_outweighs_what_the_step_says_about_it() -> None:
    async def wait(nursery: trio.Nursery) -> None:
        nursery.start_soon(fail, "the cause")
        try:
            await trio.sleep_forever()
        finally:
            raise KeyError("a consequence")

    with TrioStepper() as stepper, pytest.raises(ValueError, match="the cause"):
        stepper.run(wait, stepper.nursery)


def test_a_step_that_nothing_will_ever_wake_is_ended(stepper: TrioStepper) -> None:
    with pytest.raises(trio.TooSlowError, match="3600 seconds"):
        stepper.run(trio.sleep_forever)
    assert stepper.run(double, 1) == 2


def test_contexts_stay_entered_until_the_end_and_are_left_in_reverse_order() -> None:
    order: list[str] = []

    @asynccontextmanager
    async def noted(name: str) -> AsyncIterator[str]:
        order.append(f"enter {name}")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            yield name
            await trio.lowlevel.checkpoint()
            order.append(f"leave {name}")
            nursery.cancel_scope.cancel()

    with TrioStepper() as stepper:
        assert [stepper.run(stepper.enter, noted(name)) for name in "ab"] == ["a", "b"]
        assert order == ["enter a", "enter b"]
    assert order == ["enter a", "enter b", "leave b", "leave a"]


def test_a_context_that_cannot_be_entered_says_why_and_one_that_fails_on_leaving_too() -> None:
    @asynccontextmanager
    async def broken(when: str) -> AsyncIterator[None]:
        if when == "before":
            await fail("on entering")
        yield
        await fail("on leaving")

    stepper = TrioStepper().__enter__()
    with pytest.raises(ValueError, match="on entering"):
        stepper.run(stepper.enter, broken("before"))
    stepper.run(stepper.enter, broken("after"))
    with pytest.raises(ValueError, match="on leaving"):
        stepper.close()


def test_a_client_and_its_server_can_be_driven_from_synchronous_code(stepper: TrioStepper) -> None:
    io = Server()
    io.handle("echo", lambda socket, text: text)
    client = stepper.run(stepper.enter, open_client(io))
    assert stepper.run(client.emit_with_ack, "echo", "hello") == "hello"
    stepper.run(trio.sleep, 600)
    assert client.connected


def test_with_a_cushion_steps_may_wait_for_threads_and_sockets() -> None:
    with TrioStepper(cushion=0.02) as stepper:
        assert stepper.run(trio.to_thread.run_sync, lambda: 42) == 42
        begin = trio.current_time()
        stepper.run(trio.sleep, 30)
        assert trio.current_time() - begin == 30


def test_in_real_time_nothing_is_skipped_and_the_limit_is_real_as_well() -> None:
    with TrioStepper(real_time=True, step_limit=0.05) as stepper:
        begun = time.perf_counter()
        stepper.run(trio.sleep, 0.01)
        assert time.perf_counter() - begun >= 0.01
        with pytest.raises(trio.TooSlowError, match=r"0\.05 seconds of real time"):
            stepper.run(trio.sleep_forever)
        with pytest.raises(RuntimeError, match="real time"):
            stepper.clock.jump(1)


def test_it_is_known_whether_a_step_is_being_made(stepper: TrioStepper) -> None:
    async def look() -> bool:
        await trio.lowlevel.checkpoint()
        return stepper.in_step

    assert stepper.run(look)
    assert not stepper.in_step


def test_a_stepper_is_used_in_one_place() -> None:
    stepper = TrioStepper()
    assert stepper.is_over
    with stepper:

        async def step_inside() -> None:
            stepper.run(double, 1)

        with pytest.raises(RuntimeError, match="stepping"):
            stepper.run(step_inside)
        with pytest.raises(RuntimeError, match="run"), TrioStepper():
            pass
    stepper.close()
    with pytest.raises(RuntimeError, match="once"), stepper:
        pass
