"""Handlers registered once, for all sockets of a namespace."""

from __future__ import annotations

import gc
import re
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio

from trio_socketio import EventArgumentsError, ReservedEventError, Server

from ..wire_client import settle
from .support import open_server, unanswered, warnings

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio_socketio import Socket


def told_errors(io: Server) -> list[tuple[Exception, Any, Any]]:
    told: list[tuple[Exception, Any, Any]] = []
    io.on_error(lambda error, socket, event: told.append((error, socket, event)))
    return told


# Calling


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_handler_gets_the_socket_and_the_arguments_and_its_result_is_the_acknowledgement(
    asynchronous: bool,
) -> None:
    io = Server()

    def plain(socket: Socket, text: str, count: int = 1) -> list[Any]:
        return [socket.id, text * count]

    @io.handle("repeat")
    async def slow(socket: Socket, text: str, count: int = 1) -> list[Any]:
        await trio.sleep(1)
        return plain(socket, text, count)

    if not asynchronous:
        io = Server()
        io.handle("repeat", plain)
    async with open_server(io) as server:
        one, two = await server.connect_many(2)

        assert await one.client.emit_with_ack("repeat", "ab", 2) == [one.socket.id, "abab"]
        assert await two.client.emit_with_ack("repeat", "c") == [two.socket.id, "c"]


async def test_it_is_for_sockets_of_its_namespace_only() -> None:
    io = Server()
    io.of("/a").handle("where", lambda socket: socket.namespace.name)
    async with open_server(io) as server:
        inside, outside = await server.client("/a"), await server.client()

        assert await inside.emit_with_ack("where") == "/a"
        assert await unanswered(outside, "where")


async def test_one_registered_late_is_for_sockets_that_are_connected_already() -> None:
    io = Server()
    async with open_server(io) as server:
        client = await server.client()
        io.handle("late", lambda socket: "here")

        assert await client.emit_with_ack("late") == "here"


async def test_a_name_may_be_a_number() -> None:
    io = Server()
    io.handle(3, lambda socket: "number")
    async with open_server(io) as server:
        client = await server.client()

        assert await unanswered(client, "3")
        assert await client.emit_with_ack(3) == "number"


async def test_handlers_of_the_namespace_come_before_those_of_the_socket() -> None:
    io = Server()
    calls: list[str] = []

    async def of_namespace(socket: Socket) -> None:
        calls.append("namespace, async")

    io.handle("x", of_namespace)
    io.handle("x", lambda socket: calls.append("namespace, plain"))
    io.on("connection", lambda socket: socket.on("x", lambda: calls.append("socket")))
    async with open_server(io) as server:
        client = await server.client()

        await client.emit("x")
        await settle()

        assert calls == ["namespace, async", "namespace, plain", "socket"]


@pytest.mark.parametrize(("results", "answer"), [((None, 1), 1), ((1, None), 1), ((1, 2), 1)])
async def test_they_share_the_acknowledgement_with_those_of_the_socket(results: tuple[Any, Any], answer: int) -> None:
    io = Server()
    io.handle("x", lambda socket: results[0])
    io.on("connection", lambda socket: socket.on("x", lambda: results[1]))
    async with open_server(io) as server:
        client = await server.client()

        assert await client.emit_with_ack("x") == answer


async def test_events_do_not_wait_for_connection_handlers() -> None:
    io = Server()
    io.handle("known", lambda socket: "at once")

    @io.on("connection")
    async def connected(socket: Socket) -> None:
        await trio.sleep(5)
        socket.on("learned", lambda: "later")

    async with open_server(io) as server:
        client = await server.client()
        begun = trio.current_time()

        assert await client.emit_with_ack("known") == "at once"
        assert trio.current_time() == begun

        assert await client.emit_with_ack("learned") == "later"
        assert trio.current_time() - begun == pytest.approx(5)


async def test_handlers_start_in_the_order_of_their_events() -> None:
    io = Server()
    calls: list[int] = []

    async def slow(socket: Socket, number: int) -> None:
        calls.append(number)
        await trio.sleep(1)

    io.handle("slow", slow)
    io.handle("plain", lambda socket, number: calls.append(number))
    async with open_server(io) as server:
        client = await server.client(transport="polling")

        await client.send_raw(*(f'42["{"slow" if number % 3 else "plain"}",{number}]' for number in range(40)))
        await settle()

        assert calls == list(range(40))


async def test_once_on_a_socket_leaves_the_handler_of_the_namespace() -> None:
    io = Server()
    calls: list[str] = []
    io.handle("x", lambda socket: calls.append("namespace"))
    io.on("connection", lambda socket: socket.once("x", lambda: calls.append("socket")))
    async with open_server(io) as server:
        client, socket = await server.connect()

        await client.emit("x")
        await client.emit("x")
        await settle()
        socket.off()
        await client.emit("x")
        await settle()

        assert calls == ["namespace", "socket", "namespace", "namespace"]


async def test_middlewares_of_the_socket_come_first() -> None:
    io = Server()
    io.handle("x", lambda socket, value: value)

    @io.on("connection")
    def connected(socket: Socket) -> None:
        @socket.use
        def change(event: list[Any]) -> None:
            event[1] = "changed"

    async with open_server(io) as server:
        client = await server.client()

        assert await client.emit_with_ack("x", "original") == "changed"


# Errors


async def test_a_handler_that_raises_sends_no_acknowledgement_and_is_reported() -> None:
    io = Server()
    told = told_errors(io)

    @io.handle("x")
    async def fail(socket: Socket) -> None:
        raise ValueError("its own")

    async with open_server(io) as server:
        client, socket = await server.connect()

        assert await unanswered(client, "x")
        assert [(str(error), about, event) for error, about, event in told] == [("its own", socket, "x")]


