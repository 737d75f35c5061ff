"""Questions to clients, and their answers."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest
import trio

from trio_socketio import AckTimeout, SocketDisconnected

from ..wire_client import settle
from .support import TRANSPORTS, open_server, stop_polling

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from trio_socketio import Socket
    from trio_socketio.testing import MemoryClient


async def answer(client: MemoryClient, *args: Any) -> None:
    """Acknowledge the next event that comes."""
    await (await client.receive()).ack(*args)


async def outcome(fn: Callable[..., Awaitable[Any]], *args: Any) -> Any:
    """What it returns or raises."""
    try:
        return await fn(*args)
    except (SocketDisconnected, AckTimeout) as error:
        return error


class Outcomes:
    """What several calls, each in a task of its own, return or raise."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.found: list[Any] = []
        self._nursery = nursery

    def start(self, fn: Callable[..., Awaitable[Any]], *args: Any) -> None:
        async def run() -> None:
            self.found.append(await outcome(fn, *args))

        self._nursery.start_soon(run)


def pending(*sockets: Socket) -> int:
    return sum(socket.statistics().pending_acks for socket in sockets)


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize(
    ("args", "value"),
    [
        ((), None),
        ((1,), 1),
        ((None,), None),
        ((1, "two", None), (1, "two", None)),
        (([1, 2],), [1, 2]),
        ((b"\x01", {"deep": b"\x02"}), (b"\x01", {"deep": b"\x02"})),
    ],
)
async def test_the_answer_is_none_a_value_or_a_tuple(args: tuple[Any, ...], value: Any, transport: str) -> None:
    async with open_server() as server, trio.open_nursery() as nursery:
        client, socket = await server.connect(transport=transport)
        outcomes = Outcomes(nursery)

        outcomes.start(socket.emit_with_ack, "question", 1)
        await answer(client, *args)
        await settle()

        assert outcomes.found == [value]
        assert pending(socket) == 0


async def test_ids_count_up_over_direct_questions_and_broadcasts() -> None:
    async with open_server() as server, trio.open_nursery() as nursery:
        client, socket = await server.connect()
        outcomes = Outcomes(nursery)

        for ask in (socket.emit_with_ack, server.io.emit_with_ack, socket.emit_with_ack):
            outcomes.start(ask, "question")
            await settle()

        assert [packet.data for packet in client.wire][-3:] == [
            '420["question"]',
            '421["question"]',
            '422["question"]',
        ]
        nursery.cancel_scope.cancel()


async def test_answers_may_come_in_any_order() -> None:
    async with open_server() as server, trio.open_nursery() as nursery:
        client, socket = await server.connect()
        answers: dict[int, Any] = {}

        async def ask(number: int) -> None:
            answers[number] = await socket.emit_with_ack("question", number)

        for number in range(20):
            nursery.start_soon(ask, number)
        questions = [await client.receive() for _ in range(20)]
        for question in reversed(questions):
            await question.ack(question.args[0] * 10)
        await settle()

        assert answers == {number: number * 10 for number in range(20)}


@pytest.mark.parametrize(
    ("leave", "reason"),
    [
        ("disconnect", "client namespace disconnect"),
        ("close", "transport close"),
        ("drop", "transport close"),
        ("server", "server namespace disconnect"),
        ("io.close", "server shutting down"),
    ],
)
async def test_a_question_ends_at_once_when_its_client_goes(leave: str, reason: str) -> None:
    async with open_server() as server, trio.open_nursery() as nursery:
        client, socket = await server.connect()
        outcomes = Outcomes(nursery)
        outcomes.start(socket.emit_with_ack, "question")
        outcomes.start(socket.timeout(1000).emit_with_ack, "question")
        await settle()
        assert pending(socket) == 2
        begun = trio.current_time()

        if leave == "server":
            await socket.disconnect()
        elif leave == "io.close":
            await server.io.close()
        else:
            await getattr(client, leave)()
        await settle()

        assert [(type(error), error.reason) for error in outcomes.found] == [(SocketDisconnected, reason)] * 2
        assert trio.current_time() == begun
        assert pending(socket) == 0


