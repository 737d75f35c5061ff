from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import trio
import trio.testing
from starlette.applications import Starlette
from starlette.routing import Mount

from trio_socketio import ConnectionRefused, ReservedEventError, Server, ServerStatistics, SocketDisconnected
from trio_socketio.abc import MsgpackParser
from trio_socketio.asgi import ASGIApp, with_lifespan
from trio_socketio.testing import ReceivedEvent, open_client

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from trio_socketio import Socket
    from trio_socketio.testing import MemoryClient


class Way(NamedTuple):
    """How a client comes to the server."""

    transport: Any
    upgrade: bool
    asgi: bool

    def open(self, io: Server, namespace: str = "/", **options: Any) -> AbstractAsyncContextManager[MemoryClient]:
        app = ASGIApp(io) if self.asgi else None
        return open_client(io, namespace, transport=self.transport, upgrade=self.upgrade, app=app, **options)

    @property
    def name(self) -> str:
        return f"{self.transport}{' upgraded' * self.upgrade}, {'ASGI' if self.asgi else 'listener'}"


WAYS = [
    Way(transport, upgrade, asgi)
    for transport, upgrade in (("websocket", False), ("polling", False), ("polling", True))
    for asgi in (False, True)
]
every_way = pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)


def make_server(**options: Any) -> Server:
    """A server that echoes ``echo`` as an acknowledgement, and ``again`` as an event."""
    io = Server(handler_errors="raise", **options)

    @io.handle("echo")
    def echo(socket: Socket, *args: Any) -> tuple[Any, ...]:
        return args

    @io.handle("again")
    async def again(socket: Socket, *args: Any) -> None:
        await socket.emit("again", *args)

    return io


async def refuse_strangers(socket: Socket) -> None:
    if "name" not in socket.handshake.auth:
        raise ConnectionRefused("who are you?")


def the_socket(io: Server, client: MemoryClient) -> Socket:
    return io.of(client.namespace).sockets[client.id]


# Events


@every_way
async def test_what_is_emitted_comes_back_bytes_included(way: Way) -> None:
    io = make_server()
    async with way.open(io) as client:
        assert client.connected
        assert client.transport == ("polling" if way.transport == "polling" and not way.upgrade else "websocket")
        await client.emit("again", 1, b"\x00\xff", {"deep": [b"bytes", "é"]})
        assert await client.receive() == ("again", 1, b"\x00\xff", {"deep": [b"bytes", "é"]})
    assert io.statistics() == ServerStatistics()


@every_way
async def test_the_server_acknowledges(way: Way) -> None:
    async with way.open(make_server()) as client:
        assert await client.emit_with_ack("echo") is None
        assert await client.emit_with_ack("echo", b"one") == b"one"
        assert await client.emit_with_ack("echo", 1, [2]) == (1, [2])


@every_way
async def test_the_client_acknowledges_what_it_has_received(way: Way) -> None:
    io = make_server()
    async with way.open(io) as client, trio.open_nursery() as nursery:
        answers: list[Any] = []

        async def ask(socket: Socket) -> None:
            answers.append(await socket.emit_with_ack("question", 6, 7))

        nursery.start_soon(ask, the_socket(io, client))
        event = await client.receive()
        assert (event.name, event.args, event.wants_ack) == ("question", (6, 7), True)
        await event.ack(42, b"!")
        with pytest.raises(RuntimeError, match="does not wait"):
            await event.ack()
    assert answers == [(42, b"!")]


@every_way
async def test_handlers_answer_and_start_in_the_order_of_the_events(way: Way) -> None:
    io = make_server()
    async with way.open(io) as client:
        order: list[int] = []

        @client.on("count")
        async def count(number: int) -> int:
            order.append(number)
            await trio.sleep(1)
            return number * 2

        client.on("nothing", lambda: None)
        socket = the_socket(io, client)
        for number in range(10):
            await socket.emit("count", number)
        assert await socket.emit_with_ack("count", 10) == 20
        assert await socket.emit_with_ack("nothing") is None
        assert order == list(range(11))
        assert await client.receive_all() == []


