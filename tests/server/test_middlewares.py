"""What runs before a socket is connected, and before an event reaches its handlers."""

from __future__ import annotations

import contextvars
import logging
from typing import TYPE_CHECKING, Any

import pytest
import trio

from trio_socketio import ConnectionRefused, Server, ServerStatistics

from ..wire_client import settle
from .support import at_least, open_server, unanswered, warnings

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio_socketio import Socket


def told_errors(io: Server) -> list[tuple[Exception, Any]]:
    told: list[tuple[Exception, Any]] = []
    io.on_error(lambda error, socket, event: told.append((error, event)))
    return told


async def test_middlewares_run_one_after_the_other_in_order_of_registration() -> None:
    io = Server()
    steps: list[str] = []

    @io.use
    async def first(socket: Socket) -> None:
        steps.append("first begins")
        await trio.sleep(1)
        steps.append("first ends")

    @io.use
    def second(socket: Socket) -> None:
        steps.append("second")

    io.on("connection", lambda socket: steps.append("connection"))

    async with open_server(io) as server:
        await server.connect()
        await settle()

    assert steps == ["first begins", "first ends", "second", "connection"]


async def test_context_variables_set_before_a_socket_is_connected_are_not_for_handlers() -> None:
    variable = contextvars.ContextVar("variable", default="as it was")
    io = Server()
    seen: list[str] = []

    async def is_wanted(name: str, auth: Any) -> bool:
        variable.set("changed by the predicate")
        return True

    async def middleware(socket: Socket) -> None:
        variable.set("changed by the middleware")

    async def connected(socket: Socket) -> None:
        seen.append(variable.get())

    async def handle(socket: Socket) -> None:
        seen.append(variable.get())

    for namespace in (io.of("/static"), io.of(is_wanted)):
        namespace.on("connection", connected)
        namespace.handle("event", handle)
    io.of("/static").use(middleware)

    async with open_server(io) as server:
        for name in ("/static", "/dynamic"):
            client = await server.client(name)
            await client.emit_with_ack("event")

    assert seen == ["as it was"] * 4


async def test_only_the_middlewares_of_the_namespace_run() -> None:
    io = Server()
    asked: list[str] = []
    io.use(lambda socket: asked.append("/"))
    io.of("/a").use(lambda socket: asked.append("/a"))
    io.of("/b")

    async with open_server(io) as server:
        await server.connect("/a")
        await server.connect("/b")

    assert asked == ["/a"]


async def test_a_middleware_that_is_added_meanwhile_counts_for_the_next_client() -> None:
    io = Server()
    asked: list[str] = []

    @io.use
    def adds(socket: Socket) -> None:
        io.use(lambda socket: asked.append(socket.id))

    async with open_server(io) as server:
        await server.connect()
        assert asked == []
        await server.connect()
        assert len(asked) == 1


async def test_what_a_middleware_sets_is_there_in_connection() -> None:
    io = Server()
    seen: list[Any] = []

    @io.use
    async def authenticate(socket: Socket) -> None:
        socket.data["user"] = socket.handshake.auth["user"]

    io.on("connection", lambda socket: seen.append(socket.data))

    async with open_server(io) as server:
        await server.connect(auth={"user": "ann"})
        await settle()

    assert seen == [{"user": "ann"}]


@pytest.mark.parametrize(
    ("refusal", "payload"),
    [
        (ConnectionRefused("no"), '{"message":"no"}'),
        (ConnectionRefused(), '{"message":"Forbidden"}'),
        (ConnectionRefused("no", data={"code": 7}), '{"message":"no","data":{"code":7}}'),
        (ConnectionRefused("no", data=0), '{"message":"no","data":0}'),
    ],
)
@pytest.mark.parametrize("transport", ["websocket", "polling"])
async def test_a_refused_client_is_told_why_and_later_middlewares_are_not_asked(
    refusal: ConnectionRefused, payload: str, transport: str, caplog: pytest.LogCaptureFixture
) -> None:
    io = Server()
    called: list[str] = []
    told = told_errors(io)
    private = io.of("/private")

    @private.use
    def refuse(socket: Socket) -> None:
        raise refusal

    private.use(lambda socket: called.append("later middleware"))
    private.on("connection", lambda socket: called.append("connection"))

    async with open_server(io) as server:
        client = await server.client(transport=transport)
        with pytest.raises(ConnectionRefused) as caught:
            await client.of("/private")

        assert (caught.value.message, caught.value.data) == (refusal.message, refusal.data)
        assert client.wire[-1] == ("server", transport, f"44/private,{payload}")
        assert called == []
        assert told == []
        assert io.statistics() == ServerStatistics(sessions=1, connections=1, sockets=1, rooms=1)
        assert not warnings(caplog)


