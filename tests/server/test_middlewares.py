"""What runs before a socket is connected, and before an event reaches its handlers."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest
import trio

from trio_socketio import ConnectionRefused, Server, ServerStatistics

from ..wire_client import ConnectError, settle
from .support import at_least, received, serving, warnings

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

    async with serving(io) as served:
        await served.connect()
        await settle()

    assert steps == ["first begins", "first ends", "second", "connection"]


async def test_only_the_middlewares_of_the_namespace_run() -> None:
    io = Server()
    asked: list[str] = []
    io.use(lambda socket: asked.append("/"))
    io.of("/a").use(lambda socket: asked.append("/a"))
    io.of("/b")

    async with serving(io) as served:
        await served.connect("/a")
        await served.connect("/b")

    assert asked == ["/a"]


async def test_a_middleware_that_is_added_meanwhile_counts_for_the_next_client() -> None:
    io = Server()
    asked: list[str] = []

    @io.use
    def adds(socket: Socket) -> None:
        io.use(lambda socket: asked.append(socket.id))

    async with serving(io) as served:
        await served.connect()
        assert asked == []
        await served.connect()
        assert len(asked) == 1


async def test_what_a_middleware_sets_is_there_in_connection() -> None:
    io = Server()
    seen: list[Any] = []

    @io.use
    async def authenticate(socket: Socket) -> None:
        socket.data["user"] = socket.handshake.auth["user"]

    io.on("connection", lambda socket: seen.append(socket.data))

    async with serving(io) as served:
        await served.connect(auth={"user": "ann"})
        await settle()

    assert seen == [{"user": "ann"}]


@pytest.mark.parametrize(
    ("refusal", "payload"),
    [
        (ConnectionRefused("no"), {"message": "no"}),
        (ConnectionRefused(), {"message": "Forbidden"}),
        (ConnectionRefused("no", data={"code": 7}), {"message": "no", "data": {"code": 7}}),
        (ConnectionRefused("no", data=0), {"message": "no", "data": 0}),
    ],
)
@pytest.mark.parametrize("transport", ["websocket", "polling"])
async def test_a_refused_client_is_told_why_and_later_middlewares_are_not_asked(
    refusal: ConnectionRefused, payload: Any, transport: str, caplog: pytest.LogCaptureFixture
) -> None:
    io = Server()
    called: list[str] = []
    told = told_errors(io)

    @io.use
    def refuse(socket: Socket) -> None:
        raise refusal

    io.use(lambda socket: called.append("later middleware"))
    io.on("connection", lambda socket: called.append("connection"))

    async with serving(io) as served:
        with pytest.raises(ConnectError) as caught:
            await served.net.connect_socketio(transport=transport)

        assert caught.value.data == payload
        assert called == []
        assert told == []
        assert io.statistics() == ServerStatistics(sessions=1, connections=1)
        assert not warnings(caplog)


async def test_a_refused_client_may_try_again_in_the_same_session() -> None:
    io = Server()

    @io.use
    async def ask(socket: Socket) -> None:
        await trio.lowlevel.checkpoint()
        if "token" not in socket.handshake.auth:
            raise ConnectionRefused("token?")

    async with serving(io) as served:
        client = await served.net.open_socketio()
        with pytest.raises(ConnectError):
            await client.join("/")

        assert "sid" in await client.join("/", {"token": "1"})


async def test_any_other_exception_refuses_without_a_word_and_is_told_to_on_error() -> None:
    io = Server()
    told = told_errors(io)
    failure = RuntimeError("the password of the database is ...")

    @io.use
    async def broken(socket: Socket) -> None:
        raise failure

    async with serving(io) as served:
        with pytest.raises(ConnectError) as caught:
            await served.connect()

        assert caught.value.data == {"message": "Internal server error"}
        assert told == [(failure, "middleware")]


async def test_without_on_error_a_broken_middleware_is_logged_with_its_traceback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    io = Server()

    @io.use
    def broken(socket: Socket) -> None:
        raise RuntimeError("broken")

    async with serving(io) as served:
        with pytest.raises(ConnectError):
            await served.connect()

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

    async with serving(io) as served:
        client = await served.net.connect_socketio("/other")
        with pytest.raises(ConnectError) as caught:
            await client.join("/")

        assert caught.value.data == {"message": "Internal server error"}
        assert [type(error).__name__ for error, _ in told] == ["EncodeError"]
        assert served.socket_of(client).connected


async def test_a_group_of_errors_from_a_middlewares_own_nursery_refuses_the_client() -> None:
    io = Server()
    told = told_errors(io)

    @io.use
    async def broken(socket: Socket) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            raise RuntimeError("broken")

    async with serving(io) as served:
        with pytest.raises(ConnectError, match="Internal server error"):
            await served.connect()

        assert isinstance(told[0][0], ExceptionGroup)


async def test_rooms_joined_in_a_refused_middleware_are_left() -> None:
    io = Server()

    @io.use
    async def refuse(socket: Socket) -> None:
        await socket.join(["a", "b"])
        raise ConnectionRefused

    async with serving(io) as served:
        with pytest.raises(ConnectError):
            await served.connect()
        await settle()

        assert io.sockets.adapter.rooms == {}
        assert io.sockets.adapter.sids == {}


async def test_rooms_joined_in_a_middleware_are_kept_and_reached() -> None:
    io = Server()

    @io.use
    async def sort(socket: Socket) -> None:
        await socket.join("a")
        await io.to("a").emit("not for one who is not connected yet")

    async with serving(io) as served:
        client, socket = await served.connect()

        await io.to("a").emit("now")

        assert socket.rooms == {socket.id, "a"}
        assert await client.recv() == '2["now"]'


@pytest.mark.parametrize("leave", ["close", "drop"])
@pytest.mark.parametrize("transport", ["websocket", "polling"])
async def test_a_client_that_leaves_during_a_slow_middleware_was_never_there(
    leave: str, transport: str, caplog: pytest.LogCaptureFixture
) -> None:
    io = Server()
    called: list[str] = []

    @io.use
    async def slow(socket: Socket) -> None:
        socket.on("disconnecting", lambda: called.append("disconnecting"))
        socket.on("disconnect", lambda: called.append("disconnect"))
        await socket.join("room")
        await trio.sleep(1)
        called.append("after the sleep")

    io.on("connection", lambda socket: called.append("connection"))

    async with serving(io) as served:
        client = await served.net.open_socketio(transport)
        await client.send_raw("0")
        await settle()
        assert io.statistics().connecting == 1

        await getattr(client, leave)()
        await trio.sleep(2)

        assert called == []
        assert io.statistics() == ServerStatistics()
        assert io.sockets.adapter.sids == {}
        assert not warnings(caplog)


async def test_tasks_of_a_refused_socket_end_with_it() -> None:
    io = Server()
    ends: list[str] = []

    async def task() -> None:
        try:
            await trio.sleep_forever()
        finally:
            ends.append("ended")

    @io.use
    async def refuse(socket: Socket) -> None:
        socket.start_soon(task)
        await trio.sleep(1)
        raise ConnectionRefused

    async with serving(io) as served:
        client = await served.net.open_socketio()
        with pytest.raises(ConnectError):
            await client.join("/")
        await settle()

        assert ends == ["ended"]
        assert io.engine.clients_count == 1


async def test_a_question_asked_in_a_middleware_ends_with_the_refusal() -> None:
    io = Server()
    outcome: list[str] = []
    sockets: list[Socket] = []

    @io.use
    async def refuse(socket: Socket) -> None:
        sockets.append(socket)
        await trio.sleep(1)
        raise ConnectionRefused

    async def ask() -> None:
        try:
            await sockets[0].emit_with_ack("who?")
        except trio.BrokenResourceError as error:
            outcome.append(type(error).__name__)

    async with serving(io) as served, trio.open_nursery() as nursery:
        client = await served.net.open_socketio()
        await client.send_raw("0")
        await settle()
        nursery.start_soon(ask)

        with trio.fail_after(2):
            assert await client.recv() == '20["who?"]'
            assert await client.recv() == '4{"message":"Forbidden"}'
            await settle()

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

    async with serving(io) as served:
        client, _ = await served.connect()

        await client.emit("join", "woot")
        await settle()

    assert calls == [["wrap", "join", "woot"], ("join", "woot")]


async def test_the_handler_behind_a_socket_middleware_still_answers() -> None:
    io = Server()

    @io.on("connection")
    def connected(socket: Socket) -> None:
        socket.use(lambda event: event.append("added"))
        socket.on("ask", lambda *args: args)

    async with serving(io) as served:
        client, _ = await served.connect()

        await client.emit("ask", 1, id=7)

        assert await client.recv_event() == (7, [1, "added"])


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

    async with serving(io) as served:
        client, socket = await served.connect()

        await client.emit("bad", id=1)
        await client.emit("good", id=2)

        assert await received(client) == ["32[]"]
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

    async with serving(io) as served:
        client, socket = await served.connect()
        await client.emit("x", "y", id=1)

        assert await received(client) == []
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

    async with serving(io) as served:
        client, _ = await served.connect(transport="polling")

        await client.send_raw(*[f'2["x",{number}]' for number in range(100)])
        await settle()

    assert calls == list(range(100))
