"""Handlers of events: when they are called, what becomes of their results, and of their errors."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest
import trio

from trio_socketio import EventArgumentsError, Server, ServerStatistics, SocketDisconnected

from ..wire_client import settle
from .support import at_least, dismissed, open_server, unanswered, warnings

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio_socketio import Socket


def told_errors(io: Server) -> list[tuple[Exception, Any]]:
    told: list[tuple[Exception, Any]] = []
    io.on_error(lambda error, socket, event: told.append((error, event)))
    return told


def handling(event: str | int, handler: Callable[..., Any], **options: Any) -> Server:
    """A server whose sockets have one handler."""
    io = Server(**options)
    io.on("connection", lambda socket: socket.on(event, handler))
    return io


async def failing(*args: Any) -> None:
    raise ValueError("the handler's own")


# Answers


@pytest.mark.parametrize(
    ("result", "answer"),
    [
        (None, "[]"),
        (1, "[1]"),
        (False, "[false]"),
        ([1, 2], "[[1,2]]"),
        ((1, 2), "[1,2]"),
        ((None,), "[null]"),
        ((), "[]"),
        ({"a": "é"}, '[{"a":"é"}]'),
    ],
)
@pytest.mark.parametrize("asynchronous", [False, True])
async def test_what_a_handler_returns_is_the_acknowledgement(result: Any, answer: str, asynchronous: bool) -> None:
    async def handler() -> Any:
        await trio.lowlevel.checkpoint()
        return result

    async with open_server(handling("ask", handler if asynchronous else lambda: result)) as server:
        client = await server.client()

        await client.emit_with_ack("ask")

        assert client.wire[-1] == ("server", "websocket", f"430{answer}")


async def test_bytes_anywhere_in_an_answer_are_attachments() -> None:
    async with open_server(handling("ask", lambda *args: args)) as server:
        client = await server.client()

        args = (b"\x01", {"deep": [b"\x02", "text"]})

        assert await client.emit_with_ack("ask", *args) == args
        assert [packet.data for packet in client.wire][-3:] == [
            '462-0[{"_placeholder":true,"num":0},{"deep":[{"_placeholder":true,"num":1},"text"]}]',
            b"\x01",
            b"\x02",
        ]


async def test_an_event_without_an_id_is_not_acknowledged() -> None:
    async with open_server(handling("ask", lambda: 1)) as server:
        client = await server.client()

        said = len(client.wire)
        await client.emit("ask")
        await settle()

        assert [packet.sender for packet in client.wire][said:] == ["client"]


async def test_an_event_nobody_listens_to_is_not_acknowledged_and_not_kept() -> None:
    async with open_server() as server:
        client, socket = await server.connect()

        assert await unanswered(client, "ask")
        assert socket.statistics().queued_events == 0


@pytest.mark.parametrize("results", [(None, 1), (1, None), (None, 1, None), (1, 2)])
async def test_of_several_handlers_the_first_result_that_is_not_none_is_the_answer(results: tuple[Any, ...]) -> None:
    io = Server()

    @io.on("connection")
    def connected(socket: Socket) -> None:
        for result in results:
            socket.on("ask", lambda result=result: result)

    async with open_server(io) as server:
        client = await server.client()

        assert await client.emit_with_ack("ask") == 1


async def test_several_handlers_that_return_none_acknowledge_once_when_the_last_is_over() -> None:
    io = Server()

    async def slow() -> None:
        await trio.sleep(1)

    @io.on("connection")
    def connected(socket: Socket) -> None:
        socket.on("ask", slow)
        socket.on("ask", lambda: None)

    async with open_server(io) as server:
        client = await server.client()
        begun = trio.current_time()

        assert await client.emit_with_ack("ask") is None
        assert trio.current_time() - begun == pytest.approx(1)
        await trio.sleep(1)

        assert [packet.data for packet in client.wire][-2:] == ['420["ask"]', "430[]"]


@pytest.mark.parametrize("result", [object(), {1}, 2**70, [b"x"] * 11])
async def test_an_answer_that_cannot_be_encoded_is_an_error_and_not_sent(result: Any) -> None:
    io = handling("ask", lambda: result)
    told = told_errors(io)
    async with open_server(io) as server:
        client, socket = await server.connect()

        assert await unanswered(client, "ask")
        await socket.emit("later")

        assert await client.receive_all() == [("later",)]
        assert [(type(error).__name__, event) for error, event in told] == [("EncodeError", "ask")]


async def test_an_answer_after_the_end_of_the_socket_is_dropped() -> None:
    async def handler(socket: Socket) -> str:
        await socket.disconnect()
        return "too late"

    io = Server()
    io.of("/other")
    told = told_errors(io)

    @io.on("connection")
    def connected(socket: Socket) -> None:
        async def bye() -> str:
            return await handler(socket)

        socket.on("bye", bye)

    async with open_server(io) as server:
        client = await server.client()
        await client.of("/other")  # so the session stays

        with pytest.raises(SocketDisconnected, match="io server disconnect"):
            await client.emit_with_ack("bye")

        await settle()
        assert client.wire[-1] == ("server", "websocket", "41")
        assert told == []


# Registering


async def test_a_name_may_be_a_number() -> None:
    calls: list[Any] = []
    async with open_server(handling(3, calls.append)) as server:
        client = await server.client()

        await client.emit(3, "x")
        await client.emit("3", "y")
        await settle()

        assert calls == ["x"]


async def test_once_is_for_the_next_event_only() -> None:
    io = Server()
    calls: list[Any] = []
    io.on("connection", lambda socket: socket.once("x", calls.append))
    async with open_server(io) as server:
        client = await server.client(transport="polling")

        await client.send_raw('42["x",1]', '42["x",2]')
        await settle()

        assert calls == [1]


async def test_off_removes_one_handler_all_of_a_name_or_all() -> None:
    calls: list[str] = []
    async with open_server() as server:
        client, socket = await server.connect()

        def first() -> None:
            calls.append("first")

        for event in ("x", "y", "z"):
            socket.on(event, first)
            socket.on(event, lambda: calls.append("second"))
        socket.off("x", first)
        socket.off("y")
        await client.emit("x")
        await client.emit("y")
        await settle()
        assert calls == ["second"]

        socket.off()
        await client.emit("z")
        await settle()
        assert calls == ["second"]


@pytest.mark.parametrize("method", ["on", "once"])
async def test_on_is_a_decorator_too(method: str) -> None:
    calls: list[str] = []
    async with open_server() as server:
        client, socket = await server.connect()

        def handler() -> None:
            calls.append("x")

        assert getattr(socket, method)("x")(handler) is handler
        await client.emit("x")
        await settle()
        assert calls == ["x"]


@pytest.mark.parametrize(
    ("event", "handler", "message"),
    [
        ("x", 3, 'listener of "x": 3 is not callable'),
        ("x", lambda *, key: None, "needs the keyword argument 'key', which nobody gives it"),
        ("disconnect", lambda a, b, c: None, 'listener of "disconnect" is called with 2 arguments, but .* needs 3'),
        ("disconnecting", lambda a, b, c: None, 'listener of "disconnecting" is called with 2 arguments'),
    ],
)
async def test_a_handler_that_nobody_could_call_is_refused_at_registration(
    event: str, handler: Any, message: str
) -> None:
    async with open_server() as server:
        _, socket = await server.connect()

        with pytest.raises(TypeError, match=message):
            socket.on(event, handler)


def test_a_connection_handler_must_take_one_argument() -> None:
    with pytest.raises(TypeError, match=r'listener of "connection" is called with 1 arguments, but .* needs 2'):
        Server().on("connection", lambda socket, more: None)


async def test_a_connection_handler_may_take_no_argument_and_connect_is_another_name() -> None:
    io = Server()
    calls: list[str] = []
    io.on("connect", lambda: calls.append("plain"))
    io.once("connection", lambda socket: calls.append("once"))

    async with open_server(io) as server:
        await server.connect_many(2)
        await settle()

    assert calls == ["plain", "once", "plain"]


# Arguments from the client


@pytest.mark.parametrize("args", [(), (1, 2, 3)])
@pytest.mark.parametrize("handler_errors", ["log", "disconnect", "raise"])
async def test_a_wrong_number_of_arguments_is_the_clients_fault_and_costs_one_line(
    args: tuple[int, ...], handler_errors: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "trio_socketio")
    calls: list[Any] = []

    async def handler(a: int, b: int = 0) -> None:
        calls.append((a, b))

    io = handling("x", handler, handler_errors=handler_errors)
    told = told_errors(io)
    async with open_server(io) as server:
        client, socket = await server.connect()

        assert await unanswered(client, "x", *args)
        assert await client.emit_with_ack("x", 1) is None
        assert calls == [(1, 0)]
        assert socket.connected
        assert [type(error) for error, _ in told] == [EventArgumentsError]
        [line] = at_least(caplog, logging.INFO)
        assert f"'x' came with {len(args)} arguments" in line
        assert not warnings(caplog)


async def test_a_type_error_inside_a_handler_runs_it_once_and_is_its_own() -> None:
    calls: list[int] = []

    async def handler(a: int) -> None:
        calls.append(a)
        raise TypeError("handler() takes 0 positional arguments but 1 was given")

    io = handling("x", handler)
    told = told_errors(io)
    async with open_server(io) as server:
        client = await server.client()
        await client.emit("x", 1)
        await settle()

    assert calls == [1]
    assert [type(error) for error, _ in told] == [TypeError]


# Errors


@pytest.mark.parametrize("handler", [failing, lambda: 1 / 0])
async def test_an_error_ends_its_event_and_is_logged_with_its_traceback(
    handler: Callable[[], Any], caplog: pytest.LogCaptureFixture
) -> None:
    async with open_server(handling("x", handler)) as server:
        client, socket = await server.connect()

        assert await unanswered(client, "x")
        assert socket.connected
        [record] = [record for record in caplog.records if record.levelno == logging.ERROR]
        assert record.exc_info is not None
        assert "'x'" in record.getMessage()


async def test_on_error_is_told_instead_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    io = handling("x", failing)
    told: list[Any] = []
    io.on_error(lambda error, socket, event: told.append((str(error), socket.id, event)))
    async with open_server(io) as server:
        client, socket = await server.connect()

        await client.emit("x")
        await settle()

        assert told == [("the handler's own", socket.id, "x")]
        assert not at_least(caplog, logging.INFO)


def test_on_error_must_be_a_plain_function() -> None:
    async def on_error(error: Exception) -> None:
        pass

    with pytest.raises(TypeError, match="plain function"):
        Server().on_error(on_error)


async def test_an_on_error_that_fails_is_logged_and_the_others_are_told(caplog: pytest.LogCaptureFixture) -> None:
    io = handling("x", failing)
    told: list[Exception] = []
    io.on_error(lambda error: 1 / 0)
    io.on_error(told.append)
    async with open_server(io) as server:
        client = await server.client()
        await client.emit("x")
        await settle()

    assert len(told) == 1
    assert warnings(caplog) == ["an on_error listener failed"]


async def test_errors_may_disconnect_the_socket() -> None:
    io = handling("x", failing, handler_errors="disconnect")
    io.of("/other")
    told_errors(io)
    async with open_server(io) as server:
        client, socket = await server.connect()
        other = await client.of("/other")
        reasons: list[str] = []
        socket.on("disconnect", reasons.append)

        await client.emit("x")

        assert await dismissed(client)
        assert client.wire[-1].data == "41"
        await socket.ended.wait()
        assert reasons == ["server namespace disconnect"]
        assert (io.engine.clients_count, other.connected) == (1, True)


@pytest.mark.parametrize("handler", [failing, lambda: int("the handler's own")])
async def test_errors_may_leave_running_as_what_they_are(handler: Callable[[], Any]) -> None:
    io = handling("x", handler, handler_errors="raise")
    ends: list[str] = []

    async def serve() -> None:
        async with open_server(io) as server:
            client, socket = await server.connect()
            socket.on("disconnect", ends.append)
            await client.emit("x")
            await trio.sleep_forever()

    with pytest.raises(ValueError, match="the handler's own"):
        await serve()

    assert ends == ["server shutting down"]
    assert io.statistics() == ServerStatistics()


async def test_a_forgotten_await_is_an_error() -> None:
    io = handling("x", lambda: failing())
    told = told_errors(io)
    async with open_server(io) as server:
        client = await server.client()
        await client.emit("x")
        await settle()

    assert ["returned a coroutine" in str(error) for error, _ in told] == [True]


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_connection_handler_that_raises_disconnects_its_socket_alone(asynchronous: bool) -> None:
    io = Server()
    told = told_errors(io)
    ends: list[str] = []
    broken_ones: list[Socket] = []

    def broken(socket: Socket) -> None:
        if socket.handshake.auth:
            broken_ones.append(socket)
            socket.on("disconnect", ends.append)
            raise ValueError("half of the handlers")

    async def broken_later(socket: Socket) -> None:
        await trio.sleep(1)
        broken(socket)

    io.on("connection", broken_later if asynchronous else broken)
    async with open_server(io) as server:
        other, _ = await server.connect()
        client = await server.client(auth={"break": True})

        assert await dismissed(client)
        await broken_ones[0].ended.wait()
        await io.emit("still here")

        assert ends == ["server namespace disconnect"]
        assert [event for _, event in told] == ["connection"]
        assert await other.receive() == ("still here",)


async def test_an_error_among_cancellations_is_reported_and_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    io = Server()
    io.of("/other")
    told = told_errors(io)

    async def clean_up_badly() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("while cleaning up")

    async def handler() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(clean_up_badly)
            nursery.start_soon(trio.sleep_forever)

    io.on("connection", lambda socket: socket.on("x", handler))
    async with open_server(io) as server:
        client, socket = await server.connect()
        await client.of("/other")
        await client.emit("x")
        await settle()

        await client.disconnect()
        await socket.ended.wait()

        assert io.engine.clients_count == 1
        assert len(told) == 1
        assert not warnings(caplog)


async def test_an_error_among_cancellations_is_reported_when_the_client_has_gone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def handler() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            try:
                await trio.sleep_forever()
            finally:
                raise ValueError("while cleaning up")

    io = handling("x", handler)
    told = told_errors(io)
    async with open_server(io) as server:
        client, socket = await server.connect()
        await client.emit("x")
        await settle()

        await client.drop()
        await socket.ended.wait()

        assert len(told) == 1
        assert not warnings(caplog)


# Tasks of a socket


async def test_start_soon_lives_exactly_as_long_as_the_socket() -> None:
    steps: list[str] = []

    async def task(name: str) -> None:
        try:
            steps.append(name)
            await trio.sleep_forever()
        finally:
            steps.append(f"{name} ended")

    async with open_server() as server:
        server.io.of("/other")
        client, socket = await server.connect()
        await client.of("/other")
        socket.on("disconnecting", lambda: steps.append("disconnecting"))
        socket.start_soon(task, "task")
        await settle()
        assert socket.statistics().tasks == 1

        await client.disconnect()
        await socket.ended.wait()

        assert steps == ["task", "task ended", "disconnecting"]
        with pytest.raises(SocketDisconnected):
            socket.start_soon(task, "too late")


@pytest.mark.parametrize("how", ["disconnect()", "DISCONNECT"])
async def test_a_task_that_has_not_begun_when_its_socket_ends_does_not_outlive_it(how: str) -> None:
    begun: list[str] = []

    async def task() -> None:
        begun.append("begun")
        await trio.sleep_forever()

    async with open_server() as server:
        client, socket = await server.connect(transport="polling")
        socket.on("x", lambda: socket.start_soon(task))
        if how == "disconnect()":
            socket.start_soon(task)
            await socket.disconnect()
        else:
            await client.send_raw('42["x"]', "41")
            await socket.ended.wait()
        await settle()
        tasks_left = [task for task in socket.conn.nursery.child_tasks if "run_task" in task.name]  # type: ignore[union-attr]

        assert tasks_left == []
        assert socket.statistics().tasks == 0


async def test_an_error_of_a_task_is_treated_like_a_handlers() -> None:
    io = Server()
    told = told_errors(io)
    async with open_server(io) as server:
        _, socket = await server.connect()

        socket.start_soon(failing)
        await settle()

        assert [(type(error), event) for error, event in told] == [(ValueError, "failing")]
        assert socket.connected