async def test_a_handler_that_raises_ends_the_context() -> None:
    def fail() -> None:
        raise ValueError("from the handler")

    io = make_server()

    async def wait_for_it() -> None:
        async with open_client(io) as client:
            client.on("fail", fail)
            await the_socket(io, client).emit("fail")
            await trio.sleep_forever()

    with pytest.raises(ValueError, match="from the handler"):
        await wait_for_it()


async def test_an_event_is_a_tuple_of_name_and_arguments() -> None:
    event = ReceivedEvent(["chat", 1, "two"])
    name, *args = event
    assert (name, args, event.name, event.args, event.wants_ack) == ("chat", [1, "two"], "chat", (1, "two"), False)
    assert event == ("chat", 1, "two")


async def test_receiving_takes_as_long_as_the_caller_lets_it() -> None:
    io = make_server()
    async with open_client(io) as client:
        started = trio.current_time()
        with pytest.raises(trio.TooSlowError), trio.fail_after(30):
            await client.receive()
        assert trio.current_time() - started == 30
        await the_socket(io, client).emit("late")
        assert await client.receive() == ("late",)


async def test_all_that_has_come_is_there_when_nothing_more_is_coming() -> None:
    io = make_server()
    async with open_client(io) as client:
        socket = the_socket(io, client)
        for number in range(100):
            socket.emit_nowait("n", number)
        assert await client.receive_all() == [("n", number) for number in range(100)]
        assert await client.receive_all() == []


async def test_a_wait_for_an_acknowledgement_can_be_cancelled_and_a_late_one_disturbs_nobody() -> None:
    io = make_server()
    answer = trio.Event()

    @io.handle("slow")
    async def slow(socket: Socket) -> str:
        await answer.wait()
        return "late"

    async with open_client(io) as client:
        with trio.move_on_after(3) as scope:
            await client.emit_with_ack("slow")
        assert scope.cancelled_caught
        answer.set()
        assert await client.emit_with_ack("echo", 1) == 1


async def test_names_of_the_protocol_cannot_be_emitted() -> None:
    async with open_client(make_server()) as client:
        with pytest.raises(ReservedEventError):
            await client.emit("disconnect")


async def test_the_parser_is_that_of_the_server() -> None:
    async with open_client(make_server(parser=MsgpackParser())) as client:
        assert await client.emit_with_ack("echo", [b"x", 1]) == [b"x", 1]
        assert any(isinstance(packet.data, bytes) for packet in client.wire)


# Connecting


@every_way
async def test_what_the_client_says_about_itself_arrives(way: Way) -> None:
    io = make_server()
    io.of("/admin")
    options: Any = {"auth": {"token": "t"}, "query": {"a": "b c"}, "headers": {"x-name": "value"}}
    async with way.open(io, "/admin", **options) as client:
        handshake = the_socket(io, client).handshake
        assert handshake.auth == {"token": "t"}
        assert handshake.query["a"] == "b c"
        assert handshake.headers["x-name"] == "value"


@every_way
async def test_a_refusal_of_a_middleware_has_its_message_and_data(way: Way) -> None:
    io = make_server()

    @io.use
    async def refuse(socket: Socket) -> None:
        raise ConnectionRefused("not you", data={"code": 7})

    with pytest.raises(ConnectionRefused) as caught:
        async with way.open(io):
            raise AssertionError("it was let in")
    assert (caught.value.message, caught.value.data) == ("not you", {"code": 7})


@every_way
async def test_who_is_refused_leaves_nothing_behind_and_may_come_back(way: Way) -> None:
    io = make_server()
    io.of("/private").use(refuse_strangers)
    async with io.running():
        begun = trio.current_time()
        with pytest.raises(ConnectionRefused, match="who"):
            async with way.open(io, "/private"):
                raise AssertionError("it was let in")
        await trio.testing.wait_all_tasks_blocked()
        assert io.statistics() == ServerStatistics()
        assert trio.current_time() - begun < 1

        async with way.open(io) as client:
            await client.disconnect()
            with pytest.raises(ConnectionRefused):
                await client.of("/private")
            await trio.sleep(1)
            assert io.statistics() == ServerStatistics()
            assert (await client.of("/private", {"name": "ada"})).connected
            with pytest.raises(ConnectionRefused, match="Invalid namespace"):
                await client.of("/nowhere")
            assert io.statistics().connections == 1