@pytest.mark.parametrize("args", [(), (1, 2, 3)])
async def test_the_client_is_told_of_by_the_number_of_its_own_arguments(
    args: tuple[int, ...], caplog: pytest.LogCaptureFixture
) -> None:
    io = Server(handler_errors="raise")
    told = told_errors(io)
    calls: list[Any] = []
    io.handle("x", lambda socket, a, b=None: calls.append(a))
    async with open_server(io) as server:
        client = await server.client()

        assert await unanswered(client, "x", *args)
    [(error, _, _)] = told
    assert type(error) is EventArgumentsError
    assert f"with {len(args)} arguments" in str(error)
    assert calls == []
    assert warnings(caplog) == []


async def test_a_plain_function_that_returns_a_coroutine_is_an_error() -> None:
    async def slow() -> None: ...

    io = Server()
    told = told_errors(io)
    io.handle("x", lambda socket: slow())
    async with open_server(io) as server:
        client = await server.client()

        assert await unanswered(client, "x")
        assert [type(error) for error, _, _ in told] == [TypeError]


# The end


async def test_the_end_of_every_socket_can_be_handled() -> None:
    io = Server()
    ends: list[Any] = []

    @io.handle("disconnecting")
    async def ending(socket: Socket, reason: str) -> None:
        await trio.sleep(1)
        ends.append(("disconnecting", socket, reason, socket.id in socket.rooms))

    io.handle("disconnect", lambda *args: ends.append(("disconnect", *args)))
    io.handle("disconnect", lambda socket: ends.append(("disconnect", socket)))
    io.on("connection", lambda socket: socket.on("disconnect", lambda reason: ends.append(("own", reason))))
    async with open_server(io) as server:
        _, socket = await server.connect()

        await socket.disconnect()

        reason = "server namespace disconnect"
        assert ends == [
            ("disconnecting", socket, reason, True),
            ("disconnect", socket, reason, None),
            ("disconnect", socket),
            ("own", reason),
        ]


async def test_an_end_handler_that_fails_keeps_no_other_from_its_turn() -> None:
    io = Server()
    told = told_errors(io)
    ends: list[str] = []
    io.handle("disconnect", lambda socket: 1 / 0)
    io.handle("disconnect", lambda socket: ends.append("second"))
    async with open_server(io) as server:
        _, socket = await server.connect()

        await socket.disconnect()

        assert ends == ["second"]
        assert [(type(error), event) for error, _, event in told] == [(ZeroDivisionError, "disconnect")]


# Registering


@pytest.mark.parametrize("name", ["connect", "connection", "connect_error", "newListener", "removeListener"])
def test_names_that_clients_cannot_send_are_refused(name: str) -> None:
    with pytest.raises(ReservedEventError, match=name):
        Server().handle(name, lambda socket: None)


@pytest.mark.parametrize("name", [True, None, 1.5, b"x"])
def test_what_is_no_name_is_refused(name: Any) -> None:
    with pytest.raises(TypeError):
        Server().handle(name, lambda socket: None)


@pytest.mark.parametrize(
    ("name", "handler", "why"),
    [
        ("x", lambda: None, "called with the socket first"),
        ("x", lambda *, socket: None, "keyword argument 'socket'"),
        ("x", "no function", "not callable"),
        ("disconnect", lambda socket, reason, description, more: None, "called with 3 arguments"),
        ("disconnect", lambda: None, "called with the socket first"),
    ],
)
def test_a_function_that_cannot_be_called_as_a_handler_is_refused(name: str, handler: Any, why: str) -> None:
    with pytest.raises(TypeError, match=why):
        Server().handle(name, handler)


class Callable_:
    async def __call__(self, socket: Socket, value: int) -> int:
        return value + 1


def partly(step: int, socket: Socket, value: int) -> int:
    return value + step


@pytest.mark.parametrize("handler", [Callable_(), partial(partly, 1), lambda *args: args[1] + 1])
async def test_anything_that_can_be_called_may_handle(handler: Callable[..., Any]) -> None:
    io = Server()
    assert io.handle("next", handler) is handler
    async with open_server(io) as server:
        client = await server.client()

        assert await client.emit_with_ack("next", 1) == 2


def test_as_a_decorator_it_leaves_the_function_as_it_is() -> None:
    def handler(socket: Socket) -> None: ...

    assert Server().handle("x")(handler) is handler


# Namespaces that clients make


async def test_the_children_of_a_parent_have_its_handlers() -> None:
    io = Server()
    parent = io.of(re.compile("^/room-"))
    parent.handle("where", lambda socket: socket.namespace.name)
    async with open_server(io) as server:
        one = await server.client("/room-1")
        io.of("/room-1").handle("mine", lambda socket: "mine")
        parent.handle("late", lambda socket: "late")
        two = await server.client("/room-2")

        assert await one.emit_with_ack("where") == "/room-1"
        assert await one.emit_with_ack("mine") == "mine"
        assert await unanswered(one, "late")
        assert await two.emit_with_ack("where") == "/room-2"
        assert await unanswered(two, "mine")
        assert await two.emit_with_ack("late") == "late"


# Cost


async def test_nothing_of_a_handler_is_kept_for_a_socket() -> None:
    io = Server()

    def handler(socket: Socket) -> None: ...

    io.handle("x", handler)
    async with open_server(io) as server:
        gc.collect()
        before = len(gc.get_referrers(handler))
        pairs = await server.connect_many(20)
        for client, _ in pairs:
            await client.emit("x")
        await settle()
        gc.collect()

        assert len(gc.get_referrers(handler)) == before
