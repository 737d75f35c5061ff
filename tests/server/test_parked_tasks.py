"""Tasks that stay for a socket's next events: nobody's business but memory's, and gone when they are not used."""

from __future__ import annotations

import contextvars
from typing import TYPE_CHECKING

import trio

from trio_socketio import Server

from ..wire_client import count_tasks, settle
from .support import open_server, run

if TYPE_CHECKING:
    from trio_socketio import Socket

#: Seconds in which one ping comes, and is answered.
HEARTBEAT = 10.5


def slow_echo(io: Server) -> None:
    @io.on("connection")
    async def connected(socket: Socket) -> None:
        @socket.on("echo")
        async def echo(value: int) -> None:
            await trio.sleep(0.1)
            await socket.emit("echo", value)


def test_tasks_that_stay_are_bounded_and_count_for_no_statistics() -> None:
    async def main() -> None:
        io = Server()
        slow_echo(io)
        async with open_server(io) as server:
            client, socket = await server.connect()
            before = count_tasks(io)
            for number in range(40):
                await client.emit("echo", number)
            await settle()
            assert socket.statistics().tasks == 40
            await trio.sleep(0.5)

            assert len(await client.receive_all()) == 40
            assert socket.statistics().tasks == io.statistics().tasks == 0
            assert count_tasks(io) - before == 16

    run(main)


def test_tasks_without_an_event_between_two_heartbeats_end() -> None:
    async def main() -> None:
        io = Server(ping_interval=10.0, ping_timeout=5.0)
        slow_echo(io)
        async with open_server(io) as server:
            client = await server.client()
            before = count_tasks(io)
            for number in range(5):
                await client.emit("echo", number)
            await trio.sleep(1)
            assert count_tasks(io) - before == 5

            await trio.sleep(HEARTBEAT)
            for _ in range(2):  # one at a time from now on: one task is enough
                await client.emit("echo", 0)
                await trio.sleep(HEARTBEAT)
            assert count_tasks(io) - before == 1

            await trio.sleep(HEARTBEAT)
            assert count_tasks(io) == before

            await client.emit("echo", 7)
            await trio.sleep(1)
            assert (await client.receive_all())[-1] == ("echo", 7)

    run(main)


def test_no_event_sees_the_context_variables_of_one_before() -> None:
    variable = contextvars.ContextVar[int]("variable", default=0)
    seen: list[int] = []

    async def main() -> None:
        io = Server()

        @io.on("connection")
        async def connected(socket: Socket) -> None:
            @socket.on("set")
            async def set_it(value: int) -> None:
                seen.append(variable.get())
                variable.set(value)
                await trio.lowlevel.checkpoint()
                seen.append(variable.get())

        async with open_server(io) as server:
            client = await server.client()
            for number in (1, 2):
                await client.emit("set", number)
                await trio.sleep(1)

    run(main)

    assert seen == [0, 1, 0, 2]


def test_leaving_a_namespace_ends_the_tasks_that_stayed() -> None:
    async def main() -> None:
        io = Server()
        slow_echo(io)
        io.of("/other")
        async with open_server(io) as server:
            client, socket = await server.connect()
            await client.of("/other")  # which keeps the session open
            before = count_tasks(io)
            await client.emit("echo", 1)
            await trio.sleep(1)
            assert count_tasks(io) - before == 1

            await socket.disconnect()
            await settle()
            assert count_tasks(io) == before

    run(main)