async def test_a_client_that_fails_is_gone_before_anything_of_the_server_is_cancelled() -> None:
    io = make_server(connect_timeout=7)

    @io.of("/slow").use
    async def wait(socket: Socket) -> None:
        await trio.sleep_forever()

    async with io.running():
        begun = trio.current_time()
        with pytest.raises(SocketDisconnected):
            await open_client(io, "/slow").__aenter__()
        assert trio.current_time() - begun == 7


@every_way
async def test_a_refusal_of_the_session_has_the_status_and_its_text(way: Way) -> None:
    with pytest.raises(ConnectionRefused) as caught:
        async with way.open(make_server(allow_request=lambda request: False)):
            raise AssertionError("it was let in")
    assert caught.value.message == "Forbidden"
    assert caught.value.data["status"] == (403 if way.transport == "polling" else 400)


async def test_a_namespace_that_does_not_exist_refuses() -> None:
    async with open_client(make_server()) as client:
        with pytest.raises(ConnectionRefused, match="Invalid namespace"):
            await client.of("/nowhere")
        assert client.connected


@every_way
async def test_several_namespaces_share_a_connection(way: Way) -> None:
    io = make_server()
    io.of("/admin").handle("whoami", lambda socket: socket.handshake.auth["name"])
    async with way.open(io) as client:
        admin = await client.of("/admin", auth={"name": "ada"})
        assert admin.session_id == client.session_id
        assert admin.id != client.id
        assert await admin.emit_with_ack("whoami") == "ada"
        await io.of("/admin").emit("for admins")
        assert await admin.receive() == ("for admins",)
        assert await client.receive_all() == []
        with pytest.raises(RuntimeError, match="already"):
            await client.of("/admin")
        await admin.disconnect()
        assert (admin.connected, client.connected) == (False, True)
        assert await client.emit_with_ack("echo", 1) == 1


async def test_a_server_that_is_not_running_runs_as_long_as_the_first_client() -> None:
    io = make_server()
    async with open_client(io) as first:
        async with open_client(io) as second:
            await io.emit("all")
            assert (await first.receive(), await second.receive()) == (("all",), ("all",))
        assert io.is_running
    assert not io.is_running


async def test_an_app_may_have_the_server_below_a_path() -> None:
    io = make_server()
    app: Any = with_lifespan(io, Starlette(routes=[Mount("/ws", ASGIApp(io))]))
    for transport in ("polling", "websocket"):
        async with open_client(io, app=app, path="/ws/socket.io", transport=transport) as client:
            assert await client.emit_with_ack("echo", 1) == 1


async def test_an_app_that_does_not_run_the_server_is_told_apart() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})

    with pytest.raises(RuntimeError, match="no database"):
        async with open_client(make_server(), app=app):
            raise AssertionError("it has started")


async def test_options_that_make_no_sense_are_refused() -> None:
    io = make_server()
    with pytest.raises(ValueError, match="upgrade"):
        await open_client(io, upgrade=True).__aenter__()
    with pytest.raises(ValueError, match="transport"):
        await open_client(io, transport="smoke").__aenter__()  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


# Endings


@every_way
async def test_leaving_the_context_says_goodbye(way: Way) -> None:
    io = make_server()
    reasons: list[str] = []
    io.on("connection", lambda socket: socket.on("disconnect", reasons.append))
    async with io.running():
        async with open_client(io, transport=way.transport, upgrade=way.upgrade) as client:
            assert client.connected
        assert await client.wait_disconnected() == "transport close"
        await trio.testing.wait_all_tasks_blocked()
        assert reasons == ["transport close"]
        assert io.statistics() == ServerStatistics()


@every_way
async def test_who_closes_the_connection_leaves_all_namespaces_without_a_word_in_any(way: Way) -> None:
    io = make_server()
    reasons: list[str] = []
    for namespace in (io.sockets, io.of("/admin")):
        namespace.handle("disconnect", lambda socket, reason: reasons.append(reason))
    async with way.open(io) as client:
        admin = await client.of("/admin")
        await admin.close()
        assert [await each.wait_disconnected() for each in (client, admin)] == ["transport close"] * 2
        await trio.testing.wait_all_tasks_blocked()
        assert reasons == ["transport close"] * 2
        await client.close()
        await client.reconnect()
        assert await client.emit_with_ack("echo", 1) == 1


