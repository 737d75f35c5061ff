"""The order in which handlers start, how many are at work, and what happens when there are too many events.

One client is raw, because it does not answer a ping before its time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_socketio import Server

from ..wire_client import settle
from .support import TRANSPORTS, open_server, run, serving

if TYPE_CHECKING:
    from trio_socketio import Socket

#: Of each event: how long its handler works, or None for a plain function.
works = st.lists(st.sampled_from((None, 0.0, 0.1, 1.0)), max_size=60)


@settings(max_examples=60)
@given(works, st.sampled_from((1, 2, 64)), st.integers(1, 30), st.booleans(), st.sampled_from(TRANSPORTS))
def test_handlers_start_in_order_of_arrival_and_no_more_than_allowed_are_at_work(
    works: list[float | None], limit: int, batch: int, late: bool, transport: str
) -> None:
    started: list[int] = []
    ended: list[int] = []
    most = 0

    async def asynchronous(number: int, seconds: float) -> None:
        nonlocal most
        started.append(number)
        most = max(most, len(started) - len(ended))
        await trio.sleep(seconds)
        ended.append(number)

    def plain(number: int) -> None:
        started.append(number)
        ended.append(number)

    async def main() -> None:
        io = Server(max_concurrent_events=limit)

        @io.on("connection")
        async def connected(socket: Socket) -> None:
            if late:
                await trio.sleep(0.5)
            socket.on("plain", plain)
            await trio.lowlevel.checkpoint()
            socket.on("async", asynchronous)

        async with open_server(io) as server:
            client = await server.client(transport=transport)
            packets = [
                f'42["plain",{number}]' if seconds is None else f'42["async",{number},{seconds}]'
                for number, seconds in enumerate(works)
            ]
            for start in range(0, len(packets), batch):
                await client.send_raw(*packets[start : start + batch])
            await trio.sleep(100)

    run(main)

    assert started == sorted(ended) == list(range(len(works)))
    assert most <= limit


async def test_a_serial_socket_finishes_each_event_before_the_next() -> None:
    io = Server(max_concurrent_events=1)
    steps: list[str] = []

    async def work(number: int) -> None:
        steps.append(f"{number} begins")
        await trio.sleep(1)
        steps.append(f"{number} ends")

    @io.on("connection")
    def connected(socket: Socket) -> None:
        socket.on("work", work)
        socket.on("plain", lambda: steps.append("plain"))

    async with open_server(io) as server:
        client = await server.client(transport="polling")
        await client.send_raw('42["work",1]', '42["plain"]', '42["work",2]')
        await trio.sleep(5)

    assert steps == ["1 begins", "1 ends", "plain", "2 begins", "2 ends"]


async def test_a_connection_handler_that_ends_does_not_start_one_event_too_many() -> None:
    io = Server(max_concurrent_events=1)
    at_work: list[int] = []

    async def work() -> None:
        at_work.append(1)
        assert len(at_work) == 1
        await trio.sleep(10)
        at_work.pop()

    @io.on("connection")
    async def connected(socket: Socket) -> None:
        socket.on("work", work)
        await trio.sleep(5)

    async with open_server(io, handler_errors="raise") as server:
        client = await server.client()
        for _ in range(3):
            await client.emit("work")
        await trio.sleep(12)
        assert len(at_work) == 1
        await trio.sleep(30)

    assert at_work == []


async def test_plain_functions_are_called_inline() -> None:
    io = Server()
    tasks: list[int] = []

    @io.on("connection")
    def connected(socket: Socket) -> None:
        socket.on("x", lambda: tasks.append(socket.statistics().tasks))

    async with open_server(io) as server:
        client, socket = await server.connect()
        await client.emit("x")
        await settle()

        assert tasks == [0]
        assert socket.statistics().tasks == 0


async def test_a_connection_handler_that_waits_before_it_registers_loses_nothing() -> None:
    io = Server()
    calls: list[str] = []

    @io.on("connection")
    async def connected(socket: Socket) -> None:
        await trio.sleep(1)
        socket.on("a", lambda: calls.append("a"))
        await trio.sleep(1)
        socket.on("b", lambda: calls.append("b"))

    async with open_server(io) as server:
        client, socket = await server.connect()
        for event in ("a", "b", "a", "nobody's", "a"):
            await client.emit(event)
        await settle()
        assert socket.statistics().queued_events == 5

        await trio.sleep(1.5)
        assert calls == ["a"]

        await trio.sleep(1)
        assert calls == ["a", "b", "a", "a"]
        assert socket.statistics().queued_events == 0


async def test_a_connection_handler_may_run_as_long_as_the_socket_without_taking_a_handlers_place() -> None:
    io = Server(max_concurrent_events=1)
    ticks: list[str] = []

    @io.on("connection")
    async def connected(socket: Socket) -> None:
        socket.on("ask", lambda: "answer")
        try:
            await trio.sleep_forever()
        finally:
            ticks.append("ended")

    io.of("/other")
    async with open_server(io) as server:
        client, socket = await server.connect()
        await client.of("/other")  # which keeps the session open

        assert await client.emit_with_ack("ask") == "answer"
        await client.disconnect()
        await socket.ended.wait()
        assert ticks == ["ended"]


# Too many events


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_flood_pauses_reading_and_everything_arrives_once_and_in_order(transport: str) -> None:
    io = Server(max_queued_events=10, max_concurrent_events=2)
    calls: list[int] = []

    async def slow(number: int) -> None:
        calls.append(number)
        await trio.sleep(0.1)

    io.on("connection", lambda socket: socket.on("x", slow))

    async with open_server(io) as server, trio.open_nursery() as nursery:
        client, socket = await server.connect(transport=transport)
        most = 0

        async def flood() -> None:
            for number in range(300):
                await client.emit("x", number)

        nursery.start_soon(flood)
        while len(calls) < 300:
            most = max(most, socket.statistics().queued_events)
            await trio.sleep(0.05)

        assert calls == list(range(300))
        # What is read in one go may exceed the limit: on a WebSocket as much as fits into one read.
        assert most == 10 if transport == "polling" else most >= 10
        assert not socket.conn.paused


async def test_a_post_is_answered_only_when_there_is_room_for_more() -> None:
    io = Server(max_queued_events=2, max_concurrent_events=1)

    async def slow() -> None:
        await trio.sleep(1)

    io.on("connection", lambda socket: socket.on("x", slow))

    async with open_server(io) as server:
        client = await server.client(transport="polling")
        begun = trio.current_time()

        await client.send_raw(*['42["x"]'] * 5)

        # Four wait, and below two there is room again: when the first three are over.
        assert trio.current_time() - begun == pytest.approx(3, abs=0.1)


async def test_a_reader_that_we_paused_is_not_a_silent_peer() -> None:
    io = Server(max_queued_events=2, max_concurrent_events=1, ping_interval=1.0, ping_timeout=1.3)
    calls: list[int] = []

    async def slow(number: int) -> None:
        await trio.sleep(10)
        calls.append(number)

    io.on("connection", lambda socket: socket.on("x", slow))

    async with open_server(io) as server:
        client, socket = await server.connect()
        for number in range(5):
            await client.emit("x", number)
        await trio.sleep(60)

        assert socket.connected
        assert calls == list(range(5))


async def test_a_pong_behind_much_unread_data_has_its_time_again_when_reading_resumes() -> None:
    io = Server(max_queued_events=2, max_concurrent_events=1, ping_interval=1.0, ping_timeout=1.0)

    async def slow() -> None:
        await trio.sleep(10)

    io.on("connection", lambda socket: socket.on("x", slow))

    async with serving(io) as served:
        client, socket = await served.connect()
        await trio.sleep(0.7)
        for _ in range(5):
            await client.emit("x")
        await trio.sleep(29.9)
        assert socket.conn.paused

        await trio.sleep(0.6)  # reading has resumed for half a second, and the client is sending
        await client.engine.send("3")
        await settle()

        assert socket.connected


async def test_acks_and_pongs_are_not_behind_events() -> None:
    io = Server(max_concurrent_events=1, ping_interval=1.0, ping_timeout=1.0)
    answers: list[Any] = []

    async def slow() -> None:
        await trio.sleep(10)

    async def asks(socket: Socket) -> None:
        answers.append(await socket.emit_with_ack("are you there?"))

    @io.on("connection")
    def connected(socket: Socket) -> None:
        socket.on("slow", slow)
        socket.start_soon(asks, socket)

    async with open_server(io) as server:
        client, socket = await server.connect()
        for _ in range(20):
            await client.emit("slow")
        question = await client.receive()
        assert (question.name, question.args) == ("are you there?", ())
        await question.ack("yes")
        await settle()

        assert answers == ["yes"]
        await trio.sleep(10)
        assert await client.receive_all() == []
        assert socket.connected


async def test_a_flood_of_one_client_does_not_stop_another() -> None:
    io = Server(max_queued_events=2, max_concurrent_events=1)

    async def slow() -> None:
        await trio.sleep(100)

    @io.on("connection")
    def connected(socket: Socket) -> None:
        socket.on("slow", slow)
        socket.on("ask", lambda: "answer")

    async with open_server(io) as server:
        flooding, other = await server.connect_many(2)
        for _ in range(50):
            await flooding.client.emit("slow")

        with trio.fail_after(1):
            assert await other.client.emit_with_ack("ask") == "answer"


async def test_a_paused_client_that_leaves_leaves_nothing() -> None:
    io = Server(max_queued_events=2, max_concurrent_events=1)

    async def slow() -> None:
        await trio.sleep(100)

    io.on("connection", lambda socket: socket.on("slow", slow))

    async with open_server(io) as server:
        client, socket = await server.connect()
        for _ in range(50):
            await client.emit("slow")
        await settle()
        assert socket.conn.paused

        socket.conn.close(discard=True)
        await socket.ended.wait()

        assert io.statistics().queued_events == 0
