"""How many handlers have one turn of the scheduler, and that nobody else waits long for theirs."""

from __future__ import annotations

import contextvars
from contextlib import contextmanager
from itertools import groupby, pairwise
from typing import TYPE_CHECKING

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_socketio import Server

from ..wire_client import settle
from .support import TRANSPORTS, open_server, run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trio_socketio import Socket
    from trio_socketio.testing import MemoryClient

#: Handlers that one task calls before others have their turn.
MOST = 32


class Ticks(trio.abc.Instrument):
    """Counts the rounds of the scheduler: in each, every task that can go on does so once."""

    def __init__(self) -> None:
        self.now = 0

    def before_io_wait(self, timeout: float) -> None:
        self.now += 1


@contextmanager
def counting_ticks() -> Iterator[Ticks]:
    ticks = Ticks()
    trio.lowlevel.add_instrument(ticks)
    try:
        yield ticks
    finally:
        trio.lowlevel.remove_instrument(ticks)


async def send_together(client: MemoryClient, event: str, count: int) -> None:
    await client.send_raw(*(f'42["{event}",{number}]' for number in range(count)))


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_events_that_come_together_are_answered_in_one_turn(transport: str) -> None:
    io = Server()
    seen: list[int] = []

    @io.handle("echo")
    async def echo(socket: Socket, number: int) -> None:
        await socket.emit("echo", number)
        seen.append(ticks.now)

    async with open_server(io) as server:
        client = await server.client(transport=transport)
        with counting_ticks() as ticks:
            await send_together(client, "echo", 16)
            await settle()

        assert await client.receive_all() == [("echo", number) for number in range(16)]
        assert len(seen) == 16
        assert len(set(seen)) == 1


@pytest.mark.parametrize("answers", [True, False])
async def test_a_flood_is_interrupted_for_the_turns_of_others(answers: bool) -> None:
    io = Server()
    seen: list[int] = []

    @io.handle("echo")
    async def echo(socket: Socket, number: int) -> None:
        seen.append(ticks.now)
        if answers:
            await socket.emit("echo", number)

    async with open_server(io) as server:
        client = await server.client()
        with counting_ticks() as ticks:
            await send_together(client, "echo", 5 * MOST)
            await settle()

        assert len(seen) == 5 * MOST
        assert max(len(list(turn)) for _, turn in groupby(seen)) == MOST
        assert [event.args for event in await client.receive_all()] == [(n,) for n in range(5 * MOST * answers)]


async def test_a_handler_that_emits_again_and_again_gives_way_each_time_but_the_first() -> None:
    io = Server()
    seen: list[int] = []

    @io.handle("count")
    async def count(socket: Socket, most: int) -> None:
        for number in range(most):
            await socket.emit("count", number)
            seen.append(ticks.now)

    async with open_server(io) as server:
        client = await server.client()
        with counting_ticks() as ticks:
            for _ in range(3):
                seen.clear()
                await client.emit("count", 10)
                await settle()
                assert len(seen) == 10
                assert all(earlier < later for earlier, later in pairwise(seen))


async def test_what_is_emitted_to_another_client_gives_way() -> None:
    io = Server()
    seen: list[bool] = []

    @io.handle("tell")
    async def tell(socket: Socket, id: str) -> None:
        before = ticks.now
        await io.sockets.sockets[id].emit("told")
        seen.append(before < ticks.now)

    async with open_server(io) as server:
        one, other = await server.client(), await server.client()
        with counting_ticks() as ticks:
            await one.emit("tell", other.id)
            assert (await other.receive()).name == "told"
        assert seen == [True]


async def test_a_cancelled_handler_is_cancelled_where_it_emits_first() -> None:
    io = Server()
    ends: list[str] = []

    @io.handle("own scope")
    async def own_scope(socket: Socket) -> None:
        with trio.CancelScope() as scope:
            scope.cancel()
            await socket.emit("never")
        ends.append("own scope" if scope.cancelled_caught else "not cancelled")

    @io.handle("leave")
    async def leave(socket: Socket) -> None:
        try:
            socket.conn.close(discard=True)
            await trio.lowlevel.checkpoint_if_cancelled()
        except trio.Cancelled:
            ends.append("left")
            raise

    async with open_server(io) as server:
        client, socket = await server.connect()
        await client.emit("own scope")
        await settle()
        assert await client.receive_all() == []
        await client.emit("leave")
        await socket.ended.wait()

    assert ends == ["own scope", "left"]


@settings(max_examples=40)
@given(st.lists(st.tuples(st.booleans(), st.integers(1, 40)), max_size=6))
def test_handlers_that_wait_are_at_work_at_the_same_time_whatever_came_before(bursts: list[tuple[bool, int]]) -> None:
    async def main() -> None:
        io = Server()
        started: list[float] = []

        @io.handle("wait")
        async def wait(socket: Socket, number: int) -> None:
            started.append(trio.current_time())
            await trio.sleep(1)

        @io.handle("answer")
        async def answer(socket: Socket, number: int) -> None:
            started.append(trio.current_time())
            await socket.emit("answer", number)

        async with open_server(io) as server:
            client, socket = await server.connect()
            for waits, count in bursts:
                started.clear()
                await send_together(client, "wait" if waits else "answer", count)
                await settle()
                assert len(started) == count
                assert len(set(started)) == 1
                assert socket.statistics().tasks == (count if waits else 0)
                await trio.sleep(2)
                assert socket.statistics().tasks == socket.statistics().queued_events == 0

    run(main)


class Strange:
    """What cannot be compared."""

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no comparison")

    __hash__ = None  # type: ignore[assignment]


@pytest.mark.parametrize("reset", [True, False])
@pytest.mark.parametrize("value", ["text", Strange()])
async def test_no_event_sees_the_context_variables_of_one_in_the_same_turn(value: object, reset: bool) -> None:
    variable = contextvars.ContextVar[object]("variable", default=None)
    seen: list[object] = []
    io = Server()

    @io.handle("set")
    async def set_it(socket: Socket, number: int) -> None:
        seen.append(variable.get())
        token = variable.set(value)
        await socket.emit("set", number)
        if reset:
            variable.reset(token)

    async with open_server(io) as server:
        client = await server.client()
        await send_together(client, "set", 10)
        assert len(await client.receive_all()) == 10
        assert seen == [None] * 10