@every_way
async def test_either_side_disconnects(way: Way) -> None:
    io = make_server()
    reasons: list[str] = []
    io.on("connection", lambda socket: socket.on("disconnect", reasons.append))
    async with way.open(io) as client:
        await client.disconnect()
        assert await client.wait_disconnected() == "io client disconnect"
        await client.reconnect()
        await the_socket(io, client).disconnect()
        assert await client.wait_disconnected() == "io server disconnect"
        await client.disconnect()
    assert reasons == ["client namespace disconnect", "server namespace disconnect"]


async def test_a_client_that_is_not_connected_says_why() -> None:
    io = make_server()

    @io.handle("bye")
    async def bye(socket: Socket) -> None:
        await socket.disconnect()

    async with open_client(io) as client:
        await the_socket(io, client).emit("last")
        with pytest.raises(SocketDisconnected, match="io server disconnect"):
            await client.emit_with_ack("bye")
        assert await client.receive() == ("last",)
        for attempt in (client.receive(), client.emit("x"), client.emit_with_ack("x"), client.send_raw("2")):
            with pytest.raises(SocketDisconnected):
                await attempt
        with pytest.raises(SocketDisconnected):
            client.stop_reading()


@every_way
async def test_a_lost_connection_is_noticed_on_both_sides(way: Way) -> None:
    io = make_server()
    reasons: list[str] = []
    io.on("connection", lambda socket: socket.on("disconnect", reasons.append))
    async with way.open(io) as client:
        other = client.session_id
        await client.drop()
        assert await client.wait_disconnected() in ("transport close", "transport error")
        await client.reconnect()
        assert client.connected
        assert client.session_id != other
        assert not client.recovered
        assert len(reasons) == 1
        assert reasons[0] in ("transport close", "transport error")
        with pytest.raises(RuntimeError, match="connected already"):
            await client.reconnect()


@every_way
async def test_an_answer_that_cannot_be_sent_any_more_is_no_error_of_the_client(way: Way) -> None:
    io = make_server()
    async with trio.open_nursery() as nursery, way.open(io) as client:

        def answer() -> bytes:
            nursery.start_soon(client.drop)
            return b"\x00" * 900_000

        client.on("question", answer)
        with suppress(SocketDisconnected):  # through a WebSocket in memory it may have been sent already
            assert len(await the_socket(io, client).emit_with_ack("question")) == 900_000
        assert await client.wait_disconnected() in ("transport close", "transport error")


@every_way
async def test_a_client_comes_back_as_what_it_was_and_gets_what_it_has_missed(way: Way) -> None:
    io = make_server(connection_state_recovery=True)
    async with way.open(io) as client:
        await the_socket(io, client).join("room")
        await io.to("room").emit("news", 1)
        event = await client.receive()
        assert event[:2] == ("news", 1)
        assert client.offset == event[-1]
        sid, pid = client.id, client.pid
        await client.drop()
        await io.to("room").emit("news", 2)
        await io.to("room").emit("news", 3)
        await client.reconnect()
        assert (client.recovered, client.id, client.pid) == (True, sid, pid)
        assert [event[:2] for event in await client.receive_all()] == [("news", 2), ("news", 3)]
        await client.drop()
        await trio.sleep(1000)
        await client.reconnect()
        assert (client.recovered, client.id == sid, client.pid == pid) == (False, False, False)


@every_way
async def test_heartbeats_are_answered_for_as_long_as_it_takes(way: Way) -> None:
    async with way.open(make_server()) as client:
        await trio.sleep(3600)
        assert client.connected
        assert sum(packet == ("server", client.transport, "2") for packet in client.wire) >= 3600 // 25 - 1


# What it does to a server


@pytest.mark.parametrize("way", [way for way in WAYS if way != ("polling", False, True)], ids=lambda way: way.name)
async def test_a_client_that_does_not_read_is_closed_at_the_bound_of_its_outbox(way: Way) -> None:
    io = make_server(max_outbox_bytes=100_000)
    async with way.open(io) as client, way.open(io) as other:
        client.stop_reading()
        sent = 0
        while len(io.sockets.sockets) == 2:
            await io.emit("bulk", "x" * 10_000)
            sent += 1
            await trio.testing.wait_all_tasks_blocked()
        assert sent < 30
        assert len(await other.receive_all()) == sent