async def test_a_refused_client_may_try_again_in_the_same_session() -> None:
    io = Server()

    @io.of("/private").use
    async def ask(socket: Socket) -> None:
        await trio.lowlevel.checkpoint()
        if "token" not in socket.handshake.auth:
            raise ConnectionRefused("token?")

    async with open_server(io) as server:
        client = await server.client()
        with pytest.raises(ConnectionRefused):
            await client.of("/private")

        assert (await client.of("/private", {"token": "1"})).session_id == client.session_id


async def test_any_other_exception_refuses_without_a_word_and_is_told_to_on_error() -> None:
    io = Server()
    told = told_errors(io)
    failure = RuntimeError("the password of the database is ...")

    @io.use
    async def broken(socket: Socket) -> None:
        raise failure

    async with open_server(io) as server:
        with pytest.raises(ConnectionRefused) as caught:
            await server.client()

        assert (caught.value.message, caught.value.data) == ("Internal server error", None)
        assert told == [(failure, "middleware")]


async def test_without_on_error_a_broken_middleware_is_logged_with_its_traceback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    io = Server()

    @io.use
    def broken(socket: Socket) -> None:
        raise RuntimeError("broken")

    async with open_server(io) as server:
        with pytest.raises(ConnectionRefused):
            await server.client()

    [record] = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert record.exc_info is not None
    assert str(record.exc_info[1]) == "broken"


@pytest.mark.parametrize("data", [object(), {1, 2}, b"bytes", 2**70])
async def test_refusal_data_that_cannot_be_encoded_is_the_applications_error_not_the_clients(data: Any) -> None:
    io = Server()
    io.of("/other")
    told = told_errors(io)

    @io.use
    def refuse(socket: Socket) -> None:
        raise ConnectionRefused("no", data=data)

    async with open_server(io) as server:
        client = await server.client("/other")
        with pytest.raises(ConnectionRefused) as caught:
            await client.of("/")

        assert (caught.value.message, caught.value.data) == ("Internal server error", None)
        assert [type(error).__name__ for error, _ in told] == ["EncodeError"]
        assert server.socket_of(client).connected


async def test_a_group_of_errors_from_a_middlewares_own_nursery_refuses_the_client() -> None:
    io = Server()
    told = told_errors(io)

    @io.use
    async def broken(socket: Socket) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            raise RuntimeError("broken")

    async with open_server(io) as server:
        with pytest.raises(ConnectionRefused, match="Internal server error"):
            await server.client()

        assert isinstance(told[0][0], ExceptionGroup)


async def test_rooms_joined_in_a_refused_middleware_are_left() -> None:
    io = Server()

    @io.use
    async def refuse(socket: Socket) -> None:
        await socket.join(["a", "b"])
        raise ConnectionRefused

    async with open_server(io) as server:
        with pytest.raises(ConnectionRefused):
            await server.client()
        await settle()

        assert io.sockets.adapter.rooms == {}
        assert io.sockets.adapter.sids == {}


async def test_rooms_joined_in_a_middleware_are_kept_and_reached() -> None:
    io = Server()

    @io.use
    async def sort(socket: Socket) -> None:
        await socket.join("a")
        await io.to("a").emit("not for one who is not connected yet")

    async with open_server(io) as server:
        client, socket = await server.connect()

        await io.to("a").emit("now")

        assert socket.rooms == {socket.id, "a"}
        assert await client.receive() == ("now",)


@pytest.mark.parametrize("leave", ["close", "drop"])
@pytest.mark.parametrize("transport", ["websocket", "polling"])
async def test_a_client_that_leaves_during_a_slow_middleware_was_never_there(
    leave: str, transport: str, caplog: pytest.LogCaptureFixture
) -> None:
    io = Server()
    called: list[str] = []
    namespace = io.of("/slow")

    @namespace.use
    async def slow(socket: Socket) -> None:
        socket.on("disconnecting", lambda: called.append("disconnecting"))
        socket.on("disconnect", lambda: called.append("disconnect"))
        await socket.join("room")
        await trio.sleep(1)
        called.append("after the sleep")

    namespace.on("connection", lambda socket: called.append("connection"))

    async with open_server(io) as server:
        client = await server.client(transport=transport)
        await client.send_raw("40/slow")
        await settle()
        assert io.statistics().connecting == 1

        await getattr(client, leave)()
        await trio.sleep(2)

        assert called == []
        assert io.statistics() == ServerStatistics()
        assert namespace.adapter.sids == {}
        assert not warnings(caplog)


async def test_tasks_of_a_refused_socket_end_with_it() -> None:
    io = Server()
    ends: list[str] = []

    async def task() -> None:
        try:
            await trio.sleep_forever()
        finally:
            ends.append("ended")

    @io.of("/private").use
    async def refuse(socket: Socket) -> None:
        socket.start_soon(task)
        await trio.sleep(1)
        raise ConnectionRefused

    async with open_server(io) as server:
        client = await server.client()
        with pytest.raises(ConnectionRefused):
            await client.of("/private")
        await settle()

        assert ends == ["ended"]
        assert io.engine.clients_count == 1