@pytest.mark.parametrize("in_a_nursery", [False, True])
async def test_a_handler_whose_client_goes_before_it_answers_has_not_failed(
    in_a_nursery: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_server() as server:
        client, socket = await server.connect()
        errors: list[Exception] = []
        server.io.on_error(lambda error, socket, event: errors.append(error))

        @socket.on("ask")
        async def ask() -> None:
            if in_a_nursery:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(socket.emit_with_ack, "question")
                    nursery.start_soon(socket.emit_with_ack, "another")
            else:
                await socket.emit_with_ack("question")

        await client.emit("ask")
        await settle()
        await client.drop()
        await settle()

        assert not socket.connected
        assert errors == []
        assert [record for record in caplog.records if record.levelno >= logging.INFO] == []


async def test_the_end_of_another_client_is_an_error_of_the_handler_that_waits_for_it() -> None:
    async with open_server() as server:
        client, socket = await server.connect()
        other_client, other = await server.connect()
        errors: list[Exception] = []
        server.io.on_error(lambda error, socket, event: errors.append(error))

        @socket.on("ask")
        async def ask() -> None:
            await other.emit_with_ack("question")

        await client.emit("ask")
        await settle()
        await other_client.drop()
        await settle()

        assert [type(error) for error in errors] == [SocketDisconnected]


async def test_a_cancelled_question_leaves_nothing_and_its_late_answer_is_ignored() -> None:
    async with open_server() as server:
        client, socket = await server.connect()

        with trio.move_on_after(5):
            await socket.emit_with_ack("question")
        assert pending(socket) == 0

        await answer(client, "late")
        await socket.emit("still here")
        assert await client.receive() == ("still here",)


@pytest.mark.parametrize("id", [0, 1, 99999, 2**64 - 1])
async def test_answers_that_nobody_waits_for_are_ignored(id: int) -> None:
    async with open_server() as server, trio.open_nursery() as nursery:
        client, socket = await server.connect()
        outcomes = Outcomes(nursery)
        outcomes.start(socket.emit_with_ack, "question")
        await settle()

        await client.send_raw('430["first"]', f'43{id}["second"]', '430["third"]')
        await settle()

        assert outcomes.found == ["first"]
        assert socket.connected


async def test_an_answer_without_an_id_is_ignored() -> None:
    async with open_server() as server:
        client, socket = await server.connect()

        await client.send_raw("43[]")
        await settle()

        assert socket.connected


async def test_a_client_cannot_answer_for_another_one() -> None:
    async with open_server() as server, trio.open_nursery() as nursery:
        asked, other = await server.connect_many(2)
        outcomes = Outcomes(nursery)
        outcomes.start(asked.socket.emit_with_ack, "question")
        await settle()

        await other.client.send_raw('430["forged"]')
        await settle()
        assert outcomes.found == []

        await answer(asked.client, "genuine")
        await settle()
        assert outcomes.found == ["genuine"]


async def test_the_timeout_of_an_operator_raises_ack_timeout() -> None:
    async with open_server() as server:
        client, socket = await server.connect()
        begun = trio.current_time()

        with pytest.raises(AckTimeout) as caught:
            await socket.timeout(5).emit_with_ack("question")

        assert isinstance(caught.value, trio.TooSlowError)
        assert (caught.value.responses, caught.value.missing) == ([], 1)
        assert trio.current_time() - begun == pytest.approx(5)
        assert pending(socket) == 0
        await answer(client, "late")
        await settle()


async def test_an_answer_in_time_beats_the_timeout() -> None:
    async with open_server() as server, trio.open_nursery() as nursery:
        client, socket = await server.connect()
        outcomes = Outcomes(nursery)
        outcomes.start(socket.timeout(5).emit_with_ack, "question")

        await trio.sleep(4)
        await answer(client, "in time")
        await trio.sleep(10)

        assert outcomes.found == ["in time"]


async def test_a_cancellation_from_outside_is_not_a_timeout() -> None:
    async with open_server() as server:
        _, socket = await server.connect()

        with trio.move_on_after(1) as scope:
            await socket.timeout(5).emit_with_ack("question")

        assert scope.cancelled_caught


# Broadcasts


async def test_all_answer_and_their_answers_come_in_the_order_of_arrival() -> None:
    async with open_server() as server, trio.open_nursery() as nursery:
        pairs = await server.connect_many(3)
        outcomes = Outcomes(nursery)
        outcomes.start(server.io.timeout(5).emit_with_ack, "question")

        for number in (2, 0, 1):
            await answer(pairs[number].client, *[number] * number)
            await settle()

        assert outcomes.found == [[(2, 2), None, 1]]
        assert pending(*[pair.socket for pair in pairs]) == 0


async def test_one_silent_client_makes_a_timeout_with_the_answers_of_the_others() -> None:
    async with open_server() as server, trio.open_nursery() as nursery:
        pairs = await server.connect_many(3)
        outcomes = Outcomes(nursery)
        outcomes.start(server.io.timeout(5).emit_with_ack, "question")

        await answer(pairs[0].client, "a")
        await answer(pairs[2].client, b"c")
        await trio.sleep(6)

        [error] = outcomes.found
        assert isinstance(error, AckTimeout)
        assert (error.responses, error.missing) == (["a", b"c"], 1)
        assert pending(*[pair.socket for pair in pairs]) == 0


async def test_answers_that_arrive_in_the_last_moment_are_among_the_responses() -> None:
    async with open_server() as server, trio.open_nursery() as nursery:
        pairs = await server.connect_many(5)
        outcomes = Outcomes(nursery)
        outcomes.start(server.io.timeout(5).emit_with_ack, "question")
        questions = [await pair.client.receive() for pair in pairs]

        await trio.sleep(5 - 1e-9)
        for question in questions[:4]:
            nursery.start_soon(question.ack, "answer")
        await trio.sleep(1)

        [error] = outcomes.found
        assert (error.responses, error.missing) == (["answer"] * 4, 1)


async def test_a_client_that_leaves_is_not_waited_for() -> None:
    async with open_server() as server, trio.open_nursery() as nursery:
        pairs = await server.connect_many(3)
        outcomes = Outcomes(nursery)
        outcomes.start(server.io.emit_with_ack, "question")
        await answer(pairs[0].client, "a")
        await answer(pairs[1].client, "b")
        begun = trio.current_time()

        await pairs[2].client.close()
        await settle()

        assert outcomes.found == [["a", "b"]]
        assert trio.current_time() == begun


async def test_a_question_to_nobody_is_answered_at_once() -> None:
    async with open_server() as server:
        await server.connect()
        begun = trio.current_time()

        assert await server.io.to("nobody's room").emit_with_ack("question") == []
        assert await server.io.to("nobody's room").timeout(5).emit_with_ack("question") == []
        assert await server.io.of("/empty").emit_with_ack("question") == []

        assert trio.current_time() == begun


async def test_only_those_who_are_meant_are_asked_each_once() -> None:
    async with open_server() as server, trio.open_nursery() as nursery:
        pairs = await server.connect_many(3)
        await pairs[0].socket.join(["a", "b"])
        await pairs[1].socket.join("b")
        outcomes = Outcomes(nursery)
        outcomes.start(pairs[2].socket.to(["a", "b"]).except_(pairs[1].socket.id).emit_with_ack, "question")

        await answer(pairs[0].client, "me")
        await settle()

        assert outcomes.found == [["me"]]
        assert [await pair.client.receive_all() for pair in pairs] == [[], [], []]


async def test_a_cancelled_broadcast_question_leaves_nothing() -> None:
    async with open_server() as server:
        pairs = await server.connect_many(3)

        with trio.move_on_after(5):
            await server.io.emit_with_ack("question")

        assert pending(*[pair.socket for pair in pairs]) == 0
        for pair in pairs:
            await answer(pair.client, "late")
        await settle()
        assert all(pair.socket.connected for pair in pairs)


async def test_a_client_whose_outbox_is_full_counts_as_one_that_has_left() -> None:
    async with open_server(max_outbox_packets=3) as server, trio.open_nursery() as nursery:
        reading, stuck = await server.connect(), await server.connect(transport="polling")
        await stop_polling(*stuck)
        for _ in range(3):
            stuck.socket.emit_nowait("x")
        outcomes = Outcomes(nursery)
        outcomes.start(server.io.emit_with_ack, "question")

        await answer(reading.client, "me")
        await settle()

        assert outcomes.found == [["me"]]


# The answers as a stream


async def stream(replies: AsyncIterator[Any], found: list[Any]) -> None:
    async for reply in replies:
        found.append(reply)
    found.append("end")


async def test_the_answers_can_be_had_each_as_it_arrives() -> None:
    async with open_server() as server:
        pairs = await server.connect_many(3)
        found: list[Any] = []

        async with server.io.timeout(5).acks("question") as replies, trio.open_nursery() as nursery:
            nursery.start_soon(stream, replies, found)
            for number, pair in enumerate(pairs):
                await answer(pair.client, number)
                await settle()
                assert found[: number + 1] == list(range(number + 1))

            assert found == [0, 1, 2, "end"]
            assert replies.responses == [0, 1, 2]


async def test_a_stream_may_be_left_early() -> None:
    async with open_server() as server:
        pairs = await server.connect_many(3)

        async with server.io.acks("question") as replies:
            await answer(pairs[1].client, "first")
            async for reply in replies:
                assert reply == "first"
                break

        assert pending(*[pair.socket for pair in pairs]) == 0
        await answer(pairs[0].client, "late")
        await settle()
        assert pairs[0].socket.connected


async def test_a_stream_ends_when_the_rest_has_left() -> None:
    async with open_server() as server:
        pairs = await server.connect_many(2)
        found: list[Any] = []

        async with server.io.acks("question") as replies, trio.open_nursery() as nursery:
            nursery.start_soon(stream, replies, found)
            await answer(pairs[0].client, "a")
            await pairs[1].socket.disconnect()
            await settle()

        assert found == ["a", "end"]


async def test_a_stream_raises_at_its_timeout_what_it_has_got() -> None:
    async with open_server() as server:
        pairs = await server.connect_many(3)
        found: list[Any] = []

        async def ask() -> None:
            async with server.io.timeout(5).acks("question") as replies:
                await answer(pairs[0].client, "a")
                await stream(replies, found)

        with pytest.raises(AckTimeout) as caught:
            await ask()

        assert found == ["a"]
        assert (caught.value.responses, caught.value.missing) == (["a"], 2)
        assert pending(*[pair.socket for pair in pairs]) == 0


async def test_a_slow_reader_of_a_stream_loses_no_answer_that_came_in_time() -> None:
    async with open_server() as server:
        pairs = await server.connect_many(3)
        found: list[Any] = []

        async def ask() -> None:
            async with server.io.timeout(5).acks("question") as replies:
                await answer(pairs[0].client, "a")
                await answer(pairs[1].client, "b")
                async for reply in replies:
                    found.append(reply)
                    await trio.sleep(10)

        with pytest.raises(AckTimeout) as caught:
            await ask()

        assert found == caught.value.responses == ["a", "b"]
        assert caught.value.missing == 1


async def test_a_stream_of_nobodys_answers_is_empty() -> None:
    async with open_server() as server:
        found: list[Any] = []

        async with server.io.acks("question") as replies:
            await stream(replies, found)

        assert found == ["end"]


async def test_an_error_inside_the_stream_leaves_nothing() -> None:
    async with open_server() as server:
        _, socket = await server.connect()

        with pytest.raises(KeyError):
            async with server.io.acks("question"):
                raise KeyError

        assert pending(socket) == 0