@every_way
async def test_who_reads_again_gets_everything(way: Way) -> None:
    io = make_server()
    async with way.open(io) as client:
        client.stop_reading()
        for number in range(50):
            await io.emit("n", number, "x" * 5_000)
            await trio.testing.wait_all_tasks_blocked()
        received = len(await client.receive_all())
        assert received <= 1 if way.transport == "polling" else not received
        client.resume_reading()
        numbers = [event[1] for event in await client.receive_all()]
        assert numbers == list(range(received, 50))


async def test_an_upgrade_in_the_middle_loses_and_reorders_nothing() -> None:
    io = make_server()
    async with open_client(io, transport="polling") as client, trio.open_nursery() as nursery:

        async def talk() -> None:
            for number in range(200):
                await client.emit("again", number)

        nursery.start_soon(talk)
        for expected in range(200):
            if expected == 50:
                nursery.start_soon(client.upgrade)
            assert await client.receive() == ("again", expected)
        assert client.transport == "websocket"
        with pytest.raises(RuntimeError, match="already"):
            await client.upgrade()


async def test_the_wire_has_every_packet_in_both_directions() -> None:
    async with open_client(make_server()) as client:
        await client.emit_with_ack("echo", b"x")
        connect = ("server", "websocket", f'40{{"sid":"{client.id}"}}')
        opening, *rest = client.wire
        assert (opening.sender, str(opening.data)[0]) == ("server", "0")
        assert rest == [
            ("client", "websocket", "40"),
            connect,
            ("client", "websocket", '451-0["echo",{"_placeholder":true,"num":0}]'),
            ("client", "websocket", b"x"),
            ("server", "websocket", '461-0[{"_placeholder":true,"num":0}]'),
            ("server", "websocket", b"x"),
        ]
    async with open_client(make_server(), transport="polling") as client:
        await client.emit("echo", b"x")
        assert ("client", "polling", "beA==") in client.wire


async def test_raw_packets_and_bytes_reach_the_server_as_they_are() -> None:
    io = make_server()
    async with open_client(io) as client:
        await client.send_raw('42["again","raw"]')
        await client.send_raw('451-["again",{"_placeholder":true,"num":0}]', b"raw")
        assert [await client.receive(), await client.receive()] == [("again", "raw"), ("again", b"raw")]
        await client.send_bytes(b"\x81", b"\x80\x00\x00\x00\x00")  # an empty text frame
        assert await client.wait_disconnected() == "transport close"
    async with open_client(io, transport="polling") as client:
        with pytest.raises(RuntimeError, match="WebSocket"):
            await client.send_bytes(b"x")
    async with open_client(io, app=ASGIApp(io)) as client:
        with pytest.raises(RuntimeError, match="messages"):
            await client.send_bytes(b"x")


@every_way
async def test_raw_packets_arrive_together(way: Way) -> None:
    io = make_server()
    told: list[Any] = []
    requests: list[str] = []
    io.handle("note", lambda socket, value: told.append(value))
    async with way.open(io) as client:
        io.engine.on("headers", lambda headers, request: requests.append(request.method))
        await client.send_raw('42["note",1]', '451-["note",{"_placeholder":true,"num":0}]', b"x", '42["note",2]')
        await client.receive_all()
        assert told == [1, b"x", 2]
        assert requests.count("POST") == (client.transport == "polling")


async def test_a_client_that_was_not_let_in_in_time_may_try_again() -> None:
    io = make_server()
    let_in = trio.Event()

    @io.of("/slow").use
    async def wait(socket: Socket) -> None:
        await let_in.wait()

    async with open_client(io) as client:
        with trio.move_on_after(3) as scope:
            await client.of("/slow")
        assert scope.cancelled_caught
        let_in.set()
        await client.drop()
        await client.reconnect()
        assert (await client.of("/slow")).connected


async def test_an_upgrade_that_is_refused_leaves_the_client_where_it_is() -> None:
    async with open_client(make_server(transports=("polling",)), transport="polling") as client:
        with pytest.raises(ConnectionRefused) as caught:
            await client.upgrade()
        assert caught.value.data["status"] == 400
        assert await client.emit_with_ack("echo", 1) == 1
