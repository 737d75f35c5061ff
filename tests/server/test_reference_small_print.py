"""The small print of Node's server, as far as no other test has said it by its name; see also its neighbours.

Clients are raw where they break the protocol, and where a session stays in which nobody is in a namespace.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio

from trio_socketio import ConnectionRefused, Server
from trio_socketio.abc import MemoryAdapter

from .support import TRANSPORTS, dismissed, open_server, serving

if TYPE_CHECKING:
    from trio_socketio import Socket
    from trio_socketio.testing.pytest_plugin import OpenClient

both_transports = pytest.mark.parametrize("transport", TRANSPORTS)

# Servers and namespaces


async def test_clients_of_the_engine_and_sockets_of_the_main_namespace_are_counted_apart() -> None:
    async with open_server() as server:
        io = server.io
        io.of("/other")
        io.engine.generate_id = lambda request: f"chosen-{io.engine.clients_count}"
        await server.connect("/other")
        client, socket = await server.connect()

        assert (io.engine.clients_count, len(io.of("/").sockets)) == (2, 1)
        assert client.session_id == socket.conn.id == "chosen-1"
        assert socket.id != socket.conn.id


def test_a_namespace_knows_its_name_its_server_and_its_adapter() -> None:
    io = Server()
    namespace = io.of("other")

    assert (namespace.name, namespace.server) == ("/other", io)
    assert namespace.adapter is not io.adapter
    assert io.adapter is io.sockets.adapter


async def test_connect_and_connection_are_one_event_whose_listeners_are_told_in_order() -> None:
    io = Server()
    told: list[str] = []
    io.on("connection", lambda: told.append("first"))
    io.on("connect", lambda: told.append("second"))
    io.on("connection", lambda: told.append("third"))

    async with open_server(io) as server:
        await server.connect()

    assert told == ["first", "second", "third"]


class Moody(MemoryAdapter):
    """An adapter that fails at its start, or at its end, where its namespace says so."""

    def __init__(self, namespace: Any, ends: list[str]) -> None:
        super().__init__(namespace)
        self._name: str = namespace.name
        self._ends = ends

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        if self._name == "/no-start":
            raise OSError("no bus")
        try:
            await super().run(task_status=task_status)
        finally:
            self._ends.append(self._name)
            if self._name == "/no-end":
                raise OSError("no bus any more")


async def test_a_server_does_not_start_with_an_adapter_that_cannot_and_ends_those_that_could() -> None:
    ends: list[str] = []
    io = Server(adapter=lambda namespace: Moody(namespace, ends))
    io.of("/no-start")

    with pytest.raises(OSError, match=r"^no bus$"):
        async with io.running():
            raise AssertionError("it is not running")

    assert not io.is_running
    assert ends == ["/"]


async def test_an_adapter_that_fails_at_its_end_says_so_and_keeps_nobody_else_from_ending(
    memory_client: OpenClient,
) -> None:
    ends: list[str] = []
    reasons: list[str] = []
    io = Server(adapter=lambda namespace: Moody(namespace, ends))
    for name in ("/no-end", "/other"):
        io.of(name).on("connection", lambda socket: socket.on("disconnect", reasons.append))

    async def serve() -> None:
        async with io.running():
            client = await memory_client(io, "/no-end")
            await client.of("/other")

    with pytest.raises(OSError, match="no bus any more"):
        await serve()

    assert not io.is_running
    assert sorted(ends) == ["/", "/no-end", "/other"]
    assert reasons == ["server shutting down"] * 2


async def test_filters_of_a_namespace_choose_whom_its_operations_reach() -> None:
    async with open_server() as server:
        admin = server.io.of("/admin")
        (first, one), (second, two), (_, three) = await server.connect_many(3, "/admin")
        _, main = await server.connect()
        for socket in (one, two, main):
            await socket.join("room1")
        await two.join("room2")

        await admin.in_("room1").sockets_join("new")
        await admin.in_(three.id).sockets_join(["new", "newer"])
        await admin.in_(["new"]).except_(one.id).sockets_leave("new")
        chosen = await admin.in_("room1").except_("room2").local.fetch_sockets()
        await admin.in_("room1").except_("room2").local.disconnect_sockets()

        assert chosen == [one]
        assert two.rooms == {two.id, "room1", "room2"}
        assert three.rooms == {three.id, "newer"}
        assert main.rooms == {main.id, "room1"}
        assert main.connected
        assert (one.connected, two.connected) == (False, True)
        assert await dismissed(first)
        assert await second.receive_all() == []
        assert second.connected


async def test_listeners_of_an_adapter_hear_of_the_rooms_of_connected_sockets() -> None:
    async with open_server() as server:
        told: list[tuple[str, ...]] = []
        for event in ("create-room", "join-room", "leave-room", "delete-room"):
            server.io.adapter.on(event, lambda *args, event=event: told.append((event, *args)))
        client, socket = await server.connect()
        await socket.join("room")
        await client.disconnect()
        await socket.ended.wait()

        comings = [(event, room) for event, room, *_ in told[:4]]
        goings = {(event, room) for event, room, *_ in told[4:]}
        assert comings == [(event, room) for room in (socket.id, "room") for event in ("create-room", "join-room")]
        assert goings == {(event, room) for room in (socket.id, "room") for event in ("leave-room", "delete-room")}
        assert {who for _, _, *whos in told for who in whos} == {socket.id}


# Coming


async def test_a_socket_in_its_middlewares_is_found_by_nobody_but_may_join_rooms() -> None:
    io = Server()
    found: list[Any] = []

    @io.use
    async def look(socket: Socket) -> None:
        await socket.join("room")
        found.append((await io.fetch_sockets(), await io.in_("room").fetch_sockets(), dict(io.sockets.sockets)))
        await io.in_("room").sockets_join("another")
        await io.in_("room").disconnect_sockets()

    async with open_server(io) as server:
        client, socket = await server.connect()

        assert found == [([], [], {})]
        assert socket.rooms == {socket.id, "room"}
        assert await client.receive_all() == []


async def test_a_client_without_an_origin_and_without_tls_is_neither_from_elsewhere_nor_secure() -> None:
    async with open_server() as server:
        _, socket = await server.connect()

        assert (socket.handshake.xdomain, socket.handshake.secure) == (False, False)
        assert socket.request.headers["host"] == socket.handshake.headers["host"]


@both_transports
@pytest.mark.parametrize("close", [False, True])
async def test_disconnect_does_nothing_to_one_who_is_not_connected(close: bool, transport: str) -> None:
    io = Server()

    @io.use
    async def middleware(socket: Socket) -> None:
        await socket.disconnect(close)
        if socket.handshake.auth:
            raise ConnectionRefused("no")

    io.of("/other")
    async with open_server(io) as server:
        other = await server.client("/other", transport=transport)  # which keeps the session open
        with pytest.raises(ConnectionRefused, match="no"):
            await other.of("/", {"refuse": True})
        client = await other.of("/")
        old = server.socket_of(client)
        await client.disconnect()
        await old.ended.wait()
        await client.reconnect()
        new = server.socket_of(client)
        assert new.conn is old.conn

        await old.disconnect(close)

        await new.emit("still here")
        assert await client.receive() == ("still here",)


# Going


@both_transports
async def test_every_socket_of_a_client_is_told_what_could_not_be_decoded(transport: str) -> None:
    async with serving() as served:
        client, main = await served.connect(transport=transport)
        other = served.io.of("/other").sockets[(await client.join("/other"))["sid"]]
        told: list[tuple[str, str, str, str]] = []
        for socket in (main, other):
            for event in ("disconnecting", "disconnect"):
                socket.on(event, lambda *why, s=socket, e=event: told.append((s.namespace.name, e, *why)))

        await client.send_raw("5woooot")
        await client.lost()
        for socket in (main, other):
            await socket.ended.wait()

        assert sorted(told) == [
            (name, event, "forced close", "Illegal attachments")
            for name in ("/", "/other")
            for event in ("disconnect", "disconnecting")
        ]


async def test_every_socket_of_a_session_ends_with_its_reason_and_description() -> None:
    async with open_server() as server:
        client, main = await server.connect(transport="polling")
        server.io.of("/other")
        other = server.socket_of(await client.of("/other"))
        told: list[tuple[str, str]] = []
        for socket in (main, other):
            socket.on("disconnect", lambda *why: told.append(why))

        await client.drop()
        for socket in (main, other):
            await socket.ended.wait()

        assert told == [("transport error", "poll connection closed prematurely")] * 2


@pytest.mark.parametrize(
    ("first", "then"), [("40", "40"), ('42["early"]', None), ("40", "4abc")], ids=["twice", "too early", "garbage"]
)
async def test_a_polling_client_that_breaks_the_protocol_gets_what_was_queued_and_then_the_end(
    first: str, then: str | None
) -> None:
    async with serving() as served:
        session = await served.net.polling()
        await session.send(first)
        if then is not None:
            await session.send(then)  # and nothing has collected the answer to the first yet
            assert [packet[:9] for packet in await session.poll()] == ['40{"sid":']

        assert await session.poll() == ["6", "1"]


async def test_after_the_last_namespace_was_left_the_next_thing_that_comes_is_a_ping() -> None:
    async with serving() as served:
        client, _ = await served.connect()
        client.answer_pings = False

        await client.disconnect()

        assert await client.recv() == "2"
        assert trio.current_time() == pytest.approx(25, abs=0.1)


@both_transports
async def test_what_comes_right_before_a_disconnect_is_told_but_starts_no_task(transport: str) -> None:
    async with open_server() as server:
        client, socket = await server.connect(transport=transport)
        told: list[str] = []

        async def work() -> None:
            told.append("async handler")

        socket.on_any(lambda name: told.append("catch-all"))
        socket.on("plain", lambda data: told.append("plain handler"))
        socket.on("async", work)
        socket.on("disconnect", lambda: told.append("disconnect"))

        await client.send_raw('451-["plain",{"_placeholder":true,"num":0}]', b"x", '42["async"]', "41")
        await socket.ended.wait()

        assert told == ["catch-all", "plain handler", "catch-all", "disconnect"]


async def test_handlers_of_the_end_can_tell_the_rooms_that_their_socket_was_in() -> None:
    async with open_server() as server:
        (client, socket), (friend, other), (stranger, _) = await server.connect_many(3)
        await socket.join("room")
        await other.join("room")

        @socket.on("disconnecting")
        async def leaving(reason: str) -> None:
            for room in socket.rooms:
                await socket.to(room).emit("leaving", reason)

        @socket.on("disconnect")
        async def left(reason: str) -> None:
            await socket.broadcast.emit("left", reason)

        await client.disconnect()
        await socket.ended.wait()

        because = "client namespace disconnect"
        assert await friend.receive_all() == [("leaving", because), ("left", because)]
        assert await stranger.receive_all() == [("left", because)]


async def test_a_client_that_is_cut_off_sees_no_disconnect_packet() -> None:
    async with open_server() as server:
        client, socket = await server.connect()

        socket.conn.close(discard=True)
        await socket.ended.wait()

        assert await client.wait_disconnected() == "transport close"