async def test_a_question_asked_in_a_middleware_ends_with_the_refusal() -> None:
    io = Server()
    outcome: list[str] = []

    @io.of("/private").use
    async def refuse(socket: Socket) -> None:
        nursery.start_soon(ask, socket)
        await trio.sleep(1)
        raise ConnectionRefused

    async def ask(socket: Socket) -> None:
        try:
            await socket.emit_with_ack("who?")
        except trio.BrokenResourceError as error:
            outcome.append(type(error).__name__)

    async with open_server(io) as server, trio.open_nursery() as nursery:
        client = await server.client()

        with trio.fail_after(2), pytest.raises(ConnectionRefused):
            await client.of("/private")
        await settle()

        assert [packet.data for packet in client.wire][-2:] == [
            '42/private,0["who?"]',
            '44/private,{"message":"Forbidden"}',
        ]
        assert outcome == ["SocketDisconnected"]


@pytest.mark.parametrize("middleware", [3, lambda: None, lambda a, b: None])
def test_what_cannot_be_a_middleware_is_refused_at_registration(middleware: Any) -> None:
    takes_nothing = callable(middleware) and middleware.__code__.co_argcount == 0
    if takes_nothing:
        assert Server().use(middleware) is middleware
    else:
        with pytest.raises(TypeError, match="middleware of /"):
            Server().use(middleware)


# Middlewares of a socket


async def test_a_socket_middleware_may_change_the_event() -> None:
    io = Server()
    calls: list[Any] = []

    @io.on("connection")
    def connected(socket: Socket) -> None:
        @socket.use
        def rename(event: list[Any]) -> None:
            assert event == ["join", "woot"]
            event.insert(0, "wrap")

        @socket.use
        async def see(event: list[Any]) -> None:
            await trio.lowlevel.checkpoint()
            calls.append(list(event))

        socket.on("wrap", lambda *args: calls.append(args))
        socket.on("join", lambda *args: calls.append("not me"))

    async with open_server(io) as server:
        client = await server.client()

        await client.emit("join", "woot")
        await settle()

    assert calls == [["wrap", "join", "woot"], ("join", "woot")]


async def test_the_handler_behind_a_socket_middleware_still_answers() -> None:
    io = Server()

    @io.on("connection")
    def connected(socket: Socket) -> None:
        socket.use(lambda event: event.append("added"))
        socket.on("ask", lambda *args: args)

    async with open_server(io) as server:
        client = await server.client()

        assert await client.emit_with_ack("ask", 1) == (1, "added")


@pytest.mark.parametrize("handler_errors", ["log", "disconnect", "raise"])
async def test_an_event_refused_by_a_socket_middleware_goes_no_further_and_the_socket_stays(
    handler_errors: Any, caplog: pytest.LogCaptureFixture
) -> None:
    io = Server(handler_errors=handler_errors)
    caplog.set_level(logging.INFO, "trio_socketio")
    told = told_errors(io)
    calls: list[str] = []

    @io.on("connection")
    def connected(socket: Socket) -> None:
        @socket.use
        async def refuse(event: list[Any]) -> None:
            if event[0] == "bad":
                raise ConnectionRefused("not allowed")

        socket.on("bad", lambda: calls.append("bad"))
        socket.on("good", lambda: calls.append("good"))

    async with open_server(io) as server:
        client, socket = await server.connect()

        assert await unanswered(client, "bad")
        assert await client.emit_with_ack("good") is None
        assert calls == ["good"]
        assert [(str(error), event) for error, event in told] == [("not allowed", "bad")]
        assert socket.connected
        assert len(at_least(caplog, logging.INFO)) == 1
        assert not warnings(caplog)


@pytest.mark.parametrize("change", [list[Any].clear, lambda event: event.__setitem__(0, "disconnect")])
async def test_a_socket_middleware_that_spoils_the_event_does_no_harm(change: Callable[[list[Any]], None]) -> None:
    io = Server()
    told = told_errors(io)
    ends: list[str] = []

    @io.on("connection")
    def connected(socket: Socket) -> None:
        socket.use(lambda event: change(event))
        socket.on("disconnect", ends.append)

    async with open_server(io) as server:
        client, socket = await server.connect()
        assert await unanswered(client, "x", "y")
        assert socket.connected
        assert ends == []
        assert len(told) <= 1


async def test_events_keep_their_order_through_plain_socket_middlewares() -> None:
    io = Server()
    calls: list[int] = []

    @io.on("connection")
    def connected(socket: Socket) -> None:
        socket.use(lambda event: None)
        socket.on("x", calls.append)

    async with open_server(io) as server:
        client = await server.client(transport="polling")

        await client.send_raw(*[f'42["x",{number}]' for number in range(100)])
        await settle()

    assert calls == list(range(100))
