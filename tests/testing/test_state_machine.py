from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import trio
from hypothesis import Phase, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, precondition, run_state_machine_as_test

from trio_socketio import Server
from trio_socketio.testing import TrioStateMachine, initialize, invariant, open_client, rule

if TYPE_CHECKING:
    from trio_socketio import Socket
    from trio_socketio.testing import MemoryClient

QUICK = settings(max_examples=20, stateful_step_count=10, deadline=None, database=None, print_blob=False)


def history_of(machine: type[TrioStateMachine], error: type[Exception]) -> list[str]:
    """The shrunk history of a machine that fails."""
    with pytest.raises(error) as caught:
        run_state_machine_as_test(
            machine, settings=settings(QUICK, max_examples=200, phases=set(Phase) - {Phase.explain})
        )
    return [line for text in caught.value.__notes__ for line in text.splitlines()]


class Counter(TrioStateMachine):
    """A server that counts, and a client that knows better; every kind of rule is async."""

    numbers = Bundle("numbers")
    io: Server
    client: MemoryClient

    @initialize()
    async def start(self) -> None:
        self.total = self.expected = 0
        self.io = Server()

        @self.io.handle("add")
        async def add(socket: Socket, number: int) -> int:
            await trio.sleep(1)
            self.total += number
            return self.total

        await self.enter(self.io.running())
        self.client = await self.enter(open_client(self.io))

    @rule(target=numbers, number=st.integers(0, 9))
    async def add(self, number: int) -> int:
        self.expected += number
        assert await self.client.emit_with_ack("add", number) == self.expected
        return number

    @precondition(lambda self: self.total > 5)
    @rule(number=numbers)
    async def add_again(self, number: int) -> None:
        await self.client.emit("add", number)
        self.expected += number
        await trio.sleep(1)

    @rule()
    def a_plain_rule_runs_inside_trio(self) -> None:
        assert trio.lowlevel.current_task().parent_nursery is not self.nursery

    @invariant()
    async def agree(self) -> None:
        await trio.lowlevel.checkpoint()
        assert self.total == self.expected

    async def teardown(self) -> None:  # type: ignore[override]
        await self.client.disconnect()


TestCounter = Counter.TestCase
TestCounter.settings = QUICK


def test_a_failure_shrinks_and_prints_with_its_notes() -> None:
    class Fragile(TrioStateMachine):
        count = 0

        @rule(number=st.integers(0, 100))
        async def add(self, number: int) -> None:
            await trio.lowlevel.checkpoint()
            self.count += number
            note(f"the count is {self.count}")
            assert self.count <= 50

    history = history_of(Fragile, AssertionError)
    assert [line for line in history if line.startswith("state.add")] == ["state.add(number=51)"]
    assert "the count is 51" in history
    assert history[-1] == "state.teardown()"


def test_an_end_that_looks_for_what_is_left_can_tell_that_a_step_has_failed() -> None:
    class Careful(TrioStateMachine):
        @rule()
        async def fail(self) -> None:
            await trio.lowlevel.checkpoint()
            raise ValueError("the cause")

        async def teardown(self) -> None:  # type: ignore[override]
            await trio.lowlevel.checkpoint()
            assert self.has_failed, "what would be shown instead"

    assert "state.fail()" in history_of(Careful, ValueError)


def test_a_history_that_was_printed_is_a_program_that_runs() -> None:
    class Sum(TrioStateMachine):
        numbers = Bundle("numbers")
        total = 0

        @rule(target=numbers, number=st.integers(0, 9))
        async def add(self, number: int) -> int:
            await trio.lowlevel.checkpoint()
            self.total += number
            return number

        @rule(number=numbers)
        async def add_twice(self, number: int) -> None:
            await self.add(number)  # in a step, it is what it looks like
            await self.add(number)
            assert self.total < 20

    program = "\n".join(line for line in history_of(Sum, AssertionError) if "state" in line and ": <" not in line)
    steps, _, end = program.rpartition("\n")
    scope: dict[str, Any] = {"Sum": Sum}
    with pytest.raises(AssertionError):
        exec(steps, scope)
    exec(end, scope)
    assert end == "state.teardown()"
    assert scope["state"].total >= 20


def test_a_crash_in_the_background_is_that_of_the_step_that_caused_it() -> None:
    class Crashing(TrioStateMachine):
        teardowns = 0

        @initialize()
        async def start(self) -> None:
            self.send, self.receive = trio.open_memory_channel[int](10)
            self.nursery.start_soon(self.consume)

        async def consume(self) -> None:
            async for number in self.receive:
                if number == 7:
                    raise ValueError("seven")

        @rule(number=st.integers(0, 9))
        def send_one(self, number: int) -> None:
            self.send.send_nowait(number)

    history = history_of(Crashing, ValueError)
    assert [line for line in history if line.startswith("state.s")] == ["state.start()", "state.send_one(number=7)"]


def test_the_end_of_a_machine_is_a_step_async_or_not() -> None:
    ended: list[str] = []

    class Machine(TrioStateMachine):
        @rule()
        async def wait(self) -> None:
            await trio.sleep(1)

    class AsyncEnd(Machine):
        async def teardown(self) -> None:  # type: ignore[override]
            await trio.sleep(1)
            ended.append("async")

    class PlainEnd(Machine):
        def teardown(self) -> None:
            self.nursery.start_soon(trio.sleep_forever)
            ended.append("plain")

    for machine in (AsyncEnd, PlainEnd):
        run_state_machine_as_test(machine, settings=settings(QUICK, max_examples=3))
    assert {"async", "plain"} == set(ended)


def test_a_machine_whose_making_fails_does_not_stand_in_the_way_of_the_next() -> None:
    class Unmakable(Counter):
        def __init__(self) -> None:
            super().__init__()
            raise ValueError("not today")

    with pytest.raises(ValueError, match="not today"):
        run_state_machine_as_test(Unmakable, settings=QUICK)
    run_state_machine_as_test(Counter, settings=settings(QUICK, max_examples=2))
    assert Counter is not Unmakable


def test_schedules_are_repeated_so_a_race_is_not_flaky() -> None:
    class Racing(TrioStateMachine):
        @rule()
        async def race(self) -> None:
            order: list[int] = []

            async def arrive(number: int) -> None:
                order.append(number)

            async with trio.open_nursery() as nursery:
                for number in range(4):
                    nursery.start_soon(arrive, number)
            if order != [0, 1, 2, 3]:
                raise ValueError("overtaken")

    assert "state.race()" in history_of(Racing, ValueError)


@pytest.mark.parametrize("name", ["TrioStateMachine", "strategies"])
def test_without_hypothesis_there_is_an_import_error_that_says_so(name: str) -> None:
    code = f"""
import sys
sys.modules["hypothesis"] = None
from trio_socketio.testing import open_client
try:
    from trio_socketio.testing import {name}
except ImportError as error:
    print(error)
"""
    done: Any = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    assert "pip install trio-socketio[testing]" in done.stdout
